// Weight gradient of convolutions with few output channels: the pixels are the vector dimension, and a tile of sums,
// output channels x filter taps, shares each load of dy and of x. The tap products (conv_backward_weight.cpp) would fill
// a register with one output channel.
//
// A task packs blocks of dy and of some channels of x into planes as conv_narrow.h does, and adds every block's sums to
// its accumulator. What a partition of the blocks adds up, and the order, follow from the shape alone.
#include "conv_narrow_weight.h"

#include "conv_narrow.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Filter taps of a tile of `rows` output channels: sums, the values of dy and one of x fill the registers.
constexpr int narrow_taps(int rows) {
  const int most = (kRegisters - 1 - rows) / rows;
  return most < 9 ? most : 9;
}

// One block of output pixels, packed.
struct NarrowBlock {
  int64_t rows, cols;
  int64_t x_pitch, dy_pitch;   // between rows
  int64_t x_step, dy_step;     // between channels
};

// sums[k * sums_step + u] += sum over the block of dy[k] * x moved by offsets[u], k < Rows, u < Taps.
template <class A, int Rows, int Taps>
__attribute__((noinline)) void narrow_weight_tile(const NarrowBlock& b, const A* x, const int64_t* offsets, const A* dy,
                                                  A* sums, int64_t sums_step) {
  constexpr int L = kLanes<A>;
  Vec<A> sum[Rows * Taps];
#pragma GCC unroll 32
  for (int i = 0; i < Rows * Taps; i++) sum[i] = Vec<A>{};
  const auto add = [&](const A* from, const A* gradient, auto part) __attribute__((always_inline)) {
    Vec<A> g[Rows];
#pragma GCC unroll 8
    for (int k = 0; k < Rows; k++) g[k] = load(gradient + k * b.dy_step, part);
#pragma GCC unroll 9
    for (int u = 0; u < Taps; u++) {
      const Vec<A> value = load(from + offsets[u], part);
#pragma GCC unroll 8
      for (int k = 0; k < Rows; k++) sum[k * Taps + u] = multiply_add(g[k], value, sum[k * Taps + u]);
    }
  };
  const int64_t whole = b.cols / L * L;
  for (int64_t r = 0; r < b.rows; r++, x += b.x_pitch, dy += b.dy_pitch) {
    for (int64_t q = 0; q < whole; q += L) add(x + q, dy + q, Whole());
    if (whole < b.cols) add(x + whole, dy + whole, Part{b.cols - whole});
  }
#pragma GCC unroll 32
  for (int i = 0; i < Rows * Taps; i++) sums[i / Taps * sums_step + i % Taps] += sum_lanes<A>(sum[i]);
}

template <class A, int Rows>
void narrow_weight_taps(const NarrowBlock& b, int64_t taps, const A* x, const int64_t* offsets, const A* dy, A* sums,
                        int64_t sums_step) {
  constexpr int most = narrow_taps(Rows), some = most > 3 ? 3 : 2;
  int64_t u = 0;
  for (; u + most <= taps; u += most) narrow_weight_tile<A, Rows, most>(b, x, offsets + u, dy, sums + u, sums_step);
  for (; u + some <= taps; u += some) narrow_weight_tile<A, Rows, some>(b, x, offsets + u, dy, sums + u, sums_step);
  for (; u < taps; u++) narrow_weight_tile<A, Rows, 1>(b, x, offsets + u, dy, sums + u, sums_step);
}

struct NarrowWeightPlan {
  int64_t rows, cols;                          // of a block's output pixels
  int64_t pitch, plane, slice, channel_step;   // of the packed x
  int64_t dy_pitch, dy_step;
  int64_t channels, channel_blocks;            // of x in a task
  int64_t passes, tile_rows;                   // tiles of output channels
  int64_t row_blocks, col_blocks, blocks, partitions;
  int64_t sums, offset_bytes, sum_bytes, x_bytes, thread_bytes, total;
  int threads;
};

// Channels of x that a task takes: enough to pay for packing dy once more.
constexpr int64_t kNarrowWeightChannels = 32;
constexpr int64_t kNarrowPartitions = 8, kNarrowTasks = 16, kNarrowSumBytes = 4 << 20;

