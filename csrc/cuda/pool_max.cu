// Max pooling, sliding and adaptive, forward and backward, and unpooling.
//
// Of equal values the first in (depth, height, width) order wins, the first NaN before all numbers; what lies outside
// the input is no candidate. A gradient is gathered: each input looks which of the windows over it chose it, in their
// order, so that nothing is added in an order that could change.
#include "windows.cuh"

namespace fastconv::cuda {
namespace {

// Where a chosen tap is reported: nowhere, as the tap's number in the window, or as the place in the plane.
struct IndexArray {
  Indices kind;
  void* data;
  std::size_t item;

  FC_DEVICE void put(int64_t at, int64_t value) const {
    if (item == 1) static_cast<std::uint8_t*>(data)[at] = std::uint8_t(value);
    else if (item == 4) static_cast<std::int32_t*>(data)[at] = std::int32_t(value);
    else static_cast<int64_t*>(data)[at] = value;
  }
  FC_DEVICE int64_t get(int64_t at) const {
    if (item == 1) return static_cast<const std::uint8_t*>(data)[at];
    if (item == 4) return static_cast<const std::int32_t*>(data)[at];
    return static_cast<const int64_t*>(data)[at];
  }
};
IndexArray index_array(const PoolShape& s, Indices kind, const void* data) {
  return {kind, const_cast<void*>(data), kind == Indices::window ? window_index_size(s) : 8};
}

template <class A> FC_DEVICE bool better(A value, A best) { return value > best || (value != value && best == best); }

template <class T>
__global__ void max_pool_forward_kernel(Pool<Axis> p, int64_t n, const T* x, T* y, IndexArray index) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.out.place(i);
  const T* plane = x + p.in.plane(to);
  const Range t = p.axis[0].taps(to.at[0]), r = p.axis[1].taps(to.at[1]), w = p.axis[2].taps(to.at[2]);
  const int64_t d0 = p.axis[0].origin(to.at[0]), h0 = p.axis[1].origin(to.at[1]), w0 = p.axis[2].origin(to.at[2]);
  A best = -A(INFINITY);
  int64_t tap = (t.low * p.axis[1].kernel + r.low) * p.axis[2].kernel + w.low, place = -1;
  for (int64_t a = t.low; a < t.high; a++)
    for (int64_t b = r.low; b < r.high; b++)
      for (int64_t c = w.low; c < w.high; c++) {
        const int64_t d = d0 + a * p.axis[0].dilation, h = h0 + b * p.axis[1].dilation, v = w0 + c * p.axis[2].dilation;
        const A value = prim::to_accumulator(plane[p.in.offset(d, h, v)]);
        if (place >= 0 && !better(value, best)) continue;
        best = value;
        tap = (a * p.axis[1].kernel + b) * p.axis[2].kernel + c;
        place = (d * p.in.size[1] + h) * p.in.size[2] + v;
      }
  y[i] = prim::from_accumulator<T>(best);
  if (index.kind != Indices::none) index.put(i, index.kind == Indices::flat ? place : tap);
}

// The tap of window o that lies on input x, or -1.
FC_DEVICE int64_t tap_on(const Axis& a, int64_t o, int64_t x) {
  const int64_t distance = x - a.origin(o);
  const int64_t tap = divide_by_step(distance, a.dilation);
  return tap * a.dilation == distance ? tap : -1;
}

template <class T>
__global__ void max_pool_backward_kernel(Pool<Axis> p, int64_t n, const T* dy, IndexArray index, T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.in.place(i);
  const int64_t plane = p.out.plane(to);
  const int64_t own = (to.at[0] * p.in.size[1] + to.at[1]) * p.in.size[2] + to.at[2];
  const Range d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  Accumulator<T> sum = 0;
  for (int64_t o = d.low; o < d.high; o++) {
    const int64_t t = tap_on(p.axis[0], o, to.at[0]);
    for (int64_t q = h.low; t >= 0 && q < h.high; q++) {
      const int64_t r = tap_on(p.axis[1], q, to.at[1]);
      for (int64_t v = w.low; r >= 0 && v < w.high; v++) {
        const int64_t s = tap_on(p.axis[2], v, to.at[2]);
        if (s < 0) continue;
        const int64_t at = plane + p.out.offset(o, q, v);
        const int64_t wanted =
            index.kind == Indices::flat ? own : (t * p.axis[1].kernel + r) * p.axis[2].kernel + s;
        if (index.get(at) == wanted) sum += prim::to_accumulator(dy[at]);
      }
    }
  }
  dx[i] = prim::from_accumulator<T>(sum);
}

template <class T>
__global__ void adaptive_max_forward_kernel(Pool<AdaptiveAxis> p, int64_t n, const T* x, T* y, int64_t* indices) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.out.place(i);
  const T* plane = x + p.in.plane(to);
  const Range t = p.axis[0].inputs(to.at[0]), r = p.axis[1].inputs(to.at[1]), w = p.axis[2].inputs(to.at[2]);
  A best = -A(INFINITY);
  int64_t place = (t.low * p.in.size[1] + r.low) * p.in.size[2] + w.low;
  for (int64_t d = t.low; d < t.high; d++)
    for (int64_t h = r.low; h < r.high; h++)
      for (int64_t v = w.low; v < w.high; v++) {
        const A value = prim::to_accumulator(plane[p.in.offset(d, h, v)]);
        if (!better(value, best)) continue;
        best = value;
        place = (d * p.in.size[1] + h) * p.in.size[2] + v;
      }
  y[i] = prim::from_accumulator<T>(best);
  if (indices) indices[i] = place;
}

