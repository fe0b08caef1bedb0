// What other kernel files may ask of the weight gradient for few output channels.
#pragma once
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

void narrow_backward_weight(const ConvShape&, const void* dy, const void* x, void* dw, int threads, Context&);

// Bytes of scratch that it takes, for explain().
std::size_t narrow_weight_workspace(const ConvShape&, int threads);

}  // namespace fastconv::cpu::FC_ISA
