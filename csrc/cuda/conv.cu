// Convolution forward, its input gradient and its weight gradient as implicit matrix products: on the ordinary cores,
// and forward and input gradient of channels-last arrays, but for float64, on tensor cores.
#include "conv.h"

#include <atomic>

#include "matrix_weight.cuh"
#include "slide_problem.cuh"
#include "weight_problem.cuh"

namespace fastconv::cuda {
namespace {

std::atomic<TileChoice> choice{TileChoice::by_shape};
using SmallMatrix = MatrixTile<64, 32, 3>;
using LargeMatrix = MatrixTile<128, 64, 3>;
template <class Tile> constexpr bool is_matrix_tile = false;
template <> constexpr bool is_matrix_tile<SmallMatrix> = true;
template <> constexpr bool is_matrix_tile<LargeMatrix> = true;

// ---- forward and input gradient ------------------------------------------------------------------------------------

template <class A> bool takes_large(int64_t rows, int64_t columns, int64_t parts) {
  const TileChoice c = choice.load();
  if (c != TileChoice::by_shape) return c == TileChoice::large;
  using Large = typename Tiles<A>::Large;
  return ceil_div(rows, Large::BM) * ceil_div(columns, Large::BN) * parts >= kProcessors;
}

// Tensor cores take 16 bytes of neighbouring channels at once, and weights whose channels are neighbours.
bool takes_matrix(const ConvShape& s, bool gradient) {
  const int64_t channels = gradient ? s.group_out() : s.group_in(), item = int64_t(item_size(s.dtype));
  return s.dtype != DType::f64 && s.layout == Layout::channels_last && channels * item % 16 == 0;
}
std::size_t packed_bytes(const ConvShape& s) { return std::size_t(s.K * s.group_in() * s.taps()) * item_size(s.dtype); }

// packed (group, out, tap, in) from weights of the problem's distances.
template <class T>
__global__ void pack_weights_kernel(SlideProblem<T, true> p, int64_t taps, int64_t n, T* packed) {
  const int64_t i = element();
  if (i >= n) return;
  int64_t group = i;
  const int64_t c = take_digit(group, p.in_channels), tap = take_digit(group, taps);
  const int64_t k = take_digit(group, p.out_channels);
  packed[i] = p.plain[group * p.weight_group + k * p.weight_out + c * p.weight_in + tap];
}

template <class T>
void slide_on_matrices(Context& ctx, const char* name, SlideProblem<T, true> p, int64_t taps, int64_t rows,
                       int64_t classes, int parts_of_value) {
  const int64_t n = p.groups * p.out_channels * taps * p.in_channels;
  T* packed = static_cast<T*>(ctx.workspace(std::size_t(n) * sizeof(T)));
  if (!packed) return;
  launch_elements(ctx, "pack_weights", pack_weights_kernel<T>, n, p, taps, n, packed);
  p.plain = packed;
  p.weight_tap = p.in_channels;
  p.weight_out = taps * p.in_channels;
  p.weight_group = p.out_channels * p.weight_out;
  p.weight_in = 1;
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    p.row_tiles = ceil_div(rows, Tile::BM);
    p.column_tiles = ceil_div(p.out_channels, Tile::BN);
    const int64_t blocks = p.row_tiles * p.column_tiles * classes;
    if constexpr (sizeof(T) == 2) run_matrix_gemm<Tile, 0>(ctx, name, p, blocks);
    else if (parts_of_value == 3) run_matrix_gemm<Tile, 3>(ctx, name, p, blocks);
    else if (parts_of_value == 2) run_matrix_gemm<Tile, 2>(ctx, name, p, blocks);
    else run_matrix_gemm<Tile, 1>(ctx, name, p, blocks);
  };
  if (takes_large<float>(rows, p.out_channels, classes)) run(LargeMatrix());
  else run(SmallMatrix());
}

template <class T, bool last>
void slide(Context& ctx, const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
           const Epilogue& epilogue, void* y) {
  int64_t rows, classes;
  SlideProblem<T, last> p = slide_problem<T, last>(s, gradient, source, w, b, epilogue, y, rows, classes);
  const char* name = gradient ? "conv_backward_input" : "conv_forward";
  if constexpr (last && sizeof(T) <= 4)
    if (takes_matrix(s, gradient))
      return slide_on_matrices(ctx, name, p, s.taps(), rows, s.G * classes, parts_of_float(s));
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    p.row_tiles = ceil_div(rows, Tile::BM);
    p.column_tiles = ceil_div(p.out_channels, Tile::BN);
    run_gather_gemm<Tile>(ctx, name, p, p.row_tiles * p.column_tiles * s.G * classes);
  };
  if (takes_large<Accumulator<T>>(rows, p.out_channels, s.G * classes))
    run(typename Tiles<Accumulator<T>>::Large());
  else run(typename Tiles<Accumulator<T>>::Small());
}

