// The problem that the direct engine solves, and how it is cut into blocks.
//
//   y(n, k, g0, g1, g2) = bias(k) + sum over taps t and channels c of
//                         x(n, c, g * unit + first + t * step) * weight(k, c, weight_first + t * weight_step)
//
// with grid points g on each of the three axes, x zero outside its bounds. A convolution is one such problem. Its
// input gradient is one per phase (position modulo stride): every phase is a stride-1 problem on dy with the taps that
// hit it.
//
// Blocks: a task takes `images` images, one depth, `rows` x `cols` grid points. Their source pixels lie channels-last
// in scratch (L2-sized, zero borders included), or stay in place where the array already is that. For each panel of
// kTileColumns output channels and each chunk of the reduction (L1-sized), tiles of 2 x group_rows pixels run through.
#pragma once
#include "../ops.h"
#include "../packed_weight.h"
#include "gemm.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

struct TapAxis {
  int64_t count, unit;                       // grid points; source step between them
  int64_t taps, first, step;                 // source shift of tap t: first + t * step, step >= 0
  int64_t weight_first, weight_step;         // kernel index of tap t
  int64_t source;                            // size of the source
  int64_t out_start, out_step, out;          // output index of grid point i: out_start + i * out_step, of `out`
  int64_t span(int64_t points) const { return span(points, unit); }
  int64_t span(int64_t points, int64_t unit_of_block) const {
    return (points - 1) * unit_of_block + (taps - 1) * step + 1;
  }
};

struct TapProblem {
  TapAxis axis[3];
  int64_t N, groups;
  int64_t channels, columns;                 // reduction and output channels of one group
  int64_t column_stride, channel_stride;     // of the weights
  int64_t kernel[3];
  Layout layout;
  bool same_type;                            // storage type is the accumulator type: no conversion, may stay in place
  bool flattened;                            // a matrix product: all pixels lie on axis 2
  bool adds;                                 // the epilogue adds an array

  int64_t taps() const { return axis[0].taps * axis[1].taps * axis[2].taps; }
  int64_t kernel_taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t depth() const { return taps() * channels; }   // of the reduction
};

// 1x1 filters read as many short rows at once as a tile has, which no hardware prefetcher runs ahead of: from sources of
// kFarBytes on, in rows of kFarRow, the next tile's are asked for, a cache line of each row every 16 steps. 8 images,
// arrays from memory, 2 threads and 1 (Zen 4): 144 -> 24 channels at 56x56 1.9 times as fast, 32 -> 16 at 112x112 1.5,
// 192 -> 32 at 28x28 1.6, 256 -> 64 1.25, 512 and more 1.0 to 1.05; the same arrays again and again 1.13 over ten layers.
// All of it at the tile's beginning was worth a third of that, and rows of 96 bytes lose 3 to 7 %.
constexpr int64_t kFarBytes = 1 << 20, kFarRow = 128;
// A scratch block of this size leaves room for a weight chunk and the output in a 2 MB L2.
constexpr int64_t kScratchBytes = int64_t(512) << 10;
// Reduction steps of one chunk: 256 x 32 columns x 4 bytes = 32 KB of weights in a 48 KB L1. On AVX2, 512 x 16 columns:
// fewer sums that are stored and loaded again, 1.04 times as fast as 256 on 13 layers (Zen 3, 32 KB of L1).
constexpr int64_t kChunkSteps = FC_VECTOR_BYTES == 32 ? 512 : 256;
// Packed weights of one pass; larger layers take several passes over the input.
constexpr int64_t kPanelBytes = int64_t(12) << 20;
// Panels that a task packs for itself must stay in its L2 cache until they are used.
constexpr int64_t kOwnPanelBytes = int64_t(768) << 10;
// Panels packed together where the weights of neighbouring output channels are neighbours: 1 KB of each row at a time.
constexpr int64_t kOwnPanels = 8;
// All scratch of one call stays below this, with fewer threads if need be.
constexpr int64_t kWorkspaceBytes = int64_t(31) << 20;

