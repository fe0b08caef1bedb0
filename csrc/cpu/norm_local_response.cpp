// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).
//
// Window sums are added up afresh for every channel: a sum that slides would keep the rounding of a large value after
// it has left. A register holds pixels of a plane, or channels of a pixel.
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr std::int64_t kSegment = 256;    // pixels that a task takes through all channels of a plane
constexpr double kFlops = 40;             // of one element, by its time

// base ** -beta, with square roots for the exponents that networks use.
struct Power {
  enum Kind { three_quarters, half, one, any } kind;
  double beta;

  explicit Power(double b) : kind(b == 0.75 ? three_quarters : b == 0.5 ? half : b == 1 ? one : any), beta(b) {}
  template <class A> FC_INLINE Vec<A> raise(Vec<A> base) const {
    const Vec<A> unit = broadcast<A>(1);
    if (kind == three_quarters) {
      const Vec<A> root = square_root(base);
      return unit / (root * square_root(root));
    }
    if (kind == half) return unit / square_root(base);
    if (kind == one) return unit / base;
    for (int i = 0; i < kLanes<A>; i++) base[i] = A(__builtin_pow(double(base[i]), -beta));
    return base;
  }
};

struct Response {
  std::int64_t N, C, M, before, after;  // the window of channel c: c - before ... c + after
  bool planes;
  double scale, k;
  Power power;

  Response(const NormShape& s, std::int64_t size, double alpha, double beta, double k_)
      : N(s.N), C(s.C), M(s.M), before(min_of(size / 2, s.C)), after(min_of((size - 1) / 2, s.C)),
        planes(s.layout == Layout::channels_first), scale(alpha / double(size)), k(k_), power(beta) {}
  double elements() const { return double(N) * double(C) * double(M); }
  // Rows of scratch that hold the window around a channel.
  std::int64_t window() const { return max_of(1, min_of(before + after + 1, C)); }
  std::int64_t segment() const { return min_of(kSegment, round_up(M, 16)); }
  std::int64_t margin() const { return max_of(before, after); }
  std::int64_t padded_row() const { return round_up(C + 2 * margin() + 32, 16); }  // lanes <= 16
};

// f(offset of channel 0, pixels, thread) for every segment of every plane.
template <class F> void each_segment(const Response& r, int threads, F&& f) {
  const std::int64_t segments = ceil_div(r.M, kSegment);
  parallel_for(threads, r.N * segments, [&](std::int64_t task, int thread) {
    const std::int64_t start = task % segments * kSegment;
    f(task / segments * r.C * r.M + start, min_of(kSegment, r.M - start), thread);
  });
}

// f(offset of the pixel, thread) for every pixel of channels-last images.
template <class F> void each_pixel(const Response& r, int threads, F&& f) {
  const std::int64_t together = max_of(1, 16384 / max_of(r.C, 1)), pixels = r.N * r.M;
  parallel_for(threads, ceil_div(pixels, together), [&](std::int64_t task, int thread) {
    for (std::int64_t i = task * together; i < min_of(pixels, (task + 1) * together); i++) f(i * r.C, thread);
  });
}

// f(index, Whole or Part) for the registers of n values.
template <class A, class F> FC_INLINE void each_register(std::int64_t n, F&& f) {
  std::int64_t i = 0;
  for (; i + kLanes<A> <= n; i += kLanes<A>) f(i, Whole());
  if (i < n) f(i, Part{n - i});
}

// What is raised to -beta, from the window's sum of squares.
template <class A> FC_INLINE Vec<A> response_base(const Response& r, Vec<A> squares) {
  return broadcast<A>(A(r.k)) + broadcast<A>(A(r.scale)) * squares;
}

template <class T, class P>
FC_INLINE Vec<Accumulator<T>> plane_base(const Response& r, const T* x, std::int64_t c, P part) {
  Vec<Accumulator<T>> sum{};
  const std::int64_t end = min_of(r.C, c + r.after + 1);
  for (std::int64_t j = max_of(0, c - r.before); j < end; j++) {
    const auto v = load(x + j * r.M, part);
    sum += v * v;
  }
  return response_base<Accumulator<T>>(r, sum);
}

// Squares of a pixel's channels, between margins of zeros that windows and whole registers reach into.
template <class T> FC_INLINE void square_row(const Response& r, const T* x, Accumulator<T>* squares) {
  each_register<Accumulator<T>>(r.C, [&](std::int64_t c, auto part) __attribute__((always_inline)) {
    const auto v = load(x + c, part);
    store(squares + c, v * v, part);
  });
}
template <class A> FC_INLINE Vec<A> row_sum(const A* row, std::int64_t from, std::int64_t to) {
  Vec<A> sum{};
  for (std::int64_t j = from; j <= to; j++) sum += load(row + j);
  return sum;
}

