// Average and power-average (Lp) pooling, forward and backward.
#include "pool_windows.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// What the sum of a window is divided by: a product of one factor a dimension.
struct Divisor {
  Axis axis[3];
  bool include_pad;
  int64_t override_value;

  explicit Divisor(const PoolShape& s)
      : axis{axis_of(s, 0), axis_of(s, 1), axis_of(s, 2)},
        include_pad(s.count_include_pad),
        override_value(s.divisor_override) {}
  double factor(int d, int64_t i) const {
    if (override_value) return d == 0 ? double(override_value) : 1.0;
    const Axis& a = axis[d];
    if (include_pad) return double(min_of(a.kernel, a.in + a.pad - a.origin(i)));
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
  for_row_blocks<FlushDenormals>(ctx, s.N * s.C * s.out[0] * s.out[1], work, work * sizeof(T), [&](int64_t first, int64_t last, int) {
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
  for_row_blocks<FlushDenormals>(ctx, s.N * s.C * s.in[0] * s.in[1], work, work * sizeof(T), [&](int64_t first, int64_t last, int) {
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
  double operator()(int64_t o, int64_t p, int64_t q) const {
    return double(depth.kernel) / double(depth.inputs(o).size()) * (double(height.kernel) / double(height.inputs(p).size())) *
           (double(width.kernel) / double(width.inputs(q).size()));
  }
};

}  // namespace

void avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  const Divisor divisor(s);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    window_sums<T>(
        s, static_cast<const T*>(x), static_cast<T*>(y), ctx, [](A v) { return v; },
        [&](A sum, int64_t o, int64_t p, int64_t q) {
          return sum / A(divisor.factor(0, o) * divisor.factor(1, p) * divisor.factor(2, q));
        });
  });
}

void avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  const Divisor divisor(s);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    spread_sums<T>(
        s, static_cast<T*>(dx), ctx,
        [&](int64_t i, int64_t o, int64_t p, int64_t q) {
          return to_accumulator(static_cast<const T*>(dy)[i]) /
                 A(divisor.factor(0, o) * divisor.factor(1, p) * divisor.factor(2, q));
        },
        [](A sum, int64_t) { return sum; });
  });
}

void lp_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  const Share share(s);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const A norm = A(s.norm_type);
    window_sums<T>(
        s, static_cast<const T*>(x), static_cast<T*>(y), ctx, [=](A v) { return power(v, norm); },
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
