// Pieces of the weight gradient: the micro-kernel, and the packing of x and dy into the panels that it reads.
//
// x panel: [pixel][m], m consecutive channels; dy panel: [pixel][NR], NR output channels. One filter tap is one offset
// into the x panel, so a panel that holds the padded input of a block serves all its taps.
#pragma once
#include "outer_product.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

// Rows of a register tile: rows x 2 vectors of sums, 2 of dy and the broadcast value fill the register file.
constexpr int kTileRows = FC_VECTOR_BYTES == 64 ? 14 : 6;

// Pixels that a block's sums run over. Row r of the block starts at pixel row_pixel[r] of the x panel and takes `cols`
// pixels, `step` values apart; dy's pixels are dense.
struct PixelRows {
  const int64_t* row_pixel;
  int64_t rows, cols;
  int64_t pitch;  // values a pixel of the x panel
  int64_t step;   // values between the pixels that neighbouring outputs see: stride * pitch
};

template <class A, int M, int NV>
FC_INLINE void put_tile(const Vec<A> (&acc)[M][NV], A* sums, int64_t sums_pitch, bool first) {
#pragma GCC unroll 14
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) {
      A* s = sums + i * sums_pitch + j * kLanes<A>;
      store(s, first ? acc[i][j] : load(s) + acc[i][j]);
    }
}

// sums[i][j] (+)= sum over pixels of x[pixel][i] * dy[pixel][j], i < M, j < NV vectors. The block's sum starts from
// zero and is added once: rounding errors grow with the block's length and the number of blocks, not their product.
template <class A, int M, int NV>
void tile_sums(const PixelRows& g, const A* x, const A* dy, A* sums, int64_t sums_pitch, bool first) {
  constexpr int L = kLanes<A>;
  Vec<A> acc[M][NV];
#pragma GCC unroll 14
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) acc[i][j] = Vec<A>{};
  const int64_t step = g.step, cols = g.cols;
  for (int64_t row = 0; row < g.rows; row++) {
    const A* p = x + g.row_pixel[row] * g.pitch;
#pragma GCC unroll kStepsARound
    for (int64_t q = 0; q < cols; q++) {
      add_outer_product(acc, p, dy);
      p += step;
      dy += NV * L;
    }
  }
  put_tile<A, M, NV>(acc, sums, sums_pitch, first);
}

// Pixels in the arrays themselves, and lines that are brought into L2 with each of them.
template <class A> struct PixelsInPlace {
  int64_t count, x_pitch, dy_pitch;
  const A* ahead[2];
  int64_t ahead_pitch[2];
};

// The same from the arrays.
template <class A, int M, int NV>
void tile_in_place(const PixelsInPlace<A>& g, const A* x, const A* dy, A* sums, int64_t sums_pitch, bool first) {
  Vec<A> acc[M][NV];
#pragma GCC unroll 14
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) acc[i][j] = Vec<A>{};
  const int64_t x_pitch = g.x_pitch, dy_pitch = g.dy_pitch;
  const A *a0 = g.ahead[0], *a1 = g.ahead[1];
#pragma GCC unroll kStepsARound
  for (int64_t q = g.count; q > 0; q--) {
    __builtin_prefetch(a0, 0, 2);
    __builtin_prefetch(a1, 0, 2);
    a0 += g.ahead_pitch[0];
    a1 += g.ahead_pitch[1];
    add_outer_product(acc, x, dy);
    x += x_pitch;
    dy += dy_pitch;
  }
  put_tile<A, M, NV>(acc, sums, sums_pitch, first);
}

template <class A> using TileInPlace = void (*)(const PixelsInPlace<A>&, const A*, const A*, A*, int64_t, bool);

template <class A, int NV, int M = 1> TileInPlace<A> in_place_kernel(int64_t m) {
  if constexpr (M < kTileRows)
    if (m != M) return in_place_kernel<A, NV, M + 1>(m);
  return tile_in_place<A, M, NV>;
}

template <class A> using TileSums = void (*)(const PixelRows&, const A*, const A*, A*, int64_t, bool);

template <class A, int NV, int M = 1> TileSums<A> tile_kernel(int64_t m) {
  if constexpr (M < kTileRows)
    if (m != M) return tile_kernel<A, NV, M + 1>(m);
  return tile_sums<A, M, NV>;
}

