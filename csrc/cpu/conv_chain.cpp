// Convolutions in a row, in bands of rows (Alwani et al. 2016, "Fused-layer CNN accelerators"): a band of the last
// one's output is computed from the rows of the one before that it needs, these from rows of the one before that, and
// each lies in the cache when it is read. Rows that the next band needs, too, are kept. A band is a call of the table's
// own kernel on a few rows of an image, with the algorithm that the whole image would have: the same bits.
//
// Compiled for the baseline alone: all arithmetic is in the table's kernels.
#include "conv_chain.h"

#include "dispatch.h"
#include "parallel.h"

namespace fastconv::cpu {
namespace {

using namespace FC_ISA;
using std::int64_t;

// Rows between two convolutions that a thread keeps at a time, of all stages. MobileNetV2's blocks on eight images as
// multiples of the speed of layer after layer, with 64, 128, 256, 384, 512, 768 and 1200 KB (Zen 3, 512 KB of L2, two
// threads): 16-96-24 at 112x112 1.2, 1.4, 1.5, 1.6, 1.7, 1.7, 1.6; 24-144-24 at 56x56 0.95, 1.3, 1.3, 1.4, 1.6, 1.6, 1.6;
// 96-576-96 at 14x14 0.8, 0.9, 1.0, 1.05, 1.1, 1.15, 1.06.
constexpr int64_t kBandBytes = int64_t(512) << 10;

int64_t reach(const ConvShape& s) { return (s.kernel[1] - 1) * s.dilation[1] + 1; }

int64_t in_row_bytes(const ConvShape& s) { return s.in[2] * s.C * int64_t(item_size(s.dtype)); }
int64_t out_row_bytes(const ConvShape& s) { return s.out[2] * s.K * int64_t(item_size(s.dtype)); }

struct Rows {
  int64_t begin, end;
};

// Rows of the input that rows r of the output are computed from.
Rows source_of(const ConvShape& s, Rows r) {
  return {max_of(0, r.begin * s.stride[1] - s.pad[1]), min_of(s.in[1], (r.end - 1) * s.stride[1] - s.pad[1] + reach(s))};
}

// Whether bands of this stage have the bits of the whole, at no more work. Fixes the algorithm where they do.
bool takes_bands(ConvStage& stage) {
  ConvShape& s = stage.shape;
  if (s.layout != Layout::channels_last || s.in[0] != 1 || s.out[0] != 1 || s.kernel[0] != 1) return false;
  // Every row of the output meets a row of the input.
  if (s.pad[1] >= reach(s) || (s.out[1] - 1) * s.stride[1] - s.pad[1] >= s.in[1]) return false;
  ConvPlan plan{};
  active().conv_plan(s, ConvOp::forward, 1, &plan);
  s.algorithm = plan.algorithm;
  // Tiles of several rows would begin at other rows.
  if (winograd_tile(s.algorithm)) return false;
  return stage.weight || s.algorithm == ConvAlgorithm::depthwise;  // each band would pack all weights anew
}

struct Bands {
  int64_t segments, segment_rows;  // of an image: different threads may compute them
  int64_t rows;                    // of the last stage's output, in a band
  int64_t held[kMostStages];       // most rows of each stage's output at a time
  int64_t at[kMostStages];         // where they lie in a thread's memory
  int64_t bytes;                   // of it

