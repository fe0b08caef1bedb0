// The micro-kernel of the direct engine; winograd_products.h and conv_pointwise.h have their likes for short sums and for
// packed pixels.
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

// How tiles leave the registers.
template <class A> struct TileOutput {
  std::int64_t stride;   // between rows, in elements
  std::int64_t columns;  // columns to store
  bool accumulate;       // add to what is stored: the chain of products begins with it,
  const A* bias;         // one value a column, added last; null for none
  const Finish<A>* finish = nullptr;  // after it, for rows that lie in the output, which begins at `origin`
  const A* origin = nullptr;
  bool fetch = false;    // bring the rows, and what finish adds to them, into the cache while the sums are computed
};

// A tile's accumulators, two groups of rows, and where the first row of each group goes.
template <class A, int Rows, int NV> using Sums = Vec<A>[2][Rows][NV];
template <class A> using TilePlaces = A* const (&)[2];

template <int Rows, int NV, class F> FC_INLINE void each_register(F&& f) {
#pragma GCC unroll 2
  for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
    for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) f(g, i, j);
}

// With 12 registers to leave, all rows are fetched at once; the 28 of AVX-512 would fill the queue of misses, so there
// one row a run.
constexpr bool kFetchByRuns = kTileRows * kColumnVectors > 12;

template <class A, int Count, int NV>
FC_INLINE void fetch_rows(TilePlaces<A> rows, std::int64_t first, const TileOutput<A>& out) {
  constexpr int lines = NV * kLanes<A> * int(sizeof(A)) > 64 ? NV : 1;
  const std::int64_t step = out.stride;
  each_register<Count, lines>([&](int g, int i, int j) __attribute__((always_inline)) {
    __builtin_prefetch(rows[g] + (first + i) * step + j * kLanes<A>, 1);
  });
  if (const A* const add = out.finish ? out.finish->add : nullptr)
    each_register<Count, lines>([&](int g, int i, int j) __attribute__((always_inline)) {
      __builtin_prefetch(add + (rows[g] - out.origin) + (first + i) * step + j * kLanes<A>);
    });
}

// Distances from a group's first row, which stay in registers.
struct RowSteps {
  std::int64_t one, three, four, five;
  explicit RowSteps(std::int64_t row) : one(row), three(3 * row), four(4 * row), five(5 * row) {}
};

// Steps of the reduction by which weights are asked for before they are read: where they come from memory, as those of a
// network's layers do, and few tiles read them, hardware's streams are not far enough ahead. One image, weights from memory,
// Zen 5, 1 and 2 threads: 512 -> 2048 at 7x7 1.3 and 1.35 times as fast, 256 -> 1024 at 14x14 1.1, Winograd 256 -> 256 at 14x14
// 1.8 and 1.64, 128 -> 128 at 28x28 1.45 and 1.36, 512 -> 512 at 14x14 1.5; 8 images 1.0, Winograd 1.03. 16 steps 0.89 and 0.95
// of the speed, 32 0.98 and 0.97.
constexpr int kWeightsAhead = 64;

// One step of the reduction: row i of the first group reads p[i * row], of the second q[i * row], the weights are NV registers.
template <class A, int Rows, int NV>
FC_INLINE void tile_step(Sums<A, Rows, NV>& acc, const A* p, const A* q, const RowSteps& row, const A* weights) {
  Vec<A> w[NV];
#pragma GCC unroll 2
  for (int j = 0; j < NV; j++) {
    if (j * kLanes<A> * int(sizeof(A)) % 64 == 0) __builtin_prefetch(weights + (kWeightsAhead * NV + j) * kLanes<A>);
    w[j] = load(weights + j * kLanes<A>);
  }
#define FC_TILE_ROW(g, i, address)          \
  if constexpr (i < Rows) {                 \
    const Vec<A> a = broadcast(*(address)); \
    _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++) acc[g][i][j] = multiply_add(a, w[j], acc[g][i][j]); \
  }
#define FC_TILE_GROUP(g, base)           \
  FC_TILE_ROW(g, 0, base)                \
  FC_TILE_ROW(g, 1, base + row.one)      \
  FC_TILE_ROW(g, 2, base + 2 * row.one)  \
  FC_TILE_ROW(g, 3, base + row.three)    \
  FC_TILE_ROW(g, 4, base + row.four)     \
  FC_TILE_ROW(g, 5, base + row.five)     \
  FC_TILE_ROW(g, 6, base + 2 * row.three)
  FC_TILE_GROUP(0, p)
  FC_TILE_GROUP(1, q)
#undef FC_TILE_GROUP
#undef FC_TILE_ROW
}

