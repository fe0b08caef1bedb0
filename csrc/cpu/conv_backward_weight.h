// What other kernel files may ask of the weight gradient.
#pragma once
#include "../ops.h"
#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// A 1x1 filter sees no rows: the pixels of an image, and channels-last those of the batch, are one line. Whether it is
// one: the gradient is then a product of two matrices.
FC_INLINE bool merge_pixels(ConvShape& s) {
  for (int d = 0; d < 3; d++)
    if (s.kernel[d] != 1 || s.stride[d] != 1 || s.pad[d] != 0 || s.in[d] != s.out[d]) return false;
  std::int64_t pixels = s.out_space();
  if (s.layout == Layout::channels_last) {
    pixels *= s.N;
    s.N = 1;
  }
  s.in[0] = s.in[1] = s.out[0] = s.out[1] = 1;
  s.in[2] = s.out[2] = pixels;
  return true;
}

}  // namespace

// Bytes of scratch that conv_backward_weight takes, for explain().
std::size_t backward_weight_workspace(const ConvShape&, int threads);

}  // namespace fastconv::cpu::FC_ISA
