// Average and power-average (Lp) pooling, forward and backward.
#include "pool_rows.h"
#include "pool_tiles.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// What the sum of a window is divided by: a product of one factor a dimension.
struct Divisor {
  Axis axis[3];
  bool include_pad;
  int64_t override_value;
  bool same = true;   // for all windows
  double value = 1;   // of the first

  explicit Divisor(const PoolShape& s)
      : axis{axis_of(s, 0), axis_of(s, 1), axis_of(s, 2)},
        include_pad(s.count_include_pad),
        override_value(s.divisor_override) {
    for (int d = 0; d < 3; d++) {
      const double first = factor(d, 0);
      value *= first;
      // Windows are cut off at the ends only: between two whole ones all are whole.
      same &= first == factor(d, s.out[d] - 1) && (override_value || s.out[d] <= 2 || first == double(s.kernel[d]));
    }
  }
  double factor(int d, int64_t i) const {
    if (override_value) return d == 0 ? double(override_value) : 1.0;
    const Axis& a = axis[d];
    if (include_pad) return double(min_of(a.kernel, a.in + a.pad_after - a.origin(i)));
    return double(a.inputs(i).size());
  }
};

template <class A> FC_INLINE A power(A v, A p);
template <> FC_INLINE float power(float v, float p) { return p == 2 ? v * v : p == 1 ? v : __builtin_powf(v, p); }
template <> FC_INLINE double power(double v, double p) { return p == 2 ? v * v : p == 1 ? v : __builtin_pow(v, p); }
template <class A> FC_INLINE A root(A v, A p);
template <> FC_INLINE float root(float v, float p) {
  return p == 2 ? __builtin_sqrtf(v) : p == 1 ? v : __builtin_powf(v, 1 / p);
}
template <> FC_INLINE double root(double v, double p) {
  return p == 2 ? __builtin_sqrt(v) : p == 1 ? v : __builtin_pow(v, 1 / p);
}

// y = finish(sum of value(x) over the window, o, p, q): one element at a time.
template <class T, class Value, class Finish>
FC_INLINE void window_sums(const PoolShape& s, const T* x, T* y, Context& ctx, Value&& value, Finish&& finish) {
  using A = Accumulator<T>;
  const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  const double taps = double(depth.inputs(0).size() * height.inputs(0).size() * width.inputs(0).size());
  const double work = double(s.out[2]) * taps;
  for_row_blocks<FlushDenormals>(
      ctx, s.N * s.C * s.out[0] * s.out[1], work, work * sizeof(T),
      [&](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, s.C, s.out);
      const T* plane = x + at.n * from.n + at.c * from.c;
      const int64_t out = at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
      const Range d = depth.inputs(at.o), h = height.inputs(at.p);
      for (int64_t q = 0; q < s.out[2]; q++) {
        const Range w = width.inputs(q);
        A sum = 0;
        for (int64_t i = d.lo; i < d.hi; i++)
          for (int64_t j = h.lo; j < h.hi; j++) {
            A line = 0;
            const T* p = plane + i * from.space[0] + j * from.space[1];
            for (int64_t k = w.lo; k < w.hi; k++) line += value(to_accumulator(p[k * from.space[2]]));
            sum += line;
          }
        y[out + q * to.space[2]] = from_accumulator<T>(finish(sum, at.o, at.p, q));
      }
    }
  });
}

// dx = finish(sum of value(element of dy, o, p, q) over the windows that hold the element, element of dx).
template <class T, class Value, class Finish>
FC_INLINE void spread_sums(const PoolShape& s, T* dx, Context& ctx, Value&& value, Finish&& finish) {
  using A = Accumulator<T>;
  const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
  const Steps from(s.layout, s.C, s.out), to(s.layout, s.C, s.in);
  const double work = double(s.in[2]) * double(ceil_div(s.kernel[2], s.stride[2]));
  for_row_blocks<FlushDenormals>(
      ctx, s.N * s.C * s.in[0] * s.in[1], work, work * sizeof(T),
      [&](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, s.C, s.in);
      const int64_t plane = at.n * from.n + at.c * from.c;
      const int64_t out = at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
      const Range d = depth.windows(at.o), h = height.windows(at.p);
      for (int64_t k = 0; k < s.in[2]; k++) {
        const Range w = width.windows(k);
        A sum = 0;
        for (int64_t o = d.lo; o < d.hi; o++)
          for (int64_t p = h.lo; p < h.hi; p++)
            for (int64_t q = w.lo; q < w.hi; q++)
              sum += value(plane + o * from.space[0] + p * from.space[1] + q * from.space[2], o, p, q);
        const int64_t i = out + k * to.space[2];
        dx[i] = from_accumulator<T>(finish(sum, i));
      }
    }
  });
}

