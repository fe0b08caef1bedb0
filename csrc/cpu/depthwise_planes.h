// Channels-first planes of depthwise filters, and what a register of their results reads of a row.
#pragma once
#include "lanes.h"
#include "parallel.h"
#include "unroll.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

constexpr int64_t kTaskValues = 16 << 10;  // results a task
constexpr int64_t kBandValues = 4 << 10;   // of a plane's rows that stay in L1 while its registers of columns pass
constexpr int64_t kBlocks = 8;             // registers of columns whose masks are found once for many planes

// What the first n lanes of a register of results read of a source row of `width` columns: tap t of lane i lies in
// column first + i * Step + t * move. In the padding and behind lane n, the taps are zero.
template <class A, int K, int Step> struct Columns;
template <class A, int K> struct Columns<A, K, 1> {
  Span<A> spans[K];
  Columns() {}
  Columns(int64_t first, int64_t move, int64_t width, int64_t n) {
    for (int t = 0; t < K; t++) spans[t] = Span<A>(first + t * move, min_of(width, first + t * move + n));
  }
  template <class T> FC_INLINE void load(const T* row, Vec<A>* value) const {
    each<K>([&](auto t) __attribute__((always_inline)) { value[t] = load_span(row, spans[t]); });
  }
};
// Two registers of neighbours hold the first two taps; each other tap is the one two before it, moved by a lane.
template <class A, int K> struct Columns<A, K, 2> {
  static constexpr int L = kLanes<A>;
  Span<A> spans[2];
  bool wide, partial;  // whether the second register holds anything, whether lanes are left out
  Mask<A> lanes;
  int64_t next, end;   // the column that the third tap has and the first has not, the end of the row
  Columns() {}
  Columns(int64_t first, int64_t, int64_t width, int64_t n)
      : spans{Span<A>(first, width), Span<A>(first + L, width)}, wide(first + L < width && first + 2 * L > 0),
        partial(n < L), next(first + 2 * L), end(width) {
    for (int i = 0; i < L; i++) lanes[i] = i < n ? -1 : 0;
  }
  template <class T> FC_INLINE void load(const T* row, Vec<A>* value) const {
    const Vec<A> a = load_span(row, spans[0]);
    const Vec<A> b = wide ? load_span(row, spans[1]) : Vec<A>{};
    value[0] = even_lanes<A>(a, b);
    value[1] = odd_lanes<A>(a, b);
    each<K - 2>([&](auto t) __attribute__((always_inline)) {
      const bool inside = std::uint64_t(next + t) < std::uint64_t(end);
      value[t + 2] = shift_in<A>(value[t], inside ? to_accumulator(row[next + t]) : A(0));
    });
    if (partial)
      each<K>([&](auto t) __attribute__((always_inline)) { value[t] = (Vec<A>)((Mask<A>)value[t] & lanes); });
  }
};

// Sources of H x W, results of P x Q, one channel after the other; plane i is of channel i / depth % channels.
struct Planes {
  int64_t count, depth, channels, H, W, P, Q, pad_h, pad_w;

  Planes(const ConvShape& s, bool gradient)
      : count(s.N * s.C * s.in[0]), depth(s.in[0]), channels(s.C), H(gradient ? s.out[1] : s.in[1]),
        W(gradient ? s.out[2] : s.in[2]), P(gradient ? s.in[1] : s.out[1]), Q(gradient ? s.in[2] : s.out[2]),
        pad_h(s.pad[1]), pad_w(s.pad[2]) {}
};

// The channel of a plane and of those behind it, without a division each.
struct Channel {
  int64_t c, d;
  Channel(const Planes& a, int64_t plane) : c(plane / a.depth % a.channels), d(plane % a.depth) {}
  void next(const Planes& a) {
    if (++d < a.depth) return;
    d = 0;
    if (++c == a.channels) c = 0;
  }
};

// A channel's filter of N taps and its bias (null: 0), a register of each value.
template <class A, int N> struct Filter {
  Vec<A> tap[N], bias;
  template <class T> FC_INLINE Filter(const T* filters, const T* biases, int64_t channel) {
    filters += channel * N;
    each<N>([&](auto t) __attribute__((always_inline)) { tap[t] = broadcast(to_accumulator(filters[t])); });
    bias = broadcast(biases ? to_accumulator(biases[channel]) : A(0));
  }
};

// Rows [row, row_end) of the results of planes [plane, plane_end).
struct Region {
  int64_t plane, plane_end, row, row_end;
};

// f(Region) over bands of the rows of large planes, and over runs of small ones.
template <class F> FC_INLINE void for_regions(const Planes& a, int threads, F&& f) {
  const int64_t rows = max_of(28, kBandValues / a.Q / 28 * 28), bands = ceil_div(a.P, rows);
  const int64_t together = bands > 1 ? 1 : max_of(1, kTaskValues / (a.P * a.Q));  // planes
  const int64_t bands_task = max_of(1, kTaskValues / (rows * a.Q));
  if (bands == 1)
    return parallel_for(threads, ceil_div(a.count, together), [&](int64_t task, int) {
      f(Region{task * together, min_of(a.count, (task + 1) * together), 0, a.P});
    });
  const int64_t units = a.count * bands;
  parallel_for(threads, ceil_div(units, bands_task), [&](int64_t task, int) {
    for (int64_t u = task * bands_task; u < min_of(units, (task + 1) * bands_task); u++) {
      const int64_t plane = u / bands, row = u % bands * rows;
      f(Region{plane, plane + 1, row, min_of(a.P, row + rows)});
    }
  });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