template <class A> NarrowWeightPlan narrow_weight_plan(const ConvShape& s, int threads) {
  NarrowWeightPlan p{};
  const int64_t item = sizeof(A), C = s.group_in(), K = s.group_out();
  p.passes = ceil_div(K, kNarrowRows<A>);
  p.tile_rows = ceil_div(K, p.passes);
  const auto span = [&](int d, int64_t n) { return (n - 1) * s.stride[d] + (s.kernel[d] - 1) * s.dilation[d] + 1; };
  const auto bytes = [&] {
    p.pitch = ceil_div(span(2, p.cols), s.stride[2]);
    p.plane = ceil_div(span(1, p.rows), s.stride[1]) * p.pitch + kLanes<A>;
    p.slice = p.plane * s.stride[1] * s.stride[2];
    p.channel_step = p.slice * s.kernel[0];
    return p.channels * p.channel_step * item;
  };
  p.rows = s.out[1];
  p.cols = s.out[2];
  p.channels = min_of(C, kNarrowWeightChannels);
  while (p.cols > 2 * kLanes<A> && p.cols > 512) p.cols = (p.cols + 1) / 2;
  while (bytes() > kNarrowBytes && p.rows > 4) p.rows = (p.rows + 1) / 2;
  while (bytes() > kNarrowBytes && p.channels > 1) p.channels = (p.channels + 1) / 2;
  while (bytes() > kNarrowBytes && p.rows > 1) p.rows = (p.rows + 1) / 2;
  while (bytes() > kNarrowBytes && p.cols > 2 * kLanes<A>) p.cols = (p.cols + 1) / 2;
  p.channel_blocks = ceil_div(C, p.channels);
  p.row_blocks = ceil_div(s.out[1], p.rows);
  p.col_blocks = ceil_div(s.out[2], p.cols);
  p.blocks = s.N * s.out[0] * p.row_blocks * p.col_blocks;
  p.dy_pitch = p.cols;
  p.dy_step = p.rows * p.dy_pitch + kLanes<A>;
  p.sums = s.K * C * s.taps();
  p.partitions = max_of(1, min_of(min_of(kNarrowPartitions, p.blocks),
                                  min_of(ceil_div(kNarrowTasks, s.G * p.channel_blocks), kNarrowSumBytes / (p.sums * item))));
  p.offset_bytes = aligned(s.taps() * 8);
  p.sum_bytes = aligned(p.partitions * p.sums * item);
  p.x_bytes = aligned(bytes() + kLanes<A> * item);
  p.thread_bytes = p.x_bytes + aligned((p.tile_rows * p.dy_step + kLanes<A>) * item);
  const int64_t shared = p.offset_bytes + p.sum_bytes;
  p.threads = int(max_of(1, min_of(threads, (kWorkspaceBytes - shared) / p.thread_bytes)));
  p.total = shared + p.threads * p.thread_bytes;
  return p;
}

