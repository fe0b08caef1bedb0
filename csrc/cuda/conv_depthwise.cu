// Depthwise convolution of channels-last arrays: one thread serves 16 bytes of neighbouring channels.
//
// Forward and input gradient: a thread computes kOutputs neighbours along the width, so that a tap's weights are loaded
// once for all of them; weights lie by tap and channel, as accumulators. Weight gradient: a block takes a run of pieces
// of dy's lines for 32 channels and kTaps taps, a thread every so many of them; runs are added in order.
#include <algorithm>

#include "channel_reduce.cuh"
#include "conv.h"

namespace fastconv::cuda {
namespace {

constexpr int kOutputs = 4, kTaps = 9;

struct Side {  // of a convolution: x or y
  int32_t size[3], step[3], image;
  Side(const ConvShape& s, const int64_t* sizes) : size{int32_t(sizes[0]), int32_t(sizes[1]), int32_t(sizes[2])} {
    step[2] = int32_t(s.C);
    step[1] = step[2] * size[2];
    step[0] = step[1] * size[1];
    image = step[0] * size[0];
  }
};
struct Depthwise {
  Side x, y;
  int32_t N, C, kernel[3], stride[3], pad[3], dilation[3], taps;

  explicit Depthwise(const ConvShape& s)
      : x(s, s.in), y(s, s.out), N(int32_t(s.N)), C(int32_t(s.C)), taps(int32_t(s.taps())) {
    for (int d = 0; d < 3; d++) {
      kernel[d] = int32_t(s.kernel[d]);
      stride[d] = int32_t(s.stride[d]);
      pad[d] = int32_t(s.pad[d]);
      dilation[d] = int32_t(s.dilation[d]);
    }
  }
  // The position on the other side that a tap of position `at` meets, or -1.
  template <bool gradient> FC_DEVICE int32_t meets(int d, int32_t at, int32_t tap) const {
    if (!gradient) {
      const int32_t position = at * stride[d] - pad[d] + tap * dilation[d];
      return uint32_t(position) < uint32_t(x.size[d]) ? position : -1;
    }
    const int32_t distance = at + pad[d] - tap * dilation[d];
    if (distance < 0) return -1;
    const int32_t position = stride[d] == 1 ? distance : int32_t(uint32_t(distance) / uint32_t(stride[d]));
    return position * stride[d] == distance && position < y.size[d] ? position : -1;
  }
};
FC_DEVICE int32_t digit_of(int32_t& n, int32_t base) {
  if (base == 1) return 0;
  const int32_t rest = int32_t(uint32_t(n) / uint32_t(base)), digit = n - rest * base;
  n = rest;
  return digit;
}

template <class T>
__global__ void depthwise_weights_kernel(int64_t n, int64_t channels, int64_t taps, const T* w,
                                         Accumulator<T>* packed) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t tap = divide(i, channels), c = i - tap * channels;
  packed[i] = prim::to_accumulator(w[c * taps + tap]);
}

template <class T, bool gradient>
__global__ void __launch_bounds__(kThreads, 2)
    depthwise_kernel(Depthwise p, int64_t threads, bool aligned, const T* from, const Accumulator<T>* w, const T* bias,
                     Finish<T> finish, T* to) {
  using A = Accumulator<T>;
  constexpr int V = kVector<T>, width = V < kVector<A> ? V : kVector<A>;
  if (element() >= threads) return;
  const Side &own = gradient ? p.x : p.y, &other = gradient ? p.y : p.x;
  int32_t rest = int32_t(element());
  const int32_t channel = digit_of(rest, p.C / V) * V;
  const int32_t column = digit_of(rest, (own.size[2] + kOutputs - 1) / kOutputs) * kOutputs;
  const int32_t height = digit_of(rest, own.size[1]), depth = digit_of(rest, own.size[0]);
  const T* image = from + int64_t(rest) * other.image + channel;
  A sums[kOutputs][V] = {};
  int32_t tap = 0;
  for (int32_t t = 0; t < p.kernel[0]; t++) {
    const int32_t d = p.template meets<gradient>(0, depth, t);
    for (int32_t r = 0; r < p.kernel[1]; r++) {
      const int32_t h = d < 0 ? -1 : p.template meets<gradient>(1, height, r);
      if (h < 0) {
        tap += p.kernel[2];
        continue;
      }
      const T* line = image + d * other.step[0] + h * other.step[1];
      for (int32_t s = 0; s < p.kernel[2]; s++, tap++) {
        A weight[V];
#pragma unroll
        for (int j = 0; j < V; j += width) {
          const Pack<A, width> pack = load_pack<A, width>(w + int64_t(tap) * p.C + channel + j);
#pragma unroll
          for (int k = 0; k < width; k++) weight[j + k] = pack.v[k];
        }
#pragma unroll
        for (int o = 0; o < kOutputs; o++) {
          const int32_t v = p.template meets<gradient>(2, column + o, s);
          if (v < 0) continue;
          const Pack<T, V> pack = load_pack<T, V>(line + v * other.step[2], V, aligned);
#pragma unroll
          for (int j = 0; j < V; j++) sums[o][j] += prim::to_accumulator(pack.v[j]) * weight[j];
        }
      }
    }
  }
  int64_t at = int64_t(rest) * own.image + depth * own.step[0] + height * own.step[1] + column * own.step[2] + channel;
#pragma unroll
  for (int o = 0; o < kOutputs; o++, at += own.step[2]) {
    if (column + o >= own.size[2]) continue;
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; j++) {
      A sum = sums[o][j];
      if (bias) sum += prim::to_accumulator(bias[channel + j]);
      out.v[j] = prim::from_accumulator<T>(finish(sum, at + j));
    }
    store_pack<T, V>(to + at, out, V, aligned);
  }
}

