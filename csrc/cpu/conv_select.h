// Which algorithm computes a convolution: one rule, by which the kernels decide and which explain() shows.
#pragma once
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

struct ConvChoice {
  ConvAlgorithm algorithm;
  const char* why;
};

// The algorithm that ConvShape::algorithm asks for where it can compute this problem, else the first of the table in
// conv_select.cpp that can and against which nothing speaks. Depends on one image's shape, dtype, layout, precision and
// the instruction set, not on the batch size or the number of threads: these may not change a bit.
ConvChoice select_conv(const ConvShape&, ConvOp);

// All other algorithms that can compute the problem, in the order of the table, with what speaks against each.
void list_others(const ConvShape&, ConvOp, ConvPlan*);

}  // namespace fastconv::cpu::FC_ISA
