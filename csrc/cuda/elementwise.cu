// Sums and copies of rows, activations and PReLU, in whatever order memory has.
#include "channel_reduce.cuh"
#include "vectors.cuh"

namespace fastconv::cuda {
namespace {

// The value that storage type T holds for v.
template <class T> FC_DEVICE Accumulator<T> stored(Accumulator<T> v) {
  return prim::to_accumulator(prim::from_accumulator<T>(v));
}

template <class T>
__global__ void add_rows_kernel(int64_t n, int64_t length, const T* a, int64_t a_step, const T* b, int64_t b_step, T* y,
                                int64_t y_step) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t row = divide(i, length), column = i - row * length;
  const T value = a[row * a_step + column];
  y[row * y_step + column] =
      b ? prim::from_accumulator<T>(prim::to_accumulator(value) + prim::to_accumulator(b[row * b_step + column]))
        : value;
}

// Comparisons with NaN are false: each form lets NaN through.
template <class T> FC_DEVICE Accumulator<T> activate(Activation kind, Accumulator<T> v, double a, double b) {
  using A = Accumulator<T>;
  if (kind == Activation::relu) {
    if (v <= 0) v = 0;
  } else if (kind == Activation::hardtanh) {
    const A low = stored<T>(A(a)), high = stored<T>(A(b));
    if (v < low) v = low;
    if (v > high) v = high;
  } else if (!(v > 0)) {
    v *= A(a);
  }
  return v;
}
template <class T>
FC_DEVICE Accumulator<T> slope(Activation kind, Accumulator<T> g, Accumulator<T> v, double a, double b) {
  using A = Accumulator<T>;
  if (kind == Activation::relu) {
    if (v <= 0) g = 0;
  } else if (kind == Activation::hardtanh) {
    if (!(v > stored<T>(A(a)) && v < stored<T>(A(b)))) g = 0;
  } else if (!(v > 0)) {
    g *= A(a);
  }
  return g;
}

template <class T>
__global__ void activation_forward_kernel(Activation kind, int64_t n, bool aligned, const T* x, double a, double b,
                                          T* y) {
  constexpr int V = kVector<T>;
  const Share16<V> share(n);
  if (!share.valid) return;
  const bool whole = aligned && share.valid == V;
  Pack<T, V> pack = load_pack<T, V>(x + share.first, share.valid, whole);
#pragma unroll
  for (int i = 0; i < V; i++)
    pack.v[i] = prim::from_accumulator<T>(activate<T>(kind, prim::to_accumulator(pack.v[i]), a, b));
  store_pack<T, V>(y + share.first, pack, share.valid, whole);
}

template <class T>
__global__ void activation_backward_kernel(Activation kind, int64_t n, bool aligned, const T* dy, const T* ref, double a,
                                           double b, T* dx) {
  constexpr int V = kVector<T>;
  const Share16<V> share(n);
  if (!share.valid) return;
  const bool whole = aligned && share.valid == V;
  Pack<T, V> g = load_pack<T, V>(dy + share.first, share.valid, whole);
  const Pack<T, V> v = load_pack<T, V>(ref + share.first, share.valid, whole);
#pragma unroll
  for (int i = 0; i < V; i++)
    g.v[i] = prim::from_accumulator<T>(
        slope<T>(kind, prim::to_accumulator(g.v[i]), prim::to_accumulator(v.v[i]), a, b));
  store_pack<T, V>(dx + share.first, g, share.valid, whole);
}

// Channel of element i of arrays N C M; one value for all channels where shared.
struct SlopeIndex {
  int64_t C, M;
  bool last, shared;
  FC_DEVICE int64_t operator()(int64_t i) const { return shared ? 0 : remainder_of(last ? i : divide(i, M), C); }
};

template <class T>
__global__ void prelu_forward_kernel(int64_t n, const T* x, const T* weight, SlopeIndex slope, T* y) {
  const int64_t i = element();
  if (i >= n) return;
  const Accumulator<T> v = prim::to_accumulator(x[i]);
  y[i] = prim::from_accumulator<T>(v > 0 ? v : v * prim::to_accumulator(weight[slope(i)]));
}

template <class T>
__global__ void prelu_backward_kernel(int64_t n, const T* dy, const T* x, const T* weight, SlopeIndex slope, T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const Accumulator<T> g = prim::to_accumulator(dy[i]);
  const bool positive = prim::to_accumulator(x[i]) > 0;
  dx[i] = prim::from_accumulator<T>(positive ? g : g * prim::to_accumulator(weight[slope(i)]));
}

template <class T> struct Values {
  static constexpr int kSums = 1, kAtOnce = 2;
  const T* dy;
  template <int V>
  FC_DEVICE void add(int64_t at, int64_t, int valid, bool whole, double (&sums)[1][V]) const {
    const Pack<T, V> g = load_pack<T, V>(dy + at, valid, whole);
#pragma unroll
    for (int j = 0; j < V; j++) sums[0][j] += double(prim::to_accumulator(g.v[j]));
  }
};

template <class T> struct SlopeGradient {
  static constexpr int kSums = 1, kAtOnce = 2;
  const T *dy, *x;
  template <int V>
  FC_DEVICE void add(int64_t at, int64_t, int valid, bool whole, double (&sums)[1][V]) const {
    const Pack<T, V> g = load_pack<T, V>(dy + at, valid, whole), from = load_pack<T, V>(x + at, valid, whole);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const Accumulator<T> v = prim::to_accumulator(from.v[j]);
      if (!(v > 0)) sums[0][j] += double(v) * double(prim::to_accumulator(g.v[j]));
    }
  }
};

