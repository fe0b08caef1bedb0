// Convolution with few output channels: the input gradient of a first layer, a network's last map, LeNet, small groups.
//
// The matrix kernels (conv_forward.cpp) hold output channels in registers, so that one output channel would fill a
// sixteenth of each. Here the output pixels are the vector dimension, in both memory formats, and the output channels of
// a tile share each load of the source. A task packs the source of a block of output rows into channel planes with their
// zero borders, rows and columns sorted by their remainder modulo the stride. A tap is then one offset, and neighbouring
// outputs lie next to each other from row to row: rows are run over as one line, which fills registers on narrow images,
// too, at the price of the taps - 1 results between two rows that nobody reads.
#pragma once
#include "conv_pack.h"
#include "conv_taps.h"
#include "depthwise_geometry.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
// Most output channels of a tile: with more, too few registers are left for the pixels that share a weight.
template <class A> constexpr int kNarrowRows = kLanes<A> / 2 > 2 ? kLanes<A> / 2 : 2;
// Registers of pixels in a tile of `rows` output channels: sums, sources and one weight fill the register file.
constexpr int narrow_vectors(int rows) {
  const int most = (kRegisters - 1) / (rows + 1);
  return most < 8 ? most : 8;
}
// Channels whose weights one task packs.
constexpr int64_t kPackedChannels = 64;
// The packed source of a task; all channels of a tile's source must fit in one piece.
constexpr int64_t kNarrowBytes = int64_t(192) << 10, kNarrowMost = int64_t(1) << 20;

// Sums of `Rows` output channels over V registers of pixels: one chain of fused multiply-adds for every result, in the
// order of channels and taps.
template <class A, int Rows, int V>
__attribute__((noinline)) void narrow_tile(const A* source, const int64_t* offsets, int64_t taps, int64_t channels,
                                           int64_t channel_step, const A* weights, A* out, int64_t pitch) {
  constexpr int L = kLanes<A>;
  Vec<A> sum[Rows][V];
#pragma GCC unroll 8
  for (int k = 0; k < Rows; k++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) sum[k][v] = Vec<A>{};
  for (int64_t c = 0; c < channels; c++, source += channel_step)
    for (int64_t t = 0; t < taps; t++, weights += Rows) {
      const A* from = source + offsets[t];
      Vec<A> x[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) x[v] = load(from + v * L);
#pragma GCC unroll 8
      for (int k = 0; k < Rows; k++) {
        const Vec<A> weight = broadcast(weights[k]);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) sum[k][v] = multiply_add(weight, x[v], sum[k][v]);
      }
    }
#pragma GCC unroll 8
  for (int k = 0; k < Rows; k++)
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) store(out + k * pitch + v * L, sum[k][v]);
}

// A line of at least `count` results for each of `Rows` output channels; up to two registers more are written.
template <class A, int Rows>
void narrow_line(int64_t count, const A* source, const int64_t* offsets, int64_t taps, int64_t channels,
                 int64_t channel_step, const A* weights, A* out, int64_t pitch) {
  constexpr int L = kLanes<A>, V = narrow_vectors(Rows);
  int64_t i = 0;
  for (; i + (V - 1) * L < count; i += V * L)
    narrow_tile<A, Rows, V>(source + i, offsets, taps, channels, channel_step, weights, out + i, pitch);
  for (; i < count; i += 2 * L)
    narrow_tile<A, Rows, 2>(source + i, offsets, taps, channels, channel_step, weights, out + i, pitch);
}

template <int n> struct NarrowRows { static constexpr int count = n; };