void slide(Context& ctx, const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
           const Epilogue& epilogue, void* y) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (s.layout == Layout::channels_last) slide<T, true>(ctx, s, gradient, source, w, b, epilogue, y);
    else slide<T, false>(ctx, s, gradient, source, w, b, epilogue, y);
  });
}

// ---- weight gradient -----------------------------------------------------------------------------------------------

struct WeightPlan {
  int64_t rows, pixels, split, splits;  // rows: taps x channels of a group; pixels of one split
  bool matrix, large;

  // matrix: on tensor cores, which take 8 neighbouring channels of either array at once.
  template <class A> static WeightPlan of(const ConvShape& s) {
    WeightPlan p{s.taps() * s.group_in(), s.N * s.out_space(), 0, 0, false, false};
    p.matrix = item_size(s.dtype) == 2 && s.layout == Layout::channels_last && s.group_in() % 8 == 0 &&
               s.group_out() % 8 == 0;
    p.large = takes_large<A>(p.rows, s.group_out(), s.G);
    const int64_t edge = p.large ? Tiles<A>::Large::BM : Tiles<A>::Small::BM;
    const int64_t high = !p.matrix ? edge : p.large ? LargeMatrix::BM : SmallMatrix::BM;
    const int64_t wide = !p.matrix ? edge : p.large ? LargeMatrix::BN : SmallMatrix::BN;
    const int64_t tiles = ceil_div(p.rows, high) * ceil_div(s.group_out(), wide) * s.G;
    const int64_t least = 256, wanted = ceil_div(2 * kProcessors, tiles);
    p.split = std::max(least, ceil_div(p.pixels, wanted));
    p.splits = ceil_div(p.pixels, p.split);
    return p;
  }
  std::size_t bytes(const ConvShape& s, std::size_t item) const {
    return std::size_t(splits * s.K * rows) * item;
  }
};

template <class T, bool last>
void weight_gradient(Context& ctx, const ConvShape& s, const void* dy, const void* x, void* dw) {
  using A = Accumulator<T>;
  const WeightPlan plan = WeightPlan::of<A>(s);
  A* partials = static_cast<A*>(ctx.workspace(plan.bytes(s, sizeof(A))));
  if (!partials) return;
  WeightProblem<T, last> p = weight_problem<T, last>(s, x, dy, partials, plan.split);
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    p.row_tiles = ceil_div(plan.rows, Tile::BM);
    p.column_tiles = ceil_div(s.group_out(), Tile::BN);
    const int64_t blocks = p.row_tiles * p.column_tiles * s.G * plan.splits;
    if constexpr (is_matrix_tile<Tile>) run_matrix_weight<Tile>(ctx, "conv_backward_weight", p, blocks);
    else run_gather_gemm<Tile>(ctx, "conv_backward_weight", p, blocks);
  };
  if (plan.matrix) {
    if constexpr (last && sizeof(T) == 2) {
      if (plan.large) run(LargeMatrix());
      else run(SmallMatrix());
    }
  } else if (plan.large) run(typename Tiles<A>::Large());
  else run(typename Tiles<A>::Small());
  sum_weights<T>(ctx, s, s.group_in(), s.group_out(), plan.splits, partials, dw);
}

}  // namespace

// Any tile but that by the shape means the kernels of every device. Of a weight gradient both arrays may be copied,
// whole. Of a sum of few products of float32 the parts that are left out would show.
bool takes_warpgroups(const ConvShape& s, ConvOp op) {
  constexpr int64_t most_copied = int64_t(8) << 30, least_products = 8;
  const bool weight = op == ConvOp::backward_weight, gradient = op == ConvOp::backward_input;
  bool takes = s.dtype != DType::f64 && choice.load() == TileChoice::by_shape && s.taps() <= kMostTapsInAll;
  int64_t products = weight ? s.N * s.out_space() : gradient ? s.group_out() : s.group_in();
  for (int d = 0; d < 3; d++) {
    takes = takes && s.kernel[d] <= kMostTaps[d];
    if (!weight) products *= gradient ? std::max<int64_t>(s.kernel[d] / s.stride[d], 1) : s.kernel[d];
  }
  takes = takes && (s.dtype != DType::f32 || products >= least_products);
  if (weight) takes = takes && int64_t(warpgroup_weight_workspace(s)) <= most_copied;
  else takes = takes && warpgroups_copy_little(s, gradient);
  return takes && has_warpgroups();
}

