// Winograd's minimal filtering F(m x m, 3x3): m x m outputs from A x A inputs, A = m + 2, with A * A products a
// channel.
//
// Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016):  y = At [ (G g Gt) * (Bt d B) ] A.
// F(2x2) uses the points 0, +-1, infinity; the halves of its G stand in the output transform here, so that weights are
// only added up. F(4x4) uses 0, +-sqrt(1/2), +-sqrt(2), infinity instead of the usual 0, +-1, +-2: the transforms then
// hold no number above 2.83, and the rms error of 64 to 512 channels is 0.4 of that of the usual points (on the choice
// of points: Barabasz et al., Error Analysis and Improving the Accuracy of Winograd Convolution, 2020).
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

template <> struct Winograd<4> {
  static constexpr int kSide = 6;
  static constexpr float kLow = 0.70710678f, kHigh = 1.41421356f;  // the points
  // sum + factor * v
  static FC_INLINE Vec<float> add(Vec<float> sum, float factor, Vec<float> v) {
    return multiply_add(broadcast(factor), v, sum);
  }
  static FC_INLINE void input(const Vec<float>* d, Vec<float>* o) {
    const Vec<float> low = add(d[4], -2.0f, d[2]), low_odd = add(d[3], -2.0f, d[1]);
    const Vec<float> high = add(d[4], -0.5f, d[2]), high_odd = add(d[3], -0.5f, d[1]);
    o[0] = add(d[0] + d[4], -2.5f, d[2]);
    o[1] = add(low, kLow, low_odd);
    o[2] = add(low, -kLow, low_odd);
    o[3] = add(high, kHigh, high_odd);
    o[4] = add(high, -kHigh, high_odd);
    o[5] = add(d[1] + d[5], -2.5f, d[3]);
  }
  static FC_INLINE void weight(const Vec<float>* g, Vec<float>* o) {
    const Vec<float> low = add(g[0], 0.5f, g[2]), high = add(g[0], 2.0f, g[2]);
    o[0] = g[0];
    o[1] = broadcast(-2.0f / 3) * add(low, kLow, g[1]);
    o[2] = broadcast(-2.0f / 3) * add(low, -kLow, g[1]);
    o[3] = broadcast(1.0f / 6) * add(high, kHigh, g[1]);
    o[4] = broadcast(1.0f / 6) * add(high, -kHigh, g[1]);
    o[5] = g[2];
  }
  static FC_INLINE void output(const Vec<float>* m, Vec<float>* o) {
    const Vec<float> low = m[1] + m[2], low_odd = m[1] - m[2], high = m[3] + m[4], high_odd = m[3] - m[4];
    o[0] = (m[0] + low) + high;
    o[1] = add(broadcast(kLow) * low_odd, kHigh, high_odd);
    o[2] = add(broadcast(0.5f) * low, 2.0f, high);
    o[3] = add(add(m[5], 2 * kHigh, high_odd), kLow / 2, low_odd);
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

// The weight gradient is F(3x3, 2x2) with the same points, so that its inputs are transformed as those of F(2x2);
// halves stand in its output transform, too. The 2x2 gradients of a tile -> W, `step` between positions.
FC_INLINE void transform_gradient(const float* d, std::int64_t row, std::int64_t pixel, float* w, std::int64_t step) {
  const auto filter = [](Vec<float> a, Vec<float> b, Vec<float>* o) {
    o[0] = a;
    o[1] = a + b;
    o[2] = a - b;
    o[3] = b;
  };
  Vec<float> left[4], right[4], o[4];
  filter(load(d), load(d + row), left);
  filter(load(d + pixel), load(d + row + pixel), right);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    filter(left[i], right[i], o);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) store(w + (i * 4 + j) * step, o[j]);
  }
}

// The sums at the 16 positions -> the nine taps.
FC_INLINE void transform_taps(const Vec<float>* m, Vec<float>* tap) {
  const Vec<float> half = broadcast(0.5f);
  const auto output = [&](Vec<float> a, Vec<float> b, Vec<float> c, Vec<float> d, Vec<float>* o) {
    const Vec<float> sum = half * (b + c);
    o[0] = a + sum;
    o[1] = half * (b - c);
    o[2] = sum - d;
  };
  Vec<float> t[4][3];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) output(m[j], m[4 + j], m[8 + j], m[12 + j], t[j]);
#pragma GCC unroll 3
  for (int i = 0; i < 3; i++) output(t[0][i], t[1][i], t[2][i], t[3][i], tap + 3 * i);
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
