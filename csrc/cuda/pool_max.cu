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

template <class I, class T, int V>
__global__ void max_pool_forward_kernel(Pool<I, Axis> p, int64_t n, const T* x, T* y, IndexArray index) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i * V >= n) return;
  const Place<I> to = p.out.template place<V>(I(i));
  const T* plane = x + p.in.plane(to);
  const Range<I> t = p.axis[0].taps(to.at[0]), r = p.axis[1].taps(to.at[1]), w = p.axis[2].taps(to.at[2]);
  const I d0 = p.axis[0].origin(to.at[0]), h0 = p.axis[1].origin(to.at[1]), w0 = p.axis[2].origin(to.at[2]);
  A best[V];
  I tap[V];
#pragma unroll
  for (int j = 0; j < V; j++) {
    best[j] = -A(INFINITY);
    tap[j] = -1;
  }
  for (I a = t.low; a < t.high; a++)
    for (I b = r.low; b < r.high; b++)
      for (I c = w.low; c < w.high; c++) {
        const I d = d0 + a * p.axis[0].dilation, h = h0 + b * p.axis[1].dilation, v = w0 + c * p.axis[2].dilation;
        const Pack<T, V> pack = load_pack<T, V>(plane + p.in.offset(d, h, v));
        const I number = (a * p.axis[1].kernel + b) * p.axis[2].kernel + c;
#pragma unroll
        for (int j = 0; j < V; j++) {
          const A value = prim::to_accumulator(pack.v[j]);
          if (tap[j] >= 0 && !better(value, best[j])) continue;
          best[j] = value;
          tap[j] = number;
        }
      }
  Pack<T, V> out;
#pragma unroll
  for (int j = 0; j < V; j++) out.v[j] = prim::from_accumulator<T>(best[j]);
  store_pack<T, V>(y + i * V, out);
  if (index.kind == Indices::none) return;
  const bool empty = tap[0] < 0;  // a window that lies beyond the input: its first tap, at no place
  if (index.item == 1) {
    Pack<std::uint8_t, V> taps;
#pragma unroll
    for (int j = 0; j < V; j++)
      taps.v[j] = std::uint8_t(empty ? (t.low * p.axis[1].kernel + r.low) * p.axis[2].kernel + w.low : tap[j]);
    store_pack<std::uint8_t, V>(static_cast<std::uint8_t*>(index.data) + i * V, taps);
    return;
  }
  for (int j = 0; j < V; j++) {
    I number = tap[j];
    if (index.kind == Indices::window) {
      index.put(i * V + j, empty ? (t.low * p.axis[1].kernel + r.low) * p.axis[2].kernel + w.low : number);
      continue;
    }
    if (empty) {
      index.put(i * V + j, -1);
      continue;
    }
    const I c = last_digit<I>(number, p.axis[2].kernel), b = last_digit<I>(number, p.axis[1].kernel);
    const int64_t d = d0 + number * p.axis[0].dilation, h = h0 + b * p.axis[1].dilation, v = w0 + c * p.axis[2].dilation;
    index.put(i * V + j, (d * p.in.size[1] + h) * p.in.size[2] + v);
  }
}

// The tap of window o that lies on input x, or -1.
template <class I> FC_DEVICE I tap_on(const Axis<I>& a, I o, I x) {
  const I distance = x - a.origin(o);
  const I tap = over<I>(distance, a.dilation);
  return tap * a.dilation == distance ? tap : -1;
}

template <class I, class T, int V>
__global__ void max_pool_backward_kernel(Pool<I, Axis> p, int64_t n, const T* dy, IndexArray index, T* dx) {
  const int64_t i = element();
  if (i * V >= n) return;
  const Place<I> to = p.in.template place<V>(I(i));
  const I plane = p.out.plane(to);
  const int64_t own = (int64_t(to.at[0]) * p.in.size[1] + to.at[1]) * p.in.size[2] + to.at[2];
  const Range<I> d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  Accumulator<T> sums[V] = {};
  for (I o = d.low; o < d.high; o++) {
    const I t = tap_on<I>(p.axis[0], o, to.at[0]);
    for (I q = h.low; t >= 0 && q < h.high; q++) {
      const I r = tap_on<I>(p.axis[1], q, to.at[1]);
      for (I v = w.low; r >= 0 && v < w.high; v++) {
        const I s = tap_on<I>(p.axis[2], v, to.at[2]);
        if (s < 0) continue;
        const int64_t at = plane + p.out.offset(o, q, v);
        const int64_t wanted =
            index.kind == Indices::flat ? own : int64_t((t * p.axis[1].kernel + r) * p.axis[2].kernel + s);
        const Pack<T, V> gradient = load_pack<T, V>(dy + at);
        Pack<std::uint8_t, V> taps{};
        if (index.item == 1) taps = load_pack<std::uint8_t, V>(static_cast<const std::uint8_t*>(index.data) + at);
#pragma unroll
        for (int j = 0; j < V; j++) {
          const int64_t chosen = index.item == 1 ? int64_t(taps.v[j]) : index.get(at + j);
          if (chosen == wanted) sums[j] += prim::to_accumulator(gradient.v[j]);
        }
      }
    }
  }
  Pack<T, V> out;
#pragma unroll
  for (int j = 0; j < V; j++) out.v[j] = prim::from_accumulator<T>(sums[j]);
  store_pack<T, V>(dx + i * V, out);
}

