// Winograd convolution in blocks of L2 size; never is a whole tensor transformed.
//
// A pass transforms the weights of some output channels, U[panel][position][channel][column]. A task then takes a block
// of tiles: their inputs become V[position][tile][channel] (winograd_tiles.h). For each panel the products of all positions,
// M[position][tile][column], run through register tiles (winograd_products.h), and the output transform leaves them as
// pixels. V and M stay in L2.
#include "conv_winograd.h"

#include "conv_pack.h"
#include "conv_taps.h"
#include "parallel.h"
#include "tuning.h"
#include "winograd.h"
#include "winograd_products.h"
#include "winograd_tiles.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using A = float;

// Channels of the weights that are transposed at a time: nine taps of them fit L1.
constexpr int64_t kWeightChannels = 32;
// Channels of a panel that all tiles are multiplied by before the next ones: they fit L1.
constexpr int64_t kProductChannels = 128;
// Of one or two blocks of tiles, a task transforms the weights that it needs for itself, so many channels of a panel at a
// time (whole sums: winograd_sum): they stay in its L2 cache, and never are larger than in the array. Zen 4, 2 threads,
// F(4x4), weights from memory: one image, 512 -> 512 at 7x7 2.1 times as fast, 256 -> 256 and 512 -> 512 at 14x14 1.7 and 1.6;
// 8 images of 7x7 1.4; with more blocks, 0.9 to 1.05.
// Small images whose weights would need several passes get no more than two blocks for it, beyond L2: 8 images of 14x14,
// 512 -> 512, as fast where both cores share an L3 cache, 1.5 times where not; 16 of 7x7 1.0, 1.9; 8 of 13x13, 384 -> 384, 1.0,
// 1.4. One thread 0.94.
constexpr int64_t kOwnChannels = 64, kOwnBlocks = 2;

// Blocks of more tiles are cut until there is work for all threads; smaller ones share it by panels, as each block reads all
// weights. One image on Zen 3, 2 threads, 28 instead of 12 tiles, frozen weights and others: 256 -> 256 channels at 14x14
// 1.24 and 1.17 times as fast, 512 -> 512 1.1 and 1.24, 64 -> 64 at 28x28 1.3 and 1.27, 128 -> 192 1.25 and 1.05, but 128 ->
// 32 0.97 and 0.95.
constexpr int64_t kSplitTiles = 28;

// Of a few blocks a thread, each thread computes the panels whose weights it transformed, from so many panels on: what one
// core wrote, another one is slow to get, above all across L3 caches. Zen 4, 2 threads, 8 images of 14x14, 256 -> 256
// channels: 1.05 times as fast where both cores share an L3 cache, 1.55 where not; 160 -> 320 1.08, 1.5; two images of 28x28,
// 128 -> 128, 1.07, 1.55. Inputs are transformed twice for it: 8 images of 28x28, 256 -> 256, 0.96 (1.15), weights in
// several passes, 512 -> 512 at 14x14, 0.95 (1.15), frozen weights 0.97, two panels 0.8 (0.95). Each its own: 0.8 (1.35).
constexpr int64_t kPanelsOfThreads = 4, kBlocksOfThreads = 4;

// A block: images x rows x cols tiles. Offsets are in elements, sizes in bytes.
struct TileBlocking {
  int64_t positions;
  int64_t tile_rows, tile_cols;          // tiles of an image
  int64_t images, rows, cols, tiles;     // of a block
  int64_t image_blocks, row_blocks, col_blocks, parts;
  int64_t group_rows;                    // of the register tiles
  int64_t v_pitch, v_step, m_step;       // between tiles of V; between positions of V and of M
  int64_t sum_channels;                  // added up before the sum of those before them
  bool own_panels;                       // each task transforms the weights that it needs
  bool by_panels;                        // each thread keeps to a part of the panels, those that it transformed
  int64_t u_step, own_step;              // between positions of a panel, of its own: no power of two, as for V
  int64_t panel_columns, panels_per_group, panels_per_pass, panel_size;
  int64_t v_bytes, m_bytes, block_bytes, pixel_bytes, raw_bytes, own_bytes, thread_bytes, bias_bytes, total;
  int threads;
  int64_t blocks() const { return image_blocks * row_blocks * col_blocks; }
};

