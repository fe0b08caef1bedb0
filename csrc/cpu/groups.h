// Reductions over groups of values in a fixed order, and the walk through memory that they share.
//
// A group is an instance and a channel: batch_norm and bias gradients have one instance of N images, instance_norm N
// instances of one image. Each group is cut into chunks and the chunks into blocks, by the shape alone; blocks are
// summed in the accumulator type, their sums combined in double in order. So the result does not depend on the threads.
#pragma once
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr std::int64_t kPlaneBlock = 2048;  // elements: read twice from L1
constexpr std::int64_t kRowBlock = 65536;   // elements: read twice from L2
constexpr std::int64_t kRowTile = 2048;     // channels that a task's accumulators hold: whole rows, which the prefetcher follows
// Rows come one at a time, a single stream, which the prefetcher follows, where the coefficients and sums of all channels
// fill no more than this of L1; beyond it four, which read and write those less often. Batch normalisation of 8 images,
// arrays from memory, one row instead of four at a time (Zen 4, 2 threads and 1): 128 to 512 channels 1.2 to 2.4 times as
// fast, forward, backward and the sums of bias gradients, 1024 1.0 to 1.2, 2048 0.8; with six coefficients 1024 0.8 to 0.9.
// Sums of fewer channels than kSingleSum are stored and needed again at once: 0.9 to 1.0.
constexpr std::int64_t kSingleBytes = 16384, kSingleSum = 128;
constexpr std::int64_t kMaxChunks = 64;     // a group's (planes) or instance's (rows) share of parallelism
constexpr std::int64_t kFinishTogether = 256;  // groups a task: about 10 us
constexpr double kTaskBytes = 64e3;         // least worth of one task

struct Block {
  std::int64_t offset, planes, length;  // planes runs of `length` elements
};

// Values as instances I x images P x channels C x positions M. In `rows`, channels are innermost: an instance is P * M
// rows of C values. Otherwise a group is P planes of M values, C * M apart.
struct GroupView {
  std::int64_t I, P, C, M;
  bool rows;
  std::int64_t block, blocks, chunks;  // elements (planes) or rows (rows) a block; of a group or instance
  std::int64_t tiles;                  // of channels, rows only

  GroupView(const NormShape& s, bool instances)
      : I(instances ? s.N : 1), P(instances ? 1 : s.N), C(s.C), M(s.M),
        rows((s.layout == Layout::channels_last || s.M == 1) && s.C > 1) {
    if (C == 1) {
      M *= P;
      P = 1;
    }
    if (rows) {
      block = min_of(max_of(kRowBlock / min_of(C, kRowTile), 32), 256);
      blocks = ceil_div(P * M, block);
    } else if (M >= kPlaneBlock) {
      block = kPlaneBlock;
      blocks = P * ceil_div(M, block);
    } else {
      block = M ? kPlaneBlock / M * M : 1;
      blocks = ceil_div(P * M, block);
    }
    chunks = max_of(1, min_of(blocks, kMaxChunks));
    tiles = ceil_div(C, kRowTile);
  }

  // Whether rows are written, or added up, one at a time; `values`: of type A, that the loop has for each channel.
  template <class A> bool single(int values) const { return C * values * std::int64_t(sizeof(A)) <= kSingleBytes; }
  template <class A> bool single_sum(int values) const { return single<A>(values) && C >= kSingleSum; }

  std::int64_t groups() const { return I * C; }
  std::int64_t count() const { return P * M; }  // values of a group
  double elements() const { return double(I) * double(C) * double(count()); }
  std::int64_t first_block(std::int64_t chunk) const { return blocks * chunk / chunks; }
  std::int64_t first_row(std::int64_t chunk) const { return min_of(first_block(chunk) * block, count()); }
  std::int64_t row_offset(std::int64_t instance, std::int64_t row) const { return (instance * count() + row) * C; }