// torch averages the part of the window that lies in the input and multiplies by the size of the whole window.
struct Share {
  Axis depth, height, width;
  explicit Share(const PoolShape& s) : depth(axis_of(s, 0)), height(axis_of(s, 1)), width(axis_of(s, 2)) {}
  static double share(const Axis& a, int64_t i) { return double(a.kernel) / double(a.inputs(i).size()); }
  double operator()(int64_t o, int64_t p, int64_t q) const {
    return share(depth, o) * share(height, p) * share(width, q);
  }
};

// ---- vectors -------------------------------------------------------------------------------------------------------

// Divisors of the windows q, q + 1, ...: `rows` (depth and height) times the factor along the width.
template <class A> FC_INLINE Vec<A> divisors(const Divisor& divisor, double rows, int64_t q) {
  if (divisor.same) return broadcast<A>(A(divisor.value));
  const int64_t last = min_of(q + kLanes<A>, divisor.axis[2].out) - 1;
  const double factor = divisor.factor(2, q);
  // Windows are cut off at the ends of a row only.
  if (factor == divisor.factor(2, last) && (divisor.override_value || factor == double(divisor.axis[2].kernel)))
    return broadcast<A>(A(rows * factor));
  Vec<A> v = broadcast<A>(1);
  for (int64_t i = q; i <= last; i++) v[i - q] = A(rows * divisor.factor(2, i));
  return v;
}

// What is made of the sum of a window.
enum class Mean { average, power_1, power_2 };

template <class T, Mean mean> struct WindowSum {
  using A = Accumulator<T>;
  using State = Vec<A>;
  PoolShape s;
  T* y;
  Divisor divisor;
  A whole;  // taps of a window

  static State start() { return State{}; }
  static FC_INLINE Vec<A> value(Vec<A> v) { return mean == Mean::power_2 ? v * v : v; }
  static FC_INLINE void add(State& state, Vec<A> values, int64_t, int64_t, int64_t) { state += value(values); }
  static FC_INLINE void merge(State& state, const State& row, int64_t) { state += row; }
  FC_INLINE Vec<A> finish(Vec<A> sum, Vec<A> by) const {
    if (mean == Mean::average) return sum / by;
    sum *= whole / by;
    if (mean == Mean::power_1) return sum;
    A lane[kLanes<A>];
    std::memcpy(lane, &sum, sizeof sum);
    for (int i = 0; i < kLanes<A>; i++) lane[i] = root(lane[i], A(2));
    return load(lane);
  }
  FC_INLINE double rows(const OutputRow& row) const { return divisor.factor(0, row.o) * divisor.factor(1, row.p); }
  FC_INLINE void put(const OutputRow& row, int64_t q, const State& state) const {
    const Vec<A> by = divisors<A>(divisor, divisor.same ? 0 : rows(row), q);
    store_up_to(y + row.start + q, finish(state, by), row.room - q);
  }
  FC_INLINE void put(const OutputRow& row, int64_t q, Range, int64_t c, const State& state) const {
    const A by = A(divisor.same ? divisor.value : rows(row) * divisor.factor(2, q));
    store_up_to(y + row.start + q * s.C + c, finish(state, broadcast<A>(by)), s.C - c);
  }
};
template <class T, Mean mean, int step, int tap_count> struct WindowSumInRows : WindowSum<T, mean> {
  using A = Accumulator<T>;
  static constexpr int stride = step, taps = tap_count;
  Axis width;
  struct Block : RowTaps<A, stride, taps> {
    Block() {}
    Block(const WindowSumInRows& op, int64_t q) : RowTaps<A, stride, tap_count>(op.width, q) {}
  };
  bool alike() const { return this->divisor.same; }
  static FC_INLINE int64_t code(int64_t, int64_t) { return 0; }
  static FC_INLINE Vec<A> row(const T* line, const Block& block) {
    Vec<A> sum{};
    block.each(line, sum, [&](int64_t, Vec<A> v) { sum += WindowSum<T, mean>::value(v); });
    return sum;
  }
};

