// Depthwise geometry: which source positions the taps of a filter read, for a convolution and for its input gradient.
#pragma once
#include "lanes.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

// Tap first + u * step, u < count, of result j reads source position j * (step of the axis) + offset + u * offset_step.
struct Taps {
  int64_t count, first, step, offset, offset_step;

  int64_t lowest() const { return min_of(offset, offset + (count - 1) * offset_step); }
  int64_t highest() const { return max_of(offset, offset + (count - 1) * offset_step); }
};

// One dimension. A convolution reads every stride-th source position. Its input gradient falls into `stride` phases:
// results a, a + stride, ... see every stride / gcd(stride, dilation)-th tap and neighbouring source positions.
struct Axis {
  int64_t source, results, kernel, stride, pad, dilation;
  bool gradient;

  int64_t phases() const { return gradient ? stride : 1; }
  int64_t step() const { return gradient ? 1 : stride; }
  int64_t results_of(int64_t phase) const {
    return gradient ? (phase < results ? (results - phase - 1) / stride + 1 : 0) : results;
  }
  Taps taps(int64_t phase) const {
    if (!gradient) return Taps{kernel, 0, 1, -pad, dilation};
    if (stride == 1) return Taps{kernel, 0, 1, pad, -dilation};
    int64_t first = 0;
    while (first < kernel && first < stride && (phase + pad - first * dilation) % stride) first++;
    if (first == kernel || first == stride) return Taps{0, 0, 1, 0, 0};
    int64_t a = stride, b = dilation;  // Euclid: a ends as the greatest common divisor
    while (b) {
      const int64_t rest = a % b;
      a = b;
      b = rest;
    }
    const int64_t step = stride / a;
    return Taps{(kernel - 1 - first) / step + 1, first, step, (phase + pad - first * dilation) / stride,
                -(dilation / a)};
  }
};

struct Axes {
  Axis dim[3];

  Axes(const ConvShape& s, bool gradient) {
    for (int d = 0; d < 3; d++)
      dim[d] = Axis{gradient ? s.out[d] : s.in[d], gradient ? s.in[d] : s.out[d], s.kernel[d], s.stride[d], s.pad[d],
                    s.dilation[d],                 gradient};
  }
};

FC_INLINE bool within(int64_t i, int64_t size) { return i >= 0 && i < size; }

// n >= 1 values that exist; the lanes behind them are anything that can be read before `end`.
template <class T> FC_INLINE Vec<Accumulator<T>> load_before(const T* p, int64_t n, const T* end) {
  return end - p >= kLanes<Accumulator<T>> ? load(p) : load_partial(p, min_of(n, end - p));
}

// Copies `width` columns of a row from column `first` (which may lie outside [0, size): zeros) to dst, column i to
// dst[i % step * pitch + i / step]. A null row is all zeros. One register behind each part may be overwritten.
template <class T>
__attribute__((noinline)) void pack_row(const T* row, int64_t size, const T* end, int64_t first, int64_t width,
                                        int64_t step, int64_t pitch, Accumulator<T>* dst) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>;
  const int64_t left = row ? min_of(width, max_of(0, -first)) : width;
  const int64_t right = max_of(left, min_of(width, size - first));
  if (step == 1) {
    for (int64_t i = 0; i < left; i += L) store(dst + i, Vec<A>{});
    for (int64_t i = left; i < right; i += L) store(dst + i, load_before(row + first + i, right - i, end));
    for (int64_t i = right; i < width; i += L) store(dst + i, Vec<A>{});
    return;
  }
  int64_t i = 0;
  for (; i < left; i++) dst[i % step * pitch + i / step] = 0;
  if (step == 2) {
    if (i % 2 && i < right) {
      dst[pitch + i / 2] = to_accumulator(row[first + i]);
      i++;
    }
    for (; i + 2 * L <= right; i += 2 * L) {
      const Vec<A> a = load(row + first + i), b = load(row + first + i + L);
      store(dst + i / 2, even_lanes<A>(a, b));
      store(dst + pitch + i / 2, odd_lanes<A>(a, b));
    }
    if (i < right) {
      const int64_t n = right - i;
      const Vec<A> a = load_before(row + first + i, n, end);
      const Vec<A> b = n > L ? load_before(row + first + i + L, n - L, end) : Vec<A>{};
      store(dst + i / 2, even_lanes<A>(a, b));
      store(dst + pitch + i / 2, odd_lanes<A>(a, b));
      i = right;
    }
  }
  for (; i < right; i++) dst[i % step * pitch + i / step] = to_accumulator(row[first + i]);
  for (; i < width; i++) dst[i % step * pitch + i / step] = 0;
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
