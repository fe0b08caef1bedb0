// Weight gradient of 3x3 and 5x5 convolution with stride 1 by Winograd's minimal filtering (winograd.h).
#pragma once
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

// `algorithm` is one of winograd_tile's. The bits of the largest |result|, a NaN counting as larger than infinity: see
// winograd_holds (conv_winograd.h).
std::uint32_t winograd_backward_weight(const ConvShape&, ConvAlgorithm, const void* dy, const void* x, void* dw,
                                       int threads, Context&);

std::size_t winograd_weight_workspace(const ConvShape&, ConvAlgorithm, int threads);  // bytes, for explain()

}  // namespace fastconv::cpu::FC_ISA
