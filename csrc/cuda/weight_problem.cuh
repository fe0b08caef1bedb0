// The weight gradient as a problem of gather_gemm.cuh and matrix_weight.cuh.
//
// dw(c and tap, k) = sum over pixels. The pixels are cut into splits, whose sums are added afterwards, in order.
#pragma once
#include "conv.h"
#include "gather_gemm.cuh"

namespace fastconv::cuda {
namespace {

template <class T, bool last> struct WeightProblem {
  using Value = T;
  static constexpr bool kGatherAlongSteps = !last, kPlainAlongSteps = !last;
  struct Part {
    int64_t group, split;
  };

  Image<T> gathered, gradient;
  const T* plain;
  Accumulator<T>* partials;  // split, k, tap, c
  int64_t groups, in_channels, out_channels;
  int64_t kernel[3], stride[3], pad[3], dilation[3];
  int64_t rows, pixels, split;  // rows: taps x channels of a group; pixels of one split
  bool aligned;                 // both arrays begin at 16 bytes
  int64_t row_tiles, column_tiles;

  template <class Tile> FC_DEVICE Extent part(int64_t block, Part& q) const {
    const int64_t row_tile = block % row_tiles, rest = block / row_tiles, column_tile = rest % column_tiles;
    q.group = rest / column_tiles % groups;
    q.split = rest / column_tiles / groups;
    const int64_t first = q.split * split, end = first + split;
    return {rows, out_channels, first, end < pixels ? end : pixels, row_tile * Tile::BM, column_tile * Tile::BN};
  }
  FC_DEVICE Row row(const Part& q, int64_t m) const {
    Row r;
    int64_t tap[3];
    const int64_t number = divide(m, in_channels), c = m - number * in_channels;
    digits(number, kernel, tap);
    r.offset = (q.group * in_channels + c) * gathered.channel;
    for (int d = 0; d < 3; d++) {
      r.at[d] = tap[d] * dilation[d];
      r.offset += r.at[d] * gathered.step[d];
    }
    r.out = m;
    return r;
  }
  FC_DEVICE int64_t column(const Part& q, int64_t n) const { return (q.group * out_channels + n) * gradient.channel; }
  FC_DEVICE int64_t base(const Part&, int digit) const { return gradient.size[digit - 1]; }
  FC_DEVICE Step step(const Part&, const Cursor& number) const {
    Step s;
    const int64_t n = number.digit[0], *at = number.digit + 1;
    s.offset = n * gathered.image;
    s.plain = n * gradient.image;
    for (int d = 0; d < 3; d++) {
      s.at[d] = at[d] * stride[d] - pad[d];
      s.offset += s.at[d] * gathered.step[d];
      s.plain += at[d] * gradient.step[d];
    }
    return s;
  }
  FC_DEVICE void store(const Part& q, int64_t m, int64_t n, Accumulator<T> v) const {
    partials[((q.split * groups + q.group) * out_channels + n) * rows + m] = v;
  }
};

}  // namespace
}  // namespace fastconv::cuda
