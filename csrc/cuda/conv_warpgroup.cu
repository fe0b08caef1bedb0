// Convolution forward and its input gradient with the products of warpgroups: what they read is made ready first.
#include "conv.h"
#include "conv_prepare.cuh"
#include "slide_problem.cuh"

namespace fastconv::cuda {
namespace {

constexpr std::size_t kAlign = 256;
constexpr std::size_t rounded_up(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

constexpr int64_t kMostCopied = 512 << 20;  // bytes of copied images at once: one of them at least

int64_t copied_image_bytes(const ConvShape& s, bool gradient) {
  const int64_t channels = gradient ? s.group_out() : s.group_in();
  return (gradient ? s.out_space() : s.in_space()) * s.G * padded(channels) * int64_t(item_size(s.dtype));
}

// Where things lie in the workspace.
struct Scratch {
  int64_t wide, plane;        // channels of a group in eights; values of one part of the weights
  bool copies;                // of the image
  int64_t at_once;            // images that are copied at once
  std::size_t extremes, image, bytes;

  Scratch(const ConvShape& s, bool gradient, bool aligned) {
    const int64_t channels = gradient ? s.group_out() : s.group_in(), columns = gradient ? s.C : s.K;
    const bool wide_float = s.dtype == DType::f32;
    wide = padded(channels);
    plane = columns * s.taps() * wide;
    copies = s.layout != Layout::channels_last || wide != channels || !aligned;
    extremes = rounded_up(std::size_t(plane) * 2 * std::size_t(wide_float ? parts_of_float(s) : 1));
    image = extremes + rounded_up(wide_float ? std::size_t(columns) * sizeof(uint32_t) : 0);
    const int64_t one = copied_image_bytes(s, gradient);
    at_once = copies ? std::max<int64_t>(std::min(s.N, kMostCopied / std::max<int64_t>(one, 1)), 1) : s.N;
    bytes = image + (copies ? std::size_t(at_once * one) : 0);
  }
};

template <class T, int Parts>
void run(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b, const Epilogue& epilogue,
         void* y, Context& ctx) {
  using Problem = SlideProblem<T, true>;
  const Scratch scratch(s, gradient, is_aligned(source));
  char* memory = static_cast<char*>(ctx.workspace(scratch.bytes));
  if (!memory) return;
  auto* packed = reinterpret_cast<Half<T>*>(memory);
  auto* extremes = reinterpret_cast<uint32_t*>(memory + scratch.extremes);
  auto* image = reinterpret_cast<T*>(memory + scratch.image);

  int64_t rows, classes;
  Problem p = slide_problem<T, true>(s, gradient, source, w, b, epilogue, y, rows, classes);
  const int64_t channels = p.in_channels;
  const PlainWeights<T> weights{p.plain, p.weight_group, p.weight_in, p.weight_out, p.weight_tap};
  launch(ctx, "pack_parts", pack_parts_kernel<T, Parts>, p.groups * p.out_channels, kThreads, 2 * sizeof(int64_t),
         weights, p.out_channels, channels, scratch.wide, s.taps(), scratch.plane, packed, extremes);
  p.in_channels = scratch.wide;
  p.weight_in = 1;
  p.weight_tap = scratch.wide;
  p.weight_out = s.taps() * scratch.wide;
  p.aligned = is_aligned(y) && is_aligned(epilogue.add) && (p.output.image * int64_t(sizeof(T)) % 16 == 0 || s.N == 1);
  const auto with = [&](auto tile) {
    using Tile = decltype(tile);
    p.column_tiles = ceil_div(p.out_channels, Tile::BN);
    for (int64_t n = 0; n < s.N; n += scratch.at_once) {
      Problem q = p;
      q.images = std::min(scratch.at_once, s.N - n);
      q.row_tiles = ceil_div(rows / s.N * q.images, Tile::BM);
      if (scratch.copies) {
        q.gathered.data += n * q.gathered.image;
        channels_last(ctx, q.gathered, q.groups, channels, q.images, image);
        q.gathered = Image<T>(image, Layout::channels_last, q.groups * scratch.wide, q.gathered.size);
      }
      q.out += n * q.output.image;
      if (q.finish.add) q.finish.add += n * q.output.image;
      const WarpgroupArguments<Problem, Tile, Parts> a{q, packed, extremes, weights, channels, scratch.plane};
      run_warpgroup_gemm(ctx, gradient ? "conv_backward_input" : "conv_forward", a,
                         q.row_tiles * q.column_tiles * s.G * classes);
    }
  };
  constexpr int stages = Parts ? 2 : 3;
  if (p.out_channels <= 32) with(WarpgroupTile<32, 64, stages>());
  else if (p.out_channels <= 64) with(WarpgroupTile<64, 64, stages>());
  else with(WarpgroupTile<128, 64, stages>());
}

}  // namespace

void warpgroup_slide(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
                     const Epilogue& epilogue, void* y, Context& ctx) {
  with_parts(s, [&](auto tag, auto parts) {
    run<decltype(tag), decltype(parts)::value>(s, gradient, source, w, b, epilogue, y, ctx);
  });
}

bool warpgroups_copy_little(const ConvShape& s, bool gradient) {
  const bool in_place = s.layout == Layout::channels_last && (gradient ? s.group_out() : s.group_in()) % kEight == 0;
  return in_place || copied_image_bytes(s, gradient) <= kMostCopied;
}

std::size_t warpgroup_slide_workspace(const ConvShape& s, bool gradient) { return Scratch(s, gradient, true).bytes; }

}  // namespace fastconv::cuda