struct Blocking {
  bool in_place;        // tiles read the caller's array
  bool gathered;        // scratch holds a segment of pixels per tap, for kernels whose span would not fit
  bool folded;          // taps along the width and channels form one contiguous run
  bool joined;          // the pixels of a block are one line, in scratch as in the output
  int64_t images, rows, cols, group_rows;
  int64_t high_unit, wide_unit;                         // lines and pixels of the source block between grid points
  int64_t pitch;                                        // between pixels, in elements
  int64_t row_pitch, slice_pitch, image_pitch;          // of the source block
  int64_t scratch_elements, pixels;
  int64_t panel_columns, panels_per_group, panels_per_pass, parts;
  bool own_panels;                                      // a task packs the panels that it alone uses
  bool by_panels;                                       // a thread keeps to a part of the panels, those that it packed
  bool kept_panels;                                     // they are a frozen weight's packed form
  int64_t own_steps, own_count;                         // reduction steps and panels that it packs at a time
  int64_t run_capacity;
  int64_t image_blocks, row_blocks, col_blocks;
  int threads;
};

// The size of even parts of a total, as many of them as parts of this size would be: of 8 in parts of 7, 4 and 4.
FC_INLINE int64_t even_part(int64_t total, int64_t size) { return total ? ceil_div(total, ceil_div(total, size)) : size; }

FC_INLINE int64_t best_group_rows(int64_t cols) {
  int64_t best = 1, best_cost = 0;
  for (int64_t g = 1; g <= kGroupRows; g++) {
    // Rows computed, plus the loads of weights that narrow tiles repeat (about 1 / (2 g) of the work of a tile).
    const int64_t cost = ceil_div(cols, g) * (8 * g + 4);
    if (g == 1 || cost <= best_cost) {
      best = g;
      best_cost = cost;
    }
  }
  return best;
}

// A 1x1 problem without padding is a matrix product: all pixels of an image (and, channels last, of the batch) become
// one row.
FC_INLINE void flatten_pointwise(TapProblem& p) {
  for (const TapAxis& a : p.axis)
    if (a.taps != 1 || a.unit != 1 || a.first != 0 || a.out_step != 1 || a.count != a.source || a.count != a.out) return;
  int64_t pixels = p.axis[0].count * p.axis[1].count * p.axis[2].count;
  if (pixels == 1) p.layout = Layout::channels_last;  // both layouts are the same memory
  if (p.layout == Layout::channels_last) {
    pixels *= p.N;
    p.N = 1;
  }
  for (int d = 0; d < 2; d++) p.axis[d].count = p.axis[d].source = p.axis[d].out = 1;
  p.axis[2].count = p.axis[2].source = p.axis[2].out = pixels;
  p.flattened = true;
}

