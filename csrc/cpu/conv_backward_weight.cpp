// Weight gradient of convolution: dw[k][c][tap] = sum over output pixels of dy[k][pixel] * x[c][pixel moved by tap].
//
// The pixels are cut into blocks of about kBlockPixels; a task packs the block's x and dy into panels (or reads them where
// they lie) and, tap by tap, adds register tiles of sums to its accumulator. Large weights are split over tasks by
// channels, small ones by blocks: then each of `partitions` runs of blocks has an accumulator of its own, and these are
// added up in order at the end. All of it follows from the shape alone, so the bits do not depend on the number of threads.
//
// A tile's rows are input channels and its columns output channels, which are turned round as they are stored. The
// gradient of a 1x1 filter is a product of matrices, dy^T x, in which x and dy may change places: then a tile lies as dw
// does, and goes there at once where a task is the only one that adds to it.
#include "conv_backward_weight.h"

#include "conv_depthwise.h"
#include "conv_narrow_weight.h"
#include "conv_select.h"
#include "conv_winograd.h"
#include "conv_winograd_weight.h"
#include "parallel.h"
#include "weight_gradient.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int64_t kBlockPixels = 512;         // sums of a block start from zero: bounds rounding error and panel size
// Of each packed operand of a task: both lie in a 2 MB L2. In the 512 KB of Zen 3, AVX2, 1.05 times as fast as 256 K (11
// layers).
constexpr int64_t kPanelValues = FC_VECTOR_BYTES == 32 ? 128 << 10 : 256 << 10;
constexpr int64_t kAccumulatorBytes = 14 << 20;
constexpr int64_t kPartitionBytes = 4 << 20;  // accumulators of all partitions together, where there is a choice
constexpr int64_t kWorkspaceBytes = 30 << 20;
constexpr int64_t kTasks = 16, kMostPartitions = 8;
constexpr double kTaskFlops = 1e6;
// A 1x1 filter of stride 1 reads channels-last pixels where they lie: most bytes of one (in larger strides its lines fall
// into a few sets of the cache), of a block's, half of what L2 has for them and the next block's, and channels of a task.
// Against panels, 8 images from memory, Zen 4, 1 and 2 threads: 64 -> 256 at 56x56 1.45, 1.56; 16 -> 96 at 112x112 1.9,
// 1.8; 24 -> 144 at 56x56 1.9, 1.9; 512 -> 128 at 28x28 1.12, 1.19; 96 -> 576 at 14x14 1.1, 1.0; 1024 -> 256 at 14x14
// 1.03, 1.01; 2048 -> 512 at 7x7 0.9. AVX2, 2 threads: 1.3, 2.4, 1.4, 1.14, 1.0; 1024 -> 256 0.8.
constexpr int64_t kInPlacePixel = FC_VECTOR_BYTES == 32 ? 2048 : 4096;
constexpr int64_t kInPlaceBytes = int64_t(FC_VECTOR_BYTES == 32 ? 200 : 256) << 10;
constexpr int64_t kInPlaceChannels = 512, kInPlaceLeast = 64;

int64_t accumulator_size(DType t) { return t == DType::f64 ? 8 : 4; }

struct Plan {
  ConvShape s;
  bool product;                // x and dy, and with them C and K, have changed places
  bool direct;                 // whole tiles are added up in dw
  bool in_place;               // pixels are read where they lie
  int64_t C, K;                // of one group
  int64_t fold;                // filter columns that share a register tile with the channels: S, or 1
  int64_t rows_of_tap;         // rows of dw a tap: fold * C
  int64_t taps, tap_columns;   // taps that are left: T * R * tap_columns
  bool joint_rows, joint_cols; // whether one x panel serves all filter rows / columns
  int64_t width, k_tiles, pairs;  // dy panel: output channels; such panels a group, and in all
  int64_t lines, block_lines, block_cols, col_blocks, blocks;  // a line is one row of output pixels
  int64_t col_step, panel_cols, panel_lines;
  int64_t partitions, pairs_chunk, rows_chunk, taps_chunk, pairs_task, rows_task;
  int64_t x_values, dy_values, sum_values;  // workspace; x and dy a thread
  int team;