// Calls f(NarrowRows<n>()) for 1 <= n <= kNarrowRows<A>.
template <class A, class F> FC_INLINE void with_narrow_rows(int64_t n, F&& f) {
  static_assert(kNarrowRows<A> <= 8);
  if (n == 1) return f(NarrowRows<1>());
  if (n == 2) return f(NarrowRows<2>());
  if constexpr (kNarrowRows<A> >= 4) {
    if (n == 3) return f(NarrowRows<3>());
    if (n == 4) return f(NarrowRows<4>());
  }
  if constexpr (kNarrowRows<A> >= 8) {
    if (n == 5) return f(NarrowRows<5>());
    if (n == 6) return f(NarrowRows<6>());
    if (n == 7) return f(NarrowRows<7>());
    return f(NarrowRows<8>());
  }
}

struct NarrowBlocking {
  int64_t rows, cols;                      // output block of a task
  int64_t line_rows, pitch;                // of one plane: the rows (and columns) of one remainder modulo the stride
  int64_t plane, slice, channel_step;      // elements of a plane, of all planes of a slice, of all slices of a channel
  int64_t passes, tile_rows, tile_pitch;   // output channels: `passes` tiles of up to tile_rows
  int64_t tables_bytes, shared_bytes, source_bytes, thread_bytes, total;
  int threads;
};

template <class A> NarrowBlocking narrow_blocking(const TapProblem& p, int threads) {
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  NarrowBlocking b{};
  b.passes = ceil_div(p.columns, kNarrowRows<A>);
  b.tile_rows = ceil_div(p.columns, b.passes);
  const auto shape = [&](int64_t rows, int64_t cols) {
    b.rows = rows;
    b.cols = cols;
    b.line_rows = ceil_div(high.span(rows), high.unit);
    b.pitch = ceil_div(wide.span(cols), wide.unit);
    b.plane = b.line_rows * b.pitch + kLanes<A>;  // pack_row may write a register behind the last row
    b.slice = b.plane * high.unit * wide.unit;
    b.channel_step = b.slice * depth.taps;
    return p.channels * b.channel_step * int64_t(sizeof(A));
  };
  const int64_t wanted = threads > 1 ? 4 * threads : 1;
  const auto few = [&] {
    return p.N * p.groups * depth.count * ceil_div(high.count, b.rows) * ceil_div(wide.count, b.cols) < wanted;
  };
  int64_t rows = high.count, cols = wide.count, bytes = shape(rows, cols);
  while (rows > 1 && (bytes > kNarrowBytes || (few() && rows * cols > 512))) bytes = shape(rows = (rows + 1) / 2, cols);
  while (cols > 2 * kLanes<A> && (bytes > kNarrowBytes || (few() && cols > 512))) bytes = shape(rows, cols = (cols + 1) / 2);
  // Tiles read up to a tile of pixels behind the last result.
  constexpr int64_t slack = 8 * kLanes<A>;
  b.tile_pitch = round_up(b.rows * b.pitch, kLanes<A>) + 2 * kLanes<A>;
  b.tables_bytes = aligned(p.taps() * (1 + b.tile_rows) * 8);
  b.shared_bytes = b.tables_bytes + aligned(p.groups * p.channels * p.taps() * p.columns * int64_t(sizeof(A)));
  b.source_bytes = aligned(bytes + slack * int64_t(sizeof(A)));
  b.thread_bytes = b.source_bytes + aligned(b.tile_rows * b.tile_pitch * int64_t(sizeof(A)));
  b.threads = int(max_of(1, min_of(threads, (kWorkspaceBytes - b.shared_bytes) / b.thread_bytes)));
  b.total = b.shared_bytes + b.threads * b.thread_bytes;
  return b;
}