template <class A> Blocking choose_blocking(const TapProblem& p, int threads) {
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  Blocking b{};
  b.group_rows = best_group_rows(wide.count);
  bool inside = true;
  for (const TapAxis& a : p.axis) inside = inside && a.first >= 0 && a.first + a.span(a.count) <= a.source;
  // Pixels a multiple of 4 KB apart share one L1 set, which holds fewer lines than a tile has rows: copied, they do
  // not.
  const bool last = p.layout == Layout::channels_last;
  const bool spread = wide.unit * p.groups * p.channels * int64_t(sizeof(A)) % 4096 != 0;
  // Where rows of pixels are one line, its end alone may be no whole group (TileColumn::exact): against copies of their
  // pixels 26 such layers with 16 to 960 channels are 1.09 times as fast with one image and 2 threads, 1.05 with one
  // thread, 960 -> 160 at 7x7 1.26; with 8 images 1.0. But more output channels with a sum are 0.87 to 1.0 (Zen 3), and
  // of few pixels the end is much.
  const bool line = p.flattened && wide.count >= 16 * b.group_rows && !(p.adds && p.columns >= 2 * p.channels);
  b.in_place = p.same_type && last && inside && spread && (line || wide.count % b.group_rows == 0);
  // What a stride passes over on its way from one filter tap to the next is not copied.
  b.high_unit = high.taps == 1 && !b.in_place ? 1 : high.unit;
  b.wide_unit = wide.taps == 1 && !b.in_place && (last || wide.unit == 2) ? 1 : wide.unit;
  b.folded = wide.step == 1 && wide.taps > 1 && p.channels < 128 && (!b.in_place || p.groups == 1);
  b.images = 1;
  b.rows = high.count;
  b.cols = wide.count;
  b.pitch = b.in_place ? p.groups * p.channels : p.channels;
  // Pixels a multiple of 2 KB apart share two L1 sets; 64 bytes more spread them.
  if (!b.in_place && !b.folded && p.channels * int64_t(sizeof(A)) % 2048 == 0) b.pitch += 64 / int64_t(sizeof(A));

  const auto scratch = [&](int64_t rows, int64_t cols) {
    return depth.taps * high.span(rows, b.high_unit) * wide.span(cols, b.wide_unit) * b.pitch * int64_t(sizeof(A));
  };
  const auto segment = [&](int64_t cols) {
    return p.taps() * ((cols - 1) * b.wide_unit + 1) * b.pitch * int64_t(sizeof(A));
  };
  // The block must leave a few tasks per thread, but not fewer pixels than weights are worth loading for.
  // Of 1x1 layers, whose blocks share no borders, more: a core that is taken away for a moment then leaves less undone, and
  // the output stays in the L2 cache (ResNet-50, 12 layers, 8 images: 1.03 with 16 for each thread, 1.01 with 32).
  const int64_t few = threads > 1 ? 4 * threads : 1, wanted = p.taps() == 1 ? 4 * few : few;
  const auto tasks = [&] { return p.N * depth.count * ceil_div(high.count, b.rows) * ceil_div(wide.count, b.cols); };
  while (b.rows > 1 && (scratch(b.rows, b.cols) > kScratchBytes || (tasks() < wanted && b.rows * b.cols > 112)))
    b.rows = (b.rows + 1) / 2;
  const int64_t step = 2 * b.group_rows;
  while (b.cols > step && (scratch(b.rows, b.cols) > kScratchBytes || (tasks() < wanted && b.cols > 112)))
    b.cols = max_of(step, round_up((b.cols + 1) / 2, step));
  if (!b.in_place && scratch(b.rows, b.cols) > 2 * kScratchBytes && segment(b.cols) < scratch(b.rows, b.cols)) {
    b.gathered = true;
    b.folded = false;
    b.rows = 1;
    b.cols = wide.count;
    while (b.cols > 1 && segment(b.cols) > kScratchBytes) b.cols = (b.cols + 1) / 2;
    b.group_rows = best_group_rows(b.cols);
  }
  // Small images: several per block, so that each load of the weights serves more pixels.
  if (!b.in_place && !b.gathered && b.rows == high.count && b.cols == wide.count)
    while (b.images < p.N && b.images * b.rows * b.cols < 56 &&
           (b.images + 1) * scratch(b.rows, b.cols) <= kScratchBytes && ceil_div(p.N, b.images + 1) >= threads)
      b.images++;
  b.images = even_part(p.N, b.images);

  // One tap of a stride: what is copied has no gaps, so groups of pixels need not end where rows do (AVX2, groups of 3:
  // 1024 -> 2048 channels, 7 outputs a row, 1.11 times as fast).
  b.joined = !b.in_place && p.taps() == 1 && b.high_unit == 1 && b.wide_unit == 1 && depth.out == 1 &&
             b.cols == wide.out && high.count == high.out && wide.out_step == 1 && high.out_step == 1;
  if (b.joined) b.group_rows = best_group_rows(b.images * b.rows * b.cols);

  if (b.in_place) {
    b.row_pitch = wide.source * b.pitch;
    b.slice_pitch = high.source * b.row_pitch;
    b.image_pitch = depth.source * b.slice_pitch;
  } else if (b.gathered) {
    b.row_pitch = ((b.cols - 1) * b.wide_unit + 1) * b.pitch;
    b.slice_pitch = b.row_pitch * high.taps * wide.taps;
    b.image_pitch = b.slice_pitch * depth.taps;
  } else {
    b.row_pitch = wide.span(b.cols, b.wide_unit) * b.pitch;
    b.slice_pitch = high.span(b.rows, b.high_unit) * b.row_pitch;
    b.image_pitch = b.slice_pitch * depth.taps;
  }
  // The last group of a row may read up to group_rows - 1 pixels behind it.
  b.scratch_elements = b.in_place ? 0 : b.images * b.image_pitch + b.group_rows * b.wide_unit * b.pitch;
  b.pixels = b.images * b.rows * b.cols;
  b.image_blocks = ceil_div(p.N, b.images);
  b.row_blocks = ceil_div(high.count, b.rows);
  b.col_blocks = ceil_div(wide.count, b.cols);

  b.panel_columns = p.columns > kLanes<A> ? kTileColumns<A> : kLanes<A>;
  b.panels_per_group = ceil_div(p.columns, b.panel_columns);
  const int64_t panel_bytes = p.depth() * b.panel_columns * int64_t(sizeof(A));
  b.panels_per_pass = max_of(1, min_of(kPanelBytes / panel_bytes, p.groups * b.panels_per_group));
  const int64_t spatial = b.image_blocks * depth.count * b.row_blocks * b.col_blocks;
  // One block of pixels: nobody else reads its panels, and weights go from the array through the caches to the tiles
  // without being written to memory first.
  const bool one_tap = p.kernel_taps() == 1;
  b.own_panels = spatial == 1 && (one_tap || panel_bytes <= kOwnPanelBytes);
  b.own_steps = one_tap ? min_of(kChunkSteps, p.depth()) : p.depth();
  b.own_count = one_tap && p.column_stride == 1 ? kOwnPanels : 1;
  if (b.own_panels) b.panels_per_pass = p.groups * b.panels_per_group;
  b.parts = max_of(1, min_of(b.panels_per_pass, ceil_div(few, spatial)));
  // What one core wrote, another one is slow to get, above all across L3 caches. 8 images, 2 threads, Zen 4: 512 -> 2048
  // channels at 7x7 1.02 times as fast where the cores share an L3 cache, 1.3 where not; 320 -> 1280 1.12, 1.3; 1024 -> 2048
  // of stride 2 1.05, 1.2. Larger filters 0.97 and 1.0: each part copies its inputs anew.
  b.by_panels = one_tap && 2 * p.groups * p.columns * p.depth() >= p.N * (p.groups * p.channels * high.source * wide.source +
                                                                      p.groups * p.columns * high.count * wide.count);
  const int64_t runs = depth.taps * high.taps * (b.folded ? 1 : wide.taps);
  const int64_t run = b.folded ? wide.taps * p.channels : p.channels;
  b.run_capacity = runs + ceil_div(p.depth(), kChunkSteps) + runs * ceil_div(run, kChunkSteps) + kChunkSteps / 8;
  b.threads = threads;
  return b;
}