// How dy is cut, by the shape alone: lines along the width into pieces, pieces into runs.
constexpr int kPiece = 16;
struct PiecePlan {
  int64_t per_line, pieces, tiles, tap_groups, run, runs;

  explicit PiecePlan(const ConvShape& s)
      : per_line(ceil_div(s.out[2], kPiece)), pieces(s.N * s.out[0] * s.out[1] * per_line),
        tiles(ceil_div(s.C, kLanes)), tap_groups(ceil_div(s.taps(), kTaps)) {
    const int64_t least = 64, wanted = std::max<int64_t>(8 * kProcessors / (tiles * tap_groups), 1);
    run = std::max(least, ceil_div(pieces, wanted));
    runs = std::max<int64_t>(ceil_div(pieces, run), 1);
  }
};

// Channels of a thread: sums of kTaps taps of more would fill its registers.
template <class T> constexpr int kGradientVector = sizeof(T) == 2 ? 4 : 2;

template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 2 : 1)
    depthwise_weight_kernel(Depthwise p, PiecePlan plan, bool aligned, const T* x, const T* dy, double* partials) {
  using A = Accumulator<T>;
  constexpr int V = kGradientVector<T>, across = kLanes / V, rows = kThreads / across;
  constexpr bool by_pieces = sizeof(T) == 4;  // float32: sums of pieces in float, their sum in double
  int64_t run = int64_t(blockIdx.x);
  const int32_t tap_group = int32_t(take_digit(run, plan.tap_groups)), tile = int32_t(take_digit(run, plan.tiles));
  const int32_t channel = tile * kLanes + int32_t(threadIdx.x) % across * V;
  const bool mine = channel < p.C;
  // What each tap adds to a position, depth, height and width.
  int32_t(*taps)[3] = reinterpret_cast<int32_t(*)[3]>(prim::shared_memory() + kSumBytes<V>);
  if (threadIdx.x < kTaps) {
    int32_t number = tap_group * kTaps + int32_t(threadIdx.x);
    const bool exists = number < p.taps;
    taps[threadIdx.x][2] = digit_of(number, p.kernel[2]) * p.dilation[2] - p.pad[2];
    taps[threadIdx.x][1] = digit_of(number, p.kernel[1]) * p.dilation[1] - p.pad[1];
    taps[threadIdx.x][0] = exists ? number * p.dilation[0] - p.pad[0] : INT32_MIN / 2;  // meets nothing
  }
  __syncthreads();
  int32_t across_tap[kTaps];
#pragma unroll
  for (int j = 0; j < kTaps; j++) across_tap[j] = taps[j][2];
  A sums[kTaps][V] = {};
  double wide[by_pieces ? kTaps : 1][V] = {};
  const int64_t end = (run + 1) * plan.run < plan.pieces ? (run + 1) * plan.run : plan.pieces;
  for (int64_t i = run * plan.run + int(threadIdx.x) / across; mine && i < end; i += rows) {
    int32_t rest = int32_t(i);
    const int32_t first = digit_of(rest, int32_t(plan.per_line)) * kPiece;
    const int32_t last = first + kPiece < p.y.size[2] ? first + kPiece : p.y.size[2];
    const int32_t height = digit_of(rest, p.y.size[1]), depth = digit_of(rest, p.y.size[0]);
    const T* gradient = dy + int64_t(rest) * p.y.image + depth * p.y.step[0] + height * p.y.step[1] + channel;
    const T* image = x + int64_t(rest) * p.x.image + channel;
    int32_t from[kTaps];
    uint32_t met = 0;
#pragma unroll
    for (int j = 0; j < kTaps; j++) {
      const int32_t d = depth * p.stride[0] + taps[j][0], h = height * p.stride[1] + taps[j][1];
      if (uint32_t(d) < uint32_t(p.x.size[0]) && uint32_t(h) < uint32_t(p.x.size[1])) met |= 1u << j;
      from[j] = d * p.x.step[0] + h * p.x.step[1] + across_tap[j] * p.x.step[2];
    }
    for (int32_t v = first; v < last; v++) {
      const Pack<T, V> g = load_pack<T, V>(gradient + v * p.y.step[2], V, aligned);
      const int32_t column = v * p.stride[2];
#pragma unroll
      for (int j = 0; j < kTaps; j++) {
        if (!(met >> j & 1) || uint32_t(column + across_tap[j]) >= uint32_t(p.x.size[2])) continue;
        const Pack<T, V> value = load_pack<T, V>(image + (from[j] + column * p.x.step[2]), V, aligned);
#pragma unroll
        for (int k = 0; k < V; k++) sums[j][k] += prim::to_accumulator(value.v[k]) * prim::to_accumulator(g.v[k]);
      }
    }
    if constexpr (by_pieces)
#pragma unroll
      for (int j = 0; j < kTaps; j++)
#pragma unroll
        for (int k = 0; k < V; k++) {
          wide[j][k] += double(sums[j][k]);
          sums[j][k] = 0;
        }
  }
#pragma unroll
  for (int j = 0; j < kTaps; j++) {
    double total[V];
#pragma unroll
    for (int k = 0; k < V; k++) total[k] = by_pieces ? wide[by_pieces ? j : 0][k] : double(sums[j][k]);
    block_sums<V>(total, true);
    const int32_t number = tap_group * kTaps + j;
    if (int(threadIdx.x) < across && mine && number < p.taps)
#pragma unroll
      for (int k = 0; k < V; k++) partials[(run * p.taps + number) * p.C + channel + k] = total[k];
  }
}

