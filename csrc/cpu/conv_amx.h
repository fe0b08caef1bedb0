// How a convolution (TapProblem: forward, or one phase of the input gradient) is cut into blocks for AMX, and for the
// dot products of AVX512_BF16.
//
// As in conv_taps.h a task takes images x rows x columns of grid points, whose source pixels lie channels-last in
// scratch of L2 size, zero borders included: here as the bfloat16 parts of amx_split.h, so the split is done once for
// all filter taps and output channels. A tile of A is 16 pixels x 32 channels, loaded straight from there with the
// stride between pixels; one table of offsets (filter tap, 32 channels) serves every tile. Sums run over the whole
// reduction in one order, so blocking changes no bits.
//
// Values outside the plain range of amx_split.h are zeros in scratch, and their pixels flagged. An output whose window
// has a flagged pixel is computed again by fused multiply-adds on the caller's values where that makes a difference:
// huge and non-finite values do, small ones where the output is so small that what was lost could show. So NaN and
// infinity reach what they meet and nothing else. Weights outside their range make the whole call take another kernel.
#pragma once
#include "conv_taps.h"
#include "tiles.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int64_t kAmxColumns = 2 * kAmxRows;                 // output channels of a panel
// Of a source block, beside a panel of weights in an L2 of 2 MB; positions of several images. 700 KB and 256 positions are
// 13 % slower with 512 channels at 14x14, as all weights come from the L3 cache for each block; elsewhere within 4 %.
constexpr int64_t kAmxScratchBytes = int64_t(960) << 10, kAmxImagePositions = 512;
constexpr int64_t kAmxPositions = 2048;                       // of a block's sums: 256 KB
constexpr int64_t kAmxOwnPanelBytes = int64_t(512) << 10;     // stay in an L2 of 1 MB until they are used
constexpr int64_t kAmxMostTaps = 128;                         // of the filter, for the panels' packing buffer

struct AmxBlocking {
  bool in_place;  // tiles read the caller's array
  bool folded;  // reduction blocks run over the taps of a filter row and their channels together
  bool flat;    // tiles run over the pixels of padded rows, rows' ends included
  int64_t images, rows, cols;
  int64_t tile_rows;             // positions of a tile
  int64_t high_unit, wide_unit;  // lines and pixels of the source block between grid points
  int64_t pitch, row_pixels, row_pitch, slice_pitch, image_pitch;  // of one part of the source block, in elements
  int64_t part_pitch;
  int64_t row_positions, image_positions;  // of the sums: a row of the block starts every row_positions
  int64_t blocks, panel_values;            // reduction blocks, and values of a panel of split weights
  int64_t panels_per_group, panels_per_pass, shares;
  bool own_panels;                         // a task packs each panel, which it alone uses, right before it does
  int64_t panels_together;                 // else: so many in one go
  int64_t image_blocks, row_blocks, col_blocks;
  int threads;
};

// A run is what lies contiguously in scratch for one output pixel: a tap's channels, or a filter row's (tap, channel).
FC_INLINE bool folds(const TapProblem& p) {
  const int64_t taps = p.axis[2].taps;
  return taps > 1 && p.axis[2].step == 1 && p.channels <= 64 &&
         ceil_div(taps * p.channels, kAmxDepth) < taps * ceil_div(p.channels, kAmxDepth);
}
FC_INLINE int64_t run_length(const TapProblem& p) { return folds(p) ? p.axis[2].taps * p.channels : p.channels; }
FC_INLINE int64_t run_count(const TapProblem& p) { return folds(p) ? p.taps() / p.axis[2].taps : p.taps(); }

// What a stride passes over is not copied: rows of one tap, and pixels where a channel's neighbours are not needed.
FC_INLINE int64_t amx_high_unit(const TapProblem& p) { return p.axis[1].taps == 1 ? 1 : p.axis[1].unit; }
FC_INLINE int64_t amx_wide_unit(const TapProblem& p) {
  return p.axis[2].taps == 1 && p.layout == Layout::channels_last ? 1 : p.axis[2].unit;
}

FC_INLINE int64_t amx_pitch(const TapProblem& p) {
  if (folds(p)) return p.channels;
  int64_t pitch = round_up(p.channels, kAmxDepth);
  // Pixels a multiple of 512 bytes apart share few L1 sets; 64 bytes more spread them.
  if (pitch * amx_wide_unit(p) % 256 == 0) pitch += 32;
  return pitch;
}

FC_INLINE int64_t amx_block_bytes(const TapProblem& p, int parts, int64_t rows, int64_t cols) {
  return p.axis[0].taps * p.axis[1].span(rows, amx_high_unit(p)) * p.axis[2].span(cols, amx_wide_unit(p)) *
         amx_pitch(p) * 2 * parts;
}

