// Max pooling forward. Of equal values the first in (depth, height, width) order wins, the first NaN before all
// numbers; what lies outside the input is no candidate.
#include "pool_rows.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Where a chosen tap is reported: nowhere, as the tap's number in the window, or as the place in the plane.
struct IndexOutput {
  Indices kind;
  void* data;
  std::size_t item;

  IndexOutput(const PoolShape& s, Indices kind, void* data)
      : kind(kind), data(data), item(kind == Indices::flat ? 8 : window_index_size(s)) {}
  FC_INLINE void put(int64_t at, int64_t value) const {
    if (item == 1) static_cast<std::uint8_t*>(data)[at] = std::uint8_t(value);
    else if (item == 4) static_cast<std::int32_t*>(data)[at] = std::int32_t(value);
    else static_cast<int64_t*>(data)[at] = value;
  }
};

// One element at a time: any layout, any parameters.
template <class T>
void max_pool_elements(const PoolShape& s, const T* x, T* y, const IndexOutput& index, Context& ctx) {
  using A = Accumulator<T>;
  const Axis axis[3] = {axis_of(s, 0), axis_of(s, 1), axis_of(s, 2)};
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  const double taps = double(axis[0].taps(0).size() * axis[1].taps(0).size() * axis[2].taps(0).size());
  const double elements = double(s.out[2]) * taps;
  for_row_blocks<KeepDenormals>(
      ctx, s.N * s.C * s.out[0] * s.out[1], elements, elements * sizeof(T),
      [&](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, s.C, s.out);
      const T* plane = x + at.n * from.n + at.c * from.c;
      const int64_t out = at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
      const Range t = axis[0].taps(at.o), r = axis[1].taps(at.p);
      const int64_t d0 = axis[0].origin(at.o), h0 = axis[1].origin(at.p);
      for (int64_t q = 0; q < s.out[2]; q++) {
        const Range w = axis[2].taps(q);
        const int64_t w0 = axis[2].origin(q);
        A best = -A(__builtin_inff());
        int64_t tap = (t.lo * s.kernel[1] + r.lo) * s.kernel[2] + w.lo;
        int64_t place = t.size() && r.size() && w.size()
                            ? ((d0 + t.lo * s.dilation[0]) * s.in[1] + h0 + r.lo * s.dilation[1]) * s.in[2] + w0 +
                                  w.lo * s.dilation[2]
                            : -1;
        for (int64_t i = t.lo; i < t.hi; i++)
          for (int64_t j = r.lo; j < r.hi; j++)
            for (int64_t k = w.lo; k < w.hi; k++) {
              const int64_t d = d0 + i * s.dilation[0], h = h0 + j * s.dilation[1], v = w0 + k * s.dilation[2];
              const A value = to_accumulator(plane[d * from.space[0] + h * from.space[1] + v * from.space[2]]);
              if (value > best || (value != value && best == best)) {
                best = value;
                tap = (i * s.kernel[1] + j) * s.kernel[2] + k;
                place = (d * s.in[1] + h) * s.in[2] + v;
              }
            }
        const int64_t o = out + q * to.space[2];
        y[o] = from_accumulator<T>(best);
        if (index.kind != Indices::none) index.put(o, index.kind == Indices::flat ? place : tap);
      }
    }
  });
}

// ---- vectors -------------------------------------------------------------------------------------------------------

template <class T> struct Largest {
  using A = Accumulator<T>;
  using State = Vec<A>;
  PoolShape s;
  T* y;

  static State start() { return broadcast<A>(-A(__builtin_inff())); }
  static FC_INLINE void add(State& state, Vec<A> values, int64_t, int64_t, int64_t) { state = max_nan(state, values); }
  static FC_INLINE void merge(State& state, const State& row, int64_t) { state = max_nan(state, row); }
  FC_INLINE void put(const OutputRow& row, int64_t q, const State& state) const {
    store_up_to(y + row.start + q, state, row.room - q);
  }
  FC_INLINE void put(const OutputRow& row, int64_t q, Range, int64_t c, const State& state) const {
    store_up_to(y + row.start + q * s.C + c, state, s.C - c);
  }
};
template <class T, int step, int tap_count> struct LargestInRows : Largest<T> {
  using A = Accumulator<T>;
  static constexpr int stride = step, taps = tap_count;
  Axis width;
  struct Block : RowTaps<A, stride, taps> {
    Block() {}
    Block(const LargestInRows& op, int64_t q) : RowTaps<A, stride, taps>(op.width, q) {}
  };
  static bool alike() { return true; }
  static FC_INLINE int64_t code(int64_t, int64_t) { return 0; }
  static FC_INLINE Vec<A> row(const T* line, const Block& block) {
    Vec<A> best = Largest<T>::start();
    block.each(line, best, [&](int64_t k, Vec<A> v) { best = k ? max_nan(best, v) : v; });
    return best;
  }
};