  Block plane_block(std::int64_t group, std::int64_t b) const {
    const std::int64_t base = (group / C * P * C + group % C) * M;
    if (M >= kPlaneBlock) {
      const std::int64_t per_plane = ceil_div(M, block), start = b % per_plane * block;
      return {base + b / per_plane * C * M + start, 1, min_of(block, M - start)};
    }
    const std::int64_t planes = block / M, first = b * planes;
    return {base + first * C * M, min_of(planes, P - first), M};
  }
  // f(offset) for every value of a group.
  template <class F> void each(std::int64_t group, F&& f) const {
    const std::int64_t base = rows ? group / C * count() * C + group % C : (group / C * P * C + group % C) * M;
    for (std::int64_t p = 0; p < P; p++)
      for (std::int64_t m = 0; m < M; m++) f(base + (rows ? (p * M + m) * C : p * C * M + m));
  }
  // f(offset, Whole or Part) for all registers of a block of planes.
  template <class A, class F> FC_INLINE void each_in(const Block& b, F&& f) const {
    for (std::int64_t p = 0; p < b.planes; p++) {
      const std::int64_t end = b.offset + p * C * M + b.length;
      std::int64_t i = end - b.length;
      for (; i + kLanes<A> <= end; i += kLanes<A>) f(i, Whole());
      if (i < end) f(i, Part{end - i});
    }
  }
};

// sums[k] += the K terms of a block. term(offset, Whole or Part, Vec<A>* acc) adds the terms of one register to acc[k].
template <class A, int K, class F>
FC_INLINE void add_plane_block(const GroupView& v, const Block& b, double* sums, F&& term) {
  constexpr int lanes = kLanes<A>;
  Vec<A> acc[4][K] = {};
  for (std::int64_t p = 0; p < b.planes; p++) {
    const std::int64_t end = b.offset + p * v.C * v.M + b.length;
    std::int64_t i = end - b.length;
    for (; i + 4 * lanes <= end; i += 4 * lanes) {
      term(i, Whole(), acc[0]);
      term(i + lanes, Whole(), acc[1]);
      term(i + 2 * lanes, Whole(), acc[2]);
      term(i + 3 * lanes, Whole(), acc[3]);
    }
    if (i + lanes <= end) {
      term(i, Whole(), acc[0]);
      i += lanes;
    }
    if (i + lanes <= end) {
      term(i, Whole(), acc[1]);
      i += lanes;
    }
    if (i + lanes <= end) {
      term(i, Whole(), acc[2]);
      i += lanes;
    }
    if (i < end) term(i, Part{end - i}, acc[3]);
  }
  for (int k = 0; k < K; k++)
    sums[k] += double(sum_lanes<A>((acc[0][k] + acc[1][k]) + (acc[2][k] + acc[3][k])));
}

// f(offset, channel, Whole or Part) for the registers of `width` channels of a row.
template <class A, class F>
FC_INLINE void each_channel(std::int64_t offset, std::int64_t c, std::int64_t width, F&& f) {
  std::int64_t j = 0;
  for (; j + kLanes<A> <= width; j += kLanes<A>) f(offset + j, c + j, Whole());
  if (j < width) f(offset + j, c + j, Part{width - j});
}

template <int n> struct Rows { static constexpr int count = n; };

// f(offset, coefficients, Whole or Part) for the registers of `width` channels of `rows` rows, `stride` apart, four rows
// at a time or one: coefficients(channel, Whole or Part) are loaded once for them.
template <class A, class Coefficients, class F>
FC_INLINE void each_row(bool single, std::int64_t offset, std::int64_t rows, std::int64_t stride, std::int64_t c,
                        std::int64_t width, Coefficients&& coefficients, F&& f) {
  const auto across = [&](std::int64_t i, auto together) __attribute__((always_inline)) {
    const auto step = [&](std::int64_t j, auto part) __attribute__((always_inline)) {
      const auto k = coefficients(c + j, part);
#pragma GCC unroll 4
      for (int r = 0; r < decltype(together)::count; r++) f(i + r * stride + j, k, part);
    };
    std::int64_t j = 0;
    for (; j + kLanes<A> <= width; j += kLanes<A>) step(j, Whole());
    if (j < width) step(j, Part{width - j});
  };
  std::int64_t r = 0;
  for (; !single && r + 4 <= rows; r += 4) across(offset + r * stride, Rows<4>());
  for (; r < rows; r++) across(offset + r * stride, Rows<1>());
}

