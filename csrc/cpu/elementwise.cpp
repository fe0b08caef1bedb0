// Activations, PReLU, and the sum over all but the channels.
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr std::int64_t kChunk = 16384;  // elements a task: 64 KB of float32

// y[i] = f(x[i], ref[i]) for i in [0, n)
template <class T, class F> FC_INLINE void transform(std::int64_t n, const T* x, const T* ref, T* y, Context& ctx, F f) {
  constexpr int lanes = kLanes<Accumulator<T>>;
  const int threads = ctx.threads_for(double(n), 3.0 * double(n) * sizeof(T));
  parallel_for<KeepDenormals>(threads, ceil_div(n, kChunk), [&](std::int64_t task, int) {
    const std::int64_t end = min_of(n, (task + 1) * kChunk);
    std::int64_t i = task * kChunk;
    for (; i + lanes <= end; i += lanes) store(y + i, f(load(x + i), load(ref + i)));
    if (i < end) store_partial(y + i, f(load_partial(x + i, end - i), load_partial(ref + i, end - i)), end - i);
  });
}

// The value that storage type T holds for v.
template <class T> FC_INLINE Vec<Accumulator<T>> stored(double v) {
  return broadcast<Accumulator<T>>(to_accumulator(from_accumulator<T>(Accumulator<T>(v))));
}

template <class T>
void forward(Activation kind, std::int64_t n, const T* x, double a, double b, T* y, Context& ctx) {
  typedef Accumulator<T> A;
  const Vec<A> zero = broadcast<A>(0), low = stored<T>(a), high = stored<T>(b), slope = broadcast<A>(A(a));
  // Comparisons with NaN are false: each form lets NaN through.
  switch (kind) {
    case Activation::relu:
      return transform(n, x, x, y, ctx, [=](Vec<A> v, Vec<A>) { return select<A>(v <= zero, zero, v); });
    case Activation::hardtanh:
      return transform(n, x, x, y, ctx, [=](Vec<A> v, Vec<A>) {
        v = select<A>(v < low, low, v);
        return select<A>(v > high, high, v);
      });
    case Activation::leaky_relu:
      return transform(n, x, x, y, ctx, [=](Vec<A> v, Vec<A>) { return select<A>(v > zero, v, v * slope); });
  }
}

template <class T>
void backward(Activation kind, std::int64_t n, const T* dy, const T* ref, double a, double b, T* dx, Context& ctx) {
  typedef Accumulator<T> A;
  const Vec<A> zero = broadcast<A>(0), low = stored<T>(a), high = stored<T>(b), slope = broadcast<A>(A(a));
  switch (kind) {
    case Activation::relu:
      return transform(n, dy, ref, dx, ctx, [=](Vec<A> g, Vec<A> y) { return select<A>(y <= zero, zero, g); });
    case Activation::hardtanh:
      return transform(n, dy, ref, dx, ctx,
                       [=](Vec<A> g, Vec<A> x) { return select<A>((x <= low) | (x >= high), zero, g); });
    case Activation::leaky_relu:
      return transform(n, dy, ref, dx, ctx, [=](Vec<A> g, Vec<A> x) { return select<A>(x > zero, g, g * slope); });
  }
}

}  // namespace

void activation_forward(Activation kind, DType dtype, std::int64_t n, const void* x, double a, double b, void* y,
                        Context& ctx) {
  with_type(dtype, [&](auto tag) {
    typedef decltype(tag) T;
    forward(kind, n, static_cast<const T*>(x), a, b, static_cast<T*>(y), ctx);
  });
}

void activation_backward(Activation kind, DType dtype, std::int64_t n, const void* dy, const void* ref, double a,
                         double b, void* dx, Context& ctx) {
  with_type(dtype, [&](auto tag) {
    typedef decltype(tag) T;
    backward(kind, n, static_cast<const T*>(dy), static_cast<const T*>(ref), a, b, static_cast<T*>(dx), ctx);
  });
}

namespace {
struct Strides {
  std::int64_t n, c, m;
  explicit Strides(const NormShape& s)
      : n(s.C * s.M), c(s.layout == Layout::channels_first ? s.M : 1),
        m(s.layout == Layout::channels_first ? 1 : s.C) {}
};
}  // namespace

void channel_sum(const NormShape& s, const void* dy, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const Strides at(s);
    const T* g = static_cast<const T*>(dy);
    T* out = static_cast<T*>(db);
    parallel_for(ctx.threads_for(double(s.N * s.C * s.M), double(s.N * s.C * s.M)), s.C, [&](std::int64_t c, int) {
      double sum = 0;
      for (std::int64_t n = 0; n < s.N; n++)
        for (std::int64_t m = 0; m < s.M; m++) sum += double(to_accumulator(g[n * at.n + c * at.c + m * at.m]));
      out[c] = from_accumulator<T>(Accumulator<T>(sum));
    });
  });
}

void prelu_forward(const NormShape& s, const void* x, const void* weight, bool shared, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const Strides at(s);
    const T *in = static_cast<const T*>(x), *w = static_cast<const T*>(weight);
    T* out = static_cast<T*>(y);
    parallel_for<KeepDenormals>(ctx.threads_for(double(s.N * s.C * s.M), double(s.N * s.C * s.M)), s.N * s.C,
                                [&](std::int64_t task, int) {
      const std::int64_t c = task % s.C, base = task / s.C * at.n + c * at.c;
      const auto slope = to_accumulator(w[shared ? 0 : c]);
      for (std::int64_t m = 0; m < s.M; m++) {
        const auto v = to_accumulator(in[base + m * at.m]);
        out[base + m * at.m] = from_accumulator<T>(v > 0 ? v : v * slope);
      }
    });
  });
}

void prelu_backward(const NormShape& s, const void* dy, const void* x, const void* weight, bool shared, void* dx,
                    void* dw, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const Strides at(s);
    const T *g = static_cast<const T*>(dy), *in = static_cast<const T*>(x), *w = static_cast<const T*>(weight);
    T *out = static_cast<T*>(dx), *gradient = static_cast<T*>(dw);
    parallel_for<KeepDenormals>(ctx.threads_for(double(s.N * s.C * s.M), double(s.N * s.C * s.M)), s.C,
                                [&](std::int64_t c, int) {
      const auto slope = to_accumulator(w[shared ? 0 : c]);
      double sum = 0;
      for (std::int64_t n = 0; n < s.N; n++)
        for (std::int64_t m = 0; m < s.M; m++) {
          const std::int64_t i = n * at.n + c * at.c + m * at.m;
          const auto v = to_accumulator(in[i]), d = to_accumulator(g[i]);
          out[i] = from_accumulator<T>(v > 0 ? d : d * slope);
          if (!(v > 0)) sum += double(v) * double(d);
        }
      gradient[c] = from_accumulator<T>(Accumulator<T>(sum));
    });
  });
}

}  // namespace fastconv::cpu::FC_ISA