  void cut(const ConvStage* stages, int count, int64_t band) {
    rows = band;
    held[count - 1] = band;
    bytes = 0;
    for (int i = count - 2; i >= 0; i--) {
      const ConvShape& next = stages[i + 1].shape;
      held[i] = min_of(next.in[1], (held[i + 1] - 1) * next.stride[1] + reach(next));
      at[i] = bytes;
      bytes += round_up(held[i] * out_row_bytes(stages[i].shape), 64);
    }
  }
};

Bands choose_bands(const ConvStage* stages, int count, int threads) {
  const ConvShape& last = stages[count - 1].shape;
  Bands b{};
  // As few segments as share out evenly among the threads: two neighbours both compute the rows that both need.
  b.segments = 1;
  while (b.segments < threads && ceil_div(last.N * b.segments, threads) * threads * 7 > last.N * b.segments * 8)
    b.segments++;
  b.segment_rows = ceil_div(last.out[1], b.segments);
  b.segments = ceil_div(last.out[1], b.segment_rows);
  for (int64_t parts = 1;; parts++) {
    b.cut(stages, count, ceil_div(b.segment_rows, parts));
    if (b.rows == 1 || b.bytes <= kBandBytes) return b;
  }
}

// Rows r of the output of one image, the first of which is written to y; x is row x_begin of its input.
bool compute(const ConvStage& stage, Rows r, const char* x, int64_t x_begin, char* y, const void* add) {
  ConvShape s = stage.shape;
  const Rows source = source_of(s, r);
  const char* from = x + (source.begin - x_begin) * in_row_bytes(s);
  s.N = 1;
  s.pad[1] = source.begin - (r.begin * s.stride[1] - s.pad[1]);
  s.in[1] = source.end - source.begin;
  s.out[1] = r.end - r.begin;
  Epilogue epilogue = stage.epilogue;
  epilogue.add = add;
  Context ctx(1, stage.weight);
  active().conv_forward(s, from, stage.w, stage.b, epilogue, y, ctx);
  return !ctx.out_of_memory();
}

// Output rows `segment` of image n; false where memory is short.
bool compute_segment(const ConvStage* stages, int count, const Bands& b, Rows segment, const char* image, char* y,
                     const char* add, char* memory) {
  Rows have[kMostStages] = {};
  for (int64_t row = segment.begin; row < segment.end; row += b.rows) {
    // What each stage has to compute, and the first row that the next one reads for it.
    Rows todo[kMostStages];
    int64_t keep[kMostStages];
    todo[count - 1] = {row, min_of(row + b.rows, segment.end)};
    for (int i = count - 2; i >= 0; i--) {
      const Rows read = source_of(stages[i + 1].shape, todo[i + 1]);
      keep[i] = read.begin;
      todo[i] = {max_of(read.begin, have[i].end), read.end};
    }
    const char* from = image;
    int64_t from_begin = 0;
    for (int i = 0; i + 1 < count; i++) {
      char* rows = memory + b.at[i];
      const int64_t bytes = out_row_bytes(stages[i].shape);
      if (have[i].end > keep[i])
        __builtin_memmove(rows, rows + (keep[i] - have[i].begin) * bytes, std::size_t((have[i].end - keep[i]) * bytes));
      have[i] = {keep[i], max_of(have[i].end, todo[i].end)};
      if (todo[i].end > todo[i].begin &&
          !compute(stages[i], todo[i], from, from_begin, rows + (todo[i].begin - keep[i]) * bytes, nullptr))
        return false;
      from = rows;
      from_begin = keep[i];
    }
    const int64_t at = row * out_row_bytes(stages[count - 1].shape);
    if (!compute(stages[count - 1], todo[count - 1], from, from_begin, y + at, add ? add + at : nullptr)) return false;
  }
  return true;
}

}  // namespace

bool chain_in_bands(const ConvStage* given, int count, const void* x, void* y, Context& ctx) {
  ConvStage stages[kMostStages];
  double flops = 0;
  for (int i = 0; i < count; i++) {
    stages[i] = given[i];
    if (!takes_bands(stages[i])) return false;
    flops += stages[i].shape.flops();
  }
  const ConvShape &first = stages[0].shape, &last = stages[count - 1].shape;
  const int threads = ctx.threads_for(flops, 0);
  const Bands b = choose_bands(stages, count, threads);
  char* memory = static_cast<char*>(ctx.workspace(std::size_t(threads * b.bytes)));
  if (!memory) return true;
  const char* add = static_cast<const char*>(stages[count - 1].epilogue.add);
  bool failed = false;
  parallel_for(threads, last.N * b.segments, [&](int64_t task, int thread) {
    const int64_t n = task / b.segments, begin = task % b.segments * b.segment_rows;
    const int64_t output = n * last.out[1] * out_row_bytes(last);
    if (!compute_segment(stages, count, b, {begin, min_of(begin + b.segment_rows, last.out[1])},
                         static_cast<const char*>(x) + n * first.in[1] * in_row_bytes(first),
                         static_cast<char*>(y) + output, add ? add + output : nullptr, memory + thread * b.bytes))
      __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
  });
  if (failed) ctx.fail();
  return true;
}

}  // namespace fastconv::cpu