template <class T>
__global__ void adaptive_max_backward_kernel(Pool<AdaptiveAxis> p, int64_t n, const T* dy, const int64_t* indices,
                                             T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const Place to = p.in.place(i);
  const int64_t plane = p.out.plane(to);
  const int64_t own = (to.at[0] * p.in.size[1] + to.at[1]) * p.in.size[2] + to.at[2];
  const Range d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  Accumulator<T> sum = 0;
  for (int64_t o = d.low; o < d.high; o++)
    for (int64_t q = h.low; q < h.high; q++)
      for (int64_t v = w.low; v < w.high; v++) {
        const int64_t at = plane + p.out.offset(o, q, v);
        if (indices[at] == own) sum += prim::to_accumulator(dy[at]);
      }
  dx[i] = prim::from_accumulator<T>(sum);
}

// ---- unpooling -----------------------------------------------------------------------------------------------------

__global__ void no_source_kernel(int64_t n, int64_t* source) {
  const int64_t i = element();
  if (i < n) source[i] = -1;
}

FC_DEVICE int64_t target_of(const Pool<AdaptiveAxis>& p, const Place& from, int64_t index) {
  const int64_t w = take_digit(index, p.out.size[2]), h = take_digit(index, p.out.size[1]);
  return p.out.plane(from) + p.out.offset(index, h, w);
}

// Of several values for one place the last in the plane's order stays: the one with the largest position.
__global__ void unpool_source_kernel(Pool<AdaptiveAxis> p, int64_t n, const int64_t* indices, int64_t* source) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t index = indices[i], plane = p.out.size[0] * p.out.size[1] * p.out.size[2];
  if (std::uint64_t(index) < std::uint64_t(plane)) prim::atomic_max(source + target_of(p, p.in.place(i), index), i);
}

template <class T> __global__ void unpool_kernel(int64_t n, const T* x, const int64_t* source, T* y) {
  const int64_t i = element();
  if (i < n) y[i] = source[i] < 0 ? T(0) : x[source[i]];
}

template <class T>
__global__ void unpool_backward_kernel(Pool<AdaptiveAxis> p, int64_t n, const T* dy, const int64_t* indices, T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t index = indices[i], plane = p.out.size[0] * p.out.size[1] * p.out.size[2];
  dx[i] = std::uint64_t(index) < std::uint64_t(plane) ? dy[target_of(p, p.in.place(i), index)] : T(0);
}

}  // namespace

void max_pool_forward(const PoolShape& s, const void* x, void* y, Indices kind, void* indices, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = outputs(s);
    launch_elements(ctx, "max_pool_forward", max_pool_forward_kernel<T>, n, sliding(s), n, static_cast<const T*>(x),
                    static_cast<T*>(y), index_array(s, kind, indices));
  });
}

void max_pool_backward(const PoolShape& s, const void* dy, Indices kind, const void* indices, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "max_pool_backward", max_pool_backward_kernel<T>, n, sliding(s), n, static_cast<const T*>(dy),
                    index_array(s, kind, indices), static_cast<T*>(dx));
  });
}

void adaptive_max_pool_forward(const PoolShape& s, const void* x, void* y, int64_t* indices, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = outputs(s);
    launch_elements(ctx, "adaptive_max_pool_forward", adaptive_max_forward_kernel<T>, n, adaptive(s), n,
                    static_cast<const T*>(x), static_cast<T*>(y), indices);
  });
}

void adaptive_max_pool_backward(const PoolShape& s, const void* dy, const int64_t* indices, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "adaptive_max_pool_backward", adaptive_max_backward_kernel<T>, n, adaptive(s), n,
                    static_cast<const T*>(dy), indices, static_cast<T*>(dx));
  });
}

void max_unpool_forward(const PoolShape& s, const void* x, const int64_t* indices, void* y, Context& ctx) {
  const int64_t n = inputs(s), places = outputs(s);
  int64_t* source = static_cast<int64_t*>(ctx.workspace(std::size_t(places + 1) * sizeof(int64_t)));
  if (!source) return;
  launch_elements(ctx, "no_source", no_source_kernel, places, places, source);
  launch_elements(ctx, "unpool_source", unpool_source_kernel, n, adaptive(s), n, indices, source);
  with_item(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_elements(ctx, "unpool", unpool_kernel<T>, places, places, static_cast<const T*>(x), source,
                    static_cast<T*>(y));
  });
}

void max_unpool_backward(const PoolShape& s, const void* dy, const int64_t* indices, void* dx, Context& ctx) {
  with_item(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = inputs(s);
    launch_elements(ctx, "unpool_backward", unpool_backward_kernel<T>, n, adaptive(s), n, static_cast<const T*>(dy),
                    indices, static_cast<T*>(dx));
  });
}

}  // namespace fastconv::cuda
