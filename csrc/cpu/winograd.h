// Winograd's minimal filtering F(m x m, 3x3): m x m outputs from A x A inputs, A = m + 2, with A * A products a
// channel.
//
// Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016):  y = At [ (G g Gt) * (Bt d B) ] A.
// F(2x2) uses the points 0, +-1, infinity; the halves of its G stand in the output transform here, so that weights are
// only added up. The points of the others were searched for among fractions of 32 (on the choice of points: Barabasz et
// al., Error Analysis and Improving the Accuracy of Winograd Convolution, 2020): +-7/16, +-21/16, infinity for F(3x3), whose
// squares and products are exact, 0, +-2/3, +-3/2, infinity for F(4x4), of product 1. With the usual 0, +-1, 2 and 0, +-1,
// +-2 rms errors are 2.3 and 2.7 times as large.
//
// Multiply-adds are written out: all paths give the same bits.
#pragma once
#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// *largest = max(*largest, bits), from any thread: bits of magnitudes, which order as the magnitudes do.
FC_INLINE void raise_to(std::uint32_t* largest, Mask<float> bits) {
  std::uint32_t most = 0;
  for (int i = 0; i < kLanes<float>; i++) most = std::uint32_t(bits[i]) > most ? std::uint32_t(bits[i]) : most;
  std::uint32_t seen = __atomic_load_n(largest, __ATOMIC_RELAXED);
  while (seen < most && !__atomic_compare_exchange_n(largest, &seen, most, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

template <int M> struct Winograd;

template <> struct Winograd<2> {
  static constexpr int kSide = 4;
  static FC_INLINE void input(const Vec<float>* d, Vec<float>* o) {
    o[0] = d[0] - d[2];
    o[1] = d[1] + d[2];
    o[2] = d[2] - d[1];
    o[3] = d[1] - d[3];
  }
  static FC_INLINE void weight(const Vec<float>* g, Vec<float>* o) {
    const Vec<float> ends = g[0] + g[2];
    o[0] = g[0];
    o[1] = ends + g[1];
    o[2] = ends - g[1];
    o[3] = g[2];
  }
  static FC_INLINE void output(const Vec<float>* m, Vec<float>* o) {
    const Vec<float> half = broadcast(0.5f);
    o[0] = multiply_add(half, m[1] + m[2], m[0]);
    o[1] = multiply_add(half, m[1] - m[2], -m[3]);
  }
};

// Two pairs of points +-low and +-high, of F(3x3) and F(4x4).
template <int Low, int High, int Of> struct Points {
  static constexpr float kLow = float(Low) / Of, kHigh = float(High) / Of;
  static constexpr float kLow2 = float(Low * Low) / (Of * Of), kHigh2 = float(High * High) / (Of * Of);
  static constexpr float kSum2 = float(Low * Low + High * High) / (Of * Of), kProduct2 = kLow2 * kHigh2;
  // sum + factor * v
  static FC_INLINE Vec<float> add(Vec<float> sum, float factor, Vec<float> v) {
    return multiply_add(broadcast(factor), v, sum);
  }
};

template <> struct Winograd<3> : Points<7, 21, 16> {
  static constexpr int kSide = 5;
  static FC_INLINE void input(const Vec<float>* d, Vec<float>* o) {
    const Vec<float> low = add(d[2], -kHigh2, d[0]), low_odd = add(d[3], -kHigh2, d[1]);
    const Vec<float> high = add(d[2], -kLow2, d[0]), high_odd = add(d[3], -kLow2, d[1]);
    o[0] = add(low_odd, kLow, low);
    o[1] = add(low_odd, -kLow, low);
    o[2] = add(high_odd, kHigh, high);
    o[3] = add(high_odd, -kHigh, high);
    o[4] = add(add(d[4], -kSum2, d[2]), kProduct2, d[0]);
  }
  static FC_INLINE void weight(const Vec<float>* g, Vec<float>* o) {
    constexpr float kLowScale = 1 / (2 * kLow * (kHigh2 - kLow2)), kHighScale = 1 / (2 * kHigh * (kHigh2 - kLow2));
    const Vec<float> low = add(g[0], kLow2, g[2]), high = add(g[0], kHigh2, g[2]);
    o[0] = broadcast(-kLowScale) * add(low, kLow, g[1]);
    o[1] = broadcast(kLowScale) * add(low, -kLow, g[1]);
    o[2] = broadcast(kHighScale) * add(high, kHigh, g[1]);
    o[3] = broadcast(-kHighScale) * add(high, -kHigh, g[1]);
    o[4] = g[2];
  }
  static FC_INLINE void output(const Vec<float>* m, Vec<float>* o) {
    const Vec<float> low = m[0] + m[1], low_odd = m[0] - m[1], high = m[2] + m[3], high_odd = m[2] - m[3];
    o[0] = low + high;
    o[1] = add(broadcast(kLow) * low_odd, kHigh, high_odd);
    o[2] = add(add(m[4], kHigh2, high), kLow2, low);
  }
};

template <> struct Winograd<4> : Points<4, 9, 6> {
  static constexpr int kSide = 6;
  static constexpr float kLowScale = 1 / (2 * kLow2 * (kLow2 - kHigh2)), kHighScale = 1 / (2 * kHigh2 * (kHigh2 - kLow2));
  static FC_INLINE void input(const Vec<float>* d, Vec<float>* o) {
    const Vec<float> low = add(d[4], -kHigh2, d[2]), low_odd = add(d[3], -kHigh2, d[1]);
    const Vec<float> high = add(d[4], -kLow2, d[2]), high_odd = add(d[3], -kLow2, d[1]);
    o[0] = add(d[0] + d[4], -kSum2, d[2]);
    o[1] = add(low, kLow, low_odd);
    o[2] = add(low, -kLow, low_odd);
    o[3] = add(high, kHigh, high_odd);
    o[4] = add(high, -kHigh, high_odd);
    o[5] = add(d[1] + d[5], -kSum2, d[3]);
  }
  static FC_INLINE void weight(const Vec<float>* g, Vec<float>* o) {
    const Vec<float> low = add(g[0], kLow2, g[2]), high = add(g[0], kHigh2, g[2]);
    o[0] = g[0];
    o[1] = broadcast(kLowScale) * add(low, kLow, g[1]);
    o[2] = broadcast(kLowScale) * add(low, -kLow, g[1]);
    o[3] = broadcast(kHighScale) * add(high, kHigh, g[1]);
    o[4] = broadcast(kHighScale) * add(high, -kHigh, g[1]);
    o[5] = g[2];
  }
  static FC_INLINE void output(const Vec<float>* m, Vec<float>* o) {
    const Vec<float> low = m[1] + m[2], low_odd = m[1] - m[2], high = m[3] + m[4], high_odd = m[3] - m[4];
    o[0] = (m[0] + low) + high;
    o[1] = add(broadcast(kLow) * low_odd, kHigh, high_odd);
    o[2] = add(broadcast(kLow2) * low, kHigh2, high);
    o[3] = add(add(m[5], kHigh2 * kHigh, high_odd), kLow2 * kLow, low_odd);
  }
};

// The A x A inputs of a tile, `row` elements between rows and `pixel` between columns -> V, `step` between positions.
template <int M>
FC_INLINE void transform_input(const float* d, std::int64_t row, std::int64_t pixel, float* v, std::int64_t step) {
  constexpr int side = Winograd<M>::kSide;
  Vec<float> t[side][side];
#pragma GCC unroll 6
  for (int j = 0; j < side; j++) {
    Vec<float> in[side], out[side];
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) in[i] = load(d + i * row + j * pixel);
    Winograd<M>::input(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) t[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < side; i++) {
    Vec<float> out[side];
    Winograd<M>::input(t[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < side; j++) store(v + (i * side + j) * step, out[j]);
  }
}

// The nine weights of a channel, `tap` elements apart -> U, `step` between positions.
template <int M> FC_INLINE void transform_weight(const float* g, std::int64_t tap, float* u, std::int64_t step) {
  constexpr int side = Winograd<M>::kSide;
  Vec<float> t[side][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) {
    const Vec<float> in[3] = {load(g + j * tap), load(g + (3 + j) * tap), load(g + (6 + j) * tap)};
    Vec<float> out[side];
    Winograd<M>::weight(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) t[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < side; i++) {
    Vec<float> out[side];
    Winograd<M>::weight(t[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < side; j++) store(u + (i * side + j) * step, out[j]);
  }
}

// The weight gradient is F(3x3, m x m) with the same points, so that its inputs are transformed as those of F(m x m): the
// filter is an m x m tile of dy, the outputs are the nine taps.
template <int M> struct WinogradGradient;

// Halves stand in its output transform, too.
template <> struct WinogradGradient<2> {
  static FC_INLINE void filter(const Vec<float>* g, Vec<float>* o) {
    o[0] = g[0];
    o[1] = g[0] + g[1];
    o[2] = g[0] - g[1];
    o[3] = g[1];
  }
  static FC_INLINE void taps(const Vec<float>* m, Vec<float>* o) {
    const Vec<float> half = broadcast(0.5f), sum = half * (m[1] + m[2]);
    o[0] = m[0] + sum;
    o[1] = half * (m[1] - m[2]);
    o[2] = sum - m[3];
  }
};

template <> struct WinogradGradient<3> {
  static FC_INLINE void filter(const Vec<float>* g, Vec<float>* o) { Winograd<3>::weight(g, o); }
  static FC_INLINE void taps(const Vec<float>* m, Vec<float>* o) { Winograd<3>::output(m, o); }
};

template <> struct WinogradGradient<4> : Winograd<4> {
  static FC_INLINE void filter(const Vec<float>* g, Vec<float>* o) {
    const Vec<float> low = add(g[0], kLow2, g[2]), low_odd = broadcast(kLow) * add(g[1], kLow2, g[3]);
    const Vec<float> high = add(g[0], kHigh2, g[2]), high_odd = broadcast(kHigh) * add(g[1], kHigh2, g[3]);
    o[0] = g[0];
    o[1] = broadcast(kLowScale) * (low + low_odd);
    o[2] = broadcast(kLowScale) * (low - low_odd);
    o[3] = broadcast(kHighScale) * (high + high_odd);
    o[4] = broadcast(kHighScale) * (high - high_odd);
    o[5] = g[3];
  }
  static FC_INLINE void taps(const Vec<float>* m, Vec<float>* o) {
    const Vec<float> low = m[1] + m[2], low_odd = m[1] - m[2], high = m[3] + m[4], high_odd = m[3] - m[4];
    o[0] = (m[0] + low) + high;
    o[1] = add(broadcast(kLow) * low_odd, kHigh, high_odd);
    o[2] = add(add(m[5], kHigh2, high), kLow2, low);
  }
};

// The M x M gradients of a tile -> W, `step` between positions.
template <int M>
FC_INLINE void transform_gradient(const float* d, std::int64_t row, std::int64_t pixel, float* w, std::int64_t step) {
  constexpr int side = Winograd<M>::kSide;
  Vec<float> t[side][M];
#pragma GCC unroll 4
  for (int j = 0; j < M; j++) {
    Vec<float> in[M], out[side];
#pragma GCC unroll 4
    for (int i = 0; i < M; i++) in[i] = load(d + i * row + j * pixel);
    WinogradGradient<M>::filter(in, out);
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) t[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < side; i++) {
    Vec<float> out[side];
    WinogradGradient<M>::filter(t[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < side; j++) store(w + (i * side + j) * step, out[j]);
  }
}

// The sums at all positions -> the nine taps.
template <int M> FC_INLINE void transform_taps(const Vec<float>* m, Vec<float>* tap) {
  constexpr int side = Winograd<M>::kSide;
  Vec<float> t[3][side];
#pragma GCC unroll 6
  for (int j = 0; j < side; j++) {
    Vec<float> in[side], out[3];
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) in[i] = m[i * side + j];
    WinogradGradient<M>::taps(in, out);
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) t[i][j] = out[i];
  }
#pragma GCC unroll 3
  for (int i = 0; i < 3; i++) WinogradGradient<M>::taps(t[i], tap + 3 * i);
}

// A tile's sums, `step` between positions -> its M x M outputs.
template <int M> FC_INLINE void transform_output(const float* m, std::int64_t step, Vec<float> (*y)[M]) {
  constexpr int side = Winograd<M>::kSide;
  Vec<float> t[M][side];
#pragma GCC unroll 6
  for (int j = 0; j < side; j++) {
    Vec<float> in[side], out[M];
#pragma GCC unroll 6
    for (int i = 0; i < side; i++) in[i] = load(m + (i * side + j) * step);
    Winograd<M>::output(in, out);
#pragma GCC unroll 4
    for (int i = 0; i < M; i++) t[i][j] = out[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; i++) Winograd<M>::output(t[i], y[i]);
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