// One row of each of many channels, arranged as pack_row does. What lies in the image is found once for all of them.
template <class T> class ChannelRows {
  typedef Accumulator<T> A;
  static constexpr int64_t L = kLanes<A>, kSpans = 16;

 public:
  ChannelRows(int64_t size, const T* end, int64_t first, int64_t width, int64_t step, int64_t pitch)
      : size_(size), first_(first), width_(width), step_(step), pitch_(pitch), end_(end) {
    short_ = step == 1 && width <= kSpans * L;
    for (int64_t i = 0; short_ && i * L < width; i++) span_[i] = Span<A>(first + i * L, size);
  }
  void operator()(const T* row, int64_t channel_stride, int64_t channels, A* dst, int64_t channel_step) const {
    const int64_t registers = ceil_div(width_, L);
    for (int64_t c = 0; c < channels; c++, dst += channel_step, row += row ? channel_stride : 0)
      if (!short_) pack_row<T>(row, size_, end_, first_, width_, step_, pitch_, dst);
      else if (!row) zero_fill(dst, width_);
      else for (int64_t i = 0; i < registers; i++) store(dst + i * L, load_span(row, span_[i]));
  }

 private:
  int64_t size_, first_, width_, step_, pitch_;
  const T* end_;
  bool short_;
  Span<A> span_[kSpans];
};

// `channels` planes of one row of a channels-last image, arranged as pack_row does. `row` is pixel 0, its first channel.
template <class T, class A>
void pack_row_planes(const T* row, int64_t size, int64_t pixel_step, int64_t channels, int64_t first, int64_t width,
                     int64_t step, int64_t pitch, int64_t channel_step, A* dst) {
  constexpr int L = kLanes<A>;
  for (int64_t phase = 0; phase < step; phase++)
    for (int64_t i = phase, q = 0; i < width; i += L * step, q += L)
      for (int64_t c = 0; c < channels; c += L) {
        const int64_t n = min_of(L, channels - c);
        Vec<A> r[L];
        for (int64_t j = 0; j < L; j++) {
          const int64_t at = first + i + j * step;
          r[j] = row && i + j * step < width && within(at, size) ? load_up_to(row + at * pixel_step + c, n) : Vec<A>{};
        }
        transpose<A>(r);
        const int64_t valid = min_of(L, ceil_div(width - i, step));
        for (int64_t j = 0; j < n; j++) store_up_to(dst + (c + j) * channel_step + phase * pitch + q, r[j], valid);
      }
}

// `finish` is for outputs, whose step is 1.
template <class T, class A>
FC_INLINE void spread_row(const A* row, int64_t n, T* y, int64_t step, const Finish<T>& finish) {
  if (step == 1)
    for (int64_t i = 0; i < n; i += kLanes<A>) {
      const Vec<A> v = load(row + i);
      store_up_to(y + i, finish.wanted ? finish(v, i, n - i) : v, n - i);
    }
  else
    for (int64_t i = 0; i < n; i++) y[i * step] = from_accumulator<T>(row[i]);
}

// Rows of one output channel, `pitch` apart, -> rows that follow each other in y. What a row's last register writes behind
// it the next row replaces; only the last rows stop where they end. 1 -> 32 channels at 28x28, Zen 4: 10.6 us a call with
// each row by itself, 8.0 so.
template <class T, class A>
void join_rows(const A* from, int64_t pitch, int64_t rows, int64_t cols, Vec<A> shift, T* y) {
  constexpr int L = kLanes<A>;
  const int64_t width = round_up(cols, L);
  int64_t r = 0;
  for (; r * cols + width <= rows * cols; r++, from += pitch, y += cols)
    for (int64_t i = 0; i < width; i += L) store(y + i, load(from + i) + shift);
  for (; r < rows; r++, from += pitch, y += cols)
    for (int64_t i = 0; i < cols; i += L) store_up_to(y + i, load(from + i) + shift, cols - i);
}

// Rows of one output channel each -> channels-last pixels, `stride` elements apart.
template <class T, class A>
void spread_pixels(const A* rows, int64_t pitch, int64_t n, int64_t columns, T* y, int64_t stride,
                   const Finish<T>& finish) {
  constexpr int L = kLanes<A>;
  for (int64_t i = 0; i < n; i += L) {
    Vec<A> r[L];
    for (int64_t j = 0; j < L; j++) r[j] = j < columns ? load(rows + j * pitch + i) : Vec<A>{};
    transpose<A>(r);
    for (int64_t q = 0; q < min_of(L, n - i); q++) {
      if (finish.wanted) r[q] = finish(r[q], (i + q) * stride, columns);
      store_up_to(y + (i + q) * stride, r[q], columns);
    }
  }
}