// n >= 1 values that exist; up to `end` a whole register is read, as the lanes behind n do not matter.
template <class T> FC_INLINE Vec<Accumulator<T>> load_before(const T* p, int64_t n, const T* end) {
  return end - p >= kLanes<Accumulator<T>> ? load(p) : load_partial(p, min_of(n, end - p));
}

// Copies `pixels` groups of m values, `src_pitch` apart, into a panel of pitch m. m values are stored as whole
// registers, in ascending order: what spills over is overwritten by the next pixel, at the end it falls into slack.
template <class T>
__attribute__((noinline)) void pack_pixels(const T* src, int64_t src_pitch, const T* end, int64_t pixels, int64_t m,
                                           int64_t dst_pitch, Accumulator<T>* dst) {
  constexpr int L = kLanes<Accumulator<T>>;
  int64_t j = 0;
  if (m <= 2 * L) {
    const int64_t reach = m > L ? 2 * L : L, safe = (end - src - reach) / src_pitch + (end - src >= reach);
    const int64_t whole = min_of(pixels, safe);
    if (m <= L)
      for (; j < whole; j++, src += src_pitch, dst += dst_pitch) store(dst, load(src));
    else
      for (; j < whole; j++, src += src_pitch, dst += dst_pitch) {
        const auto low = load(src), high = load(src + L);
        store(dst, low);
        store(dst + L, high);
      }
  }
  for (; j < pixels; j++, src += src_pitch, dst += dst_pitch)
    for (int64_t v = 0; v < m; v += L) store(dst + v, load_before(src + v, m - v, end));
}

// The same from planes: value i of a pixel lies at src + i * plane, pixels `src_step` apart. m <= kTileRows or two
// registers. Four lines of each plane ahead are asked for, as so many planes are more than hardware prefetches: 1x1, Zen 5,
// 8 images, 1 and 2 threads, 256 -> 64 channels at 56x56 1.26 and 1.2 times as fast, 96 -> 24 at 112x112 1.6 and 1.46, twenty
// layers 1.1 and 1.08; rows and whole squares without a test for each, 1.03 more.
template <class T>
__attribute__((noinline)) void pack_planes(const T* src, int64_t plane, int64_t src_step, const T* end,
                                           int64_t pixels, int64_t m, int64_t dst_pitch, Accumulator<T>* dst) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>, kParts = kTileRows > 2 * L ? (kTileRows + L - 1) / L : 2;
  const int64_t parts = ceil_div(m, L);
  const bool apart = parts == 1 || dst_pitch >= kParts * L;  // registers of a pixel need not be stored together
  // A register of values that is not full repeats the last one: what spills over is overwritten anyway.
  const T* rows[kParts * L];
  for (int64_t i = 0; i < kParts * L; i++) rows[i] = src + min_of(i, m - 1) * plane;
  for (int64_t j = 0; j < pixels; j += L) {
    const int64_t n = min_of(L, pixels - j);
    Vec<A> r[kParts][L];
    if (src_step == 1 && end - (rows[kParts * L - 1] + j) >= L) {
#pragma GCC unroll 3
      for (int part = 0; part < kParts; part++) {
        if (part >= parts) break;
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) {
          const T* row = rows[part * L + i] + j;
          __builtin_prefetch(row + 4 * L);
          r[part][i] = load(row);
        }
        transpose<A>(r[part]);
        if (n == L && apart)
#pragma GCC unroll 16
          for (int i = 0; i < L; i++) store(dst + (j + i) * dst_pitch + part * L, r[part][i]);
      }
      if (n == L && apart) continue;
    } else {
      A lane[L][kParts * L] = {};
      for (int64_t i = 0; i < n; i++)
        for (int64_t v = 0; v < m; v++) lane[i][v] = to_accumulator(src[v * plane + (j + i) * src_step]);
      for (int i = 0; i < n; i++)
        for (int part = 0; part < parts; part++) r[part][i] = load(lane[i] + part * L);
    }
    for (int64_t i = 0; i < n; i++)
      for (int64_t part = 0; part < parts; part++) store(dst + (j + i) * dst_pitch + part * L, r[part][i]);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