  int64_t block_pixels() const { return block_lines * block_cols; }
  int64_t panel_pixels() const { return panel_lines * panel_cols; }
  std::size_t thread_bytes(std::size_t item) const {
    return std::size_t(round_up((x_values + dy_values) * int64_t(item) + block_lines * int64_t(sizeof(int64_t)), 64));
  }
  std::size_t bytes(std::size_t item) const {
    return std::size_t(sum_values) * item + std::size_t(team) * thread_bytes(item);
  }
};

// Blocks of output pixels, and the x panel that a block needs.
void plan_blocks(Plan& p) {
  const ConvShape& s = p.s;
  const int64_t Q = s.out[2], R = s.kernel[1], S = s.kernel[2];
  p.lines = s.N * s.out[0] * s.out[1];
  const int64_t channels = min_of(p.C, kInPlaceChannels) + min_of(p.K, kInPlaceChannels);
  const int64_t bytes = channels * accumulator_size(s.dtype);
  const int64_t most = p.in_place ? max_of(kInPlaceLeast, min_of(kBlockPixels, kInPlaceBytes / bytes)) : kBlockPixels;
  p.col_blocks = ceil_div(Q, most);
  p.block_cols = ceil_div(Q, p.col_blocks);
  p.col_blocks = ceil_div(Q, p.block_cols);
  const int64_t most_pixels = kPanelValues / min_of(p.C, 64), window_cols = (S - 1) * s.dilation[2] + 1;
  const bool narrow = window_cols < most_pixels && s.stride[2] < most_pixels;
  const int64_t span = narrow ? (p.block_cols - 1) * s.stride[2] + window_cols : most_pixels + 1;
  // Planes are read a vector of neighbouring columns at a time, which skipped columns hardly slow down.
  const int64_t reuse = max_of(S, s.layout == Layout::channels_first ? 4 : 1);
  p.joint_cols = span <= most_pixels && span <= reuse * p.block_cols;
  p.panel_cols = p.joint_cols ? span : p.block_cols;
  p.col_step = p.joint_cols ? 1 : s.stride[2];
  p.block_lines = max_of(1, min_of(kBlockPixels / p.block_cols, most_pixels / p.panel_cols));
  if (p.lines) {
    p.block_lines = ceil_div(p.lines, ceil_div(p.lines, p.block_lines));
    p.blocks = ceil_div(p.lines, p.block_lines) * p.col_blocks;
  }
  p.panel_lines = p.block_lines;
  const int64_t window_rows = (R - 1) * s.dilation[1] + 1;
  p.joint_rows = false;
  if (R > 1 && window_rows < most_pixels && s.stride[1] < most_pixels) {
    // A block may hold parts of several images, each with a margin of its own.
    const int64_t images = min_of(p.block_lines, ceil_div(p.block_lines, s.out[1]) + 1);
    const int64_t lines = p.block_lines * s.stride[1] + images * window_rows;
    p.joint_rows = lines * p.panel_cols <= most_pixels && lines <= 2 * R * p.block_lines;
    if (p.joint_rows) p.panel_lines = lines;
  }
}

