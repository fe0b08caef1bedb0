// 1x1 convolution of channels-first arrays: per image a matrix product  y[K x pixels] = w[K x C] x[C x pixels].
//
// Here the pixels are the vector dimension, so nothing is transposed: a panel of kTileColumns pixels x a chunk of
// channels is copied once into L1 (rows of x lie a plane apart: read in place they would need a TLB entry each), and
// all output channels run over it in tiles of `rows` channels. Panels end at the image's edge, so small images waste
// registers; those go to the direct engine (kPointwisePixels in tuning.h).
#pragma once
#include "conv_pack.h"
#include "conv_taps.h"
#include "parallel.h"
#include "outer_product.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Consecutive panels of one task: their rows share pages and cache lines' neighbours. 64 -> 64 channels at 56x56: 1.6
// times the speed of single panels on two threads, 64 -> 256: 1.1 times.
constexpr int64_t kPanelRun = 12;
// Tile rows for this many output channels: few wasted rows, but tall tiles, which share each load of the pixels.
FC_INLINE int64_t pointwise_rows(int64_t columns) {
  const auto cost = [&](int64_t rows) { return ceil_div(columns, rows) * (2 * rows + 3); };
  int64_t best = kTileRows;
  for (int64_t rows = kTileRows; 2 * rows > kTileRows && rows > 1; rows--)
    if (cost(rows) < cost(best)) best = rows;
  return best;
}

// Tiles of one panel of pixels, one behind the other.
template <class A> struct PackedTiles {
  const A* weights;     // [tile][step][row]
  int64_t tile_size, count;
  const A* panel;       // [step][NV registers]
  int64_t steps;
  A* result;            // first row of the first tile; must have room for whole rows
  int64_t stride;       // between rows
  bool accumulate;      // add to what is stored
  bool fetch;           // bring the next tile's rows into the cache
  const A* bias;        // one value a row, added last; null for none
  const Finish<A>* finish;  // after it, for rows that lie in the output, which begins at `origin`
  const A* origin;
};

template <class A, int Rows, int NV> __attribute__((noinline)) void packed_tiles(const PackedTiles<A>& tiles) {
  constexpr int lanes = kLanes<A>;
  const PackedTiles<A> t = tiles;
  const A* const add = t.finish ? t.finish->add : nullptr;
  for (int64_t n = 0; n < t.count; n++) {
    const A *a = t.weights + n * t.tile_size, *b = t.panel;
    A* const c = t.result + n * Rows * t.stride;
    // They lie a plane apart, which no hardware prefetcher follows: 1.1 times at 64 -> 256.
    if (t.fetch && n + 1 < t.count)
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) __builtin_prefetch(c + (Rows + i) * t.stride + j * lanes, 1);
    Vec<A> acc[Rows][NV];
    const auto each_sum = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) f(acc[i][j], i, c + i * t.stride + j * lanes);
    };
    each_sum([&](Vec<A>& v, int, A*) __attribute__((always_inline)) { v = Vec<A>{}; });
    if (t.accumulate) each_sum([&](Vec<A>& v, int, A* to) __attribute__((always_inline)) { v = load(to); });
#pragma GCC unroll 1
    for (int64_t k = 0; k < t.steps; k++) {
      add_outer_product(acc, a, b);
      a += Rows;
      b += NV * lanes;
    }
    if (t.bias)
      each_sum([&](Vec<A>& v, int i, A*) __attribute__((always_inline)) { v += broadcast(t.bias[n * Rows + i]); });
    if (t.finish) {
      if (add) each_sum([&](Vec<A>& v, int, A* to) __attribute__((always_inline)) { v += load(add + (to - t.origin)); });
      each_sum([&](Vec<A>& v, int, A*) __attribute__((always_inline)) { v = t.finish->at_least(v); });
      if (t.finish->bounded_above())
        each_sum([&](Vec<A>& v, int, A*) __attribute__((always_inline)) { v = t.finish->at_most(v); });
    }
    each_sum([&](Vec<A>& v, int, A* to) __attribute__((always_inline)) { store(to, v); });
  }
}

template <class A, int NV> void run_packed(int64_t rows, const PackedTiles<A>& tiles) {
  switch (rows) {
#define FC_PACKED_CASE(n) \
  case n: return packed_tiles<A, n, NV>(tiles);
#if defined(__AVX512F__)
    FC_PACKED_CASE(8)
    FC_PACKED_CASE(9)
    FC_PACKED_CASE(10)
    FC_PACKED_CASE(11)
    FC_PACKED_CASE(12)
    FC_PACKED_CASE(13)
    FC_PACKED_CASE(14)
#else
    FC_PACKED_CASE(4)
    FC_PACKED_CASE(5)
    FC_PACKED_CASE(6)
#endif
#undef FC_PACKED_CASE
  }
}

// Scratch: packed weights of a pass, then per thread a pixel panel and, for panels or channels that end early, tiles.
struct PointwiseBlocking {
  int64_t rows, tiles, tiles_per_pass, tile_bytes, panel_bytes, edge_bytes, shared, total;
  int threads;
};

template <class A> PointwiseBlocking pointwise_blocking(const TapProblem& p, int threads) {
  PointwiseBlocking b{};
  const int64_t item = sizeof(A);
  b.rows = pointwise_rows(p.columns);
  b.tiles = ceil_div(p.columns, b.rows);
  b.tile_bytes = b.rows * p.channels * item;
  b.tiles_per_pass = max_of(1, min_of(b.tiles, kPanelBytes / b.tile_bytes));
  b.panel_bytes = min_of(kChunkSteps, p.channels) * kTileColumns<A> * item;
  b.edge_bytes = b.tiles_per_pass * b.rows * kTileColumns<A> * item;
  b.shared = round_up(b.tiles_per_pass * b.tile_bytes, 64);
  const int64_t thread_bytes = b.panel_bytes + b.edge_bytes;
  b.threads = int(max_of(1, min_of(threads, (kWorkspaceBytes - b.shared) / thread_bytes)));
  b.total = b.shared + b.threads * thread_bytes;
  return b;
}

