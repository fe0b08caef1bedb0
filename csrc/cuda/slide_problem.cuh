// Forward convolution and its input gradient as problems of gather_gemm.cuh and matrix_gemm.cuh.
//
// Both slide a window over a source image: y over x, dx over dy. With a stride, the positions of dx fall into classes of
// equal remainder; each class meets its own taps, and meets them at every position: a dense problem without stride.
#pragma once
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
  bool gradient, aligned;                                   // aligned: `gathered` begins at 16 bytes
  Slide axis[3];
  int64_t row_tiles, column_tiles;

  FC_DEVICE int64_t positions(int d, int64_t remainder) const {
    const int64_t size = output.size[d];
    return gradient ? (size - remainder + axis[d].stride - 1) / axis[d].stride : size;
  }

  template <class Tile> FC_DEVICE Extent part(int64_t block, Part& q) const {
    const int64_t row_tile = block % row_tiles, rest = block / row_tiles, column_tile = rest % column_tiles;
    q.group = rest / column_tiles % groups;
    int64_t number = rest / column_tiles / groups;
    Extent e{images, out_channels, 0, in_channels, row_tile * Tile::BM, column_tile * Tile::BN};
    for (int d = 2; d >= 0; d--) {
      const Slide& a = axis[d];
      const int64_t r = number % a.classes;
      number /= a.classes;
      q.count[d] = positions(d, r);
      q.taps[d] = a.kernel;
      Phase& f = q.phase[d];
      if (!gradient) {
        f = {0, 1, -a.pad, a.stride, 0, 1, a.dilation};
      } else {
        // Taps t with (r + pad - t * dilation) divisible by the stride: the first, then every tap_step-th.
        const int64_t most = a.kernel < a.tap_step ? a.kernel : a.tap_step;
        int64_t t = 0;
        while (t < most && (r + a.pad - t * a.dilation) % a.stride) t++;
        q.taps[d] = t < most ? (a.kernel - 1 - t) / a.tap_step + 1 : 0;
        f = {r, a.stride, t < most ? (r + a.pad - t * a.dilation) / a.stride : 0, 1, t, a.tap_step,
             -(a.tap_step * a.dilation / a.stride)};
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

}  // namespace
}  // namespace fastconv::cuda