void set_tile_choice(TileChoice c) { choice.store(c); }
TileChoice tile_choice() { return choice.load(); }

void conv_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue, void* y,
                  Context& ctx) {
  if (takes_depthwise(s)) depthwise_forward(s, x, w, b, epilogue, y, ctx);
  else if (takes_direct(s)) direct_forward(s, x, w, b, epilogue, y, ctx);
  else if (takes_warpgroups(s, ConvOp::forward)) warpgroup_slide(s, false, x, w, b, epilogue, y, ctx);
  else slide(ctx, s, false, x, w, b, epilogue, y);
}

void conv_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx) {
  if (takes_depthwise(s)) depthwise_backward_input(s, dy, w, b, dx, ctx);
  else if (takes_direct(s)) direct_backward_input(s, dy, w, b, dx, ctx);
  else if (takes_warpgroups(s, ConvOp::backward_input)) warpgroup_slide(s, true, dy, w, b, Epilogue(), dx, ctx);
  else slide(ctx, s, true, dy, w, b, Epilogue(), dx);
}

void conv_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  if (takes_depthwise(s)) return depthwise_backward_weight(s, dy, x, dw, ctx);
  if (takes_direct(s)) return direct_backward_weight(s, dy, x, dw, ctx);
  if (takes_warpgroups(s, ConvOp::backward_weight)) return warpgroup_weight(s, dy, x, dw, ctx);
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (s.layout == Layout::channels_last) weight_gradient<T, true>(ctx, s, dy, x, dw);
    else weight_gradient<T, false>(ctx, s, dy, x, dw);
  });
}

void conv_plan(const ConvShape& s, ConvOp op, int, ConvPlan* plan) {
  plan->workspace = 0;
  plan->others = 0;
  plan->algorithm = ConvAlgorithm::direct;
  if (takes_depthwise(s)) {
    plan->kernel = "depthwise";
    plan->why = "16 bytes of neighbouring channels a thread, bound by memory";
    plan->workspace = op == ConvOp::backward_weight ? depthwise_weight_workspace(s) : depthwise_workspace(s);
    return;
  }
  if (takes_direct(s)) {
    plan->kernel = "direct";
    plan->why = "few channels a group: one thread a result, bound by memory";
    if (op == ConvOp::backward_weight) plan->workspace = direct_weight_workspace(s);
    return;
  }
  if (takes_warpgroups(s, op)) {
    const char* names[] = {"warpgroups", "warpgroups, one part", "warpgroups, two parts", "warpgroups, three parts"};
    const bool weight = op == ConvOp::backward_weight;
    plan->kernel = names[s.dtype == DType::f32 ? parts_of_float(s) : 0];
    plan->why = weight ? "tensor cores of sm_90a: tiles of taps by channels, runs of pixels added in order"
                       : "tensor cores of sm_90a: channels in eights, copied and padded where they are no neighbours";
    plan->workspace =
        weight ? warpgroup_weight_workspace(s) : warpgroup_slide_workspace(s, op == ConvOp::backward_input);
    return;
  }
  if (op != ConvOp::backward_weight) {
    const bool matrix = takes_matrix(s, op == ConvOp::backward_input);
    const char* split[] = {"tensor cores", "tensor cores, one part", "tensor cores, two parts",
                           "tensor cores, three parts"};
    plan->kernel = matrix ? split[s.dtype == DType::f32 ? parts_of_float(s) : 0] : "implicit matrix product";
    plan->why = matrix ? s.dtype == DType::f32
                             ? "channels-last arrays with a multiple of 4 channels to sum over, in bfloat16 parts"
                             : "16-bit channels-last arrays with a multiple of 8 channels to sum over"
                       : "tiles of pixels by channels on the ordinary cores, sums in ascending order";
    plan->workspace = matrix ? packed_bytes(s) : 0;
    return;
  }
  const bool wide = s.dtype == DType::f64;
  const WeightPlan weights =
      wide ? WeightPlan::of<double>(s) : WeightPlan::of<float>(s);
  plan->kernel = weights.matrix ? "tensor cores" : "implicit matrix product";
  plan->why = weights.matrix ? "16-bit channels-last arrays with multiples of 8 channels, runs of pixels added in order"
                             : "tiles of taps by channels on the ordinary cores, runs of pixels added in order";
  plan->workspace = weights.bytes(s, wide ? 8 : 4);
}

}  // namespace fastconv::cuda
