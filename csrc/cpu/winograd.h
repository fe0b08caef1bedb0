// Winograd's minimal filtering: a tile of outputs from a window of inputs, with one product a channel at each of `side` x
// `side` positions. F(m x m, 3x3), m = 2, 3, 4, has m + 2 positions on each axis.
//
// Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016):  y = At [ (G g Gt) * (Bt d B) ] A.
// F(2x2) uses the points 0, +-1, infinity; the halves of its G stand in the output transform here, so that weights are
// only added up. The points of the others were searched for among fractions of 32 (on the choice of points: Barabasz et
// al., Error Analysis and Improving the Accuracy of Winograd Convolution, 2020): +-7/16, +-21/16, infinity for F(3x3), whose
// squares and products are exact, 0, +-2/3, +-3/2, infinity for F(4x4), of product 1. With the usual 0, +-1, 2 and 0, +-1,
// +-2 rms errors are 2.3 and 2.7 times as large.
//
// F(2x2, 5x5) is the sum of F(2, 3) for three of the taps and F(2, 2) for the other two on each axis, with 7 x 7 positions:
// 49 products for 4 outputs instead of 100, and transforms that only add. (The like for 3x3 filters with stride 2, even columns
// by F(3, 2), odd ones as they are, 49 products for 9 outputs instead of 81, was built, too: 0.5 to 1.2 times the direct
// kernel's speed.)
//
// Multiply-adds are written out: all paths give the same bits.
#pragma once
#include "../ops.h"
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

// Tile x Tile outputs of a filter of Taps x Taps.
template <int Tile, int Taps = 3> struct Winograd;

// A tile's outputs, the filter's taps, pixels of the window and positions, all on one axis.
struct WinogradSizes {
  std::int64_t tile, taps, window, side;
};
template <int Tile, int Taps, int Side> struct WinogradAxis {
  static constexpr int kTile = Tile, kTaps = Taps, kWindow = Tile + Taps - 1, kSide = Side;
  static constexpr WinogradSizes kSizes = {Tile, Taps, kWindow, Side};
};

