// 1x1 layers of few channels that are read in place: all output channels of a few pixels at a time, so that the output
// leaves as one stream. Tiles (gemm.h) leave 128 bytes of each of 14 pixels, and a processor reads a line before it writes
// to it unless it follows the lines that it writes to: a core of a Zen 4 stores 27 GB/s in one stream, 10 to 14 so.
//
// Every sum is the chain of a tile's: the same bits.
#pragma once
#include "conv_taps.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Most bytes of weights, all of which every few pixels meet, most registers of output channels, and most channels. Against
// tiles, 8 images, arrays from memory, 1 and 2 threads (Zen 4): 16 -> 96 channels at 112x112 2.2 and 1.3 times as fast,
// 24 -> 144 at 56x56 1.9, 1.3, 16 -> 64 1.2, 1.2, 64 -> 96 (24 KB) 1.0, 1.1, 32 -> 224 at 28x28 (28 KB) 1.07, 1.1, but
// 96 -> 96 (36 KB) 0.9, 0.94. In 16 registers, AVX2: 24 -> 96 at 56x56 1.1, 1.1, 24 -> 72 at 28x28 1.15, 1.6, but
// 32 -> 64 at 56x56 0.93, 0.94.
constexpr int64_t kRowWeightBytes = int64_t(28) << 10;
constexpr int kRowVectors = FC_VECTOR_BYTES == 64 ? 14 : 12;
constexpr int64_t kRowChannels = FC_VECTOR_BYTES == 64 ? kChunkSteps : 24;

// Pixels whose sums fill the registers, beside a weight and a value of each.
constexpr int pixels_at_once(int vectors) { return ((FC_VECTOR_BYTES == 64 ? 32 : 16) - 1) / (vectors + 1); }

template <class A> struct PixelRows {
  const A* source;
  int64_t source_pitch;  // between pixels
  const A* weights;      // [step][registers of all columns]
  int64_t steps, columns;
  A* result;             // the output: `columns` of a pixel, then those of the next
  const A* bias;         // one value a column, added last; null for none
  const Finish<A>* finish;  // after it; null for none
};

// Pixels [p, end) as far as there are `Rows` of them; the first that is left.
template <class A, int Rows, int NV>
__attribute__((noinline)) int64_t pixel_rows(const PixelRows<A>& rows, int64_t p, int64_t end) {
  constexpr int lanes = kLanes<A>;
  const PixelRows<A> t = rows;
  const int64_t last = t.columns - (NV - 1) * lanes;
  for (; p + Rows <= end; p += Rows) {
    Vec<A> acc[Rows][NV];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; i++)
#pragma GCC unroll 16
      for (int j = 0; j < NV; j++) acc[i][j] = Vec<A>{};
    const A *x = t.source + p * t.source_pitch, *w = t.weights;
#pragma GCC unroll 1
    for (int64_t k = 0; k < t.steps; k++) {
      Vec<A> a[Rows];
#pragma GCC unroll 8
      for (int i = 0; i < Rows; i++) a[i] = broadcast(x[i * t.source_pitch + k]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; j++) {
        const Vec<A> weight = load(w + j * lanes);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; i++) acc[i][j] = multiply_add(a[i], weight, acc[i][j]);
      }
      w += NV * lanes;
    }
    A* to = t.result + p * t.columns;
#pragma GCC unroll 8
    for (int i = 0; i < Rows; i++, to += t.columns)
#pragma GCC unroll 16
      for (int j = 0; j < NV; j++) {
        const int64_t n = j + 1 < NV ? lanes : last;
        Vec<A> v = acc[i][j];
        if (t.bias) v += load(t.bias + j * lanes);
        if (t.finish) v = (*t.finish)(v, to + j * lanes - t.result, n);
        if (j + 1 < NV || last == lanes) store(to + j * lanes, v);
        else store_up_to(to + j * lanes, v, last);
      }
  }
  return p;
}

template <class A, int NV> void all_pixel_rows(const PixelRows<A>& rows, int64_t begin, int64_t end) {
  begin = pixel_rows<A, pixels_at_once(NV), NV>(rows, begin, end);
  if (pixels_at_once(NV) > 1) pixel_rows<A, 1, NV>(rows, begin, end);
}

template <class A> void run_pixel_rows(int64_t vectors, const PixelRows<A>& rows, int64_t begin, int64_t end) {
  switch (vectors) {
#define FC_ROWS_CASE(n) \
  case n: return all_pixel_rows<A, n>(rows, begin, end);
    FC_ROWS_CASE(3)
    FC_ROWS_CASE(4)
    FC_ROWS_CASE(5)
    FC_ROWS_CASE(6)
    FC_ROWS_CASE(7)
    FC_ROWS_CASE(8)
    FC_ROWS_CASE(9)
    FC_ROWS_CASE(10)
    FC_ROWS_CASE(11)
    FC_ROWS_CASE(12)
#if FC_VECTOR_BYTES == 64
    FC_ROWS_CASE(13)
    FC_ROWS_CASE(14)
#endif
#undef FC_ROWS_CASE
  }
}

// Registers of a pixel's output channels where it pays to compute all of them at once, else 0.
template <class A> int64_t row_vectors(const TapProblem& p, const Blocking& b) {
  const int64_t vectors = ceil_div(p.columns, int64_t(kLanes<A>));
  const bool whole = p.flattened && b.in_place && p.groups == 1 && b.parts == 1 && !b.own_panels;
  return whole && vectors > kColumnVectors && vectors <= kRowVectors && p.channels <= kRowChannels &&
                 p.channels * vectors * FC_VECTOR_BYTES <= kRowWeightBytes
             ? vectors
             : 0;
}

// Panels of kTileColumns output channels, the last of which may be half as wide, as rows of all channels.
template <class A> void join_panels(const A* panels, int64_t vectors, int64_t steps, A* rows) {
  constexpr int64_t lanes = kLanes<A>, width = kTileColumns<A>;
  for (int64_t j = 0; j < vectors; j++) {
    const int64_t panel = j / kColumnVectors, own = panel * kColumnVectors + 1 < vectors ? width : lanes;
    const A* from = panels + panel * steps * width + j % kColumnVectors * lanes;
    for (int64_t k = 0; k < steps; k++) store(rows + (k * vectors + j) * lanes, load(from + k * own));
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