template <class I, class T, int V>
__global__ void adaptive_max_forward_kernel(Pool<I, AdaptiveAxis> p, int64_t n, const T* x, T* y, int64_t* indices) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i * V >= n) return;
  const Place<I> to = p.out.template place<V>(I(i));
  const T* plane = x + p.in.plane(to);
  const Range<I> t = p.axis[0].inputs(to.at[0]), r = p.axis[1].inputs(to.at[1]), w = p.axis[2].inputs(to.at[2]);
  A best[V];
  I place[V];
#pragma unroll
  for (int j = 0; j < V; j++) {
    best[j] = -A(INFINITY);
    place[j] = (t.low * p.in.size[1] + r.low) * p.in.size[2] + w.low;
  }
  for (I d = t.low; d < t.high; d++)
    for (I h = r.low; h < r.high; h++)
      for (I v = w.low; v < w.high; v++) {
        const Pack<T, V> pack = load_pack<T, V>(plane + p.in.offset(d, h, v));
        const I here = (d * p.in.size[1] + h) * p.in.size[2] + v;
#pragma unroll
        for (int j = 0; j < V; j++) {
          const A value = prim::to_accumulator(pack.v[j]);
          if (!better(value, best[j])) continue;
          best[j] = value;
          place[j] = here;
        }
      }
  Pack<T, V> out;
#pragma unroll
  for (int j = 0; j < V; j++) {
    out.v[j] = prim::from_accumulator<T>(best[j]);
    if (indices) indices[i * V + j] = place[j];
  }
  store_pack<T, V>(y + i * V, out);
}

template <class I, class T, int V>
__global__ void adaptive_max_backward_kernel(Pool<I, AdaptiveAxis> p, int64_t n, const T* dy, const int64_t* indices,
                                             T* dx) {
  const int64_t i = element();
  if (i * V >= n) return;
  const Place<I> to = p.in.template place<V>(I(i));
  const I plane = p.out.plane(to);
  const int64_t own = (int64_t(to.at[0]) * p.in.size[1] + to.at[1]) * p.in.size[2] + to.at[2];
  const Range<I> d = p.axis[0].windows(to.at[0]), h = p.axis[1].windows(to.at[1]), w = p.axis[2].windows(to.at[2]);
  Accumulator<T> sums[V] = {};
  for (I o = d.low; o < d.high; o++)
    for (I q = h.low; q < h.high; q++)
      for (I v = w.low; v < w.high; v++) {
        const int64_t at = plane + p.out.offset(o, q, v);
        const Pack<T, V> gradient = load_pack<T, V>(dy + at);
#pragma unroll
        for (int j = 0; j < V; j++)
          if (indices[at + j] == own) sums[j] += prim::to_accumulator(gradient.v[j]);
      }
  Pack<T, V> out;
#pragma unroll
  for (int j = 0; j < V; j++) out.v[j] = prim::from_accumulator<T>(sums[j]);
  store_pack<T, V>(dx + i * V, out);
}

// ---- unpooling -----------------------------------------------------------------------------------------------------

__global__ void no_source_kernel(int64_t n, int64_t* source) {
  const int64_t i = element();
  if (i < n) source[i] = -1;
}

FC_DEVICE int64_t target_of(const Pool<int64_t, AdaptiveAxis>& p, const Place<int64_t>& from, int64_t index) {
  const int64_t w = take_digit(index, p.out.size[2]), h = take_digit(index, p.out.size[1]);
  return p.out.plane(from) + p.out.offset(index, h, w);
}

