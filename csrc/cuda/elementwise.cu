// Sums and copies of rows, activations and PReLU: one element a thread, in whatever order memory has.
#include "channel_reduce.cuh"

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
template <class T>
__global__ void activation_forward_kernel(Activation kind, int64_t n, const T* x, double a, double b, T* y) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  A v = prim::to_accumulator(x[i]);
  if (kind == Activation::relu) {
    if (v <= 0) v = 0;
  } else if (kind == Activation::hardtanh) {
    const A low = stored<T>(A(a)), high = stored<T>(A(b));
    if (v < low) v = low;
    if (v > high) v = high;
  } else if (!(v > 0)) {
    v *= A(a);
  }
  y[i] = prim::from_accumulator<T>(v);
}

template <class T>
__global__ void activation_backward_kernel(Activation kind, int64_t n, const T* dy, const T* ref, double a, double b,
                                           T* dx) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= n) return;
  A g = prim::to_accumulator(dy[i]);
  const A v = prim::to_accumulator(ref[i]);
  if (kind == Activation::relu) {
    if (v <= 0) g = 0;
  } else if (kind == Activation::hardtanh) {
    if (!(v > stored<T>(A(a)) && v < stored<T>(A(b)))) g = 0;
  } else if (!(v > 0)) {
    g *= A(a);
  }
  dx[i] = prim::from_accumulator<T>(g);
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
  static constexpr int kSums = 1;
  const T* dy;
  FC_DEVICE void add(int64_t i, int64_t, double (&sum)[1]) const { sum[0] += double(prim::to_accumulator(dy[i])); }
};

template <class T> struct SlopeGradient {
  static constexpr int kSums = 1;
  const T *dy, *x;
  FC_DEVICE void add(int64_t i, int64_t, double (&sum)[1]) const {
    const Accumulator<T> v = prim::to_accumulator(x[i]);
    if (!(v > 0)) sum[0] += double(v) * double(prim::to_accumulator(dy[i]));
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
    launch_elements(ctx, "activation_forward", activation_forward_kernel<T>, n, kind, n, static_cast<const T*>(x), a, b,
                    static_cast<T*>(y));
  });
}

void activation_backward(Activation kind, DType dtype, int64_t n, const void* dy, const void* ref, double a, double b,
                         void* dx, Context& ctx) {
  with_type(dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_elements(ctx, "activation_backward", activation_backward_kernel<T>, n, kind, n, static_cast<const T*>(dy),
                    static_cast<const T*>(ref), a, b, static_cast<T*>(dx));
  });
}

void channel_sum(const NormShape& s, const void* dy, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const Groups g(s, false);
    double* partials = static_cast<double*>(ctx.workspace(g.partial_bytes(1)));
    if (!partials) return;
    reduce_groups(ctx, "channel_sum", g, Values<T>{static_cast<const T*>(dy)}, partials);
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
    reduce_groups(ctx, "prelu_slope", g, SlopeGradient<T>{gradient, from}, partials);
    store_sums<T>(ctx, g, partials, dw);
  });
}

}  // namespace fastconv::cuda
