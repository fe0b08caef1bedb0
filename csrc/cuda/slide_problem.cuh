// Forward convolution and its input gradient as problems of gather_gemm.cuh and matrix_gemm.cuh.
//
// Both slide a window over a source image: y over x, dx over dy. With a stride, the positions of dx fall into classes of
// equal remainder; each class meets its own taps, and meets them at every position: a dense problem without stride.
#pragma once
#include <algorithm>
#include <numeric>

#include "conv.h"
#include "gather_gemm.cuh"

namespace fastconv::cuda {
namespace {

struct Slide {
  int64_t kernel, stride, pad, dilation, classes, tap_step;
};
// One class of output positions along one axis, and what its first tap and position see.
struct Phase {
  int64_t first, step, origin, move;     // output position = first + step * i; source = origin + move * i ...
  int64_t tap, tap_step, tap_move;       // ... + tap_move * j at the filter's tap + tap_step * j
};

template <class T, bool last> struct SlideProblem {
  using Value = T;
  static constexpr bool kGatherAlongSteps = last, kPlainAlongSteps = true;
  struct Part {
    int64_t group, count[3], taps[3];
    Phase phase[3];
  };

  Image<T> gathered, output;
  const T *plain, *bias;
  Finish<T> finish;
  T* out;
  int64_t images, groups, in_channels, out_channels;      // channels of a group
  int64_t weight_group, weight_in, weight_out, weight_tap;  // distances in the weights
  bool gradient, aligned;  // aligned: what moves 16 bytes at once begins at 16 bytes
  Slide axis[3];
  int64_t row_tiles, column_tiles;

  FC_DEVICE int64_t positions(int d, int64_t remainder) const {
    const int64_t size = output.size[d];
    return gradient ? divide_by_step(size - remainder + axis[d].stride - 1, axis[d].stride) : size;
  }

  template <class Tile> FC_DEVICE Extent part(int64_t block, Part& q) const {
    // Blocks that run together read the same rows.
    int64_t number = block;
    const int64_t column_tile = take_digit(number, column_tiles), row_tile = take_digit(number, row_tiles);
    q.group = groups == 1 ? 0 : take_digit(number, groups);
    Extent e{images, out_channels, 0, in_channels, row_tile * Tile::BM, column_tile * Tile::BN};
    for (int d = 2; d >= 0; d--) {
      const Slide& a = axis[d];
      const int64_t r = a.classes == 1 ? 0 : take_digit(number, a.classes);
      q.count[d] = positions(d, r);
      q.taps[d] = a.kernel;
      Phase& f = q.phase[d];
      if (!gradient) {
        f = {0, 1, -a.pad, a.stride, 0, 1, a.dilation};
      } else {
        // Taps t with (r + pad - t * dilation) divisible by the stride: the first, then every tap_step-th.
        const int64_t most = a.kernel < a.tap_step ? a.kernel : a.tap_step;
        int64_t t = 0;
        // In 32 bits most of the time: what is divided may be negative.
        const auto over_stride = [&](int64_t v) {
          return v < 0 ? -divide_by_step(-v, a.stride) : divide_by_step(v, a.stride);
        };
        const auto meets = [&](int64_t v) { return over_stride(v) * a.stride == v; };
        while (t < most && !meets(r + a.pad - t * a.dilation)) t++;
        q.taps[d] = t < most ? divide_by_step(a.kernel - 1 - t, a.tap_step) + 1 : 0;
        f = {r, a.stride, t < most ? over_stride(r + a.pad - t * a.dilation) : 0, 1, t, a.tap_step,
             -over_stride(a.tap_step * a.dilation)};
      }
      e.rows *= q.count[d];
      e.end *= q.taps[d];
    }
    return e;
  }
  FC_DEVICE Row row(const Part& q, int64_t m) const {
    Row r;
    int64_t i[3];
    const int64_t n = digits(m, q.count, i);
    r.offset = n * gathered.image + q.group * in_channels * gathered.channel;
    r.out = n * output.image + q.group * out_channels * output.channel;
    for (int d = 0; d < 3; d++) {
      const Phase& f = q.phase[d];
      r.at[d] = f.origin + f.move * i[d];
      r.offset += r.at[d] * gathered.step[d];
      r.out += (f.first + f.step * i[d]) * output.step[d];
    }
    return r;
  }
  FC_DEVICE int64_t column(const Part& q, int64_t n) const { return q.group * weight_group + n * weight_out; }
  FC_DEVICE int64_t base(const Part& q, int digit) const { return digit == 3 ? in_channels : q.taps[digit]; }
  FC_DEVICE Step step(const Part& q, const Cursor& at) const {
    Step s;
    const int64_t(&j)[4] = at.digit, c = j[3];
    s.offset = c * gathered.channel;
    int64_t flat = 0;
    for (int d = 0; d < 3; d++) {
      const Phase& f = q.phase[d];
      s.at[d] = f.tap_move * j[d];
      s.offset += s.at[d] * gathered.step[d];
      flat = flat * axis[d].kernel + f.tap + f.tap_step * j[d];
    }
    s.plain = c * weight_in + flat * weight_tap;
    return s;
  }
  FC_DEVICE void store(const Part& q, int64_t at, int64_t n, Accumulator<T> v) const {
    if (bias) v += prim::to_accumulator(bias[q.group * out_channels + n]);
    const int64_t to = at + n * output.channel;
    out[to] = prim::from_accumulator<T>(finish(v, to));
  }
};

// The problem without its tiles; `rows`: the most positions of a class, `classes` of a group.
template <class T, bool last>
SlideProblem<T, last> slide_problem(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
                                    const Epilogue& epilogue, void* y, int64_t& rows, int64_t& classes) {
  const int64_t taps = s.taps();
  SlideProblem<T, last> p{
      Image<T>(source, s.layout, gradient ? s.K : s.C, gradient ? s.out : s.in),
      Image<T>(y, s.layout, gradient ? s.C : s.K, gradient ? s.in : s.out),
      static_cast<const T*>(w), static_cast<const T*>(b), Finish<T>(epilogue), static_cast<T*>(y), s.N, s.G,
      gradient ? s.group_out() : s.group_in(), gradient ? s.group_in() : s.group_out(),
      s.group_out() * s.group_in() * taps, gradient ? s.group_in() * taps : taps, gradient ? taps : s.group_in() * taps, 1,
      gradient, is_aligned(source), {}, 0, 0};
  rows = s.N;
  classes = 1;
  for (int d = 0; d < 3; d++) {
    const int64_t phases = gradient ? std::min(s.stride[d], s.in[d]) : 1;
    p.axis[d] = {s.kernel[d], s.stride[d], s.pad[d], s.dilation[d], phases,
                 s.stride[d] / std::gcd(s.stride[d], s.dilation[d])};
    rows *= gradient ? ceil_div(s.in[d], s.stride[d]) : s.out[d];
    classes *= phases;
  }
  return p;
}

}  // namespace
}  // namespace fastconv::cuda