// Adds the products of all runs, and the bias. Row i of group g reads group[g] + i * stride + run.source: rows are pixels
// of a channels-last image, their common stride turns into three registers of address arithmetic. `next`: elements from
// these rows to those of the next tile, which are brought into the cache meanwhile, a line of each row every so many
// steps; 0: no.
template <class A, int Rows, int NV>
FC_INLINE void add_products(Sums<A, Rows, NV>& acc, const A* const (&group)[2], std::int64_t next, std::int64_t stride,
                            const Run* runs, std::int64_t run_count, const A* panel, TilePlaces<A> rows,
                            const TileOutput<A>& out) {
  constexpr int lanes = kLanes<A>, width = NV * lanes;
  constexpr std::int64_t kLine = 64 / int(sizeof(A));
  const RowSteps step(stride);
  if (!kFetchByRuns && out.fetch) fetch_rows<A, Rows, NV>(rows, 0, out);
  for (std::int64_t r = 0; r < run_count; r++) {
    if (kFetchByRuns && out.fetch && r < Rows) fetch_rows<A, 1, NV>(rows, r, out);
    const A* p = group[0] + runs[r].source;
    const A* q = group[1] + runs[r].source;
    const A* b = panel + runs[r].weight * width;
    for (std::int64_t left = runs[r].length; left > 0; left -= kLine) {
      if (next)
#pragma GCC unroll 7
        for (int i = 0; i < Rows; i++) {
          __builtin_prefetch(p + next + i * stride);
          __builtin_prefetch(q + next + i * stride);
        }
#pragma GCC unroll kStepsARound
      for (std::int64_t k = next ? min_of(left, kLine) : left; k > 0; k--) {
        tile_step<A, Rows, NV>(acc, p, q, step, b);
        p++;
        q++;
        b += width;
      }
      if (!next) break;
    }
  }
  if (out.bias)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) {
      const Vec<A> bias = load(out.bias + j * lanes);
#pragma GCC unroll 2
      for (int g = 0; g < 2; g++)
#pragma GCC unroll 7
        for (int i = 0; i < Rows; i++) acc[g][i][j] += bias;
    }
}

// A tile whose groups, or whose columns, may end early.
template <class A, int Rows, int NV>
__attribute__((noinline)) void tile_direct(const A* const (&group)[2], const int (&valid)[2], std::int64_t next,
                                           std::int64_t stride, const Run* runs, std::int64_t run_count, const A* panel,
                                           TilePlaces<A> rows, const TileOutput<A>& out) {
  constexpr int lanes = kLanes<A>;
  const auto at = [&](int g, int i, int j) { return rows[g] + i * out.stride + j * lanes; };
  const auto kept = [&](int g, int i, int j) { return i < valid[g] && out.columns > j * lanes; };
  Sums<A, Rows, NV> acc;
  each_register<Rows, NV>([&](int g, int i, int j) __attribute__((always_inline)) {
    acc[g][i][j] = out.accumulate && kept(g, i, j) ? load_up_to(at(g, i, j), out.columns - j * lanes) : Vec<A>{};
  });
  add_products<A, Rows, NV>(acc, group, next, stride, runs, run_count, panel, rows, out);
  each_register<Rows, NV>([&](int g, int i, int j) __attribute__((always_inline)) {
    if (!kept(g, i, j)) return;
    A* to = at(g, i, j);
    const std::int64_t n = out.columns - j * lanes;
    store_up_to(to, out.finish ? (*out.finish)(acc[g][i][j], to - out.origin, n) : acc[g][i][j], n);
  });
}

// A group of pixels of a block: where it reads, its place among the block's pixels, and where it writes.
struct Group {
  std::int64_t source, pixel, out;
  int valid;
};

// The tiles of a panel, each of two groups.
template <class A> struct TileColumn {
  const Group* groups;
  std::int64_t count;
  const A* source;       // what the groups' places are counted from
  std::int64_t stride;   // between rows of the source
  const Run* runs;
  std::int64_t run_count;
  const A* panel;
  A* result;             // what the groups' pixels, or their places in the output, are counted from,
  std::int64_t unit;     // in units of so many elements
  bool in_output;
  bool ahead;            // bring the next tile's sources into the cache
  bool exact = false;    // no row may be read behind the last one of a group that ends early

  FC_INLINE const A* source_of(std::int64_t g) const { return source + groups[g].source; }
  FC_INLINE A* result_of(std::int64_t g) const { return result + (in_output ? groups[g].out : groups[g].pixel) * unit; }
  // Elements between the sources of groups g and g + 1 and those of the next tile, where these are to be fetched; else 0.
  FC_INLINE std::int64_t next(std::int64_t g) const {
    return ahead && g + 3 < count ? groups[g + 2].source - groups[g].source : 0;
  }
};