// acc[k][c] += the K terms of `rows` rows of `width` channels that start at `offset`. term(offset, c, Whole or Part,
// Vec<A>* acc) adds the terms of one register. The accumulators have room for whole registers. Four rows at a time, or one.
template <class A, int K, class F>
FC_INLINE void add_rows(bool single, std::int64_t offset, std::int64_t rows, std::int64_t stride, std::int64_t width,
                        A (*acc)[kRowTile], F&& term) {
  const auto step = [&](std::int64_t i, std::int64_t c, auto part, auto together) __attribute__((always_inline)) {
    Vec<A> sum[K];
    for (int k = 0; k < K; k++) sum[k] = load(acc[k] + c);
#pragma GCC unroll 4
    for (int r = 0; r < decltype(together)::count; r++) term(i + r * stride + c, c, part, sum);
    for (int k = 0; k < K; k++) store(acc[k] + c, sum[k]);
  };
  const auto across = [&](std::int64_t i, auto together) __attribute__((always_inline)) {
    std::int64_t c = 0;
    for (; c + kLanes<A> <= width; c += kLanes<A>) step(i, c, Whole(), together);
    if (c < width) step(i, c, Part{width - c}, together);
  };
  std::int64_t r = 0;
  for (; !single && r + 4 <= rows; r += 4) across(offset + r * stride, Rows<4>());
  for (; r < rows; r++) across(offset + r * stride, Rows<1>());
}

// What a kernel does with its groups. An Op has
//   kReduces, kFinishes, kApplies   which of the steps it takes
//   reduce(group, chunk), reduce_rows(instance, chunk, first channel, channels)   partial result of a chunk
//   finish(group, count)            all partial results are there: of a group of planes, of neighbours in an instance's rows
//   apply(group, chunk), apply_rows(...)                                          second pass
// A task takes whole groups of planes through all steps, so that the second pass finds the data in L2, the latest first.
template <class Scope, class Op> void run_groups(const GroupView& v, int threads, const Op& op) {
  if (!v.rows && (threads == 1 || v.groups() >= 2 * threads)) {
    const double bytes = 8 * double(v.count());
    const std::int64_t together = max_of(1, min_of(std::int64_t(kTaskBytes / (bytes + 1)), v.groups() / (4 * threads)));
    parallel_for<Scope>(threads, ceil_div(v.groups(), together), [&](std::int64_t task, int) {
      const std::int64_t end = min_of(v.groups(), (task + 1) * together);
      for (std::int64_t g = task * together; g < end; g++) {
        if constexpr (Op::kReduces)
          for (std::int64_t t = 0; t < v.chunks; t++) op.reduce(g, t);
        if constexpr (Op::kFinishes) op.finish(g, 1);
        if constexpr (Op::kApplies)
          for (std::int64_t t = v.chunks; t-- > 0;) op.apply(g, t);
      }
    });
    return;
  }
  const std::int64_t tasks = v.rows ? v.I * v.chunks * v.tiles : v.groups() * v.chunks;
  if constexpr (Op::kReduces)
    parallel_for<Scope>(threads, tasks, [&](std::int64_t task, int) {
      if (v.rows) {
        const std::int64_t c = task % v.tiles * kRowTile, chunk = task / v.tiles;
        op.reduce_rows(chunk / v.chunks, chunk % v.chunks, c, min_of(kRowTile, v.C - c));
      } else {
        op.reduce(task / v.chunks, task % v.chunks);
      }
    });
  if constexpr (Op::kFinishes)
    parallel_for<Scope>(threads, ceil_div(v.groups(), kFinishTogether), [&](std::int64_t task, int) {
      const std::int64_t end = min_of(v.groups(), (task + 1) * kFinishTogether);
      for (std::int64_t g = task * kFinishTogether, next; g < end; g = next) {
        next = v.rows ? min_of(end, (g / v.C + 1) * v.C) : g + 1;
        op.finish(g, next - g);
      }
    });
  if constexpr (Op::kApplies)
    parallel_for<Scope>(threads, tasks, [&](std::int64_t index, int) {
      const std::int64_t task = tasks - 1 - index;
      if (v.rows) {
        const std::int64_t c = task % v.tiles * kRowTile, chunk = task / v.tiles;
        op.apply_rows(chunk / v.chunks, chunk % v.chunks, c, min_of(kRowTile, v.C - c));
      } else {
        op.apply(task / v.chunks, task % v.chunks);
      }
    });
}

