// Sums and copies of rows, activations, PReLU, and the sum over all but the channels.
#include "groups.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr std::int64_t kChunk = 16384;  // elements a task: 64 KB of float32

// y[i] = f(x[i], ref[i]) for i in [0, n)
template <class T, class F> FC_INLINE void transform_piece(std::int64_t n, const T* x, const T* ref, T* y, F f) {
  constexpr int lanes = kLanes<Accumulator<T>>;
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, f(load(x + i), load(ref + i)));
  if (i < n) store_partial(y + i, f(load_partial(x + i, n - i), load_partial(ref + i, n - i)), n - i);
}
template <class T, class F> FC_INLINE void transform(std::int64_t n, const T* x, const T* ref, T* y, Context& ctx, F f) {
  const int threads = ctx.threads_for(double(n), 3.0 * double(n) * sizeof(T));
  // The pointers and f as arguments: the compiler need not assume that a store changes them.
  parallel_for<KeepDenormals>(threads, ceil_div(n, kChunk), [&](std::int64_t task, int) {
    const std::int64_t at = task * kChunk;
    transform_piece(min_of(n - at, kChunk), x + at, ref + at, y + at, f);
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
                       [=](Vec<A> g, Vec<A> x) { return select<A>((x > low) & (x < high), g, zero); });
    case Activation::leaky_relu:
      return transform(n, dy, ref, dx, ctx, [=](Vec<A> g, Vec<A> x) { return select<A>(x > zero, g, g * slope); });
  }
}

// f(row, first element, end of the elements) for pieces of rows.
template <class F> FC_INLINE void each_piece(std::int64_t rows, std::int64_t length, int threads, F&& f) {
  if (length > kChunk) {
    const std::int64_t pieces = ceil_div(length, kChunk);
    parallel_for<KeepDenormals>(threads, rows * pieces, [&](std::int64_t task, int) {
      const std::int64_t start = task % pieces * kChunk;
      f(task / pieces, start, min_of(length, start + kChunk));
    });
    return;
  }
  const std::int64_t together = kChunk / max_of(length, 1);
  parallel_for<KeepDenormals>(threads, ceil_div(rows, together), [&](std::int64_t task, int) {
    for (std::int64_t row = task * together; row < min_of(rows, (task + 1) * together); row++) f(row, 0, length);
  });
}

template <class T>
void add(std::int64_t rows, std::int64_t length, const T* a, std::int64_t a_step, const T* b, std::int64_t b_step, T* y,
         std::int64_t y_step, Context& ctx) {
  constexpr int lanes = kLanes<Accumulator<T>>;
  const double n = double(rows) * double(length);
  const int threads = ctx.threads_for(n, (b ? 3 : 2) * n * sizeof(T));
  if (!b)
    return each_piece(rows, length, threads, [&](std::int64_t row, std::int64_t i, std::int64_t end) {
      std::memcpy(y + row * y_step + i, a + row * a_step + i, std::size_t(end - i) * sizeof(T));
    });
  each_piece(rows, length, threads, [&](std::int64_t row, std::int64_t i, std::int64_t end) {
    const T *p = a + row * a_step, *q = b + row * b_step;
    T* to = y + row * y_step;
    for (; i + lanes <= end; i += lanes) store(to + i, load(p + i) + load(q + i));
    if (i < end) store_partial(to + i, load_partial(p + i, end - i) + load_partial(q + i, end - i), end - i);
  });
}

template <class T> struct ChannelSum {
  static constexpr bool kReduces = true, kFinishes = true, kApplies = false;
  const GroupView& v;
  const T* x;
  T* sums;
  Partials<1> partials;

  void reduce(std::int64_t g, std::int64_t t) const {
    sum_planes<Accumulator<T>, 1>(partials, g, t, [&](std::int64_t i, auto part, auto* acc)
                                  __attribute__((always_inline)) { acc[0] += load(x + i, part); });
  }
  void reduce_rows(std::int64_t instance, std::int64_t t, std::int64_t c, std::int64_t width) const {
    sum_rows<Accumulator<T>, 1>(partials, instance, t, c, width, 0, [&](std::int64_t i, std::int64_t, auto part, auto* acc)
                                __attribute__((always_inline)) { acc[0] += load(x + i, part); });
  }
  void finish(std::int64_t first, std::int64_t groups) const { store_totals(partials, first, groups, sums); }
};