SlopeIndex slope_index(const NormShape& s, bool shared) {
  return {s.C, s.M, s.layout == Layout::channels_last, shared};
}

}  // namespace

void add_rows(DType dtype, int64_t rows, int64_t length, const void* a, int64_t a_step, const void* b, int64_t b_step,
              void* y, int64_t y_step, Context& ctx) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = rows * length;
    launch_elements(ctx, "add_rows", add_rows_kernel<T>, n, n, length, static_cast<const T*>(a), a_step,
                    static_cast<const T*>(b), b_step, static_cast<T*>(y), y_step);
  });
}

void activation_forward(Activation kind, DType dtype, int64_t n, const void* x, double a, double b, void* y,
                        Context& ctx) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_packs<kVector<T>>(ctx, "activation_forward", activation_forward_kernel<T>, n, kind, n, all_aligned(x, y),
                             static_cast<const T*>(x), a, b, static_cast<T*>(y));
  });
}

void activation_backward(Activation kind, DType dtype, int64_t n, const void* dy, const void* ref, double a, double b,
                         void* dx, Context& ctx) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_packs<kVector<T>>(ctx, "activation_backward", activation_backward_kernel<T>, n, kind, n,
                             all_aligned(dy, ref, dx), static_cast<const T*>(dy), static_cast<const T*>(ref), a, b,
                             static_cast<T*>(dx));
  });
}

void channel_sum(const NormShape& s, const void* dy, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Groups g(s, false);
    double* partials = static_cast<double*>(ctx.workspace(g.partial_bytes(1)));
    if (!partials) return;
    reduce_groups<T>(ctx, "channel_sum", g, Values<T>{static_cast<const T*>(dy)}, partials, dy);
    store_sums<T>(ctx, g, partials, db);
  });
}

void prelu_forward(const NormShape& s, const void* x, const void* weight, bool shared, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = s.N * s.C * s.M;
    launch_elements(ctx, "prelu_forward", prelu_forward_kernel<T>, n, n, static_cast<const T*>(x),
                    static_cast<const T*>(weight), slope_index(s, shared), static_cast<T*>(y));
  });
}

void prelu_backward(const NormShape& s, const void* dy, const void* x, const void* weight, bool shared, void* dx,
                    void* dw, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = s.N * s.C * s.M;
    const NormShape one{1, 1, n, s.dtype, s.param_dtype, s.layout};
    const Groups g(shared ? one : s, false);
    double* partials = static_cast<double*>(ctx.workspace(g.partial_bytes(1)));
    if (!partials) return;
    const T *gradient = static_cast<const T*>(dy), *from = static_cast<const T*>(x);
    launch_elements(ctx, "prelu_backward", prelu_backward_kernel<T>, n, n, gradient, from,
                    static_cast<const T*>(weight), slope_index(s, shared), static_cast<T*>(dx));
    reduce_groups<T>(ctx, "prelu_slope", g, SlopeGradient<T>{gradient, from}, partials, gradient, from);
    store_sums<T>(ctx, g, partials, dw);
  });
}

}  // namespace fastconv::cuda