// The largest value and its tap: `code` is linear in the tap's depth, height and width, with the factors that make it
// the number within the window or the place in the plane, counted from the first tap that lies in the input.
template <class T> struct LargestAndTap {
  using A = Accumulator<T>;
  struct State {
    Vec<A> value;
    Mask<A> code;
  };
  PoolShape s;
  T* y;
  IndexOutput index;
  int64_t factor[3], step[3];  // of the code per tap; of the place per tap

  LargestAndTap(const PoolShape& s, T* y, const IndexOutput& index) : s(s), y(y), index(index) {
    const int64_t window[3] = {s.kernel[1] * s.kernel[2], s.kernel[2], 1};
    const int64_t plane[3] = {s.in[1] * s.in[2], s.in[2], 1};
    for (int d = 0; d < 3; d++) {
      step[d] = plane[d] * s.dilation[d];
      factor[d] = index.kind == Indices::flat ? step[d] : window[d];
    }
  }
  static FC_INLINE void update(State& state, Vec<A> value, Mask<A> code) {
    take_larger(state.value, state.code, value, code);
  }
  static State start() { return {broadcast<A>(-A(__builtin_inff())), Mask<A>{}}; }
  FC_INLINE void add(State& state, Vec<A> values, int64_t t, int64_t r, int64_t k) const {
    update(state, values, Mask<A>{} + Lane<A>(t * factor[0] + r * factor[1] + k * factor[2]));
  }
  FC_INLINE int64_t code(int64_t t, int64_t r) const { return t * factor[0] + r * factor[1]; }
  static FC_INLINE void merge(State& state, const State& row, int64_t code) {
    update(state, row.value, row.code + Lane<A>(code));
  }
  // The code of the first tap in the input of window (o, p, q), whose taps from (t, r, k) on lie in the input.
  FC_INLINE int64_t first(const OutputRow& row, int64_t q, int64_t k) const {
    if (index.kind == Indices::window) return row.t.lo * factor[0] + row.r.lo * factor[1] + k;
    const int64_t d = row.o * s.stride[0] - s.pad[0], h = row.p * s.stride[1] - s.pad[1];
    return (d * s.in[1] + h) * s.in[2] + q * s.stride[2] - s.pad[2] + row.t.lo * step[0] + row.r.lo * step[1] +
           k * step[2];
  }
  FC_INLINE void put(const OutputRow& row, int64_t q, const State& state) const {
    const int64_t n = min_of(row.room - q, kLanes<A>);
    store_up_to(y + row.start + q, state.value, n);
    put_codes(row.start + q, state.code, n, first(row, q, 0), index.kind == Indices::flat ? s.stride[2] : 0);
  }
  FC_INLINE void put(const OutputRow& row, int64_t q, Range w, int64_t c, const State& state) const {
    const int64_t n = min_of(s.C - c, kLanes<A>), at = row.start + q * s.C + c;
    store_up_to(y + at, state.value, n);
    put_codes(at, state.code, n, first(row, q, w.lo), 0);
  }

 private:
  FC_INLINE void put_codes(int64_t at, Mask<A> code, int64_t n, int64_t base, int64_t slope) const {
    if (index.item == 1) {
      store_bytes<A>(static_cast<std::uint8_t*>(index.data) + at, code + Lane<A>(base), n);
      return;
    }
    Lane<A> values[kLanes<A>];
    std::memcpy(values, &code, sizeof code);
    for (int64_t i = 0; i < n; i++) index.put(at + i, base + i * slope + values[i]);
  }
};
template <class T, int step, int tap_count> struct LargestAndTapInRows : LargestAndTap<T> {
  using A = Accumulator<T>;
  using State = typename LargestAndTap<T>::State;
  static constexpr int stride = step, taps = tap_count;
  Axis width;
  LargestAndTapInRows(const PoolShape& s, T* y, const IndexOutput& index)
      : LargestAndTap<T>(s, y, index), width(axis_of(s, 2)) {}
  struct Block : RowTaps<A, stride, taps> {
    Mask<A> first{};  // codes of the first taps in the input, until something larger comes
    Lane<A> factor;
    Block() {}
    Block(const LargestAndTapInRows& op, int64_t q)
        : RowTaps<A, stride, taps>(op.width, q), factor(Lane<A>(op.factor[2])) {
      for (int i = 0; i < kLanes<A> && op.width.origin(q + i) < 0; i++)
        first[i] = Lane<A>(op.width.taps(q + i).lo) * factor;
    }
  };
  bool alike() const { return this->index.kind == Indices::window; }
  static FC_INLINE State row(const T* line, const Block& block) {
    State state{LargestAndTap<T>::start().value, block.first};
    block.each(line, state.value, [&](int64_t k, Vec<A> v) {
      LargestAndTap<T>::update(state, v, Mask<A>{} + Lane<A>(k) * block.factor);
    });
    return state;
  }
};

template <class T>
void max_pool_vectors(const PoolShape& s, const T* x, T* y, const IndexOutput& index, Context& ctx) {
  if (s.layout == Layout::channels_last) {
    if (index.kind == Indices::none) pool_channels_last<T, KeepDenormals>(s, x, Largest<T>{s, y}, ctx);
    else pool_channels_last<T, KeepDenormals>(s, x, LargestAndTap<T>(s, y, index), ctx);
    return;
  }
  with_form<T>(s, [&](auto form) {
    constexpr int stride = decltype(form)::stride, taps = decltype(form)::taps;
    if (index.kind == Indices::none)
      pool_channels_first<T, KeepDenormals>(s, x, LargestInRows<T, stride, taps>{{s, y}, axis_of(s, 2)}, ctx);
    else
      pool_channels_first<T, KeepDenormals>(s, x, LargestAndTapInRows<T, stride, taps>(s, y, index), ctx);
  });
}

}  // namespace

void max_pool_forward(const PoolShape& s, const void* x, void* y, Indices kind, void* indices, Context& ctx) {
  const IndexOutput index(s, kind, indices);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    if (vector_loops_fit(s)) max_pool_vectors<T>(s, from, to, index, ctx);
    else max_pool_elements<T>(s, from, to, index, ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
