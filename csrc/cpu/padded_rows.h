// Rows of channels-first planes, copied to L1 with zeros around them, for the filters of conv_depthwise_planes.cpp where
// the processor has no masked registers: a row is masked once, while it is copied, and not once for each tap that reads
// it. Columns are sorted by their remainder modulo the stride, so that each tap of a register of results is one load.
#pragma once
#include "lanes.h"
#include "unroll.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr bool kPadded = FC_VECTOR_BYTES == 32;
constexpr std::int64_t kPaddedColumns = 256;  // results of a row at a time
constexpr std::int64_t kPaddedValues = 5120;  // 20 KB of rows; a register behind them may be read

// The source columns that `columns` results see, the first of them at column `first` of rows of `width`.
template <class A, int K, int Step> class PaddedRow {
  static constexpr int L = kLanes<A>;
  static constexpr std::int64_t kMost = (kPaddedColumns + K) / L + 2;

 public:
  std::int64_t half;   // values of each remainder; a row is Step of them
  PaddedRow(std::int64_t first, std::int64_t width, std::int64_t columns) {
    half = round_up((columns > L ? columns : L) + (K - 1) / Step, L);
    for (std::int64_t b = 0; b < half / L * Step; b++) spans_[b] = Span<A>(first + b * L, width);
  }
  std::int64_t pitch() const { return half * Step; }
  std::int64_t tap(int t) const { return t / Step + t % Step * half; }  // where results 0, 1, ... find tap t

  FC_INLINE void copy(const A* row, A* to) const {
    for (std::int64_t b = 0; b < half / L; b++) {
      if constexpr (Step == 1) {
        store(to + b * L, spans_[b].hi - spans_[b].lo == L ? load(row + spans_[b].w) : load_span(row, spans_[b]));
      } else {
        const Vec<A> low = load_span(row, spans_[2 * b]), high = load_span(row, spans_[2 * b + 1]);
        store(to + b * L, even_lanes<A>(low, high));
        store(to + half + b * L, odd_lanes<A>(low, high));
      }
    }
  }

 private:
  Span<A> spans_[kMost * Step];
};

// Rows of results that the scratch has room for the sources of.
template <int K, int Step> FC_INLINE std::int64_t padded_rows(std::int64_t pitch) {
  return (kPaddedValues / pitch - K) / Step + 1;
}

// Zeros for those of the rows first, first + 1, ... that lie outside the plane.
template <class A>
FC_INLINE void clear_rows(std::int64_t height, std::int64_t first, std::int64_t count, std::int64_t pitch, A* to) {
  for (std::int64_t i = 0; i < count; i++)
    if (first + i < 0 || first + i >= height) std::memset(to + i * pitch, 0, std::size_t(pitch) * sizeof(A));
}

// Rows first, first + 1, ... of a plane (backwards where down < 0) -> scratch; those outside stay as they are.
template <class A, int K, int Step>
FC_INLINE void copy_rows(const PaddedRow<A, K, Step>& row, const A* plane, std::int64_t down, std::int64_t height,
                         std::int64_t first, std::int64_t count, A* to) {
  for (std::int64_t i = max_of(0, -first); i < min_of(count, height - first); i++)
    row.copy(plane + (first + i) * down, to + i * row.pitch());
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