template <Mean mean, class T>
void sum_vectors(const PoolShape& s, const T* x, T* y, const Divisor& divisor, Context& ctx) {
  using A = Accumulator<T>;
  const WindowSum<T, mean> sum{s, y, divisor, A(double(s.kernel[0]) * double(s.kernel[1]) * double(s.kernel[2]))};
  if (s.layout == Layout::channels_last) {
    pool_channels_last<T, FlushDenormals>(s, x, sum, ctx);
  } else if constexpr (mean == Mean::average) {
    with_form<T>(s, [&](auto form) {
      using F = decltype(form);
      pool_channels_first<T, FlushDenormals>(
          s, x, WindowSumInRows<T, mean, F::stride, F::taps>{sum, axis_of(s, 2)}, ctx);
    });
  } else {
    pool_channels_first<T, FlushDenormals>(s, x, WindowSumInRows<T, mean, 0, 0>{sum, axis_of(s, 2)}, ctx);
  }
}

// The windows o, p that hold the inputs of one row, and whether one division can follow their sum.
struct Covering {
  Range o, p;
  bool uniform;
  double rows;  // the factor of the first, where it is not the same for all
};
FC_INLINE Covering covering(const Divisor& divisor, int64_t d, int64_t h) {
  Covering c{divisor.axis[0].windows(d), divisor.axis[1].windows(h), true, 1};
  if (divisor.same || c.o.size() < 1 || c.p.size() < 1) return c;
  c.rows = divisor.factor(0, c.o.lo) * divisor.factor(1, c.p.lo);
  for (int64_t o = c.o.lo; o < c.o.hi; o++)
    for (int64_t p = c.p.lo; p < c.p.hi; p++) c.uniform &= divisor.factor(0, o) * divisor.factor(1, p) == c.rows;
  return c;
}

// Each input of `count` rows gathers from its row's line of window gradients.
template <int stride, class T, class A>
FC_INLINE void spread_lines(const Axis& width, const A* lines, int64_t pitch, int64_t count, T* out) {
  constexpr int64_t lanes = kLanes<A>, group = 4;
  for (int64_t w = 0; w < width.in; w += stride * lanes) {
    const int64_t n = width.in - w;
    // The taps that lie on these inputs at all, for a window may be far larger than the input.
    const int64_t top = min_of(width.kernel - 1, w + stride * lanes - 1 + width.pad);
    const int64_t low = max_of(0, w + width.pad - (width.out - 1) * stride);
    for (int64_t first = 0; first < count; first += group) {
      Vec<A> sum[stride][group] = {};  // of the taps top, top - stride, ...; of top - 1, ...
      const A* line[group];            // the last one again where there are fewer
      for (int64_t i = 0; i < group; i++) line[i] = lines + min_of(first + i, count - 1) * pitch;
#pragma GCC unroll 2
      for (int e = 0; e < stride; e++)
        for (int64_t tap = top - e; tap >= low; tap -= stride) {
          // Input w + odd lies on this tap of window (w + odd + pad - tap) / stride.
          const int64_t odd = stride == 1 ? 0 : (tap - width.pad) & 1;
          const Span<A> span((w + odd + width.pad - tap) / stride, width.out);
#pragma GCC unroll 4
          for (int64_t i = 0; i < group; i++) sum[e][i] += load_span<A>(line[i], span);
        }
#pragma GCC unroll 4
      for (int64_t i = 0; i < group; i++) {
        if (first + i >= count) break;
        T* to = out + (first + i) * width.in + w;
        if constexpr (stride == 1) {
          store_up_to(to, sum[0][i], n);
        } else {
          const bool swap = (top - width.pad) & 1;  // sum[0] is that of the odd inputs
          const Vec<A> even = swap ? sum[1][i] : sum[0][i], odd = swap ? sum[0][i] : sum[1][i];
          store_up_to(to, interleave_low<A>(even, odd), n);
          if (n > lanes) store_up_to(to + lanes, interleave_high<A>(even, odd), n - lanes);
        }
      }
    }
  }
}