template <> struct Winograd<2> : WinogradAxis<2, 3, 4> {
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
  // Halves stand in the transform of the sums here, too.
  static FC_INLINE void gradient(const Vec<float>* g, Vec<float>* o) {
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

template <> struct Winograd<3> : WinogradAxis<3, 3, 5>, Points<7, 21, 16> {
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
  static FC_INLINE void gradient(const Vec<float>* g, Vec<float>* o) { weight(g, o); }
  static FC_INLINE void taps(const Vec<float>* m, Vec<float>* o) { output(m, o); }
};

template <> struct Winograd<4> : WinogradAxis<4, 3, 6>, Points<4, 9, 6> {
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
  static FC_INLINE void gradient(const Vec<float>* g, Vec<float>* o) {
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

template <> struct Winograd<2, 5> : WinogradAxis<2, 5, 7> {
  typedef Winograd<2> Three;  // of the first three taps
  static FC_INLINE void input(const Vec<float>* d, Vec<float>* o) {
    Three::input(d, o);
    o[4] = d[3] - d[4];
    o[5] = d[4];
    o[6] = d[5] - d[4];
  }
  static FC_INLINE void pair(Vec<float> a, Vec<float> b, Vec<float>* o) {
    o[4] = a;
    o[5] = a + b;
    o[6] = b;
  }
  static FC_INLINE void weight(const Vec<float>* g, Vec<float>* o) {
    Three::weight(g, o);
    pair(g[3], g[4], o);
  }
  static FC_INLINE void output(const Vec<float>* m, Vec<float>* o) {
    Three::output(m, o);
    o[0] += m[4] + m[5];
    o[1] += m[5] + m[6];
  }
  static FC_INLINE void gradient(const Vec<float>* g, Vec<float>* o) {
    Three::gradient(g, o);
    pair(g[0], g[1], o);
  }
  static FC_INLINE void taps(const Vec<float>* m, Vec<float>* o) {
    Three::taps(m, o);
    o[3] = m[4] + m[5];
    o[4] = m[5] + m[6];
  }
};

// Rows x Columns values, which load_at(row, column) gives, transformed along the columns, then along the rows.
template <int Rows, int Columns, int Out, class Load, class Axis, class Store>
FC_INLINE void transform_both(const Load& load_at, const Axis& axis, const Store& store_at) {
  Vec<float> t[Out][Columns];
#pragma GCC unroll 7
  for (int j = 0; j < Columns; j++) {
    Vec<float> in[Rows], out[Out];
#pragma GCC unroll 7
    for (int i = 0; i < Rows; i++) in[i] = load_at(i, j);
    axis(in, out);
#pragma GCC unroll 7
    for (int i = 0; i < Out; i++) t[i][j] = out[i];
  }
#pragma GCC unroll 7
  for (int i = 0; i < Out; i++) {
    Vec<float> out[Out];
    axis(t[i], out);
#pragma GCC unroll 7
    for (int j = 0; j < Out; j++) store_at(i, j, out[j]);
  }
}

#define FC_AXIS(name) [](const Vec<float>* in, Vec<float>* out) __attribute__((always_inline)) { F::name(in, out); }
#define FC_AT(expression) [&](int i, int j) __attribute__((always_inline)) { return expression; }
#define FC_TO(statement) [&](int i, int j, Vec<float> value) __attribute__((always_inline)) { statement; }

// The window of a tile, `row` elements between rows and `pixel` between columns -> V, `step` between positions.
template <class F>
FC_INLINE void transform_input(const float* d, std::int64_t row, std::int64_t pixel, float* v, std::int64_t step) {
  transform_both<F::kWindow, F::kWindow, F::kSide>(FC_AT(load(d + i * row + j * pixel)), FC_AXIS(input),
                                                   FC_TO(store(v + (i * F::kSide + j) * step, value)));
}

// The weights of a channel, `tap` elements apart -> U, `step` between positions.
template <class F> FC_INLINE void transform_weight(const float* g, std::int64_t tap, float* u, std::int64_t step) {
  transform_both<F::kTaps, F::kTaps, F::kSide>(FC_AT(load(g + (i * F::kTaps + j) * tap)), FC_AXIS(weight),
                                               FC_TO(store(u + (i * F::kSide + j) * step, value)));
}

// A tile's sums, `step` between positions -> its outputs.
template <class F> FC_INLINE void transform_output(const float* m, std::int64_t step, Vec<float> (*y)[F::kTile]) {
  transform_both<F::kSide, F::kSide, F::kTile>(FC_AT(load(m + (i * F::kSide + j) * step)), FC_AXIS(output),
                                               FC_TO(y[i][j] = value));
}

// The weight gradient takes the same points, and so the same V: its filter is a tile of dy, its outputs are the taps; both
// transforms are the transposes of those of outputs and weights. The gradients of a tile -> W, `step` between positions.
template <class F>
FC_INLINE void transform_gradient(const float* d, std::int64_t row, std::int64_t pixel, float* w, std::int64_t step) {
  transform_both<F::kTile, F::kTile, F::kSide>(FC_AT(load(d + i * row + j * pixel)), FC_AXIS(gradient),
                                               FC_TO(store(w + (i * F::kSide + j) * step, value)));
}

// The sums at all positions -> the taps.
template <class F> FC_INLINE void transform_taps(const Vec<float>* m, Vec<float>* tap) {
  transform_both<F::kSide, F::kSide, F::kTaps>(FC_AT(m[i * F::kSide + j]), FC_AXIS(taps), FC_TO(tap[i * F::kTaps + j] = value));
}
#undef FC_AXIS
#undef FC_AT
#undef FC_TO

// f(Winograd<...>()) for the tile and the shape's filter.
template <class Function> FC_INLINE void with_winograd(const ConvShape& s, ConvAlgorithm algorithm, Function&& f) {
  if (s.kernel[1] == 5) return f(Winograd<2, 5>());
  switch (winograd_tile(algorithm)) {
    case 4: return f(Winograd<4>());
    case 3: return f(Winograd<3>());
    default: return f(Winograd<2>());
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