// Of several values for one place the last in the plane's order stays: the one with the largest position.
__global__ void unpool_source_kernel(Pool<int64_t, AdaptiveAxis> p, int64_t n, const int64_t* indices, int64_t* source) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t index = indices[i], plane = p.out.size[0] * p.out.size[1] * p.out.size[2];
  if (std::uint64_t(index) < std::uint64_t(plane)) prim::atomic_max(source + target_of(p, p.in.place<1>(i), index), i);
}

template <class T> __global__ void unpool_kernel(int64_t n, const T* x, const int64_t* source, T* y) {
  const int64_t i = element();
  if (i < n) y[i] = source[i] < 0 ? T(0) : x[source[i]];
}

template <class T>
__global__ void unpool_backward_kernel(Pool<int64_t, AdaptiveAxis> p, int64_t n, const T* dy, const int64_t* indices, T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t index = indices[i], plane = p.out.size[0] * p.out.size[1] * p.out.size[2];
  dx[i] = std::uint64_t(index) < std::uint64_t(plane) ? dy[target_of(p, p.in.place<1>(i), index)] : T(0);
}

}  // namespace

void max_pool_forward(const PoolShape& s, const void* x, void* y, Indices kind, void* indices, Context& ctx) {
  with_pool<Axis>(s, [&](auto tag, auto pool, auto width) {
    using T = decltype(tag);
    using I = typename decltype(pool)::Index;
    constexpr int V = decltype(width)::value;
    const int64_t n = outputs(s);
    launch_packs<V>(ctx, "max_pool_forward", max_pool_forward_kernel<I, T, V>, n, pool, n,
                    static_cast<const T*>(x), static_cast<T*>(y), index_array(s, kind, indices));
  }, x, y, indices);
}

void max_pool_backward(const PoolShape& s, const void* dy, Indices kind, const void* indices, void* dx, Context& ctx) {
  with_pool<Axis>(s, [&](auto tag, auto pool, auto width) {
    using T = decltype(tag);
    using I = typename decltype(pool)::Index;
    constexpr int V = decltype(width)::value;
    const int64_t n = inputs(s);
    launch_packs<V>(ctx, "max_pool_backward", max_pool_backward_kernel<I, T, V>, n, pool, n,
                    static_cast<const T*>(dy), index_array(s, kind, indices), static_cast<T*>(dx));
  }, dy, indices, dx);
}

void adaptive_max_pool_forward(const PoolShape& s, const void* x, void* y, int64_t* indices, Context& ctx) {
  with_pool<AdaptiveAxis>(s, [&](auto tag, auto pool, auto width) {
    using T = decltype(tag);
    using I = typename decltype(pool)::Index;
    constexpr int V = decltype(width)::value;
    const int64_t n = outputs(s);
    launch_packs<V>(ctx, "adaptive_max_pool_forward", adaptive_max_forward_kernel<I, T, V>, n,
                    pool, n, static_cast<const T*>(x), static_cast<T*>(y), indices);
  }, x, y);
}

void adaptive_max_pool_backward(const PoolShape& s, const void* dy, const int64_t* indices, void* dx, Context& ctx) {
  with_pool<AdaptiveAxis>(s, [&](auto tag, auto pool, auto width) {
    using T = decltype(tag);
    using I = typename decltype(pool)::Index;
    constexpr int V = decltype(width)::value;
    const int64_t n = inputs(s);
    launch_packs<V>(ctx, "adaptive_max_pool_backward", adaptive_max_backward_kernel<I, T, V>, n,
                    pool, n, static_cast<const T*>(dy), indices, static_cast<T*>(dx));
  }, dy, dx);
}

void max_unpool_forward(const PoolShape& s, const void* x, const int64_t* indices, void* y, Context& ctx) {
  const int64_t n = inputs(s), places = outputs(s);
  int64_t* source = static_cast<int64_t*>(ctx.workspace(std::size_t(places + 1) * sizeof(int64_t)));
  if (!source) return;
  launch_elements(ctx, "no_source", no_source_kernel, places, places, source);
  launch_elements(ctx, "unpool_source", unpool_source_kernel, n, Pool<int64_t, AdaptiveAxis>(s), n, indices, source);
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
    launch_elements(ctx, "unpool_backward", unpool_backward_kernel<T>, n, Pool<int64_t, AdaptiveAxis>(s), n,
                    static_cast<const T*>(dy),
                    indices, static_cast<T*>(dx));
  });
}

}  // namespace fastconv::cuda