Plan make_plan(const ConvShape& shape, int threads) {
  Plan p{};
  p.s = shape;
  const bool wide = shape.dtype == DType::f64;
  const int64_t item = accumulator_size(shape.dtype), lanes = wide ? kLanes<double> : kLanes<float>;
  // Not where it would leave a tile's registers empty.
  const bool merged = merge_pixels(p.s);
  p.product = merged && shape.group_in() >= min_of(shape.group_out(), 2 * lanes);
  if (p.product) {
    const int64_t inputs = p.s.C;
    p.s.C = p.s.K;
    p.s.K = inputs;
  }
  const ConvShape& s = p.s;
  const int64_t R = s.kernel[1], S = s.kernel[2];
  p.C = s.group_in();
  p.K = s.group_out();
  const bool stored = wide || s.dtype == DType::f32;
  p.in_place = merged && s.layout == Layout::channels_last && stored && p.K % lanes == 0 &&
               max_of(s.C, s.K) * item <= kInPlacePixel;
  p.width = p.K <= lanes ? lanes : 2 * lanes;
  p.k_tiles = ceil_div(p.K, p.width);
  p.pairs = s.G * p.k_tiles;
  plan_blocks(p);
  // Few channels would leave most of a register tile empty. Neighbouring pixels' channels follow each other in the
  // panel, so that (s, c) is one longer run of rows.
  p.fold = p.joint_cols && s.dilation[2] == 1 && 2 * p.C <= kTileRows && S <= 64 ? S : 1;
  p.rows_of_tap = p.fold * p.C;
  p.tap_columns = S / p.fold;
  p.taps = s.kernel[0] * R * p.tap_columns;

  const int64_t row_bytes = p.width * item, least_rows = p.fold > 1 ? p.rows_of_tap : 1;
  p.taps_chunk = min_of(p.taps, max_of(1, kAccumulatorBytes / (row_bytes * least_rows)));
  p.rows_chunk = min_of(p.rows_of_tap, max_of(least_rows, kAccumulatorBytes / row_bytes / p.taps_chunk));
  const int64_t pair_bytes = p.taps_chunk * p.rows_chunk * row_bytes;
  p.pairs_chunk = min_of(p.pairs, max_of(1, kAccumulatorBytes / pair_bytes));
  const double worth = s.flops() / kTaskFlops;
  const int64_t most_tasks = worth < 1 ? 1 : worth < kTasks ? int64_t(worth) : kTasks;
  const int64_t affordable = kPartitionBytes / (p.pairs_chunk * pair_bytes);
  p.partitions = max_of(1, min_of(min_of(affordable, kMostPartitions), min_of(p.blocks, most_tasks)));

  p.direct = p.product && p.partitions == 1 && stored;
  if (p.direct) {
    p.rows_chunk = p.rows_of_tap;
    p.pairs_chunk = p.pairs;
  }
  p.rows_task = p.fold > 1 ? p.rows_chunk : min_of(p.rows_chunk, max_of(kTileRows, kPanelValues / p.panel_pixels()));
  p.pairs_task = min_of(p.pairs_chunk, max_of(1, kPanelValues / (p.block_pixels() * p.width)));
  if (p.in_place) {
    p.rows_task = min_of(p.rows_chunk, kInPlaceChannels);
    p.pairs_task = min_of(p.pairs_chunk, kInPlaceChannels / p.width);
  }
  for (;;) {
    const int64_t pair_blocks = ceil_div(p.pairs_chunk, p.pairs_task), row_blocks = ceil_div(p.rows_chunk, p.rows_task);
    p.pairs_task = ceil_div(p.pairs_chunk, pair_blocks);
    p.rows_task = ceil_div(p.rows_chunk, row_blocks);
    if (p.partitions * pair_blocks * row_blocks >= most_tasks) break;
    const bool split_rows = p.fold == 1 && p.rows_task >= 2 * kTileRows;
    if (p.pairs_task > 1 && (!split_rows || p.pairs_task * p.width >= p.rows_task))
      p.pairs_task = ceil_div(p.pairs_task, 2);
    else if (split_rows)
      p.rows_task = ceil_div(p.rows_task, 2);
    else
      break;
  }

  const int64_t channels = p.fold > 1 ? p.C : p.rows_task;
  const int64_t slack = (ceil_div(channels, kTileRows) + 1) * 2 * lanes;
  if (!p.in_place) {
    p.x_values = round_up(p.panel_pixels() * channels + slack, 16);
    p.dy_values = round_up(min_of(p.pairs_task, p.k_tiles) * p.block_pixels() * p.width, 16);
  }
  p.sum_values = round_up(p.direct ? s.G * p.rows_of_tap * p.width : p.partitions * p.pairs_chunk * pair_bytes / item, 16);
  const int64_t left = kWorkspaceBytes - p.sum_values * item;
  p.team = int(max_of(1, min_of(threads, left / int64_t(p.thread_bytes(std::size_t(item))))));
  return p;
}

