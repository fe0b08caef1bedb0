// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3): one element a thread, the window
// read from cache.
#include "launch.h"

namespace fastconv::cuda {
namespace {

struct Response {
  int64_t N, C, M, before, after;  // the window of channel c: c - before ... c + after
  int64_t image, channel, pixel;   // distances in the array
  bool last;
  double scale, k, beta;

  Response(const NormShape& s, int64_t size, double alpha, double b, double k_)
      : N(s.N), C(s.C), M(s.M), before(size / 2 < s.C ? size / 2 : s.C),
        after((size - 1) / 2 < s.C ? (size - 1) / 2 : s.C), image(s.C * s.M),
        channel(s.layout == Layout::channels_last ? 1 : s.M), pixel(s.layout == Layout::channels_last ? s.C : 1),
        last(s.layout == Layout::channels_last), scale(alpha / double(size)), k(k_), beta(b) {}
  int64_t elements() const { return N * C * M; }
  FC_DEVICE int64_t channel_of(int64_t i) const { return remainder_of(last ? i : divide(i, M), C); }
};

// base ** -beta, with square roots for the exponents that networks use.
template <class A> FC_DEVICE A inverse_power(A base, double beta) {
  if (beta == 0.75) {
    const A root = prim::square_root(base);
    return 1 / (root * prim::square_root(root));
  }
  if (beta == 0.5) return 1 / prim::square_root(base);
  if (beta == 1) return 1 / base;
  return A(prim::power(double(base), -beta));
}

// What is raised to -beta for channel c; x0 is channel 0 of the pixel.
template <class T> FC_DEVICE Accumulator<T> base_of(const Response& r, const T* x0, int64_t c) {
  using A = Accumulator<T>;
  A sum = 0;
  const int64_t end = c + r.after + 1 < r.C ? c + r.after + 1 : r.C;
  for (int64_t j = c < r.before ? 0 : c - r.before; j < end; j++) {
    const A v = prim::to_accumulator(x0[j * r.channel]);
    sum += v * v;
  }
  return A(r.k) + A(r.scale) * sum;
}

template <class T> __global__ void local_response_forward_kernel(Response r, const T* x, T* y) {
  const int64_t i = element();
  if (i >= r.N * r.C * r.M) return;
  const int64_t c = r.channel_of(i);
  y[i] = prim::from_accumulator<T>(prim::to_accumulator(x[i]) *
                                   inverse_power(base_of(r, x + i - c * r.channel, c), r.beta));
}

// dy base^-beta - 2 beta scale x * sum of dy x base^(-beta - 1) over the channels whose window has this one.
template <class T> __global__ void local_response_backward_kernel(Response r, const T* dy, const T* x, T* dx) {
  using A = Accumulator<T>;
  const int64_t i = element();
  if (i >= r.N * r.C * r.M) return;
  const int64_t c = r.channel_of(i), first = i - c * r.channel;
  A sum = 0, direct = 0;
  const int64_t end = c + r.before + 1 < r.C ? c + r.before + 1 : r.C;
  for (int64_t j = c < r.after ? 0 : c - r.after; j < end; j++) {
    const A base = base_of(r, x + first, j);
    const A through = prim::to_accumulator(dy[first + j * r.channel]) * inverse_power(base, r.beta);
    if (j == c) direct = through;
    sum += through * prim::to_accumulator(x[first + j * r.channel]) / base;
  }
  dx[i] = prim::from_accumulator<T>(direct - A(2 * r.beta * r.scale) * prim::to_accumulator(x[i]) * sum);
}

}  // namespace

void local_response_norm_forward(const NormShape& s, const void* x, int64_t size, double alpha, double beta, double k,
                                 void* y, Context& ctx) {
  const Response r(s, size, alpha, beta, k);
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_elements(ctx, "local_response_forward", local_response_forward_kernel<T>, r.elements(), r,
                    static_cast<const T*>(x), static_cast<T*>(y));
  });
}

void local_response_norm_backward(const NormShape& s, const void* dy, const void* x, int64_t size, double alpha,
                                  double beta, double k, void* dx, Context& ctx) {
  const Response r(s, size, alpha, beta, k);
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    launch_elements(ctx, "local_response_backward", local_response_backward_kernel<T>, r.elements(), r,
                    static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dx));
  });
}

}  // namespace fastconv::cuda