// Rows of dy that cover a row of inputs are divided and added to one line, which then spreads along the width.
template <class T>
void average_backward_channels_first(const PoolShape& shape, const T* dy, T* dx, const Divisor& by, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>, rows_at_once = 8;
  const int64_t pitch = round_up(shape.out[2], lanes);
  A* const scratch =
      static_cast<A*>(ctx.workspace(std::size_t(ctx.threads()) * std::size_t(rows_at_once * pitch) * sizeof(A)));
  if (!scratch) return;
  const double bytes = double(shape.in[2] + shape.out[2]) * sizeof(T);
  for_row_blocks<FlushDenormals>(
      ctx, shape.N * shape.C * shape.in[0] * shape.in[1], 0, bytes,
      [&](int64_t first, int64_t last, int thread) __attribute__((noinline)) {
    const PoolShape s = shape;  // copies: the compiler need not assume that a store changes them
    const Divisor divisor = by;
    const Axis width = axis_of(s, 2);
    A* const lines = scratch + thread * rows_at_once * pitch;
    RowPosition at(first, 1, s.in);
    for (int64_t row = first; row < last; row += rows_at_once) {
      const int64_t count = min_of(rows_at_once, last - row);
      for (int64_t k = 0; k < count; k++, at.next(s.in)) {
        const Covering rows = covering(divisor, at.o, at.p);
        const T* plane = dy + at.n * s.out_space();
        for (int64_t q = 0; q < width.out; q += lanes) {
          Vec<A> sum{};
          for (int64_t o = rows.o.lo; o < rows.o.hi; o++)
            for (int64_t p = rows.p.lo; p < rows.p.hi; p++) {
              const Vec<A> v = load_up_to(plane + (o * s.out[1] + p) * width.out + q, width.out - q);
              sum += rows.uniform ? v : v / divisors<A>(divisor, divisor.factor(0, o) * divisor.factor(1, p), q);
            }
          store(lines + k * pitch + q, rows.uniform ? sum / divisors<A>(divisor, rows.rows, q) : sum);
        }
      }
      T* out = dx + row * width.in;
      if (width.stride > 2) {
        for (int64_t w = 0; w < width.in; w++) {
          const Range q = width.windows(w);
          for (int64_t k = 0; k < count; k++) {
            A sum = 0;
            for (int64_t i = q.lo; i < q.hi; i++) sum += lines[k * pitch + i];
            out[k * width.in + w] = from_accumulator<T>(sum);
          }
        }
      } else if (width.stride == 1) {
        spread_lines<1>(width, lines, pitch, count, out);
      } else {
        spread_lines<2>(width, lines, pitch, count, out);
      }
    }
  });
}

template <class T>
void average_backward_channels_last(const PoolShape& shape, const T* dy, T* dx, const Divisor& by, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  constexpr int group = 4;  // vectors of channels at once: the loop over windows is paid once for them
  const double bytes = double(shape.in[2] + shape.out[2]) * double(shape.C) * sizeof(T);
  for_row_blocks<FlushDenormals>(
      ctx, shape.N * shape.in[0] * shape.in[1], 0, bytes,
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    const PoolShape s = shape;
    const Divisor divisor = by;
    const Axis width = axis_of(s, 2);
    RowPosition at(first, 1, s.in);
    for (int64_t row = first; row < last; row++, at.next(s.in)) {
      const Covering rows = covering(divisor, at.o, at.p);
      const T* image = dy + at.n * s.out_space() * s.C;
      for (int64_t w = 0; w < width.in; w++) {
        const Range q = width.windows(w);
        bool uniform = rows.uniform;
        double factor = divisor.value;
        if (!divisor.same && q.size() > 0) {
          factor = divisor.factor(2, q.lo);
          for (int64_t i = q.lo; i < q.hi; i++) uniform &= divisor.factor(2, i) == factor;
          factor *= rows.rows;
        }
        const Vec<A> all = broadcast<A>(A(factor));
        T* const out = dx + (row * width.in + w) * s.C;
        if (uniform && rows.o.size() == 1 && rows.p.size() == 1 && q.size() == 1) {
          const T* from = image + ((rows.o.lo * s.out[1] + rows.p.lo) * width.out + q.lo) * s.C;
          int64_t c = 0;
          for (; c + lanes <= s.C; c += lanes) store(out + c, load(from + c) / all);
          if (c < s.C) store_partial(out + c, load_partial(from + c, s.C - c) / all, s.C - c);
          continue;
        }
        const auto channels = [&](auto size, int64_t c) __attribute__((always_inline)) {
          constexpr int n = decltype(size)::taps;
          Vec<A> sum[n] = {};
          for (int64_t o = rows.o.lo; o < rows.o.hi; o++)
            for (int64_t p = rows.p.lo; p < rows.p.hi; p++)
              for (int64_t i = q.lo; i < q.hi; i++) {
                const T* from = image + ((o * s.out[1] + p) * width.out + i) * s.C + c;
                const A own = uniform ? A(1) : A(divisor.factor(0, o) * divisor.factor(1, p) * divisor.factor(2, i));
#pragma GCC unroll 4
                for (int u = 0; u < n; u++) {
                  const Vec<A> v = n > 1 ? load(from + u * lanes) : load_up_to(from, s.C - c);
                  sum[u] += uniform ? v : v / own;
                }
              }
#pragma GCC unroll 4
          for (int u = 0; u < n; u++) store_up_to(out + c + u * lanes, uniform ? sum[u] / all : sum[u], s.C - c);
        };
        int64_t c = 0;
        for (; c + group * lanes <= s.C; c += group * lanes) channels(Form<0, group>(), c);
        for (; c < s.C; c += lanes) channels(Form<0, 1>(), c);
      }
    }
  });
}

