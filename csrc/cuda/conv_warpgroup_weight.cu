// The weight gradient with the products of warpgroups: what they read is made ready first.
#include "conv.h"
#include "conv_prepare.cuh"
#include "warpgroup_weight.cuh"

namespace fastconv::cuda {
namespace {

constexpr int64_t kStore = 640, kMostSplits = 264, kLeastPixels = 256;

// How the sum is cut, and where things lie in the workspace.
struct Plan {
  int64_t channels, columns;  // of a group, in eights
  int64_t rows, pixels, split, splits;
  bool narrow, copies_x, copies_dy;
  std::size_t x, dy, bytes;

  Plan(const ConvShape& s, bool x_aligned, bool dy_aligned) {
    channels = padded(s.group_in());
    columns = padded(s.group_out());
    rows = s.taps() * channels;
    pixels = s.N * s.out_space();
    narrow = columns <= 64;
    const int64_t tiles = ceil_div(rows, 128) * ceil_div(columns, narrow ? 64 : 128) * s.G;
    // Blocks run in waves, and storing a tile takes as long as kStore pixels: the cut of the shortest time.
    const int64_t room = (s.dtype == DType::f32 ? 1 : 2) * kProcessors;
    int64_t best = INT64_MAX;
    for (int64_t n = 1; n <= kMostSplits && (n == 1 || pixels / n >= kLeastPixels); n++) {
      const int64_t of_one = ceil_div(pixels, n), time = ceil_div(tiles * n, room) * (of_one + kStore);
      if (time >= best) continue;
      best = time;
      split = of_one;
    }
    splits = ceil_div(pixels, split);
    const bool last = s.layout == Layout::channels_last;
    copies_x = !last || channels != s.group_in() || !x_aligned;
    copies_dy = !last || columns != s.group_out() || !dy_aligned;
    const std::size_t item = item_size(s.dtype);
    x = std::size_t(splits * s.G * columns * rows) * sizeof(float);  // a multiple of 256 bytes
    dy = x + (copies_x ? (std::size_t(s.N * s.in_space() * s.G * channels) * item + 255) / 256 * 256 : 0);
    bytes = dy + (copies_dy ? std::size_t(pixels * s.G * columns) * item : 0);
  }
};

template <class T, int Parts>
void run(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  using Problem = WeightProblem<T, true>;
  const Plan plan(s, is_aligned(x), is_aligned(dy));
  char* memory = static_cast<char*>(ctx.workspace(plan.bytes));
  if (!memory) return;
  float* partials = reinterpret_cast<float*>(memory);
  Problem p = weight_problem<T, true>(s, x, dy, partials, plan.split);
  const auto copied = [&](const Image<T>& from, int64_t channels, std::size_t at) {
    T* to = reinterpret_cast<T*>(memory + at);
    channels_last(ctx, from, s.G, channels, s.N, to);
    return Image<T>(to, Layout::channels_last, s.G * padded(channels), from.size);
  };
  if (plan.copies_x) p.gathered = copied(p.gathered, s.group_in(), plan.x);
  if (plan.copies_dy) p.gradient = copied(p.gradient, s.group_out(), plan.dy);
  p.plain = p.gradient.data;
  p.in_channels = plan.channels;
  p.out_channels = plan.columns;
  p.rows = plan.rows;
  const auto with = [&](auto tile) {
    using Tile = decltype(tile);
    p.row_tiles = ceil_div(plan.rows, Tile::BM);
    p.column_tiles = ceil_div(plan.columns, Tile::BN);
    launch(ctx, "conv_backward_weight", warpgroup_weight_kernel<Problem, Tile, Parts>,
           p.row_tiles * p.column_tiles * s.G * plan.splits, Tile::kThreads,
           sizeof(WarpgroupWeightMemory<Problem, Tile, Parts>), p);
  };
  constexpr int steps = Parts ? 32 : 64, stages = Parts ? 2 : 3;
  if (plan.narrow) with(WarpgroupTile<64, steps, stages>());
  else with(WarpgroupTile<128, steps, stages>());
  sum_weights<T>(ctx, s, plan.channels, plan.columns, plan.splits, partials, dw);
}

}  // namespace

void warpgroup_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  with_parts(s, [&](auto tag, auto parts) { run<decltype(tag), decltype(parts)::value>(s, dy, x, dw, ctx); });
}

std::size_t warpgroup_weight_workspace(const ConvShape& s) { return Plan(s, true, true).bytes; }

}  // namespace fastconv::cuda
