// How the weight gradient is cut into blocks for AMX.
//
// dw[k][c][tap] is, for every filter tap, a matrix product over the output pixels: rows of A are output channels of dy,
// columns of B channels of x. A position is a pixel's place in a block: a row of the output takes as many as a row of x
// that its taps see, so that a tap is an offset of positions. For strides the columns and the lines of x are sorted by
// their remainder modulo the stride: then each tap's pixels are neighbours again. A reduction block is 32 positions,
// paired as t and t + 16: dy's pairs are two registers lane by lane, transposed once. x has such a pair for *every*
// position, each pixel twice, so that all taps find whole tiles; with one tap only those that blocks begin with.
//
// A block is some planes (images x depths), or rows of one; its sums start from zero and are added to those of the
// blocks before it. A task takes the blocks of a partition for a unit, chunk_c x chunk_k channels of a group;
// partitions are added up in order. All of it follows from the shape.
#pragma once
#include "conv_backward_weight.h"
#include "tiles.h"

namespace fastconv::cpu::FC_ISA {
namespace {

struct AmxWeightPlan {
  ConvShape s;
  int parts;
  int64_t C, K;  // of a group
  int64_t planes, block_planes, block_rows, block_cols, row_blocks, col_blocks, blocks;
  int64_t row_positions, positions;  // of a row, and of a plane of dy
  int64_t col_phases, line_phases, phase_lines;  // remainders modulo the strides that taps meet, and lines of each
  int64_t slice_pitch, plane_pitch;  // positions of x
  int64_t pairs;                     // of x, in a block
  int64_t chunk_c, chunk_k, c_chunks, k_chunks, units;
  int64_t unit_sums, units_per_pass, partitions;
  int64_t strip_bytes, offset_bytes, x_bytes, dy_bytes, thread_bytes, sum_bytes;
  int threads;

