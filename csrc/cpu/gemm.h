// The two micro-kernels that every matrix-like op runs on.
//
// Both keep a tile of MR rows x NV registers in registers, add one rank-1 update per reduction index (broadcast of a
// row's value times NV loaded registers) and are bound by the FMA units: MR = 14, NV = 2 fills the 32 registers of
// AVX-512 (28 accumulators), 6 x 2 the 16 of AVX2. Every output element is one chain of FMAs in the order of the
// reduction index, started from zero or from what is stored; tile shapes therefore never change a bit of the result.
#pragma once
#include "epilogue.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int kColumnVectors = 2;                                 // registers per tile row
#if defined(__AVX512F__)
constexpr int kGroupRows = 7;                                     // rows of one of the two groups of a direct tile
#else
constexpr int kGroupRows = 3;
#endif
constexpr int kTileRows = 2 * kGroupRows;
template <class A> constexpr int kTileColumns = kColumnVectors * kLanes<A>;

// `length` consecutive reduction steps: source elements from `source` on, rows of the weight panel from `weight` on.
struct Run {
  std::int64_t source, weight, length;
};

// How a tile leaves the registers.
template <class A> struct TileOutput {
  A* rows[2];            // first row of each group
  std::int64_t stride;   // between rows, in elements
  int valid[2];          // rows to store in each group
  std::int64_t columns;  // columns to store
  bool accumulate;       // add to what is stored
  const A* bias;         // one value a column, added last; null for none
  const Finish<A>* finish = nullptr;  // after it, for rows that lie in the output, which begins at `origin`
  const A* origin = nullptr;
  bool fetch = false;    // bring the rows, and what finish adds to them, into the cache while the sums are computed
};

// Direct tile: row i of group g reads group[g] + i * stride + run.source. No packing: rows are pixels of a
// channels-last image, their common stride turns into three registers of address arithmetic.
template <class A, int Rows, int NV>
__attribute__((noinline)) void tile_direct(const A* const* group, std::int64_t stride, const Run* runs,
                                           std::int64_t run_count, const A* panel, const TileOutput<A>& out) {
  constexpr int lanes = kLanes<A>, width = NV * lanes;
  Vec<A> acc[2][Rows][NV];
  if (out.accumulate && out.columns == width) {
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
      for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++)
          acc[g][i][j] = i < out.valid[g] ? load(out.rows[g] + i * out.stride + j * lanes) : Vec<A>{};
  } else if (out.accumulate) {
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
      for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++)
          acc[g][i][j] = i < out.valid[g] && out.columns > j * lanes
                             ? load_up_to(out.rows[g] + i * out.stride + j * lanes, out.columns - j * lanes)
                             : Vec<A>{};
  } else {
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
      for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) acc[g][i][j] = Vec<A>{};
  }
  const std::int64_t three = 3 * stride, four = 4 * stride, five = 5 * stride;
  for (std::int64_t r = 0; r < run_count; r++) {
    if (out.fetch && r < Rows) {
#pragma GCC unroll 2
      for (int g = 0; g < 2; g++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) {
          const A* to = out.rows[g] + r * out.stride + j * lanes;
          __builtin_prefetch(to, 1);
          if (out.finish && out.finish->add) __builtin_prefetch(out.finish->add + (to - out.origin));
        }
    }
    const A* p = group[0] + runs[r].source;
    const A* q = group[1] + runs[r].source;
    const A* b = panel + runs[r].weight * width;
    // Zen 3 dispatches six operations a cycle, for this thread and its core's other one: with two steps a round 16 layers
    // were 1.06 times as fast with 2 threads, ten 1.04 with one; with four, 1.03. AVX-512 has 28 products to a round's overhead.
#if defined(__AVX512F__)
#pragma GCC unroll 1
#else
#pragma GCC unroll 2
#endif
    for (std::int64_t k = runs[r].length; k > 0; k--) {
      Vec<A> w[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) w[j] = load(b + j * lanes);
#define FC_TILE_ROW(g, i, address)         \
  if constexpr (i < Rows) {                \
    const Vec<A> a = broadcast(*(address)); \
    _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++) acc[g][i][j] = multiply_add(a, w[j], acc[g][i][j]); \
  }
#define FC_TILE_GROUP(g, base)            \
  FC_TILE_ROW(g, 0, base)                 \
  FC_TILE_ROW(g, 1, base + stride)        \
  FC_TILE_ROW(g, 2, base + 2 * stride)    \
  FC_TILE_ROW(g, 3, base + three)         \
  FC_TILE_ROW(g, 4, base + four)          \
  FC_TILE_ROW(g, 5, base + five)          \
  FC_TILE_ROW(g, 6, base + 2 * three)
      FC_TILE_GROUP(0, p)
      FC_TILE_GROUP(1, q)
#undef FC_TILE_GROUP
#undef FC_TILE_ROW
      p++;
      q++;
      b += width;
    }
  }
  if (out.bias) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) {
      const Vec<A> bias = load(out.bias + j * lanes);
#pragma GCC unroll 2
      for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
        for (int i = 0; i < Rows; i++) acc[g][i][j] += bias;
    }
  }
  if (out.finish) {
    const Finish<A> finish = *out.finish;
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
      for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++)
          if (i < out.valid[g] && out.columns > j * lanes)
            acc[g][i][j] = finish(acc[g][i][j], out.rows[g] + i * out.stride + j * lanes - out.origin,
                                  out.columns - j * lanes);
  }
#pragma GCC unroll 2
  for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
    for (int i = 0; i < Rows; i++)
      if (i < out.valid[g]) {
        A* row = out.rows[g] + i * out.stride;
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) {
          if (out.columns >= (j + 1) * lanes) store(row + j * lanes, acc[g][i][j]);
          else if (out.columns > j * lanes) store_partial(row + j * lanes, acc[g][i][j], out.columns - j * lanes);
        }
      }
}

// Packed tile: a is [step][Rows], b is [step][NV registers]; both advance by their own stride per reduction step.
// c[i * stride + column] is overwritten, or added to where accumulate; c must have room for the whole tile.
template <class A, int Rows, int NV>
__attribute__((noinline)) void tile_packed(const A* a, std::int64_t a_stride, const A* b, std::int64_t b_stride,
                                           std::int64_t steps, A* c, std::int64_t stride, bool accumulate) {
  constexpr int lanes = kLanes<A>;
  Vec<A> acc[Rows][NV];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) acc[i][j] = accumulate ? load(c + i * stride + j * lanes) : Vec<A>{};
#pragma GCC unroll 1
  for (std::int64_t k = 0; k < steps; k++) {
    Vec<A> w[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) w[j] = load(b + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; i++) {
      const Vec<A> v = broadcast(a[i]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) acc[i][j] = multiply_add(v, w[j], acc[i][j]);
    }
    a += a_stride;
    b += b_stride;
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) store(c + i * stride + j * lanes, acc[i][j]);
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
