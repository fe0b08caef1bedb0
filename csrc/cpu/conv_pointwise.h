// 1x1 convolution of channels-first arrays: per image a matrix product  y[K x pixels] = w[K x C] x[C x pixels].
//
// Here the pixels are the vector dimension, so nothing is transposed: a panel of kTileColumns pixels x a chunk of
// channels is copied once into L1 (rows of x lie a plane apart: read in place they would need a TLB entry each), and
// all output channels run over it in tiles of `rows` channels. The first tile reads the pixels where they lie, and copies
// them while it computes; the first tiles ask for those of the next panel, which no hardware prefetcher finds: 8 images on
// Zen 5, 1 and 2 threads, 256 -> 64 channels at 56x56 1.52 and 1.55 times as fast as with copies before, 512 -> 128 at 28x28
// 1.26 and 1.2, 96 -> 24 at 112x112 1.7 and 2.1, 1024 -> 128 at 14x14 1.12 and 1.09. Panels end at the image's edge, so
// small images waste registers; those go to the direct engine (kPointwisePixels in tuning.h).
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

// Tiles of a strip of panels, which lie one behind the other.
template <class A> struct PackedTiles {
  const A* weights;     // [tile][step][row]
  int64_t tile_size, count;
  A* panel;             // [step][NV registers]
  int64_t panels;
  const A* source;      // pixels that the first tile copies to the panels while it computes; null: they are there
  const char* ahead;    // pixels that are brought into the cache meanwhile, those of the next strip; null: none
  bool cold;            // the weights may not be in the cache: tiles that ask for no pixels ask for them
  int64_t steps;
  A* result;            // first row of the first tile; must have room for whole rows
  int64_t stride;       // between rows, and between those of the source
  bool accumulate;      // add to what is stored
  bool fetch;           // bring the next tile's rows into the cache
  const A* bias;        // one value a row, added last; null for none
  const Finish<A>* finish;  // after it, for rows that lie in the output, which begins at `origin`
  const A* origin;
};

