// Average, power-average (Lp) and adaptive average pooling, forward and backward: one element a thread. A gradient is
// gathered from the windows that hold the input, in their order.
#include "windows.cuh"

namespace fastconv::cuda {
namespace {

// What the sum of a window is divided by: a product of one factor a dimension.
struct Divisor {
  bool include_pad;
  int64_t override_value;

  FC_DEVICE double factor(const Axis& a, int64_t i) const {
    if (!include_pad) return double(a.inputs(i).length());
    const int64_t rest = a.in + a.pad - a.origin(i);
    return double(a.kernel < rest ? a.kernel : rest);
  }
  FC_DEVICE double operator()(const Pool<Axis>& p, int64_t o, int64_t q, int64_t v) const {
    if (override_value) return double(override_value);
    return factor(p.axis[0], o) * factor(p.axis[1], q) * factor(p.axis[2], v);
  }
};
struct WindowSize {
  FC_DEVICE double operator()(const Pool<AdaptiveAxis>& p, int64_t o, int64_t q, int64_t v) const {
    return double(p.axis[0].inputs(o).length()) * double(p.axis[1].inputs(q).length()) *
           double(p.axis[2].inputs(v).length());
  }
};

template <class T, class A, class By>
__global__ void average_forward_kernel(Pool<A> p, By by, int64_t n, const T* x, T* y) {
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.out.place(i);
  const T* plane = x + p.in.plane(to);
  const Range t = p.axis[0].inputs(to.at[0]), r = p.axis[1].inputs(to.at[1]), w = p.axis[2].inputs(to.at[2]);
  Accumulator<T> sum = 0;  // of sums of lines: a long sum in one float would lose the digits of what is added
  for (int64_t d = t.low; d < t.high; d++)
    for (int64_t h = r.low; h < r.high; h++) {
      Accumulator<T> line = 0;
      for (int64_t v = w.low; v < w.high; v++) line += prim::to_accumulator(plane[p.in.offset(d, h, v)]);
      sum += line;
    }
  y[i] = prim::from_accumulator<T>(sum / Accumulator<T>(by(p, to.at[0], to.at[1], to.at[2])));
}

template <class T, class A, class By>
__global__ void average_backward_kernel(Pool<A> p, By by, int64_t n, const T* dy, T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.in.place(i);
  const T* plane = dy + p.out.plane(to);
  const Range d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  Accumulator<T> sum = 0;
  for (int64_t o = d.low; o < d.high; o++)
    for (int64_t q = h.low; q < h.high; q++)
      for (int64_t v = w.low; v < w.high; v++)
        sum += prim::to_accumulator(plane[p.out.offset(o, q, v)]) / Accumulator<T>(by(p, o, q, v));
  dx[i] = prim::from_accumulator<T>(sum);
}

// ---- power average -------------------------------------------------------------------------------------------------

template <class A> FC_DEVICE A raise(A v, A p) { return p == 2 ? v * v : p == 1 ? v : prim::power(v, p); }
template <class A> FC_DEVICE A root(A v, A p) {
  return p == 2 ? prim::square_root(v) : p == 1 ? v : prim::power(v, 1 / p);
}

// torch averages the part of the window that lies in the input and multiplies by the size of the whole window.
FC_DEVICE double window_share(const Pool<Axis>& p, int64_t o, int64_t q, int64_t v) {
  return double(p.axis[0].kernel) / double(p.axis[0].inputs(o).length()) * double(p.axis[1].kernel) /
         double(p.axis[1].inputs(q).length()) * double(p.axis[2].kernel) / double(p.axis[2].inputs(v).length());
}

template <class T> __global__ void lp_forward_kernel(Pool<Axis> p, Accumulator<T> norm, int64_t n, const T* x, T* y) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.out.place(i);
  const T* plane = x + p.in.plane(to);
  const Range t = p.axis[0].inputs(to.at[0]), r = p.axis[1].inputs(to.at[1]), w = p.axis[2].inputs(to.at[2]);
  A sum = 0;
  for (int64_t d = t.low; d < t.high; d++)
    for (int64_t h = r.low; h < r.high; h++) {
      A line = 0;
      for (int64_t v = w.low; v < w.high; v++) line += raise(prim::to_accumulator(plane[p.in.offset(d, h, v)]), norm);
      sum += line;
    }
  y[i] = prim::from_accumulator<T>(root(sum * A(window_share(p, to.at[0], to.at[1], to.at[2])), norm));
}

template <class T>
__global__ void lp_backward_kernel(Pool<Axis> p, Accumulator<T> norm, int64_t n, const T* dy, const T* x, const T* y,
                                   T* dx) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.in.place(i);
  const int64_t plane = p.out.plane(to);
  const Range d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  A sum = 0;
  for (int64_t o = d.low; o < d.high; o++)
    for (int64_t q = h.low; q < h.high; q++)
      for (int64_t v = w.low; v < w.high; v++) {
        // y = m^(1/p), dm = dy / p * y^(1-p): no slope where y is zero.
        const int64_t at = plane + p.out.offset(o, q, v);
        const A value = prim::to_accumulator(y[at]);
        const A slope = prim::to_accumulator(dy[at]) * A(window_share(p, o, q, v));
        sum += value == 0 ? A(0) : norm == 2 ? slope / value : slope * raise(value, 1 - norm);
      }
  dx[i] = prim::from_accumulator<T>(sum == 0 ? A(0) : sum * raise(prim::to_accumulator(x[i]), norm - 1));
}

Divisor divisor(const PoolShape& s) { return {s.count_include_pad, s.divisor_override}; }

}  // namespace

void avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = outputs(s);
    launch_elements(ctx, "avg_pool_forward", average_forward_kernel<T, Axis, Divisor>, n, sliding(s), divisor(s), n,
                    static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "avg_pool_backward", average_backward_kernel<T, Axis, Divisor>, n, sliding(s), divisor(s), n,
                    static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

void adaptive_avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = outputs(s);
    launch_elements(ctx, "adaptive_avg_pool_forward", average_forward_kernel<T, AdaptiveAxis, WindowSize>, n,
                    adaptive(s), WindowSize(), n, static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void adaptive_avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "adaptive_avg_pool_backward", average_backward_kernel<T, AdaptiveAxis, WindowSize>, n,
                    adaptive(s), WindowSize(), n, static_cast<const T*>(dy), static_cast<T*>(dx));
  });
}

void lp_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = outputs(s);
    launch_elements(ctx, "lp_pool_forward", lp_forward_kernel<T>, n, sliding(s), s.norm_type, n,
                    static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void lp_pool_backward(const PoolShape& s, const void* dy, const void* x, const void* y, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "lp_pool_backward", lp_backward_kernel<T>, n, sliding(s), s.norm_type, n,
                    static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<const T*>(y), static_cast<T*>(dx));
  });
}

}  // namespace fastconv::cuda