// Scratch of one call: shared tables and panels first, then each thread's block.
template <class A> struct Workspace {
  A* panels;
  A* bias;              // padded to whole panels
  Run* runs;
  int64_t* chunks;      // first run of each chunk, and the end
  std::int32_t* slots;
  char* threads;
  int64_t thread_bytes, scratch_bytes, tile_bytes, group_bytes, total;
};

FC_INLINE int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }

template <class A> Workspace<A> lay_out(const TapProblem& p, Blocking& b, bool direct_store) {
  Workspace<A> w{};
  const int64_t item = sizeof(A);
  const bool elsewhere = b.own_panels || b.kept_panels;
  const int64_t panels = elsewhere ? 0 : aligned(b.panels_per_pass * p.depth() * b.panel_columns * item);
  const int64_t bias = aligned(p.groups * b.panels_per_group * b.panel_columns * item);
  const int64_t runs = aligned(b.run_capacity * int64_t(sizeof(Run))), chunks = aligned((b.run_capacity + 1) * 8);
  const int64_t slots = aligned(p.kernel_taps() * 4);
  w.scratch_bytes = aligned(b.scratch_elements * item);
  w.tile_bytes = direct_store ? 0 : aligned((b.pixels + b.group_rows) * b.panel_columns * item);
  w.group_bytes = aligned(b.pixels * int64_t(sizeof(Group)));
  const int64_t own_bytes = b.own_panels ? aligned(b.own_steps * b.panel_columns * item) : 0;
  w.thread_bytes = w.scratch_bytes + w.group_bytes + (b.own_panels ? b.own_count : 1) * (w.tile_bytes + own_bytes);
  const int64_t shared = panels + bias + runs + chunks + slots;
  b.threads = int(max_of(1, min_of(b.threads, (kWorkspaceBytes - shared) / w.thread_bytes)));
  w.total = shared + b.threads * w.thread_bytes;
  char* base = nullptr;
  w.panels = reinterpret_cast<A*>(base);
  w.bias = reinterpret_cast<A*>(base + panels);
  w.runs = reinterpret_cast<Run*>(base + panels + bias);
  w.chunks = reinterpret_cast<int64_t*>(base + panels + bias + runs);
  w.slots = reinterpret_cast<std::int32_t*>(base + panels + bias + runs + chunks);
  w.threads = base + shared;
  return w;
}

FC_INLINE TapProblem forward_problem(const ConvShape& s) {
  TapProblem p{};
  for (int d = 0; d < 3; d++)
    p.axis[d] = TapAxis{s.out[d], s.stride[d], s.kernel[d], -s.pad[d], s.dilation[d], 0, 1, s.in[d], 0, 1, s.out[d]};
  p.N = s.N;
  p.groups = s.G;
  p.channels = s.group_in();
  p.columns = s.group_out();
  p.channel_stride = s.taps();
  p.column_stride = p.channels * s.taps();
  for (int d = 0; d < 3; d++) p.kernel[d] = s.kernel[d];
  p.layout = s.layout;
  p.same_type = s.dtype == DType::f32 || s.dtype == DType::f64;
  return p;
}