template <class A, int Rows, int NV> __attribute__((noinline)) void packed_tiles(const PackedTiles<A>& tiles) {
  constexpr int lanes = kLanes<A>, width = NV * lanes, lines = width * int(sizeof(A)) > 64 ? width * int(sizeof(A)) / 64 : 1;
  const PackedTiles<A> t = tiles;
  const A* const add = t.finish ? t.finish->add : nullptr;
  for (int64_t n = 0; n < t.count; n++)
    for (int64_t q = 0; q < t.panels; q++) {
      const A* a = t.weights + n * t.tile_size;
      A* const b = t.panel + q * t.steps * width;
      A* const c = t.result + n * Rows * t.stride + q * width;
      const bool more = q + 1 < t.panels;
      // They lie a plane apart, which no hardware prefetcher follows: 1.1 times at 64 -> 256.
      if (t.fetch && (more || n + 1 < t.count)) {
        const A* const next = more ? c + width : t.result + (n + 1) * Rows * t.stride;
#pragma GCC unroll 16
        for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
          for (int j = 0; j < NV; j++) __builtin_prefetch(next + i * t.stride + j * lanes, 1);
      }
      Vec<A> acc[Rows][NV];
      const auto each_sum = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int i = 0; i < Rows; i++)
#pragma GCC unroll 2
          for (int j = 0; j < NV; j++) f(acc[i][j], i, c + i * t.stride + j * lanes);
      };
      each_sum([&](Vec<A>& v, int, A*) __attribute__((always_inline)) { v = Vec<A>{}; });
      if (t.accumulate) each_sum([&](Vec<A>& v, int, A* to) __attribute__((always_inline)) { v = load(to); });
      const char* ahead = t.cold ? reinterpret_cast<const char*>(a + kWeightsAhead * Rows) : nullptr;
      int64_t ahead_step = Rows * int64_t(sizeof(A));
      if (t.ahead && n < lines) {
        ahead = t.ahead + (q * lines + n) * 64 + 63;
        ahead_step = t.stride * int64_t(sizeof(A));
      }
      if (n == 0 && t.source) {
        const A* from = t.source + q * width;
#pragma GCC unroll 1
        for (int64_t k = 0; k < t.steps; k++, a += Rows, from += t.stride) {
          if (ahead) __builtin_prefetch(ahead + k * ahead_step);
#pragma GCC unroll 2
          for (int j = 0; j < NV; j++) store(b + k * width + j * lanes, load(from + j * lanes));
          add_outer_product(acc, a, from);
        }
      } else {
#pragma GCC unroll 1
        for (int64_t k = 0; k < t.steps; k++, a += Rows) {
          if (ahead) __builtin_prefetch(ahead + k * ahead_step);
          add_outer_product(acc, a, b + k * width);
        }
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

// Scratch: packed weights of a pass, then per thread a strip of panels and, for panels or channels that end early, tiles.
// A strip is a chunk of L1 size: of few channels, several panels, whose results are longer rows (16 -> 96 channels at 112x112
// 1.47 and 1.5 times as fast, Zen 5, 1 and 2 threads).
struct PointwiseBlocking {
  int64_t strip, rows, tiles, tiles_per_pass, tile_bytes, panel_bytes, edge_bytes, shared, total;
  int threads;
};

template <class A> PointwiseBlocking pointwise_blocking(const TapProblem& p, int threads) {
  PointwiseBlocking b{};
  const int64_t item = sizeof(A);
  b.rows = pointwise_rows(p.columns);
  b.tiles = ceil_div(p.columns, b.rows);
  b.tile_bytes = b.rows * p.channels * item;
  b.tiles_per_pass = max_of(1, min_of(b.tiles, kPanelBytes / b.tile_bytes));
  b.strip = max_of(1, kChunkSteps / p.channels);
  b.panel_bytes = b.strip * min_of(kChunkSteps, p.channels) * kTileColumns<A> * item;
  b.edge_bytes = b.tiles_per_pass * b.rows * kTileColumns<A> * item;
  b.shared = round_up(b.tiles_per_pass * b.tile_bytes, 64);
  const int64_t thread_bytes = b.panel_bytes + b.edge_bytes;
  b.threads = int(max_of(1, min_of(threads, (kWorkspaceBytes - b.shared) / thread_bytes)));
  b.total = b.shared + b.threads * thread_bytes;
  return b;
}

// One call: the problem, its arrays and its scratch.
template <class T> struct PointwiseCall {
  using A = Accumulator<T>;
  static constexpr int64_t width = kTileColumns<A>, half = kLanes<A>;
  const TapProblem& p;
  const PointwiseBlocking& b;
  int64_t pixels;
  const T *x, *weights, *bias;
  const Finish<T>& finish;
  T* y;

  // Weights of output channels [k0, k0 + b.rows) of a group -> [step][row].
  void pack_tile(int64_t group, int64_t k0, A* tile) const {
    const T* w = weights + group * p.columns * p.channels;
    for (int64_t r = 0; r < b.rows; r++)
      for (int64_t c = 0; c < p.channels; c++)
        tile[c * b.rows + r] =
            k0 + r < p.columns ? A(to_accumulator(w[(k0 + r) * p.column_stride + c * p.channel_stride])) : A(0);
  }

  // Tiles [t0, t1) of a group: their packed weights.
  struct Pass {
    int64_t group, t0, t1;
    const A* packed;
  };
  // Panels of an image from pixel p0 on; the last one may end early, and is then alone.
  struct Strip {
    int64_t image, p0, panels, valid;
    bool first, last;  // of the task
  };

  void copy_panels(const Strip& s, const T* source, int64_t steps, A* panel) const {
    const int64_t panel_width = s.valid <= half ? half : width;
    for (int64_t q = 0; q < s.panels; q++)
      for (int64_t c = 0; c < steps; c++)
        for (int64_t j = 0; j < panel_width; j += half) {
          const int64_t at = q * width + j;
          store(panel + (q * steps + c) * panel_width + j, load_up_to(source + c * pixels + at, max_of(0, s.valid - at)));
        }
  }

  void compute(const Pass& pass, const Strip& s, A* panel, A* edge) const {
    const T* xs = x + (s.image * p.groups + pass.group) * p.channels * pixels + s.p0;
    T* ys = y + (s.image * p.groups + pass.group) * p.columns * pixels + s.p0;
    for (int64_t c0 = 0; c0 < p.channels; c0 += kChunkSteps) {
      const int64_t steps = min_of(kChunkSteps, p.channels - c0);
      const T* source = xs + c0 * pixels;
      const bool final = c0 + steps == p.channels;
      PackedTiles<A> tiles{};
      tiles.weights = pass.packed + c0 * b.rows;
      tiles.tile_size = p.channels * b.rows;
      tiles.panel = panel;
      tiles.steps = steps;
      tiles.accumulate = c0 > 0;
      int64_t whole = pass.t0;  // tiles before it leave their registers for the array
      if constexpr (sizeof(T) == sizeof(A))
        if (s.valid == s.panels * width && pass.t0 < p.columns / b.rows) {
          whole = min_of(pass.t1, p.columns / b.rows);
          PackedTiles<A> first = tiles;
          first.count = whole - pass.t0;
          first.panels = s.panels;
          first.source = source;
          if (!final || !s.last)
            first.ahead = reinterpret_cast<const char*>(final ? xs + s.panels * width : source + steps * pixels);
          first.cold = s.first;
          first.result = ys + pass.t0 * b.rows * pixels;
          first.stride = pixels;
          first.fetch = c0 == 0;
          if (final && bias) first.bias = bias + pass.group * p.columns + pass.t0 * b.rows;
          if (final && finish.wanted) first.finish = &finish;
          first.origin = y;
          run_packed<A, 2>(b.rows, first);
        }
      if (whole == pass.t0) copy_panels(s, source, steps, panel);
      for (int64_t t = whole; t < pass.t1; t++)
        for (int64_t q = 0; q < s.panels; q++) {
          A* out = edge + (t - pass.t0) * b.rows * width;
          PackedTiles<A> one = tiles;
          one.weights += (t - pass.t0) * tiles.tile_size;
          one.count = one.panels = 1;
          one.panel += q * steps * width;
          one.result = out;
          one.stride = width;
          if (s.valid <= half) run_packed<A, 1>(b.rows, one);
          else run_packed<A, 2>(b.rows, one);
          if (final) finish_tile(out, pass.group, t * b.rows, s.valid - q * width, ys + q * width);
        }
    }
  }

  // A tile from scratch to the array: output channels from k0 on, up to `valid` pixels.
  void finish_tile(const A* out, int64_t group, int64_t k0, int64_t valid, T* ys) const {
    for (int64_t r = 0; r < min_of(b.rows, p.columns - k0); r++) {
      const Vec<A> shift = broadcast(bias ? A(to_accumulator(bias[group * p.columns + k0 + r])) : A(0));
      for (int64_t j = 0; j < min_of(width, valid); j += half) {
        Vec<A> v = load(out + r * width + j);
        if (bias) v += shift;
        T* to = ys + (k0 + r) * pixels + j;
        if (finish.wanted) v = finish(v, to - y, valid - j);
        store_up_to(to, v, valid - j);
      }
    }
  }
};

template <class T>
void solve_pointwise_first(const TapProblem& p, const T* x, const T* weights, const T* bias, const Finish<T>& finish,
                           T* y, int threads, Context& ctx) {
  using A = Accumulator<T>;
  using Call = PointwiseCall<T>;
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
  const int64_t pixels = p.axis[0].count * p.axis[1].count * p.axis[2].count, panels = ceil_div(pixels, Call::width);
  const int64_t run = max_of(1, min_of(kPanelRun, p.N * panels / (4 * b.threads))), runs = ceil_div(panels, run);
  const Call call{p, b, pixels, x, weights, bias, finish, y};

  for (int64_t group = 0; group < p.groups; group++)
    for (int64_t t0 = 0; t0 < b.tiles; t0 += b.tiles_per_pass) {
      const int64_t t1 = min_of(t0 + b.tiles_per_pass, b.tiles), tile_size = b.rows * p.channels;
      A* packed = kept ? kept + (group * b.tiles + t0) * tile_size : reinterpret_cast<A*>(base);
      parallel_for(b.threads, filled ? 0 : t1 - t0,
                   [&](int64_t i, int) { call.pack_tile(group, (t0 + i) * b.rows, packed + i * tile_size); });
      parallel_for(b.threads, p.N * runs, [&](int64_t task, int thread) {
        char* own = base + b.shared + thread * (b.panel_bytes + b.edge_bytes);
        const int64_t p0 = task % runs * run * Call::width, p1 = min_of(p0 + run * Call::width, pixels);
        for (int64_t at = p0, next; at < p1; at = next) {
          const int64_t count = max_of(1, min_of(b.strip, (p1 - at) / Call::width));
          next = min_of(at + count * Call::width, p1);
          call.compute({group, t0, t1, packed}, {task / runs, at, count, next - at, at == p0, next == p1},
                       reinterpret_cast<A*>(own), reinterpret_cast<A*>(own + b.panel_bytes));
        }
      });
    }
  if (kept) ctx.packed_filled();
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