// The whole tiles from group g on, up to one that is not whole, which is returned: no question stands between the sums of
// one and those of the next, which the processor begins in the meantime. Against calls of tile_direct 64 -> 256 channels
// at 56x56, with a sum, 1.3 times as fast, 12 layers of ResNet-50 1.07 (Zen 3, 2 threads).
template <class A, int Rows, int NV>
__attribute__((noinline)) std::int64_t whole_tiles(const TileColumn<A>& column, const TileOutput<A>& out, std::int64_t g) {
  constexpr int lanes = kLanes<A>;
  const TileColumn<A> t = column;
  const std::int64_t step = out.stride;
  const Finish<A>* const finish = out.finish;
  const A* const add = finish ? finish->add : nullptr;
  for (; g + 1 < t.count && t.groups[g].valid == Rows && t.groups[g + 1].valid == Rows; g += 2) {
    const A* const group[2] = {t.source_of(g), t.source_of(g + 1)};
    A* const rows[2] = {t.result_of(g), t.result_of(g + 1)};
    const auto at = [&](int h, int i, int j) { return rows[h] + i * step + j * lanes; };
    Sums<A, Rows, NV> acc;
    each_register<Rows, NV>([&](int h, int i, int j) __attribute__((always_inline)) { acc[h][i][j] = Vec<A>{}; });
    if (out.accumulate)
      each_register<Rows, NV>([&](int h, int i, int j) __attribute__((always_inline)) { acc[h][i][j] = load(at(h, i, j)); });
    add_products<A, Rows, NV>(acc, group, t.next(g), t.stride, t.runs, t.run_count, t.panel, rows, out);
    if (finish) {
      if (add)
        each_register<Rows, NV>([&](int h, int i, int j) __attribute__((always_inline)) {
          acc[h][i][j] += load(add + (at(h, i, j) - out.origin));
        });
      each_register<Rows, NV>([&](int h, int i, int j) __attribute__((always_inline)) {
        acc[h][i][j] = finish->at_least(acc[h][i][j]);
      });
      if (finish->bounded_above())
        each_register<Rows, NV>([&](int h, int i, int j) __attribute__((always_inline)) {
          acc[h][i][j] = finish->at_most(acc[h][i][j]);
        });
    }
    each_register<Rows, NV>([&](int h, int i, int j) __attribute__((always_inline)) { store(at(h, i, j), acc[h][i][j]); });
  }
  return g;
}

// A group that ends early, two rows at a time.
template <class A, int Rows, int NV>
__attribute__((noinline)) void last_rows(const TileColumn<A>& t, const TileOutput<A>& out, std::int64_t g) {
  for (std::int64_t i = 0, end = t.groups[g].valid; i < end; i += 2) {
    const std::int64_t other = min_of(i + 1, end - 1);
    const A* const source = t.source_of(g);
    A* const result = t.result_of(g);
    const A* const group[2] = {source + i * t.stride, source + other * t.stride};
    A* const rows[2] = {result + i * out.stride, result + other * out.stride};
    const int valid[2] = {1, other > i};
    tile_direct<A, 1, NV>(group, valid, 0, t.stride, t.runs, t.run_count, t.panel, rows, out);
  }
}

template <class A, int Rows, int NV> void column_of_tiles(const TileColumn<A>& t, const TileOutput<A>& out) {
  for (std::int64_t g = 0; g < t.count; g += 2) {
    if (out.columns == NV * kLanes<A>) g = whole_tiles<A, Rows, NV>(t, out, g);
    if (g >= t.count) return;
    std::int64_t other = g + 1 < t.count ? g + 1 : g;
    if (t.exact && t.groups[other].valid < Rows) {
      last_rows<A, Rows, NV>(t, out, other);
      if (other == g) return;
      other = g;
    }
    const A* const group[2] = {t.source_of(g), t.source_of(other)};
    A* const rows[2] = {t.result_of(g), t.result_of(other)};
    const int valid[2] = {t.groups[g].valid, other == g ? 0 : t.groups[other].valid};
    tile_direct<A, Rows, NV>(group, valid, t.next(g), t.stride, t.runs, t.run_count, t.panel, rows, out);
  }
}

template <class A, int NV>
void tile_column(std::int64_t group_rows, const TileColumn<A>& column, const TileOutput<A>& out) {
  switch (group_rows) {
    case 1: return column_of_tiles<A, 1, NV>(column, out);
    case 2: return column_of_tiles<A, 2, NV>(column, out);
    case 3: return column_of_tiles<A, 3, NV>(column, out);
#if defined(__AVX512F__)
    case 4: return column_of_tiles<A, 4, NV>(column, out);
    case 5: return column_of_tiles<A, 5, NV>(column, out);
    case 6: return column_of_tiles<A, 6, NV>(column, out);
    default: return column_of_tiles<A, 7, NV>(column, out);
#endif
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