// Of the transformed weights of a pass.
int64_t pass_bytes(const TileBlocking& b) {
  return b.own_panels ? 0 : aligned(b.panels_per_pass * b.panel_size * int64_t(sizeof(A)));
}

// What the register tiles of a position cost, in quarters of an AVX2 cycle a channel: those of 2 x `rows` tiles, and one of
// those that are left. One row a group waits for its own sums: two cost as little (192 -> 384 channels at 7x7, blocks of 8
// tiles as 6 and 2 instead of 4 and 4: 0.87, Zen 3, 2 threads).
int64_t register_cost(int64_t tiles, int64_t rows) {
  const auto cost = [](int64_t n) { return 8 * max_of(n, 2) + 4; };
  const int64_t left = tiles % (2 * rows);
  return tiles / (2 * rows) * cost(rows) + (left ? cost(ceil_div(left, 2)) : 0);
}
int64_t register_rows(int64_t tiles) {
  int64_t best = kGroupRows;
  for (int64_t rows = best - 1; rows > 0; rows--)
    if (register_cost(tiles, rows) < register_cost(tiles, best)) best = rows;
  return best;
}

// What follows from a block's images, rows and columns.
void count_blocks(const TapProblem& p, int threads, TileBlocking& b) {
  b.tiles = b.images * b.rows * b.cols;
  b.image_blocks = ceil_div(p.N, b.images);
  b.row_blocks = ceil_div(b.tile_rows, b.rows);
  b.col_blocks = ceil_div(b.tile_cols, b.cols);
  // Each part of the panels transforms the inputs again: no more of them than keep the threads busy.
  b.parts = max_of(1, min_of(b.panels_per_pass, ceil_div(threads > 1 ? 2 * threads : 1, b.blocks())));
  b.group_rows = register_rows(b.tiles);
}

TileBlocking choose_tiles(const TapProblem& p, const WinogradSizes& f, int threads) {
  const TapAxis &high = p.axis[1], &wide = p.axis[2];
  constexpr int64_t lanes = kLanes<A>, item = sizeof(A);
  TileBlocking b{};
  b.positions = f.side * f.side;
  b.tile_rows = ceil_div(high.count, f.tile);
  b.tile_cols = ceil_div(wide.count, f.tile);
  b.sum_channels = f.tile == 2 ? kWinogradLongSum : winograd_sum(p.channels);
  b.panel_columns = p.columns > lanes ? kTileColumns<A> : lanes;
  b.panels_per_group = ceil_div(p.columns, b.panel_columns);
  b.u_step = p.channels * b.panel_columns + lanes;
  b.panel_size = b.positions * b.u_step;
  b.panels_per_pass = max_of(1, min_of(kPanelBytes / (b.panel_size * item), p.groups * b.panels_per_group));
  b.v_pitch = round_up(p.channels, lanes) + lanes;  // no power of two: such rows would share their L1 sets

  // Tiles of a block: as many as the cache holds, but a few tasks for each thread, and well-filled register tiles.
  const int64_t tile_bytes = b.positions * b.v_pitch * item;
  const int64_t share = (kWorkspaceBytes - kPanelBytes) / (2 * threads);  // V is about half of a thread's scratch
  const int64_t enough = max_of(kWinogradBlockTiles[f.side - 4] * tile_bytes, kWinogradBlockBytes / 4);
  const int64_t wished = min_of(kWinogradBlockBytes, enough);
  const int64_t most = max_of(kTileRows, min_of(wished, share) / tile_bytes);
  const int64_t wanted = threads > 1 ? 4 * threads : 1, image_tiles = b.tile_rows * b.tile_cols;
  b.images = 1;
  b.rows = b.tile_rows;
  b.cols = b.tile_cols;
  if (image_tiles <= most) {
    // 8 images of 7x7, F(4x4), Zen 4: blocks that fill a register tile are 1.25 times as fast as those of one image.
    const int64_t fewest = ceil_div(kTileRows, image_tiles);
    b.images = even_part(p.N, max_of(1, min_of(most / image_tiles, max_of(p.N / wanted, fewest))));
  } else if (b.tile_cols <= most) {
    // Even parts: all of U is read for each block, a small rest at the end included.
    b.rows = even_part(b.tile_rows, most / b.tile_cols);
  } else {
    b.rows = 1;
    b.cols = most / kTileRows * kTileRows;
  }
  const auto halve = [&] {
    b.rows = (b.rows + 1) / 2;
    count_blocks(p, threads, b);
  };
  count_blocks(p, threads, b);
  while (b.rows > 1 && b.blocks() < wanted && b.rows * b.cols > kSplitTiles) halve();
  // An image whose few output channels make no work for all threads, Zen 4, 2 threads, 128 -> 32 channels: 14x14 1.5 (frozen
  // weights 1.8), 7x7 1.2 (1.4) times as fast as in one block.
  while (b.rows > 1 && b.blocks() * p.groups * b.panels_per_group < threads) halve();
  return b;
}

