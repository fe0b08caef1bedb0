// What other kernel files may ask of the weight gradient.
#pragma once
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

// Bytes of scratch that conv_backward_weight takes, for explain().
std::size_t backward_weight_workspace(const ConvShape&, int threads);

}  // namespace fastconv::cpu::FC_ISA