// Where value j of a reduction block stands among its 16 pairs. Two registers of floats become pairs lane by lane; what
// is not split in two such registers keeps its order.
FC_INLINE int64_t place_in_block(int64_t j, bool lane_pairs) { return lane_pairs ? j % 16 * 2 + j / 16 : j; }

// Whether AMX computes a forward convolution or an input gradient: the smallest block of its source must fit the
// cache, which those of many or far taps do not, and a panel of weights the workspace.
FC_INLINE bool amx_computes(const ConvShape& s, ConvOp op) {
  if ((s.dtype != DType::f32 && s.dtype != DType::bf16) || s.depthwise() || op == ConvOp::backward_weight) return false;
  if (s.C == 0 || s.K == 0) return false;
  for (int d = 0; d < 3; d++)
    if (s.stride[d] > 64 || s.dilation[d] > 4096) return false;
  if (s.taps() > kAmxMostTaps) return false;
  TapProblem p = op == ConvOp::forward ? forward_problem(s) : widest_phase(s);
  flatten_pointwise(p);
  const int parts = amx_parts(s);
  // The pixels of a 1x1 filter may be those of the batch, which must not decide.
  const int64_t cols = p.flattened ? kAmxRows : min_of(p.axis[2].count, kAmxRows);
  return p.taps() > 0 && run_count(p) * ceil_div(run_length(p), kAmxDepth) * parts * 4 * kAmxValues <= kPanelBytes &&
         amx_block_bytes(p, parts, 1, cols) <= 2 * kAmxScratchBytes;
}

// Rows of tiles: AMX computes all of theirs in any case. Dot products take as many as leave the fewest behind a row of
// pixels; the last tile begins early rather than end there.
FC_INLINE int64_t tile_rows_for([[maybe_unused]] int64_t cols, [[maybe_unused]] bool narrow) {
#if defined(FC_DOTS)
  const int64_t most = narrow ? kNarrowDotRows : kDotRows;
  if (cols <= most) return cols;
  int64_t best = most;
  // A tile costs half a row more than its rows.
  for (int64_t r = most - 1; r >= most / 2; r--)
    if (ceil_div(cols, r) * (2 * r + 1) < ceil_div(cols, best) * (2 * best + 1)) best = r;
  return best;
#else
  return kAmxRows;
#endif
}

// Pixels that need no copy: bfloat16 already, no zeros around them, nor behind their channels. Those a multiple of 2 KB
// apart would share two sets of the L1 cache.
FC_INLINE bool amx_in_place(const TapProblem& p) {
  if (!kAnyTile || p.same_type || p.layout != Layout::channels_last || p.taps() != 1 || p.channels % 2) return false;
  for (const TapAxis& a : p.axis)
    if (a.first < 0 || a.first + a.span(a.count) > a.source) return false;
  return p.axis[2].unit * p.groups * p.channels * 2 % 2048 != 0;
}

FC_INLINE int64_t flat_groups(int64_t rows, int64_t cols, int64_t row_pixels) {
  return ceil_div((rows - 1) * row_pixels + cols, kAmxRows);
}