template <class T>
void solve_narrow(TapProblem p, const T* x, const T* weights, const T* bias, const Finish<T>& finish, T* y, int threads,
                  Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t L = kLanes<A>;
  flatten_pointwise(p);
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  const NarrowBlocking b = narrow_blocking<A>(p, threads);
  char* base = static_cast<char*>(ctx.workspace(std::size_t(b.total)));
  if (!base) return;
  int64_t *offsets = reinterpret_cast<int64_t*>(base), *places = offsets + p.taps();
  A* packed = reinterpret_cast<A*>(base + b.tables_bytes);
  for (int64_t t = 0, i = 0; t < depth.taps; t++)
    for (int64_t r = 0; r < high.taps; r++)
      for (int64_t s = 0; s < wide.taps; s++, i++) {
        const int64_t h = r * high.step, w = s * wide.step;
        offsets[i] = t * b.slice + (h % high.unit * wide.unit + w % wide.unit) * b.plane + h / high.unit * b.pitch +
                     w / wide.unit;
      }
  // Weights by group, tile, channel, tap, output channel of the tile. `places` are those of one channel in its tile.
  for (int64_t k0 = 0; k0 < p.columns; k0 += b.tile_rows) {
    const int64_t rows = min_of(b.tile_rows, p.columns - k0), length = p.taps() * rows;
    for (int64_t t = 0, i = 0; t < depth.taps; t++)
      for (int64_t r = 0; r < high.taps; r++)
        for (int64_t s = 0; s < wide.taps; s++)
          for (int64_t k = 0; k < rows; k++, i++)
            places[i] = (k0 + k) * p.column_stride +
                        ((depth.weight_first + t * depth.weight_step) * p.kernel[1] + high.weight_first +
                         r * high.weight_step) * p.kernel[2] + wide.weight_first + s * wide.weight_step;
    parallel_for(b.threads, p.groups * ceil_div(p.channels, kPackedChannels), [&](int64_t task, int) {
      const int64_t blocks = ceil_div(p.channels, kPackedChannels), group = task / blocks;
      const int64_t c0 = task % blocks * kPackedChannels, c1 = min_of(c0 + kPackedChannels, p.channels);
      A* to = packed + (group * p.columns + k0) * p.channels * p.taps() + c0 * length;
      const T* from = weights + group * p.columns * p.channels * p.kernel_taps() + c0 * p.channel_stride;
      for (int64_t c = c0; c < c1; c++, from += p.channel_stride, to += length)
        for (int64_t i = 0; i < length; i++) to[i] = to_accumulator(from[places[i]]);
    });
  }

  const int64_t in_channels = p.groups * p.channels, out_channels = p.groups * p.columns;
  // One channel is the same memory in both formats.
  const bool source_last = p.layout == Layout::channels_last && in_channels > 1;
  const bool last = p.layout == Layout::channels_last && out_channels > 1;
  const int64_t source_space = depth.source * high.source * wide.source, space = depth.out * high.out * wide.out;
  const T* end = x + p.N * in_channels * source_space;
  const int64_t row_blocks = ceil_div(high.count, b.rows), col_blocks = ceil_div(wide.count, b.cols);
  parallel_for(b.threads, p.N * p.groups * depth.count * row_blocks * col_blocks, [&](int64_t task, int thread) {
    const int64_t w0 = task % col_blocks * b.cols, cols = min_of(b.cols, wide.count - w0);
    task /= col_blocks;
    const int64_t h0 = task % row_blocks * b.rows, rows = min_of(b.rows, high.count - h0);
    task /= row_blocks;
    const int64_t g0 = task % depth.count, group = task / depth.count % p.groups, n = task / depth.count / p.groups;
    A* source = reinterpret_cast<A*>(base + b.shared_bytes + thread * b.thread_bytes);
    A* tile = reinterpret_cast<A*>(base + b.shared_bytes + thread * b.thread_bytes + b.source_bytes);

    const int64_t first_w = w0 * wide.unit + wide.first, width = wide.span(cols), height = high.span(rows);
    const ChannelRows<T> pack_channels(wide.source, end, first_w, width, wide.unit, b.plane);
    for (int64_t t = 0; t < depth.taps; t++)
      for (int64_t i = 0; i < height; i++) {
        const int64_t z = g0 * depth.unit + depth.first + t * depth.step, h = h0 * high.unit + high.first + i;
        const bool inside = within(z, depth.source) && within(h, high.source);
        A* to = source + t * b.slice + i % high.unit * wide.unit * b.plane + i / high.unit * b.pitch;
        const int64_t at = (z * high.source + h) * wide.source;
        if (source_last) {
          const T* row = inside ? x + (n * source_space + at) * in_channels + group * p.channels : nullptr;
          pack_row_planes<T, A>(row, wide.source, in_channels, p.channels, first_w, width, wide.unit, b.plane,
                                b.channel_step, to);
          continue;
        }
        const T* row = inside ? x + (n * in_channels + group * p.channels) * source_space + at : nullptr;
        pack_channels(row, source_space, p.channels, to, b.channel_step);
      }

    for (int64_t k0 = 0; k0 < p.columns; k0 += b.tile_rows) {
      const int64_t tile_rows = min_of(b.tile_rows, p.columns - k0), k = group * p.columns + k0;
      with_narrow_rows<A>(tile_rows, [&](auto n_rows) {
        narrow_line<A, decltype(n_rows)::count>((rows - 1) * b.pitch + cols, source, offsets, p.taps(), p.channels,
                                                b.channel_step, packed + k * p.channels * p.taps(), tile, b.tile_pitch);
      });
      // Rows without anything between them, and without an epilogue, which reads what lies behind a row.
      if (!last && cols == wide.out && high.out_step == 1 && !finish.wanted) {
        for (int64_t j = 0; j < tile_rows; j++) {
          const A shift = bias ? A(to_accumulator(bias[k + j])) : -A(0);  // adding -0 changes nothing
          const int64_t plane = (n * out_channels + k + j) * space;
          join_rows<T, A>(tile + j * b.tile_pitch, b.pitch, rows, cols, broadcast(shift),
                          y + plane + ((depth.out_start + g0 * depth.out_step) * high.out + high.out_start + h0) * cols);
        }
        continue;
      }
      if (bias)
        for (int64_t j = 0; j < tile_rows; j++) {
          const Vec<A> shift = broadcast(A(to_accumulator(bias[k + j])));
          A* row = tile + j * b.tile_pitch;
          for (int64_t i = 0; i < rows * b.pitch; i += L) store(row + i, load(row + i) + shift);
        }
      for (int64_t r = 0; r < rows; r++) {
        const A* row = tile + r * b.pitch;
        const int64_t at = ((depth.out_start + g0 * depth.out_step) * high.out + high.out_start +
                            (h0 + r) * high.out_step) * wide.out + wide.out_start + w0 * wide.out_step;
        if (last) {
          const int64_t to = (n * space + at) * out_channels + k;
          spread_pixels<T, A>(row, b.tile_pitch, cols, tile_rows, y + to, wide.out_step * out_channels, finish.behind(to));
        } else {
          for (int64_t j = 0; j < tile_rows; j++) {
            const int64_t to = (n * out_channels + k + j) * space + at;
            spread_row<T, A>(row + j * b.tile_pitch, cols, y + to, wide.out_step, finish.behind(to));
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