template <class T> void forward(const Response& r, const T* x, T* y, Context& ctx) {
  typedef Accumulator<T> A;
  const int threads = ctx.threads_for(kFlops * r.elements(), 2 * r.elements() * sizeof(T));
  if (r.planes) {
    each_segment(r, threads, [&](std::int64_t base, std::int64_t pixels, int) {
      for (std::int64_t c = 0; c < r.C; c++)
        each_register<A>(pixels, [&](std::int64_t m, auto part) __attribute__((always_inline)) {
          const std::int64_t i = base + c * r.M + m;
          store(y + i, load(x + i, part) * r.power.raise<A>(plane_base(r, x + base + m, c, part)), part);
        });
    });
    return;
  }
  const std::size_t bytes = std::size_t(r.padded_row() * threads) * sizeof(A);
  A* scratch = static_cast<A*>(ctx.workspace(bytes));
  if (!scratch) return;
  std::memset(scratch, 0, bytes);
  each_pixel(r, threads, [&](std::int64_t i, int thread) {
    A* squares = scratch + thread * r.padded_row() + r.margin();
    square_row(r, x + i, squares);
    each_register<A>(r.C, [&](std::int64_t c, auto part) __attribute__((always_inline)) {
      const Vec<A> base = response_base<A>(r, row_sum(squares, c - r.before, c + r.after));
      store(y + i + c, load(x + i + c, part) * r.power.raise<A>(base), part);
    });
  });
}

// dx[c] = dy[c] base[c]^-beta - 2 beta scale x[c] * sum of dy x base^(-beta - 1) over the channels whose window has c.
template <class T> void backward(const Response& r, const T* dy, const T* x, T* dx, Context& ctx) {
  typedef Accumulator<T> A;
  const int threads = ctx.threads_for(2 * kFlops * r.elements(), 3 * r.elements() * sizeof(T));
  const Vec<A> factor = broadcast<A>(A(2 * r.power.beta * r.scale));
  const std::int64_t rows = r.window(), per_thread = r.planes ? 2 * rows * r.segment() : 3 * r.padded_row();
  const std::size_t bytes = std::size_t(per_thread * threads) * sizeof(A);
  A* scratch = static_cast<A*>(ctx.workspace(bytes));
  if (!scratch) return;
  if (r.planes) {
    each_segment(r, threads, [&](std::int64_t base, std::int64_t pixels, int thread) {
      // The terms of the sum and dy base^-beta, of the latest `rows` channels.
      A *terms = scratch + thread * per_thread, *direct = terms + rows * r.segment();
      for (std::int64_t ahead = 0; ahead < r.C + r.before; ahead++) {
        const std::int64_t c = ahead - r.before;
        if (ahead < r.C)
          each_register<A>(pixels, [&](std::int64_t m, auto part) __attribute__((always_inline)) {
            const std::int64_t i = base + ahead * r.M + m, slot = ahead % rows * r.segment() + m;
            const Vec<A> d = plane_base(r, x + base + m, ahead, part);
            const Vec<A> through = load(dy + i, part) * r.power.raise<A>(d);
            store(direct + slot, through);
            store(terms + slot, through * load(x + i, part) / d);
          });
        if (c >= 0)
          each_register<A>(pixels, [&](std::int64_t m, auto part) __attribute__((always_inline)) {
            const std::int64_t i = base + c * r.M + m;
            Vec<A> sum{};
            for (std::int64_t j = max_of(0, c - r.after); j < min_of(r.C, ahead + 1); j++)
              sum += load(terms + j % rows * r.segment() + m);
            store(dx + i, load(direct + c % rows * r.segment() + m) - factor * load(x + i, part) * sum, part);
          });
      }
    });
    return;
  }
  std::memset(scratch, 0, bytes);
  each_pixel(r, threads, [&](std::int64_t i, int thread) {
    A *squares = scratch + thread * per_thread + r.margin(), *terms = squares + r.padded_row(),
      *direct = terms + r.padded_row();
    square_row(r, x + i, squares);
    each_register<A>(r.C, [&](std::int64_t c, auto part) __attribute__((always_inline)) {
      const Vec<A> d = response_base<A>(r, row_sum(squares, c - r.before, c + r.after));
      const Vec<A> through = load(dy + i + c, part) * r.power.raise<A>(d);
      store(direct + c, through, part);
      store(terms + c, through * load(x + i + c, part) / d, part);
    });
    each_register<A>(r.C, [&](std::int64_t c, auto part) __attribute__((always_inline)) {
      const Vec<A> sum = row_sum(terms, c - r.after, c + r.before);
      store(dx + i + c, load(direct + c) - factor * load(x + i + c, part) * sum, part);
    });
  });
}

}  // namespace

void local_response_norm_forward(const NormShape& s, const void* x, std::int64_t size, double alpha, double beta,
                                 double k, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    forward(Response(s, size, alpha, beta, k), static_cast<const T*>(x), static_cast<T*>(y), ctx);
  });
}

void local_response_norm_backward(const NormShape& s, const void* dy, const void* x, std::int64_t size, double alpha,
                                  double beta, double k, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    backward(Response(s, size, alpha, beta, k), static_cast<const T*>(dy), static_cast<const T*>(x),
             static_cast<T*>(dx), ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