FC_INLINE AmxBlocking amx_blocking(const TapProblem& p, int parts, int threads) {
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  AmxBlocking b{};
  b.folded = folds(p);
  b.pitch = amx_pitch(p);
  b.high_unit = amx_high_unit(p);
  b.wide_unit = amx_wide_unit(p);
  b.images = 1;
  b.rows = high.count;
  b.cols = wide.count;
  const int64_t wanted = threads > 1 ? 4 * threads : 1;
  const auto tasks = [&] { return p.N * depth.count * ceil_div(high.count, b.rows) * ceil_div(wide.count, b.cols); };
  const auto too_large = [&] {
    return amx_block_bytes(p, parts, b.rows, b.cols) > kAmxScratchBytes ||
           b.rows * round_up(b.cols, kAmxRows) > kAmxPositions || (tasks() < wanted && b.rows * b.cols > 128);
  };
  while (b.rows > 1 && too_large()) b.rows = (b.rows + 1) / 2;
  while (b.cols > 2 * kAmxRows && too_large()) b.cols = max_of(2 * kAmxRows, round_up((b.cols + 1) / 2, 2 * kAmxRows));
  if (b.cols > kAmxRows && amx_block_bytes(p, parts, b.rows, b.cols) > 2 * kAmxScratchBytes) b.cols = kAmxRows;
  b.row_pixels = wide.span(b.cols, b.wide_unit);
  b.tile_rows = tile_rows_for(b.cols, p.columns <= kAmxRows);
  b.flat = !kAnyTile && b.wide_unit == 1 && b.high_unit == 1 &&
           (p.same_type ? 100 : 104) * b.rows * ceil_div(b.cols, kAmxRows) >
               (p.same_type ? 110 : 108) * flat_groups(b.rows, b.cols, b.row_pixels);
  b.row_positions = b.flat ? b.row_pixels : round_up(b.cols, b.tile_rows);
  b.image_positions = b.flat ? flat_groups(b.rows, b.cols, b.row_pixels) * kAmxRows : b.rows * b.row_positions;
  // Small images: several a block, so that each load of the weights serves more pixels.
  if (b.rows == high.count && b.cols == wide.count)
    while (b.images < p.N && (b.images + 1) * b.image_positions <= kAmxImagePositions &&
           (b.images + 1) * amx_block_bytes(p, parts, b.rows, b.cols) <= kAmxScratchBytes &&
           ceil_div(p.N, b.images + 1) >= threads)
      b.images++;
  b.images = even_part(p.N, b.images);

  b.in_place = amx_in_place(p);
  if (b.in_place) {
    b.high_unit = high.unit;
    b.wide_unit = wide.unit;
    b.pitch = p.groups * p.channels;
  }
  b.row_pitch = (b.in_place ? wide.source : b.row_pixels) * b.pitch;
  b.slice_pitch = (b.in_place ? high.source : high.span(b.rows, b.high_unit)) * b.row_pitch;
  b.image_pitch = b.slice_pitch * (b.in_place ? depth.source : depth.taps);
  // The last tile reads up to 15 pixels behind the block, and a run's last block up to 31 values.
  b.part_pitch = b.in_place ? 0 : round_up(b.images * b.image_pitch + kAmxRows * b.wide_unit * b.pitch + kAmxDepth, 32);
  b.image_blocks = ceil_div(p.N, b.images);
  b.row_blocks = ceil_div(high.count, b.rows);
  b.col_blocks = ceil_div(wide.count, b.cols);

  b.blocks = run_count(p) * ceil_div(run_length(p), kAmxDepth);
  b.panel_values = b.blocks * parts * 2 * kAmxValues;
  b.panels_per_group = ceil_div(p.columns, kAmxColumns);
  const int64_t panels = p.groups * b.panels_per_group;
  const int64_t passes = ceil_div(panels, max_of(1, kPanelBytes / (2 * b.panel_values)));
  b.panels_per_pass = ceil_div(panels, passes);
  const int64_t spatial = b.image_blocks * depth.count * b.row_blocks * b.col_blocks;
  // Weights whose rows are reduction steps: 512 bytes of each row, rather than 64 of rows that may be pages apart.
  const bool by_rows = p.kernel_taps() == 1 && p.column_stride == 1 && !p.same_type && p.groups == 1;
  b.panels_together = by_rows ? 8 : 1;
  b.own_panels = kAnyTile && spatial == 1 && !by_rows && b.panel_values * 2 <= kAmxOwnPanelBytes;
  if (b.own_panels) b.panels_per_pass = panels;
  b.shares = max_of(1, min_of(b.panels_per_pass, ceil_div(wanted, spatial)));
  b.threads = threads;
  return b;
}

// The positions of a tile: where their pixels lie in scratch, their place among the sums, and where they are written.
struct AmxGroup {
  int64_t source, position, out;
};

// Scratch of one call: shared tables and panels first, then each thread's block.
struct AmxWorkspace {
  int64_t panels, bias, offsets, slots, shared;              // byte offsets of the shared part
  int64_t flags, sums, groups, window, own, packing;         // of a thread: behind its block of source pixels
  int64_t thread_bytes, total;
};

FC_INLINE AmxWorkspace amx_lay_out(const TapProblem& p, AmxBlocking& b, int parts, bool kept_panels = false) {
  AmxWorkspace w{};
  const int64_t padded = p.groups * b.panels_per_group * kAmxColumns;
  if (kept_panels) b.own_panels = false;
  w.bias = kept_panels || b.own_panels ? 0 : aligned(b.panels_per_pass * b.panel_values * 2);
  w.offsets = w.bias + aligned(padded * 4);
  w.slots = w.offsets + aligned(2 * b.blocks * 8);
  w.shared = w.slots + aligned(p.kernel_taps() * 4);
  const int64_t positions = b.images * b.image_positions;
  const int64_t packing = p.taps() * min_of(p.channels, b.folded ? p.channels : kAmxDepth) * kAmxColumns * 4;
  w.flags = aligned(max_of(b.part_pitch * parts * 2, b.own_panels ? 0 : packing));
  w.sums = w.flags + aligned(b.in_place ? 0 : b.images * b.image_pitch / b.pitch);
  w.groups = w.sums + aligned(positions * kAmxColumns * 4);
  w.window = w.groups + aligned(positions / b.tile_rows * int64_t(sizeof(AmxGroup)));
  w.own = w.window + aligned(b.blocks * kAmxDepth * 4);
  w.packing = b.own_panels ? w.own + aligned(b.panel_values * 2) : 0;
  w.thread_bytes = b.own_panels ? w.packing + aligned(packing) : w.own;
  b.threads = int(max_of(1, min_of(b.threads, (kWorkspaceBytes - w.shared) / w.thread_bytes)));
  w.total = w.shared + b.threads * w.thread_bytes;
  return w;
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