// The scratch of a call, all of it. `kept`: the weights are a frozen weight's packed form.
void lay_out(const TapProblem& p, const WinogradSizes& f, bool kept, int threads, TileBlocking& b) {
  constexpr int64_t lanes = kLanes<A>, item = sizeof(A);
  const int64_t half = ceil_div(p.N, kOwnBlocks), half_bytes = half * b.tile_rows * b.tile_cols * b.positions * b.v_pitch * item;
  if (threads > 1 && !kept && b.panels_per_pass < p.groups * b.panels_per_group && b.rows == b.tile_rows &&
      b.cols == b.tile_cols && half > b.images && half_bytes <= kWorkspaceBytes / (2 * threads)) {
    b.images = half;
    count_blocks(p, threads, b);
  }
  b.own_panels = !kept && b.blocks() <= kOwnBlocks;
  b.by_panels = threads > 1 && !kept && !b.own_panels && b.blocks() <= kBlocksOfThreads * threads &&
                b.panels_per_pass == p.groups * b.panels_per_group && b.panels_per_pass >= kPanelsOfThreads;
  if (b.by_panels) b.parts = max_of(2, b.parts);
  b.v_step = b.tiles * b.v_pitch + lanes;
  b.m_step = b.tiles * b.panel_columns + lanes;
  b.v_bytes = aligned(b.positions * b.v_step * item);
  b.m_bytes = aligned(b.positions * b.m_step * item);
  b.block_bytes = aligned(block_values(f.window, f.tile, b.images, b.rows, b.cols, p.channels) * item);
  const bool direct_store = p.same_type && p.layout == Layout::channels_last;
  b.pixel_bytes = direct_store ? 0 : aligned(b.tiles * f.tile * f.tile * b.panel_columns * item);
  b.raw_bytes = aligned(f.taps * f.taps * kWeightChannels * b.panel_columns * item);
  b.own_step = min_of(p.channels, kOwnChannels) * b.panel_columns + lanes;
  b.own_bytes = b.own_panels ? b.raw_bytes + aligned(b.positions * b.own_step * item) : 0;
  b.thread_bytes = max_of(b.v_bytes + b.m_bytes + b.block_bytes + b.pixel_bytes + b.own_bytes, b.raw_bytes);
  b.bias_bytes = aligned(p.groups * b.panels_per_group * b.panel_columns * item);
  const int64_t shared = pass_bytes(b) + b.bias_bytes;
  b.threads = int(max_of(1, min_of(threads, (kWorkspaceBytes - shared) / b.thread_bytes)));
  b.total = shared + b.threads * b.thread_bytes;
  if (kept) b.total -= pass_bytes(b);
  if (kept || b.own_panels) b.panels_per_pass = p.groups * b.panels_per_group;
}

