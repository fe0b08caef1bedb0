// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

struct Response {
  std::int64_t C, M, channel, position, before, after;
  double scale, beta, k;

  Response(const NormShape& s, std::int64_t size, double alpha, double beta_, double k_)
      : C(s.C), M(s.M), channel(s.layout == Layout::channels_first ? s.M : 1),
        position(s.layout == Layout::channels_first ? 1 : s.C), before(min_of(size / 2, s.C)),
        after(min_of((size - 1) / 2, s.C)), scale(alpha / double(size)), beta(beta_), k(k_) {}
  template <class T> double base(const T* pixel, std::int64_t c) const {
    double sum = 0;
    for (std::int64_t i = max_of(0, c - before); i < min_of(C, c + after + 1); i++) {
      const double v = double(to_accumulator(pixel[i * channel]));
      sum += v * v;
    }
    return k + scale * sum;
  }
};

}  // namespace

void local_response_norm_forward(const NormShape& s, const void* x, std::int64_t size, double alpha, double beta,
                                 double k, void* y, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const Response r(s, size, alpha, beta, k);
    const T* in = static_cast<const T*>(x);
    T* out = static_cast<T*>(y);
    parallel_for(ctx.threads(), s.N * s.M, [&](std::int64_t task, int) {
      const std::int64_t pixel = task / s.M * s.C * s.M + task % s.M * r.position;
      for (std::int64_t c = 0; c < s.C; c++) {
        const std::int64_t i = pixel + c * r.channel;
        out[i] = from_accumulator<T>(
            Accumulator<T>(double(to_accumulator(in[i])) * __builtin_pow(r.base(in + pixel, c), -beta)));
      }
    });
  });
}

void local_response_norm_backward(const NormShape& s, const void* dy, const void* x, std::int64_t size, double alpha,
                                  double beta, double k, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const Response r(s, size, alpha, beta, k);
    const T *in = static_cast<const T*>(x), *g = static_cast<const T*>(dy);
    T* out = static_cast<T*>(dx);
    parallel_for(ctx.threads(), s.N * s.M, [&](std::int64_t task, int) {
      const std::int64_t pixel = task / s.M * s.C * s.M + task % s.M * r.position;
      for (std::int64_t c = 0; c < s.C; c++) {
        double through = 0;
        for (std::int64_t j = max_of(0, c - r.after); j < min_of(s.C, c + r.before + 1); j++) {
          const std::int64_t i = pixel + j * r.channel;
          through += double(to_accumulator(g[i])) * double(to_accumulator(in[i])) *
                     __builtin_pow(r.base(in + pixel, j), -beta - 1);
        }
        const std::int64_t i = pixel + c * r.channel;
        out[i] = from_accumulator<T>(
            Accumulator<T>(double(to_accumulator(g[i])) * __builtin_pow(r.base(in + pixel, c), -beta) -
                           2 * r.scale * beta * double(to_accumulator(in[i])) * through));
      }
    });
  });
}

}  // namespace fastconv::cpu::FC_ISA