// Windows of 2 x 2 side by side: all four values of a window get a quarter of its gradient.
template <class T>
void average_backward_tiles(const PoolShape& s, const T* dy, T* dx, const Divisor& divisor, Context& ctx) {
  using A = Accumulator<T>;
  const Vec<A> by = broadcast<A>(A(divisor.factor(0, 0) * divisor.factor(1, 0) * divisor.factor(2, 0)));
  fill_tiles<T, FlushDenormals>(s, dx, sizeof(T), ctx, [=](int64_t at, int64_t n) {
    const Vec<A> v = load_up_to(dy + at, n) / by;
    return Tile<A>{{{v, v}, {v, v}}};
  });
}

// One window that is the whole input: what adaptive pooling does with it.
bool is_global(const PoolShape& s) {
  bool global = !s.divisor_override;
  for (int d = 0; d < 3; d++) global &= s.out[d] == 1 && s.kernel[d] == s.in[d] && s.pad[d] == 0;
  return global;
}

}  // namespace

void avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  if (is_global(s)) return adaptive_avg_pool_forward(s, x, y, ctx);
  const Divisor divisor(s);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    if (vector_loops_fit(s)) return sum_vectors<Mean::average>(s, from, to, divisor, ctx);
    window_sums<T>(
        s, from, to, ctx, [](A v) { return v; },
        [&](A sum, int64_t o, int64_t p, int64_t q) {
          return sum / A(divisor.factor(0, o) * divisor.factor(1, p) * divisor.factor(2, q));
        });
  });
}

void avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  if (is_global(s)) return adaptive_avg_pool_backward(s, dy, dx, ctx);
  const Divisor divisor(s);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = static_cast<const T*>(dy);
    T* to = static_cast<T*>(dx);
    if (s.layout == Layout::channels_last) average_backward_channels_last<T>(s, from, to, divisor, ctx);
    else if (are_tiles(s)) average_backward_tiles<T>(s, from, to, divisor, ctx);
    else average_backward_channels_first<T>(s, from, to, divisor, ctx);
  });
}

void lp_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  const Share share(s);
  const Divisor clipped(s);  // padding is 0: what is left of a window is all in the input
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const A norm = A(s.norm_type);
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    if (vector_loops_fit(s) && s.norm_type == 2) return sum_vectors<Mean::power_2>(s, from, to, clipped, ctx);
    if (vector_loops_fit(s) && s.norm_type == 1) return sum_vectors<Mean::power_1>(s, from, to, clipped, ctx);
    window_sums<T>(
        s, from, to, ctx, [=](A v) { return power(v, norm); },
        [&](A sum, int64_t o, int64_t p, int64_t q) { return root(sum * A(share(o, p, q)), norm); });
  });
}

void lp_pool_backward(const PoolShape& s, const void* dy, const void* x, const void* y, void* dx, Context& ctx) {
  const Share share(s);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const A norm = A(s.norm_type);
    spread_sums<T>(
        s, static_cast<T*>(dx), ctx,
        [&](int64_t i, int64_t o, int64_t p, int64_t q) {
          // y = m^(1/p), dm = dy / p * y^(1-p): no slope where y is zero.
          const A value = to_accumulator(static_cast<const T*>(y)[i]);
          const A slope = to_accumulator(static_cast<const T*>(dy)[i]) * A(share(o, p, q));
          return value == 0 ? A(0) : norm == 2 ? slope / value : slope * power(value, 1 - norm);
        },
        [&](A sum, int64_t i) {
          return sum == 0 ? A(0) : sum * power(to_accumulator(static_cast<const T*>(x)[i]), norm - 1);
        });
  });
}

}  // namespace fastconv::cpu::FC_ISA