template <class T>
void solve_pointwise_first(const TapProblem& p, const T* x, const T* weights, const T* bias, const Finish<T>& finish,
                           T* y, int threads, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t width = kTileColumns<A>, half = kLanes<A>;
  const int64_t pixels = p.axis[0].count * p.axis[1].count * p.axis[2].count;
  PointwiseBlocking b = pointwise_blocking<A>(p, threads);
  bool filled;
  const int64_t all_weights = p.groups * b.tiles * b.rows * p.channels;
  A* kept = packed_panels<T, A>(ConvAlgorithm::pointwise, p, b.rows, 1, all_weights, &filled, ctx);
  if (kept) {
    b.total -= b.shared;
    b.shared = 0;
  }
  char* base = static_cast<char*>(ctx.workspace(std::size_t(b.total)));
  if (!base) return;
  const int64_t panels = ceil_div(pixels, width);

  for (int64_t group = 0; group < p.groups; group++)
    for (int64_t t0 = 0; t0 < b.tiles; t0 += b.tiles_per_pass) {
      const int64_t t1 = min_of(t0 + b.tiles_per_pass, b.tiles);
      A* packed = kept ? kept + (group * b.tiles + t0) * b.rows * p.channels : reinterpret_cast<A*>(base);
      const T* w = weights + group * p.columns * p.channels;
      parallel_for(b.threads, filled ? 0 : t1 - t0, [&](int64_t i, int) {
        A* tile = packed + i * b.rows * p.channels;
        for (int64_t r = 0; r < b.rows; r++) {
          const int64_t k = (t0 + i) * b.rows + r;
          for (int64_t c = 0; c < p.channels; c++)
            tile[c * b.rows + r] = k < p.columns ? A(to_accumulator(w[k * p.column_stride + c * p.channel_stride])) : A(0);
        }
      });
      const int64_t run = max_of(1, min_of(kPanelRun, p.N * panels / (4 * b.threads))), runs = ceil_div(panels, run);
      parallel_for(b.threads, p.N * runs, [&](int64_t task, int thread) {
        char* own = base + b.shared + thread * (b.panel_bytes + b.edge_bytes);
        A* panel = reinterpret_cast<A*>(own);
        A* edge = reinterpret_cast<A*>(own + b.panel_bytes);
        const int64_t n = task / runs, p1 = min_of((task % runs + 1) * run * width, pixels);
        for (int64_t p0 = task % runs * run * width; p0 < p1; p0 += width) {
          const int64_t valid = min_of(width, pixels - p0);
          const bool narrow = valid <= half;
          const int64_t panel_width = narrow ? half : width;
          const T* xs = x + (n * p.groups + group) * p.channels * pixels + p0;
          T* ys = y + (n * p.groups + group) * p.columns * pixels + p0;
          for (int64_t c0 = 0; c0 < p.channels; c0 += kChunkSteps) {
            const int64_t steps = min_of(kChunkSteps, p.channels - c0);
            for (int64_t c = 0; c < steps; c++)
              for (int64_t j = 0; j < panel_width; j += half)
                store(panel + c * panel_width + j, load_up_to(xs + (c0 + c) * pixels + j, max_of(0, valid - j)));
            const bool final = c0 + steps == p.channels;
            PackedTiles<A> tiles{packed + c0 * b.rows, p.channels * b.rows, 0, panel, steps, nullptr, pixels, c0 > 0, c0 == 0,
                                 nullptr, nullptr, nullptr};
            int64_t whole = 0;
            if constexpr (sizeof(T) == sizeof(A))
              if (valid == width) {
                whole = tiles.count = min_of(t1, p.columns / b.rows) - t0;
                tiles.result = ys + t0 * b.rows * pixels;
                if (final && bias) tiles.bias = bias + group * p.columns + t0 * b.rows;
                if (final && finish.wanted) tiles.finish = &finish;
                tiles.origin = y;
                run_packed<A, 2>(b.rows, tiles);
              }
            for (int64_t t = t0 + whole; t < t1; t++) {
              const int64_t k0 = t * b.rows, count = min_of(b.rows, p.columns - k0);
              A* out = edge + (t - t0) * b.rows * width;
              tiles.weights = packed + ((t - t0) * p.channels + c0) * b.rows;
              tiles.count = 1;
              tiles.result = out;
              tiles.stride = width;
              tiles.bias = nullptr;
              tiles.finish = nullptr;
              if (narrow) run_packed<A, 1>(b.rows, tiles);
              else run_packed<A, 2>(b.rows, tiles);
              if (!final) continue;
              for (int64_t r = 0; r < count; r++) {
                const Vec<A> shift = broadcast(bias ? A(to_accumulator(bias[group * p.columns + k0 + r])) : A(0));
                for (int64_t j = 0; j < valid; j += half) {
                  Vec<A> v = load(out + r * width + j);
                  if (bias) v += shift;
                  T* to = ys + (k0 + r) * pixels + j;
                  if (finish.wanted) v = finish(v, to - y, valid - j);
                  store_up_to(to, v, valid - j);
                }
              }
            }
          }
        }
      });
    }
  if (kept) ctx.packed_filled();
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