  bool one_tap() const { return s.taps() == 1; }
  // Positions of x that the last tile reads behind the last plane.
  int64_t behind() const { return one_tap() ? 0 : row_positions + 2 * kAmxDepth; }
  int64_t x_tile() const { return parts * pairs * 2 * kAmxRows; }  // values of 16 channels
  int64_t dy_tile() const { return parts * block_planes * positions * kAmxRows; }
  int64_t pointer_bytes() const { return round_up(strip_bytes / 8, 64); }
  std::size_t bytes() const { return std::size_t(sum_bytes + threads * thread_bytes); }
};

// Positions of a block, and bytes of a task's x and dy, which lie in an L2 of 2 MB with the sums. Half as many positions
// are 1.0 to 1.15 times as slow (3x3 layers of 64 to 512 channels), as all sums are loaded and stored for each block.
constexpr int64_t kAmxWeightPositions = 1024, kAmxWeightBytes = int64_t(1500) << 10;
constexpr int64_t kAmxSumBytes = int64_t(14) << 20;
constexpr int64_t kAmxPartitionBytes = int64_t(4) << 20;    // sums of all partitions, where there is a choice
constexpr int64_t kAmxWorkspaceBytes = int64_t(30) << 20;
constexpr int64_t kAmxWeightTasks = 16;
constexpr double kAmxTaskFlops = 4e6;

// Of the remainders modulo the stride, those that taps meet are the first so many.
FC_INLINE int64_t amx_phases(const ConvShape& s, int d) {
  return s.dilation[d] == 1 ? min_of(s.stride[d], s.kernel[d]) : s.kernel[d] == 1 ? 1 : s.stride[d];
}

// Sizes that follow from block_rows, block_cols, block_planes, chunk_c and chunk_k; returns the bytes of a task.
FC_INLINE int64_t size_block(AmxWeightPlan& p) {
  const ConvShape& s = p.s;
  const int64_t u = s.stride[2], span = (p.block_cols - 1) * u + (s.kernel[2] - 1) * s.dilation[2] + 1;
  const int64_t lines = (p.block_rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
  p.row_positions = ceil_div(span, u);
  p.positions = round_up(p.block_rows * p.row_positions, kAmxDepth);
  p.col_phases = amx_phases(s, 2);
  p.line_phases = amx_phases(s, 1);
  p.phase_lines = ceil_div(lines, s.stride[1]);
  p.slice_pitch = p.col_phases * p.line_phases * p.phase_lines * p.row_positions;
  p.plane_pitch = p.one_tap() ? p.positions : s.kernel[0] * p.slice_pitch;
  p.pairs = p.block_planes * p.plane_pitch + p.behind();
  p.strip_bytes = round_up(max_of(p.pairs, p.block_planes * p.positions) + kAmxRows, kAmxRows) * 64;
  if (p.one_tap()) p.pairs /= 2;
  p.x_bytes = p.chunk_c / kAmxRows * p.x_tile() * 2;
  p.dy_bytes = p.chunk_k / kAmxRows * p.dy_tile() * 2;
  return p.x_bytes + p.dy_bytes;
}

FC_INLINE AmxWeightPlan amx_weight_plan(const ConvShape& shape, int parts, int threads) {
  AmxWeightPlan p{};
  p.s = shape;
  p.parts = parts;
  merge_pixels(p.s);
  const ConvShape& s = p.s;
  p.C = s.group_in();
  p.K = s.group_out();
  p.planes = s.N * s.out[0];
  p.block_planes = 1;
  p.block_rows = s.out[1];
  p.block_cols = round_up(ceil_div(s.out[2], ceil_div(s.out[2], kAmxWeightPositions)), kAmxDepth);
  if (p.block_cols >= s.out[2]) p.block_cols = s.out[2];
  // A 1x1 filter does one product a value that is split: larger chunks split less often.
  const int64_t chunk = s.taps() == 1 ? 256 : 128;
  p.chunk_c = p.C <= kAmxRows ? kAmxRows : min_of(round_up(p.C, kAmxDepth), chunk);
  p.chunk_k = min_of(round_up(p.K, kAmxDepth), chunk);
  const auto large = [&] { return size_block(p) > kAmxWeightBytes; };
  while (p.block_rows > 1 && (size_block(p), p.positions > kAmxWeightPositions)) p.block_rows = (p.block_rows + 1) / 2;
  if (s.taps() > 1 && p.chunk_c > 64 && large()) p.chunk_c = 64;  // fewer rows would see more of their neighbours again
  while (p.block_rows > 1 && large()) p.block_rows = (p.block_rows + 1) / 2;
  while (p.block_cols > 2 * kAmxDepth && large()) p.block_cols = round_up((p.block_cols + 1) / 2, kAmxDepth);
  while (p.chunk_c > kAmxDepth && large()) p.chunk_c = round_up(p.chunk_c / 2, kAmxDepth);
  while (p.chunk_k > kAmxDepth && large()) p.chunk_k = round_up(p.chunk_k / 2, kAmxDepth);
  if (p.block_rows == s.out[1] && p.block_cols == s.out[2]) {
    while (p.block_planes < p.planes && (p.block_planes + 1) * p.positions <= kAmxWeightPositions) {
      p.block_planes++;
      if (large()) {
        p.block_planes--;
        break;
      }
    }
    p.block_planes = ceil_div(p.planes, ceil_div(p.planes, p.block_planes));
  }
  size_block(p);
  p.row_blocks = ceil_div(s.out[1], p.block_rows);
  p.col_blocks = ceil_div(s.out[2], p.block_cols);
  p.blocks = ceil_div(p.planes, p.block_planes) * p.row_blocks * p.col_blocks;

  p.c_chunks = ceil_div(p.C, p.chunk_c);
  p.k_chunks = ceil_div(p.K, p.chunk_k);
  p.units = s.G * p.c_chunks * p.k_chunks;
  p.unit_sums = s.taps() * p.chunk_c * p.chunk_k;
  p.units_per_pass = max_of(1, min_of(p.units, kAmxSumBytes / (p.unit_sums * 4)));
  const double worth = s.flops() / kAmxTaskFlops;
  const int64_t tasks = worth < 1 ? 1 : worth < kAmxWeightTasks ? int64_t(worth) : kAmxWeightTasks;
  p.partitions = min_of(ceil_div(tasks, p.units_per_pass), kAmxPartitionBytes / (p.units_per_pass * p.unit_sums * 4));
  p.partitions = max_of(1, min_of(p.partitions, p.blocks));
  p.sum_bytes = p.partitions * p.units_per_pass * p.unit_sums * 4;
  p.offset_bytes = 64 + round_up(2 * p.block_planes * p.positions / kAmxDepth * 8, 64);
  p.thread_bytes = p.x_bytes + p.dy_bytes + p.strip_bytes + 4096 + p.offset_bytes + p.pointer_bytes() +
                   4 * max_of(p.chunk_c, p.chunk_k);
  p.threads = int(max_of(1, min_of(threads, (kAmxWorkspaceBytes - p.sum_bytes) / p.thread_bytes)));
  return p;
}

FC_INLINE bool amx_computes_weight(const ConvShape& s, int parts) {
  if ((s.dtype != DType::f32 && s.dtype != DType::bf16) || s.depthwise() || s.taps() > 128) return false;
  if (s.C == 0 || s.K == 0 || s.N == 0) return false;
  for (int d = 0; d < 3; d++)
    if (s.stride[d] > 64 || s.dilation[d] > 4096) return false;
  const AmxWeightPlan p = amx_weight_plan(s, parts, 1);
  return p.x_bytes + p.dy_bytes <= 2 * kAmxWeightBytes && p.sum_bytes <= kAmxSumBytes;
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
