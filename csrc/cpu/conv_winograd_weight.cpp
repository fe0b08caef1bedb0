// Winograd weight gradient: F(3x3, m x m), whose outputs are the nine taps and whose filter is a tile of dy.
//
// x is cut into the tiles of F(m x m, 3x3), whose transform it shares: V[position][tile][channel]. The m x m gradients of
// a tile become W[position][tile][output channel]. At each of the (m + 2)^2 positions the tiles are summed up, S = sum of
// V W, by the register tiles of weight_gradient.h; the output transform comes once, after the last tile. A task has some
// input and some output channels, and one of `partitions` runs of blocks of tiles; these are added up in order at the
// end. All of it follows from the shape alone, so the bits do not depend on the number of threads.
#include "conv_winograd_weight.h"

#include "conv_pack.h"
#include "parallel.h"
#include "tuning.h"
#include "weight_gradient.h"
#include "winograd.h"
#include "winograd_tiles.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using A = float;
constexpr int64_t kLane = kLanes<A>, kItem = sizeof(A);

constexpr int64_t kSumBytes = int64_t(10) << 20;         // of a chunk of output channels, all partitions, where it can
constexpr int64_t kPartitionBytes = int64_t(256) << 10;  // of a position, where there is a choice
constexpr int64_t kSmallSums = int64_t(1) << 20;         // stay in the L2 cache
constexpr int64_t kWorkspaceBytes = int64_t(31) << 20;
constexpr int64_t kTasks = 16, kMostPartitions = 8, kLeastTiles = 32;
constexpr double kTaskFlops = 3e6;

struct Plan {
  int64_t C, K;                                    // of one group
  int64_t tile_rows, tile_cols;                    // of an image
  int64_t images, rows, cols, tiles;               // tiles of a block
  int64_t row_blocks, col_blocks, blocks;
  int64_t width, panels, pairs, pairs_chunk;       // output channels of a panel; panels of a group, of all, of a chunk
  int64_t c_task, panels_task, partitions;
  int64_t v_pitch, v_step, w_step;                 // between tiles and positions of V; between positions of W
  int64_t v_values, w_values, block_values, sum_values;
  int team;

  int64_t thread_bytes() const { return (v_values + w_values + block_values) * kItem; }
  int64_t bytes() const { return sum_values * kItem + team * thread_bytes(); }
};

// A block of at most so many tiles.
void plan_block(Plan& p, int64_t images, int64_t most) {
  const int64_t image_tiles = p.tile_rows * p.tile_cols;
  p.images = 1;
  p.rows = p.tile_rows;
  p.cols = p.tile_cols;
  if (image_tiles <= most) {
    p.images = max_of(1, min_of(images, most / image_tiles));
  } else if (p.tile_cols <= most) {
    p.rows = ceil_div(p.tile_rows, ceil_div(p.tile_rows, most / p.tile_cols));
  } else {
    p.rows = 1;
    p.cols = ceil_div(p.tile_cols, ceil_div(p.tile_cols, most));
  }
  p.tiles = p.images * p.rows * p.cols;
  p.row_blocks = ceil_div(p.tile_rows, p.rows);
  p.col_blocks = ceil_div(p.tile_cols, p.cols);
  p.blocks = ceil_div(images, p.images) * p.row_blocks * p.col_blocks;
}

Plan make_plan(const ConvShape& s, const WinogradSizes& f, int threads) {
  const int64_t positions = f.side * f.side;
  Plan p{};
  p.C = s.group_in();
  p.K = s.group_out();
  p.tile_rows = ceil_div(s.out[1], f.tile);
  p.tile_cols = ceil_div(s.out[2], f.tile);
  p.width = p.K <= kLane ? kLane : 2 * kLane;
  p.panels = ceil_div(p.K, p.width);
  p.pairs = s.G * p.panels;
  const int64_t pair_bytes = positions * p.C * p.width * kItem;
  p.pairs_chunk = min_of(p.pairs, max_of(1, kSumBytes / pair_bytes));
  // Transforming x is shared by the output channels of a task, transforming dy by its input channels.
  p.c_task = min_of(p.C, kWinogradWeightChannels);
  p.panels_task = min_of(min_of(p.panels, p.pairs_chunk), max_of(1, kWinogradWeightColumns / p.width));
  const auto parts = [&] { return ceil_div(p.C, p.c_task) * ceil_div(p.pairs_chunk, p.panels_task); };
  const int64_t wanted = int64_t(s.flops() < kTasks * kTaskFlops ? s.flops() / kTaskFlops + 1 : kTasks);
  // Sums of their own for each run cost passes over them; without them tasks share channels, and transform the same again.
  const int64_t operands = s.N * (s.C * s.in_space() + s.K * s.out_space()) * kItem;
  const int64_t sum_bytes = p.pairs_chunk * pair_bytes;
  const int64_t affordable = min_of(positions * kPartitionBytes, max_of(operands / 2, kSmallSums)) / sum_bytes;
  const int64_t runs = max_of(1, min_of(min_of(kMostPartitions, affordable), ceil_div(wanted, parts())));
  plan_block(p, s.N, max_of(kLeastTiles, min_of(kWinogradWeightTiles[f.side > 4], s.N * p.tile_rows * p.tile_cols / runs)));
  p.partitions = min_of(runs, p.blocks);
  while (p.partitions * parts() < wanted)
    if (p.panels_task > 1) p.panels_task = ceil_div(p.panels_task, 2);
    else if (p.c_task >= 2 * kTileRows) p.c_task = ceil_div(p.c_task, 2);
    else break;

  p.v_pitch = round_up(p.c_task, kLane) + kLane;  // no power of two: such rows would share their L1 sets
  p.v_step = p.tiles * p.v_pitch + kLane;
  p.w_step = p.tiles * p.width + kLane;
  p.v_values = positions * p.v_step;
  p.w_values = p.panels_task * positions * p.w_step;
  p.block_values = max_of(block_values(f.window, f.tile, p.images, p.rows, p.cols, p.c_task),
                          block_values(f.tile, f.tile, p.images, p.rows, p.cols, p.K));
  p.sum_values = p.partitions * p.pairs_chunk * pair_bytes / kItem;
  p.team = int(max_of(1, min_of(threads, (kWorkspaceBytes - p.sum_values * kItem) / p.thread_bytes())));
  return p;
}