template <class T> class WeightGradient {
  typedef Accumulator<T> A;
  static constexpr int L = kLanes<A>;

 public:
  WeightGradient(const Plan& plan, const T* dy, const T* x, T* dw) : p(plan), s(plan.s), dy_(dy), x_(x), dw_(dw) {
    last_ = s.layout == Layout::channels_last;
    x_last_ = last_ && s.C > 1;  // one channel is a plane in both formats
    x_end_ = x + s.N * s.C * s.in_space();
    dy_end_ = dy + s.N * s.K * s.out_space();
    filter_ = s.taps();
  }

  void run(char* workspace) {
    sums_ = reinterpret_cast<A*>(workspace);
    scratch_ = workspace + std::size_t(p.sum_values) * sizeof(A);
    for (pair0_ = 0; pair0_ < p.pairs; pair0_ += p.pairs_chunk)
      for (row0_ = 0; row0_ < p.rows_of_tap; row0_ += p.rows_chunk)
        for (tap0_ = 0; tap0_ < p.taps; tap0_ += p.taps_chunk) {
          pairs_ = min_of(p.pairs_chunk, p.pairs - pair0_);
          rows_ = min_of(p.rows_chunk, p.rows_of_tap - row0_);
          taps_ = min_of(p.taps_chunk, p.taps - tap0_);
          const int64_t pair_blocks = ceil_div(pairs_, p.pairs_task), row_blocks = ceil_div(rows_, p.rows_task);
          parallel_for(p.team, p.partitions * pair_blocks * row_blocks, [&](int64_t task, int thread) {
            const int64_t rows = task % row_blocks, pairs = task / row_blocks % pair_blocks;
            accumulate(task / row_blocks / pair_blocks, pairs * p.pairs_task, rows * p.rows_task, thread);
          });
          if (p.direct && p.K % p.width == 0) continue;
          const int64_t parts = ceil_div(values_of_filter(), kStoreValues);
          parallel_for(p.team, pairs_ * parts, [&](int64_t task, int) {
            if (p.product) finish_rows(task / parts, task % parts * kStoreValues);
            else finish(task / parts, task % parts * kStoreValues);
          });
        }
  }

 private:
  static constexpr int64_t kStoreValues = 2048;
  // Channels-last pixels are cut into panels a few at a time: panel by panel, each would miss L1 and the page tables.
  static constexpr int64_t kPixelsAtOnce = 8;

  struct Panels {
    A *x, *dy;
    int64_t* row_pixel;
  };
  // Lines [line, line + lines) x columns [col, col + cols) of the output.
  struct Block {
    int64_t line, lines, col, cols;
  };

  A* sums(int64_t partition, int64_t pair, int64_t tap, int64_t row) const {
    if (p.direct) pair = (pair0_ + pair) / p.k_tiles;  // the last one of each group, which may not be whole
    return sums_ + (((partition * pairs_ + pair) * taps_ + tap) * rows_ + row) * p.width;
  }
  // Row `row` of the chunk, from the first of a pair's columns on, of the product.
  T* product_row(int64_t pair, int64_t row) const {
    const int64_t group = (pair0_ + pair) / p.k_tiles, k_tile = (pair0_ + pair) % p.k_tiles;
    return dw_ + (group * p.C + row0_ + row) * p.K + k_tile * p.width;
  }
  // Values of one output channel's filter that this chunk computes.
  int64_t values_of_filter() const { return rows_ * taps_; }

  // All blocks of a partition, for pairs [pair, + pairs_task) and rows [row, + rows_task) of the chunk.
  __attribute__((noinline)) void accumulate(int64_t partition, int64_t pair, int64_t row, int thread) {
    char* mine = scratch_ + std::size_t(thread) * p.thread_bytes(sizeof(A));
    Panels panels;
    panels.x = reinterpret_cast<A*>(mine);
    panels.dy = panels.x + p.x_values;
    panels.row_pixel = reinterpret_cast<int64_t*>(panels.dy + p.dy_values);
    const int64_t pair_end = min_of(pair + p.pairs_task, pairs_), rows = min_of(p.rows_task, rows_ - row);
    const int64_t first = partition * p.blocks / p.partitions, last = (partition + 1) * p.blocks / p.partitions;
    for (int64_t b = first; b < last; b++) {
      Block block;
      block.line = b / p.col_blocks * p.block_lines;
      block.lines = min_of(p.block_lines, p.lines - block.line);
      block.col = b % p.col_blocks * p.block_cols;
      block.cols = min_of(p.block_cols, s.out[2] - block.col);
      for (int64_t from = pair; from < pair_end;) {  // the pairs of one group at a time
        const int64_t group = (pair0_ + from) / p.k_tiles;
        const int64_t to = min_of(pair_end, (group + 1) * p.k_tiles - pair0_);
        if constexpr (sizeof(T) == sizeof(A))
          if (p.in_place) {
            products(block, group, partition, from, to, row, rows, b == first, b + 1 < last);
            from = to;
            continue;
          }
        pack_dy(block, group, (pair0_ + from) % p.k_tiles, to - from, panels.dy);
        for (int64_t t = 0; t < s.kernel[0]; t++)
          for (int64_t r = 0; r < (p.joint_rows ? 1 : s.kernel[1]); r++)
            for (int64_t c = 0; c < (p.joint_cols ? 1 : p.tap_columns); c++)
              panel_of_taps(block, group, panels, t, r, c, partition, from, to, row, rows, b == first);
        from = to;
      }
    }
  }

  // The one tap of a 1x1 filter, without panels. Meanwhile the next block comes into the cache, if there are `more`.
  void products(const Block& block, int64_t group, int64_t partition, int64_t pair, int64_t pair_end, int64_t row,
                int64_t rows, bool first, bool more) const {
    constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    const int64_t pixel = block.line * s.out[2] + block.col, column = (pair0_ + pair) % p.k_tiles * p.width;
    const T* const x = x_ + pixel * s.C + group * p.C + row0_ + row;
    const T* const dy = dy_ + pixel * s.K + group * p.K + column;
    const int64_t tiles = ceil_div(rows, kTileRows), sweeps = tiles * (pair_end - pair);
    const int64_t x_lines = ceil_div(rows, kLine);
    const int64_t lines = x_lines + ceil_div(min_of((pair_end - pair) * p.width, p.K - column), kLine);
    int64_t sweep = 0;
    for (int64_t i = pair; i < pair_end; i++) {
      const int64_t outputs = p.K - (pair0_ + i) % p.k_tiles * p.width;
      const bool straight = p.direct && outputs >= p.width;
      for (int64_t tile = 0; tile < tiles; tile++, sweep++) {
        const int64_t from = rows * tile / tiles, m = rows * (tile + 1) / tiles - from;
        PixelsInPlace<A> g{block.cols, s.C, s.K, {x, x}, {0, 0}};
        for (int h = 0; more && h < 2; h++) {
          const int64_t l = sweep + h * sweeps;
          if (l >= lines) break;
          g.ahead[h] = l < x_lines ? x + block.cols * s.C + l * kLine : dy + block.cols * s.K + (l - x_lines) * kLine;
          g.ahead_pitch[h] = l < x_lines ? s.C : s.K;
        }
        const TileInPlace<A> kernel = outputs > L ? in_place_kernel<A, 2>(m) : in_place_kernel<A, 1>(m);
        A* const to = straight ? product_row(i, row + from) : sums(partition, i, 0, row + from);
        kernel(g, x + from, dy + (i - pair) * p.width, to, straight ? p.K : p.width, first);
      }
    }
  }

  // The taps that one x panel serves: (t, r, c) alone, or all rows and / or columns of the filter from there.
  void panel_of_taps(const Block& block, int64_t group, const Panels& panels, int64_t t, int64_t r0, int64_t c0,
                     int64_t partition, int64_t pair, int64_t pair_end, int64_t row, int64_t rows, bool first) {
    const int64_t r1 = p.joint_rows ? s.kernel[1] : r0 + 1, c1 = p.joint_cols ? p.tap_columns : c0 + 1;
    const auto tap_of = [&](int64_t r, int64_t c) { return (t * s.kernel[1] + r) * p.tap_columns + c - tap0_; };
    if (tap_of(r1 - 1, c1 - 1) < 0 || tap_of(r0, c0) >= taps_) return;
    pack_x(block, group, panels, t, r0, c0, row0_ + row, rows);
    const int64_t tiles = ceil_div(rows, kTileRows);
    PixelRows g{panels.row_pixel, block.lines, block.cols, 0, 0};
    for (int64_t i = pair; i < pair_end; i++) {
      const int64_t outputs = p.K - (pair0_ + i) % p.k_tiles * p.width;
      const A* dy = panels.dy + (i - pair) * p.block_pixels() * p.width;
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t from = rows * tile / tiles, m = rows * (tile + 1) / tiles - from;
        const A* x = p.fold > 1 ? panels.x + from : tile_panel(panels, from, tile);
        g.pitch = p.fold > 1 ? p.C : m;
        g.step = p.joint_cols ? s.stride[2] * g.pitch : g.pitch;
        const TileSums<A> kernel = outputs > L ? tile_kernel<A, 2>(m) : tile_kernel<A, 1>(m);
        if constexpr (sizeof(T) == sizeof(A))
          if (p.direct && outputs >= p.width) {
            kernel(g, x, dy, product_row(i, row + from), p.K, first);
            continue;
          }
        for (int64_t r = r0; r < r1; r++)
          for (int64_t c = c0; c < c1; c++) {
            const int64_t tap = tap_of(r, c);
            if (tap < 0 || tap >= taps_) continue;
            const int64_t moved = (r - r0) * s.dilation[1] * p.panel_cols + (c - c0) * s.dilation[2];
            kernel(g, x + moved * g.pitch, dy, sums(partition, i, tap, row + from), p.width, first);
          }
      }
    }
  }

  // Asks for `values` of each of `pixels` pixels. Where they come from memory, no stream is long enough for hardware.
  static FC_INLINE void ask_for(const T* p, int64_t pitch, int64_t pixels, int64_t values) {
    for (int64_t j = 0; j < pixels; j++)
      for (int64_t i = 0; i < values; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(p + j * pitch + i, 0, 2);
  }

  A* tile_panel(const Panels& panels, int64_t row, int64_t tile) const {
    return panels.x + row * p.panel_pixels() + tile * 2 * L;
  }

  // k_tiles panels of the block, from panel k_tile of the group on, p.block_pixels() * p.width values apart.
  void pack_dy(const Block& block, int64_t group, int64_t k_tile, int64_t k_tiles, A* panels) const {
    const int64_t space = s.out_space(), lines_of_image = s.out[0] * s.out[1], end = block.line + block.lines;
    int64_t pixel = 0;
    for (int64_t l = block.line; l < end;) {
      // Whole lines of one image (channels-last: of all images) follow each other.
      int64_t lines = 1;
      if (p.col_blocks == 1) lines = last_ ? end - l : min_of(end - l, lines_of_image - l % lines_of_image);
      const int64_t first = l * s.out[2] + block.col, pixels = lines * block.cols;
      const int64_t chunk = last_ ? kPixelsAtOnce : pixels;
      for (int64_t j = 0; j < pixels; j += chunk) {
        if (last_ && j + chunk < pixels)
          ask_for(dy_ + (first + j + chunk) * s.K + group * p.K + k_tile * p.width, s.K, min_of(chunk, pixels - j - chunk),
                  min_of(k_tiles * p.width, p.K - k_tile * p.width));
        for (int64_t i = 0; i < k_tiles; i++) {
          const int64_t k = (k_tile + i) * p.width, outputs = min_of(p.width, p.K - k);
          const int64_t n = min_of(chunk, pixels - j), width = outputs > L ? 2 * L : L;
          A* to = panels + i * p.block_pixels() * p.width + (pixel + j) * width;
          if (last_)
            pack_pixels(dy_ + (first + j) * s.K + group * p.K + k, s.K, dy_end_, n, outputs, width, to);
          else
            pack_planes(dy_ + (l / lines_of_image * s.K + group * p.K + k) * space + first % space, space, 1, dy_end_,
                        n, outputs, width, to);
        }
      }
      pixel += pixels;
      l += lines;
    }
  }

  // Fills the x panel for taps from (t, r, c) on, rows [row, row + rows) of dw, and row_pixel.
  void pack_x(const Block& block, int64_t group, const Panels& panels, int64_t t, int64_t r, int64_t c, int64_t row,
              int64_t rows) const {
    const int64_t first_col = block.col * s.stride[2] - s.pad[2] + c * s.dilation[2];
    int64_t line_of_panel = 0;
    for (int64_t l = 0; l < block.lines;) {
      const int64_t p0 = (block.line + l) % s.out[1], image = (block.line + l) / s.out[1];
      const int64_t depth = image % s.out[0] * s.stride[0] - s.pad[0] + t * s.dilation[0];
      const int64_t lines = p.joint_rows ? min_of(block.lines - l, s.out[1] - p0) : 1;
      const int64_t height = p0 * s.stride[1] - s.pad[1] + r * s.dilation[1];
      const int64_t span = p.joint_rows ? (lines - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1 : 1;
      for (int64_t i = 0; i < lines; i++)
        panels.row_pixel[l + i] = (line_of_panel + i * s.stride[1]) * p.panel_cols;
      for (int64_t i = 0; i < span; i++)
        pack_line(panels, image / s.out[0], depth, height + i, first_col, line_of_panel + i, group, row, rows);
      line_of_panel += span;
      l += lines;
    }
  }

  __attribute__((noinline)) void pack_line(const Panels& panels, int64_t n, int64_t depth, int64_t height,
                                           int64_t first_col, int64_t line, int64_t group, int64_t row,
                                           int64_t rows) const {
    const bool inside = depth >= 0 && depth < s.in[0] && height >= 0 && height < s.in[1];
    // Panel columns [left, right) lie inside the input.
    const int64_t left = min_of(p.panel_cols, first_col < 0 ? ceil_div(-first_col, p.col_step) : 0);
    const int64_t room = s.in[2] - first_col;
    const int64_t right = inside && room > 0 ? max_of(left, min_of(p.panel_cols, ceil_div(room, p.col_step))) : left;
    const int64_t tiles = p.fold > 1 ? 1 : ceil_div(rows, kTileRows);
    const auto each_tile = [&](auto f) {
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t from = rows * tile / tiles, m = p.fold > 1 ? p.C : rows * (tile + 1) / tiles - from;
        f(tile_panel(panels, from, tile) + line * p.panel_cols * m, from, m);
      }
    };
    if (left)
      each_tile([&](A* panel, int64_t, int64_t m) { std::memset(panel, 0, std::size_t(left * m) * sizeof(A)); });
    const int64_t chunk = x_last_ ? kPixelsAtOnce : right - left;
    const int64_t first_pixel = ((n * s.in[0] + depth) * s.in[1] + height) * s.in[2] + first_col;
    for (int64_t j = left; j < right; j += chunk) {
      if (x_last_ && j + chunk < right)
        ask_for(x_ + (first_pixel + (j + chunk) * p.col_step) * s.C + group * p.C + (p.fold > 1 ? 0 : row),
                p.col_step * s.C, min_of(chunk, right - j - chunk), p.fold > 1 ? p.C : rows);
      each_tile([&](A* panel, int64_t from, int64_t m) {
        const int64_t channel = group * p.C + (p.fold > 1 ? 0 : row + from), n_pixels = min_of(chunk, right - j);
        if (x_last_) {
          pack_pixels(x_ + (first_pixel + j * p.col_step) * s.C + channel, p.col_step * s.C, x_end_, n_pixels, m, m,
                      panel + j * m);
        } else {
          const int64_t plane = (n * s.C + channel) * s.in[0] + depth;
          pack_planes(x_ + (plane * s.in[1] + height) * s.in[2] + first_col + j * p.col_step, s.in_space(), p.col_step,
                      x_end_, n_pixels, m, m, panel + j * m);
        }
      });
    }
    if (right < p.panel_cols)
      each_tile([&](A* panel, int64_t, int64_t m) {
        std::memset(panel + right * m, 0, std::size_t((p.panel_cols - right) * m) * sizeof(A));
      });
  }

  // Adds up the partitions and writes values [start, + kStoreValues) of the filters of one pair's output channels.
  __attribute__((noinline)) void finish(int64_t pair, int64_t start) const {
    const int64_t group = (pair0_ + pair) / p.k_tiles, k_tile = (pair0_ + pair) % p.k_tiles;
    const int64_t outputs = min_of(p.width, p.K - k_tile * p.width);
    const int64_t end = min_of(start + kStoreValues, values_of_filter());
    const int64_t of_channel = taps_ * p.fold, filter_values = p.C * filter_;
    T* filters = dw_ + (group * p.K + k_tile * p.width) * filter_values;
    const int64_t c0 = p.fold > 1 ? 0 : row0_, next_partition = pairs_ * taps_ * rows_ * p.width;
    for (int64_t i = start; i < end;) {
      int64_t c = i / of_channel, u = i % of_channel;
      T* out = filters + (c0 + c) * filter_ + tap0_ * p.fold + u;
      // The chunk's taps of neighbouring channels follow each other in dw only where they are all taps.
      int64_t n = min_of(L, end - i);
      if (of_channel != filter_) n = min_of(n, of_channel - u);
      const A* from[L];
      for (int64_t l = 0; l < n; l++) {
        from[l] = sums(0, pair, u / p.fold, u % p.fold * p.C + c);
        if (++u == of_channel) {
          u = 0;
          c++;
        }
      }
      for (int64_t k = 0; k < outputs; k += L) {
        Vec<A> v[L];
        for (int64_t l = 0; l < L; l++) {
          v[l] = Vec<A>{};
          if (l >= n) continue;
          const A* term = from[l] + k;
          v[l] = load(term);
          for (int64_t part = 1; part < p.partitions; part++) v[l] += load(term += next_partition);
        }
        transpose<A>(v);
        for (int64_t l = 0; l < min_of(L, outputs - k); l++) store_up_to(out + (k + l) * filter_values, v[l], n);
      }
      i += n;
    }
  }

  // The same for a product, whose tiles lie as dw does.
  void finish_rows(int64_t pair, int64_t start) const {
    const int64_t columns = min_of(p.width, p.K - (pair0_ + pair) % p.k_tiles * p.width);
    if (p.direct && columns == p.width) return;
    for (int64_t row = start; row < min_of(start + kStoreValues, rows_); row++) {
      T* const out = product_row(pair, row);
      const A* const from = sums(0, pair, 0, row);
      for (int64_t k = 0; k < columns; k += L) {
        Vec<A> v = load(from + k);
        for (int64_t part = 1; part < p.partitions; part++) v += load(from + part * pairs_ * rows_ * p.width + k);
        store_up_to(out + k, v, columns - k);
      }
    }
  }

  const Plan& p;
  const ConvShape& s;
  const T *dy_, *x_, *dy_end_, *x_end_;
  T* dw_;
  A* sums_ = nullptr;
  char* scratch_ = nullptr;
  bool last_, x_last_;
  int64_t filter_;
  int64_t pair0_ = 0, row0_ = 0, tap0_ = 0, pairs_ = 0, rows_ = 0, taps_ = 0;  // the chunk at work
};

}  // namespace

