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
    q.split = block;
    const int64_t row_tile = take_digit(q.split, row_tiles), column_tile = take_digit(q.split, column_tiles);
    q.group = take_digit(q.split, groups);
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

// The problem without its tiles.
template <class T, bool last>
WeightProblem<T, last> weight_problem(const ConvShape& s, const void* x, const void* dy, Accumulator<T>* partials,
                                      int64_t split) {
  const Image<T> gradient(dy, s.layout, s.K, s.out);
  WeightProblem<T, last> p{Image<T>(x, s.layout, s.C, s.in), gradient, gradient.data, partials, s.G, s.group_in(),
                           s.group_out(), {}, {}, {}, {}, s.taps() * s.group_in(), s.N * s.out_space(), split,
                           is_aligned(x) && is_aligned(dy), 0, 0};
  for (int d = 0; d < 3; d++) {
    p.kernel[d] = s.kernel[d];
    p.stride[d] = s.stride[d];
    p.pad[d] = s.pad[d];
    p.dilation[d] = s.dilation[d];
  }
  return p;
}

// dw (group, k, c, tap) from partials (split, group, k, tap, c) whose k and c may be padded to `wide` ones.
template <class T>
__global__ void weight_sum_kernel(int64_t n, int64_t channels, int64_t columns, int64_t wide_channels,
                                  int64_t wide_columns, int64_t groups, int64_t taps, int64_t splits,
                                  const Accumulator<T>* partials, T* dw) {
  const int64_t i = element();
  if (i >= n) return;
  int64_t group = i;  // neighbours read neighbours: there is more to read than to write
  const int64_t c = take_digit(group, channels), tap = take_digit(group, taps), k = take_digit(group, columns);
  const int64_t column = group * wide_columns + k, all = groups * wide_columns * taps * wide_channels;
  const Accumulator<T>* from = partials + (column * taps + tap) * wide_channels + c;
  Accumulator<T> sum = 0;
#pragma unroll 4
  for (int64_t s = 0; s < splits; s++) sum += from[s * all];
  dw[((group * columns + k) * channels + c) * taps + tap] = prim::from_accumulator<T>(sum);
}

template <class T>
void sum_weights(Context& ctx, const ConvShape& s, int64_t wide_channels, int64_t wide_columns, int64_t splits,
                 const Accumulator<T>* partials, void* dw) {
  const int64_t n = s.K * s.group_in() * s.taps();
  launch_elements(ctx, "weight_sum", weight_sum_kernel<T>, n, n, s.group_in(), s.group_out(), wide_channels,
                  wide_columns, s.G, s.taps(), splits, partials, static_cast<T*>(dw));
}

}  // namespace
}  // namespace fastconv::cuda