template <class F, class T> struct Call {
  static constexpr int64_t M = F::kTile, kPositions = F::kSide * F::kSide, kTaps = F::kTaps * F::kTaps;
  const Plan& p;
  const ConvShape& s;
  const T *dy, *x;
  T* dw;
  A* all_sums;
  char* scratch;
  std::uint32_t* largest;
  int64_t pair0 = 0;  // of the chunk at work

  A* sums(int64_t partition, int64_t pair, int64_t position, int64_t c) const {
    return all_sums + (((partition * p.pairs_chunk + pair) * kPositions + position) * p.C + c) * p.width;
  }

  // Adds the tiles of block b to the sums of `count` panels from pair `pair` on and channels [c0, c0 + channels).
  void add_block(int64_t b, int64_t partition, int64_t pair, int64_t count, int64_t c0, int64_t channels, bool first,
                 A* v, A* w, A* block) const {
    const int64_t col = b % p.col_blocks * p.cols, row = b / p.col_blocks % p.row_blocks * p.rows;
    const int64_t n0 = b / p.col_blocks / p.row_blocks * p.images, images = min_of(p.images, s.N - n0);
    const int64_t rows = min_of(p.rows, p.tile_rows - row), cols = min_of(p.cols, p.tile_cols - col);
    const int64_t group = (pair0 + pair) / p.panels, panel0 = (pair0 + pair) % p.panels;
    each_tile<F::kWindow, M, T>({x, s.layout, s.C, group * p.C + c0, channels, s.in[1], s.in[2]},
                           {n0, images, row * M - s.pad[1], rows, col * M - s.pad[2], cols}, block,
                           [&](int64_t c) { return v + c; }, p.v_pitch,
                           [&](const A* window, int64_t line, int64_t pixel, A* to) __attribute__((always_inline)) {
                             transform_input<F>(window, line, pixel, to, p.v_step);
                           });
    // Panels of two registers, then one of a single register, whose tiles lie closer together.
    const int64_t k0 = panel0 * p.width, outputs = min_of(count * p.width, p.K - k0), rest = outputs % p.width;
    const int64_t narrow = p.width == kLane ? outputs : rest <= kLane ? rest : 0;
    const auto transform_gradients = [&](int64_t from, int64_t channels, int64_t width) {
      each_tile<M, M, T>({dy, s.layout, s.K, group * p.K + k0 + from, channels, s.out[1], s.out[2]},
                         {n0, images, row * M, rows, col * M, cols}, block,
                         [&](int64_t c) { return w + (from + c) / p.width * kPositions * p.w_step + c % p.width; }, width,
                         [&](const A* window, int64_t line, int64_t pixel, A* to) __attribute__((always_inline)) {
                           transform_gradient<F>(window, line, pixel, to, p.w_step);
                         });
    };
    transform_gradients(0, outputs - narrow, p.width);
    transform_gradients(outputs - narrow, narrow, kLane);
    const int64_t start = 0, register_tiles = ceil_div(channels, kTileRows);
    const PixelRows line{&start, 1, images * rows * cols, 0, p.v_pitch};
    for (int64_t position = 0; position < kPositions; position++)
      for (int64_t i = 0; i < count; i++) {
        const A* gradients = w + (i * kPositions + position) * p.w_step;
        const bool wide = panel_width(p.K - (panel0 + i) * p.width) > kLane;
        for (int64_t tile = 0; tile < register_tiles; tile++) {
          const int64_t from = channels * tile / register_tiles, m = channels * (tile + 1) / register_tiles - from;
          const TileSums<A> kernel = wide ? tile_kernel<A, 2>(m) : tile_kernel<A, 1>(m);
          kernel(line, v + position * p.v_step + from, gradients, sums(partition, pair + i, position, c0 + from),
                 p.width, first);
        }
      }
  }
  static int64_t panel_width(int64_t outputs) { return outputs > kLane ? 2 * kLane : kLane; }

  // Adds up the partitions of channels [c0, c0 + kLane) of a panel and writes their taps.
  void finish(int64_t pair, int64_t c0) const {
    const int64_t group = (pair0 + pair) / p.panels, k0 = (pair0 + pair) % p.panels * p.width;
    const int64_t channels = min_of(kLane, p.C - c0), outputs = min_of(p.width, p.K - k0), values = channels * kTaps;
    const int64_t next_partition = p.pairs_chunk * kPositions * p.C * p.width;
    Mask<A> most{};
    for (int64_t j = 0; j < outputs; j += kLane) {
      Vec<A> taps[kLane * kTaps] = {};
      for (int64_t c = 0; c < channels; c++) {
        Vec<A> m[kPositions];
        for (int64_t position = 0; position < kPositions; position++) {
          const A* term = sums(0, pair, position, c0 + c) + j;
          m[position] = load(term);
          for (int64_t part = 1; part < p.partitions; part++) m[position] += load(term += next_partition);
        }
        transform_taps<F>(m, taps + c * kTaps);
      }
      for (int64_t i = 0; i < values; i += kLane) {
        transpose<A>(taps + i);
        for (int64_t l = 0; l < min_of(kLane, outputs - j); l++) {
          const Mask<A> bits = (Mask<A>)taps[i + l] & 0x7fffffff;
          most = most > bits ? most : bits;
          store_up_to(dw + ((group * p.K + k0 + j + l) * p.C + c0) * kTaps + i, taps[i + l], values - i);
        }
      }
    }
    raise_to(largest, most);
  }

  void run() {
    for (pair0 = 0; pair0 < p.pairs; pair0 += p.pairs_chunk) {
      const int64_t pairs = min_of(p.pairs_chunk, p.pairs - pair0);
      // A task's panels are of one group.
      const int64_t c_tasks = ceil_div(p.C, p.c_task), pair_tasks = ceil_div(pairs, p.panels_task);
      parallel_for(p.team, p.partitions * pair_tasks * c_tasks, [&](int64_t task, int thread) {
        A* v = reinterpret_cast<A*>(scratch + thread * p.thread_bytes());
        const int64_t c0 = task % c_tasks * p.c_task, channels = min_of(p.c_task, p.C - c0);
        const int64_t partition = task / c_tasks % p.partitions;
        const int64_t end = min_of((task / c_tasks / p.partitions + 1) * p.panels_task, pairs);
        const int64_t b0 = p.blocks * partition / p.partitions, b1 = p.blocks * (partition + 1) / p.partitions;
        for (int64_t pair = task / c_tasks / p.partitions * p.panels_task; pair < end;) {
          const int64_t count = min_of(end - pair, p.panels - (pair0 + pair) % p.panels);
          for (int64_t b = b0; b < b1; b++)
            add_block(b, partition, pair, count, c0, channels, b == b0, v, v + p.v_values, v + p.v_values + p.w_values);
          pair += count;
        }
      });
      const int64_t c_blocks = ceil_div(p.C, kLane);
      parallel_for(p.team, pairs * c_blocks,
                   [&](int64_t task, int) { finish(task / c_blocks, task % c_blocks * kLane); });
    }
  }
};

}  // namespace

std::size_t winograd_weight_workspace(const ConvShape& s, ConvAlgorithm algorithm, int threads) {
  std::size_t bytes = 0;
  with_winograd(s, algorithm, [&](auto filter) {
    bytes = std::size_t(make_plan(s, decltype(filter)::kSizes, threads).bytes());
  });
  return bytes;
}

std::uint32_t winograd_backward_weight(const ConvShape& s, ConvAlgorithm algorithm, const void* dy, const void* x,
                                       void* dw, int threads, Context& ctx) {
  std::uint32_t largest = 0;
  with_winograd(s, algorithm, [&](auto filter) {
    const Plan p = make_plan(s, decltype(filter)::kSizes, threads);
    char* block = static_cast<char*>(ctx.workspace(std::size_t(p.bytes())));
    if (!block) return;
    with_float_sums(s.dtype, [&](auto type) {
      using T = decltype(type);
      Call<decltype(filter), T>{p, s, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw),
                                reinterpret_cast<A*>(block), block + p.sum_values * kItem, &largest}.run();
    });
  });
  return largest;
}

}  // namespace fastconv::cpu::FC_ISA