// One call: the problem, its blocking, its arrays and its scratch.
template <class F, class T> struct Call {
  static constexpr int64_t lanes = kLanes<A>, M = F::kTile, kTaps = F::kTaps * F::kTaps;
  const TapProblem& p;
  const TileBlocking& b;
  const T *x, *weights, *bias;
  Finish<T> finishing;
  T* y;
  A *u, *biases;
  bool packed;  // u holds the transformed weights already
  char* scratch;
  std::uint32_t* largest;

  int64_t panel_width(int64_t panel) const {
    return p.columns - panel % b.panels_per_group * b.panel_columns > lanes ? b.panel_columns : lanes;
  }

  // Channels [c0, c0 + kWeightChannels) of panel number `panel` -> target, `step` between positions.
  void transform_weights(int64_t panel, int64_t c0, A* target, int64_t step, A* raw) const {
    const int64_t group = panel / b.panels_per_group, k0 = panel % b.panels_per_group * b.panel_columns;
    const int64_t columns = min_of(b.panel_columns, p.columns - k0), width = panel_width(panel);
    const int64_t channels = min_of(kWeightChannels, p.channels - c0);
    std::int32_t slots[kTaps];
    tap_slots(p, slots);
    const WeightSource source{p.column_stride, p.channel_stride, kTaps, channels, slots};
    const T* w = weights + group * p.columns * p.channels * kTaps + k0 * p.column_stride + c0 * p.channel_stride;
    pack_panel<T, A>(w, source, columns, width, raw);
    for (int64_t c = 0; c < channels; c++)
      for (int64_t j = 0; j < width; j += lanes)
        transform_weight<F>(raw + c * width + j, channels * width, target + c * width + j, step);
  }

  void compute(int64_t task, int thread, int64_t u0, int64_t u1) const {
    char* own = scratch + thread * b.thread_bytes;
    A* v = reinterpret_cast<A*>(own);
    A* m = reinterpret_cast<A*>(own + b.v_bytes);
    A* block = reinterpret_cast<A*>(own + b.v_bytes + b.m_bytes);
    A* pixels = reinterpret_cast<A*>(own + b.v_bytes + b.m_bytes + b.block_bytes);
    A* raw = reinterpret_cast<A*>(own + b.thread_bytes - b.own_bytes);
    A* weights_here = raw + b.raw_bytes / int64_t(sizeof(A));
    const int64_t part = b.by_panels ? task / b.blocks() : task % b.parts;
    task = b.by_panels ? task % b.blocks() : task / b.parts;
    const int64_t cb = task % b.col_blocks;
    task /= b.col_blocks;
    const int64_t r0 = task % b.row_blocks * b.rows, n0 = task / b.row_blocks * b.images, c0 = cb * b.cols;
    const int64_t images = min_of(b.images, p.N - n0), rows = min_of(b.rows, b.tile_rows - r0);
    const int64_t cols = min_of(b.cols, b.tile_cols - c0), tiles = images * rows * cols;

    int64_t loaded = -1;
    const int64_t first = u0 + (u1 - u0) * part / b.parts, end = u0 + (u1 - u0) * (part + 1) / b.parts;
    for (int64_t panel = first; panel < end; panel++) {
      const int64_t group = panel / b.panels_per_group, k0 = panel % b.panels_per_group * b.panel_columns;
      if (group != loaded) {
        each_tile<F::kWindow, M, T>(
            {x, p.layout, p.groups * p.channels, group * p.channels, p.channels, p.axis[1].source, p.axis[2].source},
            {n0, images, r0 * M + p.axis[1].first, rows, c0 * M + p.axis[2].first, cols}, block,
            [&](int64_t c) { return v + c; }, b.v_pitch,
            [&](const A* window, int64_t row, int64_t pixel, A* target) __attribute__((always_inline)) {
              transform_input<F>(window, row, pixel, target, b.v_step);
            });
        loaded = group;
      }
      const int64_t columns = min_of(b.panel_columns, p.columns - k0);
      const int64_t width = panel_width(panel);
      if (!b.own_panels) {
        multiply(v, 0, p.channels, u + (panel - u0) * b.panel_size, b.u_step, tiles, width, m);
      } else {
        for (int64_t c = 0; c < p.channels; c += kOwnChannels) {
          const int64_t end = min_of(p.channels, c + kOwnChannels);
          for (int64_t from = c; from < end; from += kWeightChannels)
            transform_weights(panel, from, weights_here + (from - c) * width, b.own_step, raw);
          multiply(v, c, end, weights_here, b.own_step, tiles, width, m);
        }
      }
      finish(m, panel, width, n0, images, r0, rows, c0, cols, group, k0, columns, pixels);
    }
  }

  // M of one panel, from its channels [c0, c1): a matrix product per position.
  void multiply(const A* v, int64_t c0, int64_t c1, const A* panel, int64_t step, int64_t tiles, int64_t width, A* m) const {
    for (int64_t position = 0; position < b.positions; position++)
      for (int64_t c = c0; c < c1; c += kProductChannels) {
        const Products t{v + position * b.v_step + c, b.v_pitch, tiles, panel + position * step + (c - c0) * width,
                         min_of(kProductChannels, c1 - c), b.sum_channels, c > 0, m + position * b.m_step};
        if (width == lanes) multiply_tiles<1>(b.group_rows, t);
        else multiply_tiles<kColumnVectors>(b.group_rows, t);
      }
  }

  // Output transform, bias and store of one panel.
  void finish(const A* m, int64_t panel, int64_t width, int64_t n0, int64_t images, int64_t r0, int64_t rows, int64_t c0,
              int64_t cols, int64_t group, int64_t k0, int64_t columns, A* pixels) const {
    const TapAxis &high = p.axis[1], &wide = p.axis[2];
    const int64_t all = p.groups * p.columns, channel = group * p.columns + k0;
    const bool last = p.layout == Layout::channels_last, direct_store = last && p.same_type;
    const int64_t p0 = r0 * M, lines = min_of(rows * M, high.count - p0);
    const int64_t q0 = c0 * M, across = min_of(cols * M, wide.count - q0);
    for (int64_t i = 0; i < images; i++) {
      Mask<A> most{};
      for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < cols; t++, m += width) {
          const int64_t down = min_of(M, lines - r * M), right = min_of(M, across - t * M);
          for (int64_t j = 0; j < width; j += lanes) {
            Vec<A> out[M][M];
            transform_output<F>(m + j, b.m_step, out);
            const Vec<A> shift = load(biases + panel * b.panel_columns + j);
            A* target = pixels + (r * M * across + t * M) * width + j;
            int64_t pixel_step = width, line_step = across * width, keep = lanes;
            if (direct_store) {
              target = reinterpret_cast<A*>(y) +
                       (((n0 + i) * high.count + p0 + r * M) * wide.count + q0 + t * M) * all + channel + j;
              pixel_step = all;
              line_step = wide.count * all;
              keep = columns - j;
            }
            for (int64_t a = 0; a < down; a++)
              for (int64_t e = 0; e < right; e++) {
                const Mask<A> bits = (Mask<A>)out[a][e] & 0x7fffffff;
                most = most > bits ? most : bits;
                A* to = target + a * line_step + e * pixel_step;
                Vec<A> value = out[a][e] + shift;
                if constexpr (sizeof(T) == sizeof(A))
                  if (direct_store && finishing.wanted) value = finishing(value, to - reinterpret_cast<A*>(y), keep);
                store_up_to(to, value, keep);
              }
          }
        }
      raise_to(largest + n0 + i, most);
      if (direct_store) continue;
      const bool joined = across == wide.count;  // whole rows of the output are one run of pixels
      for (int64_t r = 0; r < (joined ? 1 : lines); r++) {
        const int64_t count = joined ? lines * across : across, at = (p0 + r) * wide.count + q0;
        const A* source = pixels + r * across * width;
        const int64_t plane = high.count * wide.count;
        const int64_t to = last ? ((n0 + i) * plane + at) * all + channel : ((n0 + i) * all + channel) * plane + at;
        if (last) unpack_last<T, A>(source, width, count, columns, y + to, all, finishing.behind(to));
        else unpack_first<T, A>(source, width, count, columns, y + to, plane, 1, finishing.behind(to));
      }
    }
  }

  void run(Context& ctx) const {
    const int64_t all_panels = p.groups * b.panels_per_group, chunks = ceil_div(p.channels, kWeightChannels);
    for (int64_t i = 0; i < all_panels * b.panel_columns; i++) {
      const int64_t k = i % (b.panels_per_group * b.panel_columns);
      biases[i] = bias && k < p.columns
                      ? A(to_accumulator(bias[i / (b.panels_per_group * b.panel_columns) * p.columns + k]))
                      : A(0);
    }
    const int64_t tasks = b.blocks() * b.parts;
    for (int64_t u0 = 0; u0 < all_panels; u0 += b.panels_per_pass) {
      const int64_t u1 = min_of(u0 + b.panels_per_pass, all_panels);
      if (!packed && !b.own_panels) {
        parallel_for(b.threads, (u1 - u0) * chunks, [&](int64_t i, int thread) {
          const int64_t panel = u0 + i / chunks, c0 = i % chunks * kWeightChannels;
          transform_weights(panel, c0, u + i / chunks * b.panel_size + c0 * panel_width(panel), b.u_step,
                            reinterpret_cast<A*>(scratch + thread * b.thread_bytes));
        });
        ctx.packed_filled();
      }
      parallel_for(b.threads, tasks, [&](int64_t task, int thread) { compute(task, thread, u0, u1); });
    }
  }
};

