// Average, power-average (Lp) and adaptive average pooling, forward and backward. A gradient is
// gathered from the windows that hold the input, in their order.
#include "windows.cuh"

namespace fastconv::cuda {
namespace {

// What the sum of a window is divided by: a product of one factor a dimension.
struct Divisor {
  bool include_pad;
  int64_t override_value;

  template <class I> FC_DEVICE double factor(const Axis<I>& a, I i) const {
    if (!include_pad) return double(a.inputs(i).length());
    const I rest = a.in + a.pad_after - a.origin(i);
    return double(a.kernel < rest ? a.kernel : rest);
  }
  template <class I> FC_DEVICE double operator()(const Pool<I, Axis>& p, I o, I q, I v) const {
    if (override_value) return double(override_value);
    return factor(p.axis[0], o) * factor(p.axis[1], q) * factor(p.axis[2], v);
  }
};
struct WindowSize {
  template <class I> FC_DEVICE double operator()(const Pool<I, AdaptiveAxis>& p, I o, I q, I v) const {
    return double(p.axis[0].inputs(o).length()) * double(p.axis[1].inputs(q).length()) *
           double(p.axis[2].inputs(v).length());
  }
};

template <class I, class T, int V, template <class> class A, class By>
__global__ void average_forward_kernel(Pool<I, A> p, By by, int64_t n, const T* x, T* y) {
  const int64_t i = element();
  if (i * V >= n) return;
  const Place<I> to = p.out.template place<V>(I(i));
  const T* plane = x + p.in.plane(to);
  const Range<I> t = p.axis[0].inputs(to.at[0]), r = p.axis[1].inputs(to.at[1]), w = p.axis[2].inputs(to.at[2]);
  Accumulator<T> sums[V] = {};  // of sums of lines: a long sum in one float would lose the digits of what is added
  for (I d = t.low; d < t.high; d++)
    for (I h = r.low; h < r.high; h++) {
      Accumulator<T> line[V] = {};
      for (I v = w.low; v < w.high; v++) {
        const Pack<T, V> pack = load_pack<T, V>(plane + p.in.offset(d, h, v));
#pragma unroll
        for (int j = 0; j < V; j++) line[j] += prim::to_accumulator(pack.v[j]);
      }
#pragma unroll
      for (int j = 0; j < V; j++) sums[j] += line[j];
    }
  const Accumulator<T> size = Accumulator<T>(by(p, to.at[0], to.at[1], to.at[2]));
  Pack<T, V> out;
#pragma unroll
  for (int j = 0; j < V; j++) out.v[j] = prim::from_accumulator<T>(sums[j] / size);
  store_pack<T, V>(y + i * V, out);
}

template <class I, class T, int V, template <class> class A, class By>
__global__ void average_backward_kernel(Pool<I, A> p, By by, int64_t n, const T* dy, T* dx) {
  const int64_t i = element();
  if (i * V >= n) return;
  const Place<I> to = p.in.template place<V>(I(i));
  const T* plane = dy + p.out.plane(to);
  const Range<I> d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  Accumulator<T> sums[V] = {};
  for (I o = d.low; o < d.high; o++)
    for (I q = h.low; q < h.high; q++)
      for (I v = w.low; v < w.high; v++) {
        const Accumulator<T> size = Accumulator<T>(by(p, o, q, v));
        const Pack<T, V> pack = load_pack<T, V>(plane + p.out.offset(o, q, v));
#pragma unroll
        for (int j = 0; j < V; j++) sums[j] += prim::to_accumulator(pack.v[j]) / size;
      }
  Pack<T, V> out;
#pragma unroll
  for (int j = 0; j < V; j++) out.v[j] = prim::from_accumulator<T>(sums[j]);
  store_pack<T, V>(dx + i * V, out);
}

template <template <class> class A, class By>
void average_forward(Context& ctx, const char* name, const PoolShape& s, const By& by, const void* x, void* y) {
  with_pool<A>(s, [&](auto tag, auto pool, auto width) {
    using T = decltype(tag);
    using I = typename decltype(pool)::Index;
    constexpr int V = decltype(width)::value;
    const int64_t n = outputs(s);
    launch_packs<V>(ctx, name, average_forward_kernel<I, T, V, A, By>, n, pool, by, n,
                    static_cast<const T*>(x), static_cast<T*>(y));
  }, x, y);
}

template <template <class> class A, class By>
void average_backward(Context& ctx, const char* name, const PoolShape& s, const By& by, const void* dy, void* dx) {
  with_pool<A>(s, [&](auto tag, auto pool, auto width) {
    using T = decltype(tag);
    using I = typename decltype(pool)::Index;
    constexpr int V = decltype(width)::value;
    const int64_t n = inputs(s);
    launch_packs<V>(ctx, name, average_backward_kernel<I, T, V, A, By>, n, pool, by, n,
                    static_cast<const T*>(dy), static_cast<T*>(dx));
  }, dy, dx);
}

// ---- power average -------------------------------------------------------------------------------------------------

template <class A> FC_DEVICE A raise(A v, A p) { return p == 2 ? v * v : p == 1 ? v : prim::power(v, p); }
template <class A> FC_DEVICE A root(A v, A p) {
  return p == 2 ? prim::square_root(v) : p == 1 ? v : prim::power(v, 1 / p);
}

// torch averages the part of the window that lies in the input and multiplies by the size of the whole window.
FC_DEVICE double window_share(const Pool<int64_t, Axis>& p, int64_t o, int64_t q, int64_t v) {
  return double(p.axis[0].kernel) / double(p.axis[0].inputs(o).length()) * double(p.axis[1].kernel) /
         double(p.axis[1].inputs(q).length()) * double(p.axis[2].kernel) / double(p.axis[2].inputs(v).length());
}

template <class T>
__global__ void lp_forward_kernel(Pool<int64_t, Axis> p, Accumulator<T> norm, int64_t n, const T* x, T* y) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  const Place<int64_t> to = p.out.place<1>(i);
  const T* plane = x + p.in.plane(to);
  const Range<int64_t> t = p.axis[0].inputs(to.at[0]), r = p.axis[1].inputs(to.at[1]), w = p.axis[2].inputs(to.at[2]);
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
__global__ void lp_backward_kernel(Pool<int64_t, Axis> p, Accumulator<T> norm, int64_t n, const T* dy, const T* x,
                                   const T* y, T* dx) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  const Place<int64_t> to = p.in.place<1>(i);
  const int64_t plane = p.out.plane(to);
  const Range<int64_t> d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
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
  average_forward<Axis>(ctx, "avg_pool_forward", s, divisor(s), x, y);
}
void avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  average_backward<Axis>(ctx, "avg_pool_backward", s, divisor(s), dy, dx);
}
void adaptive_avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  average_forward<AdaptiveAxis>(ctx, "adaptive_avg_pool_forward", s, WindowSize(), x, y);
}
void adaptive_avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  average_backward<AdaptiveAxis>(ctx, "adaptive_avg_pool_backward", s, WindowSize(), dy, dx);
}

void lp_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = outputs(s);
    launch_elements(ctx, "lp_pool_forward", lp_forward_kernel<T>, n, Pool<int64_t, Axis>(s), s.norm_type, n,
                    static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void lp_pool_backward(const PoolShape& s, const void* dy, const void* x, const void* y, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "lp_pool_backward", lp_backward_kernel<T>, n, Pool<int64_t, Axis>(s), s.norm_type, n,
                    static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<const T*>(y), static_cast<T*>(dx));
  });
}

}  // namespace fastconv::cuda