std::size_t backward_weight_workspace(const ConvShape& s, int threads) {
  if (s.depthwise()) return depthwise_workspace(s, ConvOp::backward_weight, threads);
  return make_plan(s, threads).bytes(std::size_t(accumulator_size(s.dtype)));
}

void conv_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  if (s.depthwise()) return depthwise_backward_weight(s, dy, x, dw, ctx);
  const int64_t values = s.K * s.group_in() * s.taps();
  if (values == 0) return;
  if (s.N == 0) {
    std::memset(dw, 0, std::size_t(values) * item_size(s.dtype));
    return;
  }
  const double bytes = double(item_size(s.dtype)) * (double(s.N) * double(s.C) * double(s.in_space()) + double(values));
  const int threads = ctx.threads_for(s.flops(), bytes);
  const ConvAlgorithm algorithm = select_conv(s, ConvOp::backward_weight).algorithm;
  if (algorithm == ConvAlgorithm::narrow) return narrow_backward_weight(s, dy, x, dw, threads, ctx);
  if (winograd_tile(algorithm) &&
      (winograd_holds(winograd_backward_weight(s, algorithm, dy, x, dw, threads, ctx)) || ctx.out_of_memory()))
    return;
  const Plan plan = make_plan(s, threads);
  char* workspace = static_cast<char*>(ctx.workspace(plan.bytes(std::size_t(accumulator_size(s.dtype)))));
  if (!workspace) return;
  with_type(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    const T *from_dy = static_cast<const T*>(dy), *from_x = static_cast<const T*>(x);
    const T *rows = plan.product ? from_dy : from_x, *columns = plan.product ? from_x : from_dy;
    WeightGradient<T>(plan, columns, rows, static_cast<T*>(dw)).run(workspace);
  });
}

}  // namespace fastconv::cpu::FC_ISA