template <class T>
void compute(const ConvShape& s, const T* dy, const T* x, T* dw, int threads, Context& ctx) {
  typedef Accumulator<T> A;
  const NarrowWeightPlan p = narrow_weight_plan<A>(s, threads);
  char* base = static_cast<char*>(ctx.workspace(std::size_t(p.total)));
  if (!base) return;
  int64_t* offsets = reinterpret_cast<int64_t*>(base);
  A* sums = reinterpret_cast<A*>(base + p.offset_bytes);
  char* own = base + p.offset_bytes + p.sum_bytes;
  for (int64_t t = 0, i = 0; t < s.kernel[0]; t++)
    for (int64_t r = 0; r < s.kernel[1]; r++)
      for (int64_t q = 0; q < s.kernel[2]; q++, i++) {
        const int64_t h = r * s.dilation[1], w = q * s.dilation[2];
        offsets[i] = t * p.slice + (h % s.stride[1] * s.stride[2] + w % s.stride[2]) * p.plane + h / s.stride[1] * p.pitch +
                     w / s.stride[2];
      }
  const int64_t C = s.group_in(), K = s.group_out();
  const bool x_last = s.layout == Layout::channels_last && s.C > 1, dy_last = s.layout == Layout::channels_last && s.K > 1;
  const T *x_end = x + s.N * s.C * s.in_space(), *dy_end = dy + s.N * s.K * s.out_space();

  parallel_for(p.threads, s.G * p.channel_blocks * p.partitions, [&](int64_t task, int thread) {
    const int64_t partition = task % p.partitions, group = task / p.partitions / p.channel_blocks;
    const int64_t c0 = task / p.partitions % p.channel_blocks * p.channels, channels = min_of(p.channels, C - c0);
    A* xs = reinterpret_cast<A*>(own + thread * p.thread_bytes);
    A* dys = reinterpret_cast<A*>(own + thread * p.thread_bytes + p.x_bytes);
    A* mine = sums + partition * p.sums + (group * K * C + c0) * s.taps();
    for (int64_t k = 0; k < K; k++) zero_fill(mine + k * C * s.taps(), channels * s.taps());
    for (int64_t i = p.blocks * partition / p.partitions; i < p.blocks * (partition + 1) / p.partitions; i++) {
      const int64_t w0 = i % p.col_blocks * p.cols, cols = min_of(p.cols, s.out[2] - w0), j = i / p.col_blocks;
      const int64_t h0 = j % p.row_blocks * p.rows, rows = min_of(p.rows, s.out[1] - h0);
      const int64_t depth = j / p.row_blocks % s.out[0], n = j / p.row_blocks / s.out[0];
      const int64_t first_w = w0 * s.stride[2] - s.pad[2];
      const int64_t width = (cols - 1) * s.stride[2] + (s.kernel[2] - 1) * s.dilation[2] + 1;
      const int64_t height = (rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
      const ChannelRows<T> x_rows(s.in[2], x_end, first_w, width, s.stride[2], p.plane);
      for (int64_t t = 0; t < s.kernel[0]; t++)
        for (int64_t r = 0; r < height; r++) {
          const int64_t z = depth * s.stride[0] - s.pad[0] + t * s.dilation[0], h = h0 * s.stride[1] - s.pad[1] + r;
          const bool inside = within(z, s.in[0]) && within(h, s.in[1]);
          A* to = xs + t * p.slice + r % s.stride[1] * s.stride[2] * p.plane + r / s.stride[1] * p.pitch;
          const int64_t at = (z * s.in[1] + h) * s.in[2], channel = group * C + c0;
          if (x_last)
            pack_row_planes<T, A>(inside ? x + (n * s.in_space() + at) * s.C + channel : nullptr, s.in[2], s.C, channels,
                                  first_w, width, s.stride[2], p.plane, p.channel_step, to);
          else
            x_rows(inside ? x + (n * s.C + channel) * s.in_space() + at : nullptr, s.in_space(), channels, to,
                   p.channel_step);
        }
      const ChannelRows<T> dy_rows(s.out[2], dy_end, w0, cols, 1, p.dy_pitch);
      for (int64_t k0 = 0; k0 < K; k0 += p.tile_rows) {
        const int64_t outputs = min_of(p.tile_rows, K - k0), k = group * K + k0;
        for (int64_t r = 0; r < rows; r++) {
          const int64_t at = (depth * s.out[1] + h0 + r) * s.out[2];
          if (dy_last)
            pack_row_planes<T, A>(dy + (n * s.out_space() + at) * s.K + k, s.out[2], s.K, outputs, w0, cols, 1,
                                  p.dy_pitch, p.dy_step, dys + r * p.dy_pitch);
          else
            dy_rows(dy + (n * s.K + k) * s.out_space() + at, s.out_space(), outputs, dys + r * p.dy_pitch, p.dy_step);
        }
        const NarrowBlock b{rows, cols, p.pitch, p.dy_pitch, p.channel_step, p.dy_step};
        with_narrow_rows<A>(outputs, [&](auto n_rows) {
          for (int64_t c = 0; c < channels; c++)
            narrow_weight_taps<A, decltype(n_rows)::count>(b, s.taps(), xs + c * p.channel_step, offsets, dys,
                                                           mine + (k0 * C + c) * s.taps(), C * s.taps());
        });
      }
    }
  });
  parallel_for(p.threads, s.K, [&](int64_t k, int) {
    const int64_t values = C * s.taps();
    for (int64_t i = k * values; i < (k + 1) * values; i++) {
      A total = sums[i];
      for (int64_t part = 1; part < p.partitions; part++) total += sums[part * p.sums + i];
      dw[i] = from_accumulator<T>(total);
    }
  });
}

}  // namespace

std::size_t narrow_weight_workspace(const ConvShape& s, int threads) {
  return std::size_t(s.dtype == DType::f64 ? narrow_weight_plan<double>(s, threads).total
                                           : narrow_weight_plan<float>(s, threads).total);
}

void narrow_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, int threads, Context& ctx) {
  with_type(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    compute<T>(s, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw), threads, ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