// 32 weights a block.
template <class T>
__global__ void depthwise_weight_sum_kernel(int64_t n, int64_t channels, int64_t taps, int64_t runs,
                                            const double* partials, T* dw) {
  const int64_t i = group_of_lane();
  double sum[1] = {0};
  if (i < n)
    for (int64_t t = int(threadIdx.x) / kLanes; t < runs; t += kRows) sum[0] += partials[t * n + i];
  block_sums<1>(sum, true);
  if (i >= n || !first_of_group()) return;
  const int64_t tap = divide(i, channels), c = i - tap * channels;
  dw[c * taps + tap] = prim::from_accumulator<T>(Accumulator<T>(sum[0]));
}

template <bool gradient>
void run(const ConvShape& s, const void* from, const void* w, const void* b, const Epilogue& epilogue, void* to,
         Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const int64_t weights = s.taps() * s.C;
    A* packed = static_cast<A*>(ctx.workspace(std::size_t(weights) * sizeof(A)));
    if (!packed) return;
    launch_elements(ctx, "depthwise_weights", depthwise_weights_kernel<T>, weights, weights, s.C, s.taps(),
                    static_cast<const T*>(w), packed);
    const int64_t* size = gradient ? s.in : s.out;
    const int64_t threads = s.N * size[0] * size[1] * ceil_div(size[2], kOutputs) * (s.C / kVector<T>);
    launch_elements(ctx, gradient ? "depthwise_backward_input" : "depthwise_forward", depthwise_kernel<T, gradient>,
                    threads, Depthwise(s), threads, all_aligned(from, to), static_cast<const T*>(from), packed,
                    static_cast<const T*>(b),
                    Finish<T>(epilogue), static_cast<T*>(to));
  });
}

}  // namespace

bool takes_depthwise(const ConvShape& s) {
  const int64_t vector = 16 / int64_t(item_size(s.dtype));
  int64_t reach = std::max(s.N * s.C * s.in_space(), s.N * s.C * s.out_space());
  for (int d = 0; d < 3; d++)
    reach = std::max(reach, s.C * (s.out[d] * s.stride[d] + s.kernel[d] * s.dilation[d] + s.in[d] + s.pad[d]));
  return s.group_in() == 1 && s.group_out() == 1 && s.layout == Layout::channels_last && s.C % vector == 0 &&
         reach < INT32_MAX / 2;
}

void depthwise_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue,
                       void* y, Context& ctx) {
  run<false>(s, x, w, b, epilogue, y, ctx);
}
void depthwise_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx) {
  run<true>(s, dy, w, b, Epilogue(), dx, ctx);
}

void depthwise_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  const PiecePlan plan(s);
  double* partials = static_cast<double*>(ctx.workspace(depthwise_weight_workspace(s)));
  if (!partials) return;
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = s.taps() * s.C;
    launch(ctx, "depthwise_backward_weight", depthwise_weight_kernel<T>, plan.tiles * plan.tap_groups * plan.runs,
           kThreads, kSumBytes<kGradientVector<T>> + sizeof(int32_t[kTaps][3]), Depthwise(s), plan,
           all_aligned(x, dy), static_cast<const T*>(x), static_cast<const T*>(dy),
           partials);
    launch_groups(ctx, "depthwise_weight_sum", depthwise_weight_sum_kernel<T>, n, n, s.C, s.taps(), plan.runs, partials,
                  static_cast<T*>(dw));
  });
}

std::size_t depthwise_workspace(const ConvShape& s) {
  return std::size_t(s.taps() * s.C) * (s.dtype == DType::f64 ? 8 : 4);
}
std::size_t depthwise_weight_workspace(const ConvShape& s) {
  return std::size_t(PiecePlan(s).runs * s.taps() * s.C) * sizeof(double);
}

}  // namespace fastconv::cuda