template <class T> struct PreluForward {
  typedef Accumulator<T> A;
  static constexpr bool kReduces = false, kFinishes = false, kApplies = true;
  const GroupView& v;
  const T *x, *weight;
  T* y;

  void apply(std::int64_t g, std::int64_t t) const {
    const Vec<A> slope = broadcast<A>(to_accumulator(weight[g]));
    const T* const from = x;  // copies: the compiler need not assume that a store changes them
    T* const to = y;
    for (std::int64_t b = v.first_block(t); b < v.first_block(t + 1); b++)
      v.template each_in<A>(v.plane_block(g, b), [=](std::int64_t i, auto part) __attribute__((always_inline)) {
        const Vec<A> value = load(from + i, part);
        store(to + i, select<A>(value > Vec<A>{}, value, value * slope), part);
      });
  }
  void apply_rows(std::int64_t, std::int64_t t, std::int64_t c, std::int64_t width) const {
    const T *const from = x, *const slope = weight;
    T* const to = y;
    for (std::int64_t r = v.first_row(t); r < v.first_row(t + 1); r++)
      each_channel<A>(v.row_offset(0, r) + c, c, width, [=](std::int64_t i, std::int64_t j, auto part)
                      __attribute__((always_inline)) {
        const Vec<A> value = load(from + i, part);
        store(to + i, select<A>(value > Vec<A>{}, value, value * load(slope + j, part)), part);
      });
  }
};

template <class T> struct PreluBackward {
  typedef Accumulator<T> A;
  static constexpr bool kReduces = true, kFinishes = true, kApplies = false;
  const GroupView& v;
  const T *dy, *x, *weight;
  T *dx, *dw;
  Partials<1> partials;

  // Writes dx on the way.
  template <class P> FC_INLINE void step(std::int64_t i, P part, Vec<A> slope, Vec<A>* acc) const {
    const Vec<A> value = load(x + i, part), gradient = load(dy + i, part);
    const Mask<A> positive = value > Vec<A>{};
    store(dx + i, select<A>(positive, gradient, gradient * slope), part);
    acc[0] += select<A>(positive, Vec<A>{}, value * gradient);
  }
  void reduce(std::int64_t g, std::int64_t t) const {
    const Vec<A> slope = broadcast<A>(to_accumulator(weight[g]));
    sum_planes<A, 1>(partials, g, t, [&](std::int64_t i, auto part, Vec<A>* acc)
                     __attribute__((always_inline)) { step(i, part, slope, acc); });
  }
  void reduce_rows(std::int64_t instance, std::int64_t t, std::int64_t c, std::int64_t width) const {
    sum_rows<A, 1>(partials, instance, t, c, width, 1, [&](std::int64_t i, std::int64_t j, auto part, Vec<A>* acc)
                   __attribute__((always_inline)) { step(i, part, load(weight + c + j, part), acc); });
  }
  void finish(std::int64_t first, std::int64_t groups) const { store_totals(partials, first, groups, dw); }
};

// A shared slope makes one group of all values.
NormShape slope_groups(const NormShape& s, bool shared) {
  NormShape g = s;
  if (shared) {
    g.N = g.C = 1;
    g.M = s.N * s.C * s.M;
  }
  return g;
}

}  // namespace

void add_rows(DType dtype, std::int64_t rows, std::int64_t length, const void* a, std::int64_t a_step, const void* b,
              std::int64_t b_step, void* y, std::int64_t y_step, Context& ctx) {
  with_type(dtype, [&](auto tag) {
    typedef decltype(tag) T;
    add(rows, length, static_cast<const T*>(a), a_step, static_cast<const T*>(b), b_step, static_cast<T*>(y), y_step,
        ctx);
  });
}

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

void channel_sum(const NormShape& s, const void* dy, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const GroupView v(s, false);
    double* partials = static_cast<double*>(ctx.workspace(Partials<1>::bytes(v) + 1));
    if (!partials) return;
    run_groups<FlushDenormals>(v, ctx.threads_for(v.elements(), v.elements() * sizeof(T)),
                               ChannelSum<T>{v, static_cast<const T*>(dy), static_cast<T*>(db), {v, partials}});
  });
}

void prelu_forward(const NormShape& s, const void* x, const void* weight, bool shared, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const GroupView v(slope_groups(s, shared), false);
    run_groups<KeepDenormals>(v, ctx.threads_for(2 * v.elements(), 2 * v.elements() * sizeof(T)),
                              PreluForward<T>{v, static_cast<const T*>(x), static_cast<const T*>(weight),
                                              static_cast<T*>(y)});
  });
}

void prelu_backward(const NormShape& s, const void* dy, const void* x, const void* weight, bool shared, void* dx,
                    void* dw, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const GroupView v(slope_groups(s, shared), false);
    double* partials = static_cast<double*>(ctx.workspace(Partials<1>::bytes(v) + 1));
    if (!partials) return;
    run_groups<KeepDenormals>(v, ctx.threads_for(4 * v.elements(), 3 * v.elements() * sizeof(T)),
                              PreluBackward<T>{v, static_cast<const T*>(dy), static_cast<const T*>(x),
                                               static_cast<const T*>(weight), static_cast<T*>(dx),
                                               static_cast<T*>(dw), {v, partials}});
  });
}

}  // namespace fastconv::cpu::FC_ISA