template <class F, class T>
void solve(const ConvShape& s, ConvOp op, ConvAlgorithm algorithm, const T* x, const T* w, const T* bias,
           const Epilogue& epilogue, T* y, std::uint32_t* largest, Context& ctx) {
  const TapProblem p = unit_stride_problem(s, op);
  const int threads_wanted = ctx.threads_for(s.flops(), s.flops() / 4);
  TileBlocking b = choose_tiles(p, F::kSizes, threads_wanted);
  const int64_t all_panels = p.groups * b.panels_per_group;
  bool packed;
  A* kept = packed_panels<T, A>(algorithm, p, b.panel_columns, F::kSide, all_panels * b.panel_size, &packed, ctx);
  lay_out(p, F::kSizes, kept != nullptr, threads_wanted, b);
  char* block = static_cast<char*>(ctx.workspace(std::size_t(b.total)));
  if (!block) return;
  for (int64_t n = 0; n < s.N; n++) largest[n] = 0;
  char* threads = block + b.total - b.threads * b.thread_bytes;
  A *u = kept ? kept : reinterpret_cast<A*>(block + b.bias_bytes), *biases = reinterpret_cast<A*>(block);
  Call<F, T>{p, b, x, w, bias, Finish<T>(epilogue), y, u, biases, packed, threads, largest}.run(ctx);
}

}  // namespace

void winograd(const ConvShape& s, ConvOp op, ConvAlgorithm algorithm, const void* x, const void* w, const void* b,
              const Epilogue& epilogue, void* y, std::uint32_t* largest, Context& ctx) {
  with_winograd(s, algorithm, [&](auto filter) {
    with_float_sums(s.dtype, [&](auto type) {
      using T = decltype(type);
      solve<decltype(filter), T>(s, op, algorithm, static_cast<const T*>(x), static_cast<const T*>(w),
                                 static_cast<const T*>(b), epilogue, static_cast<T*>(y), largest, ctx);
    });
  });
}

std::size_t winograd_workspace(const ConvShape& s, ConvOp op, ConvAlgorithm algorithm, int threads) {
  const TapProblem p = unit_stride_problem(s, op);
  TileBlocking b{};
  with_winograd(s, algorithm, [&](auto filter) {
    b = choose_tiles(p, decltype(filter)::kSizes, threads);
    lay_out(p, decltype(filter)::kSizes, false, threads, b);
  });
  return std::size_t(b.total);
}

}  // namespace fastconv::cpu::FC_ISA