// Room for K partial sums of every chunk of every group.
template <int K> struct Partials {
  const GroupView& v;
  double* data;

  static std::size_t bytes(const GroupView& v) { return std::size_t(v.groups() * v.chunks * K) * sizeof(double); }
  // Sum k of a group's chunk; those of neighbouring channels lie side by side.
  double* at(std::int64_t group, std::int64_t chunk, int k) const {
    return v.rows ? data + ((group / v.C * v.chunks + chunk) * K + k) * v.C + group % v.C
                  : data + (group * v.chunks + chunk) * K + k;
  }
  // Of the groups that Op::finish gets, sum k over all chunks. Chunk by chunk: their sums for a channel share a set of L1.
  void total(std::int64_t group, std::int64_t count, int k, double* sums) const {
    for (std::int64_t j = 0; j < count; j++) sums[j] = 0;
    for (std::int64_t t = 0; t < v.chunks; t++) {
      const double* const p = at(group, t, k);
      for (std::int64_t j = 0; j < count; j++) sums[j] += p[j];
    }
  }
};

// The totals of sum 0, as T.
template <class T, int K>
void store_totals(const Partials<K>& partials, std::int64_t first, std::int64_t count, T* to) {
  double sums[kFinishTogether];
  partials.total(first, count, 0, sums);
  for (std::int64_t j = 0; j < count; j++) to[first + j] = from_accumulator<T>(Accumulator<T>(sums[j]));
}

// Partial sums of a chunk of planes; term as for add_plane_block.
template <class A, int K, class F>
FC_INLINE void sum_planes(const Partials<K>& partials, std::int64_t group, std::int64_t chunk, F&& term) {
  double sums[K] = {};
  for (std::int64_t b = partials.v.first_block(chunk); b < partials.v.first_block(chunk + 1); b++)
    add_plane_block<A, K>(partials.v, partials.v.plane_block(group, b), sums, term);
  for (int k = 0; k < K; k++) *partials.at(group, chunk, k) = sums[k];
}

// The same of a chunk of rows; term as for add_rows, with so many coefficients of a channel.
template <class A, int K, class F>
FC_INLINE void sum_rows(const Partials<K>& partials, std::int64_t instance, std::int64_t chunk, std::int64_t c,
                        std::int64_t width, int coefficients, F&& term) {
  const GroupView& v = partials.v;
  double* sums[K];
  for (int k = 0; k < K; k++) {
    sums[k] = partials.at(instance * v.C + c, chunk, k);
    for (std::int64_t j = 0; j < width; j++) sums[k][j] = 0;
  }
  alignas(64) A acc[K][kRowTile];
  const bool single = v.single_sum<A>(K + coefficients);
  const std::int64_t end = v.first_row(chunk + 1);
  for (std::int64_t r = v.first_row(chunk); r < end; r += v.block) {
    std::memset(acc, 0, sizeof acc);
    add_rows<A, K>(single, v.row_offset(instance, r) + c, min_of(v.block, end - r), v.C, width, acc, term);
    for (int k = 0; k < K; k++)
      for (std::int64_t j = 0; j < width; j++) sums[k][j] += double(acc[k][j]);
  }
}

FC_INLINE double read_parameter(const void* p, DType dtype, std::int64_t i) {
  double v = 0;
  with_type(dtype, [&](auto tag) { v = double(to_accumulator(static_cast<const decltype(tag)*>(p)[i])); });
  return v;
}
FC_INLINE void write_parameter(void* p, DType dtype, std::int64_t i, double v) {
  with_type(dtype, [&](auto tag) {
    typedef decltype(tag) T;
    static_cast<T*>(p)[i] = from_accumulator<T>(Accumulator<T>(v));
  });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