template <class T> constexpr DType kStored = DType::f32;
template <> constexpr DType kStored<double> = DType::f64;
template <> constexpr DType kStored<f16> = DType::f16;
template <> constexpr DType kStored<bf16> = DType::bf16;

// Where the weight of a forward convolution is frozen: its panels of `width` columns (packed_weight.h), else null.
template <class T, class A>
A* packed_panels(ConvAlgorithm algorithm, const TapProblem& p, int64_t width, int parts, int64_t elements, bool* filled,
                 Context& ctx) {
  const PackedForm form{algorithm, kStored<T>, kLanes<float>, std::int32_t(width), parts, p.groups, p.columns,
                        p.channels, {p.kernel[0], p.kernel[1], p.kernel[2]}, p.axis[2].step};
  return static_cast<A*>(ctx.packed_form(form, std::size_t(elements) * sizeof(A), filled));
}

// slots[kernel index of a tap] = its place among the problem's taps, -1 for taps that are not part of it.
FC_INLINE void tap_slots(const TapProblem& p, std::int32_t* slots) {
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  for (int64_t i = 0; i < p.kernel_taps(); i++) slots[i] = -1;
  for (int64_t t = 0; t < depth.taps; t++)
    for (int64_t r = 0; r < high.taps; r++)
      for (int64_t s = 0; s < wide.taps; s++)
        slots[((depth.weight_first + t * depth.weight_step) * p.kernel[1] + high.weight_first + r * high.weight_step) *
                  p.kernel[2] + wide.weight_first + s * wide.weight_step] =
            std::int32_t((t * high.taps + r) * wide.taps + s);
}

FC_INLINE int64_t greatest_divisor(int64_t a, int64_t b) {
  while (b) {
    const int64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

// Input positions i = phase (mod stride) are reached by taps r with phase + pad - r * dilation divisible by the stride:
// every (stride / gcd)-th one. Taps are listed backwards so that their shifts in dy ascend.
FC_INLINE TapAxis phase_axis(const ConvShape& s, int d, int64_t phase) {
  const int64_t stride = s.stride[d], dilation = s.dilation[d], divisor = greatest_divisor(stride, dilation);
  const int64_t every = stride / divisor;
  int64_t lowest = 0;
  while (lowest < min_of(every, s.kernel[d]) && (phase + s.pad[d] - lowest * dilation) % stride) lowest++;
  TapAxis a{};
  a.count = phase < s.in[d] ? (s.in[d] - 1 - phase) / stride + 1 : 0;
  a.unit = 1;
  a.source = s.out[d];
  a.out_start = phase;
  a.out_step = stride;
  a.out = s.in[d];
  if (lowest >= min_of(every, s.kernel[d])) return a;  // no tap reaches this phase
  a.taps = (s.kernel[d] - 1 - lowest) / every + 1;
  const int64_t highest = lowest + (a.taps - 1) * every;
  a.first = (phase + s.pad[d] - highest * dilation) / stride;
  a.step = dilation / divisor;
  a.weight_first = highest;
  a.weight_step = -every;
  return a;
}

// The input gradient but for its axes, which phase_axis fills in.
FC_INLINE TapProblem backward_problem(const ConvShape& s) {
  TapProblem p{};
  p.N = s.N;
  p.groups = s.G;
  p.channels = s.group_out();
  p.columns = s.group_in();
  p.column_stride = s.taps();
  p.channel_stride = p.columns * s.taps();
  for (int d = 0; d < 3; d++) p.kernel[d] = s.kernel[d];
  p.layout = s.layout;
  p.same_type = s.dtype == DType::f32 || s.dtype == DType::f64;
  return p;
}

// Either of them where the stride is 1, so that the gradient has one phase.
FC_INLINE TapProblem unit_stride_problem(const ConvShape& s, ConvOp op) {
  if (op == ConvOp::forward) return forward_problem(s);
  TapProblem p = backward_problem(s);
  for (int d = 0; d < 3; d++) p.axis[d] = phase_axis(s, d, 0);
  return p;
}

// The phase of the input gradient that most taps reach.
FC_INLINE TapProblem widest_phase(const ConvShape& s) {
  TapProblem p = backward_problem(s);
  for (int d = 0; d < 3; d++)
    for (int64_t phase = 0; phase < min_of(s.stride[d], s.in[d]); phase++) {
      const TapAxis axis = phase_axis(s, d, phase);
      if (phase == 0 || axis.taps > p.axis[d].taps) p.axis[d] = axis;
    }
  return p;
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
