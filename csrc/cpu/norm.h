// Normalisation over groups of values: what batch_norm and instance_norm share.
#pragma once
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Instances x images x channels x positions: a group of statistics is an instance and a channel. batch_norm has one
// instance of N images, instance_norm N instances of one image.
struct NormView {
  std::int64_t I, P, C, M;
  std::int64_t image, channel, position;  // strides
  DType param_dtype;

  NormView(const NormShape& s, bool instances)
      : I(instances ? s.N : 1), P(instances ? 1 : s.N), C(s.C), M(s.M), image(s.C * s.M),
        channel(s.layout == Layout::channels_first ? s.M : 1),
        position(s.layout == Layout::channels_first ? 1 : s.C), param_dtype(s.param_dtype) {}
  std::int64_t count() const { return P * M; }
  double elements() const { return double(I) * double(P) * double(C) * double(M); }
  template <class F> FC_INLINE void each(std::int64_t group, F&& f) const {
    const std::int64_t base = group / C * P * image + group % C * channel;
    for (std::int64_t p = 0; p < P; p++)
      for (std::int64_t m = 0; m < M; m++) f(base + p * image + m * position);
  }
};

FC_INLINE double read_parameter(const void* p, DType dtype, std::int64_t i) {
  double v = 0;
  with_type(dtype, [&](auto tag) { v = double(to_accumulator(static_cast<const decltype(tag)*>(p)[i])); });
  return v;
}
FC_INLINE void write_parameter(void* p, DType dtype, std::int64_t i, double v) {
  with_type(dtype, [&](auto tag) {
    typedef decltype(tag) T;
    static_cast<T*>(p)[i] = from_accumulator<T>(Accumulator<T>(v));
  });
}

template <class T>
void normalise_forward(const NormView& v, const T* x, const void* weight, const void* bias, void* running_mean,
                       void* running_var, bool use_input, double momentum, double eps, T* y, void* mean_out,
                       void* invstd_out, Context& ctx) {
  typedef Accumulator<T> A;
  double* means = static_cast<double*>(ctx.workspace(std::size_t(v.I * v.C) * 16 + 16));
  if (!means) return;
  double* vars = means + v.I * v.C;
  const double count = double(v.count() ? v.count() : 1);
  parallel_for(ctx.threads_for(4 * v.elements(), v.elements() * 8), v.I * v.C, [&](std::int64_t g, int) {
    const std::int64_t c = g % v.C;
    double mean = 0, var = 0;
    if (use_input) {
      v.each(g, [&](std::int64_t i) { mean += double(to_accumulator(x[i])); });
      mean /= count;
      v.each(g, [&](std::int64_t i) {
        const double d = double(to_accumulator(x[i])) - mean;
        var += d * d;
      });
      var /= count;
    } else {
      mean = read_parameter(running_mean, v.param_dtype, c);
      var = read_parameter(running_var, v.param_dtype, c);
    }
    means[g] = mean;
    vars[g] = var;
    const double invstd = 1 / __builtin_sqrt(var + eps);
    static_cast<A*>(mean_out)[g] = A(mean);
    static_cast<A*>(invstd_out)[g] = A(invstd);
    const double w = weight ? read_parameter(weight, v.param_dtype, c) : 1,
                 b = bias ? read_parameter(bias, v.param_dtype, c) : 0;
    v.each(g, [&](std::int64_t i) {
      y[i] = from_accumulator<T>(A((double(to_accumulator(x[i])) - mean) * invstd * w + b));
    });
  });
  if (!use_input || !running_mean || !v.count() || !v.I) return;
  for (std::int64_t c = 0; c < v.C; c++) {
    double mean = 0, var = 0;
    for (std::int64_t i = 0; i < v.I; i++) {
      mean += means[i * v.C + c];
      var += vars[i * v.C + c];
    }
    mean /= double(v.I);
    var *= count / (count - 1) / double(v.I);
    write_parameter(running_mean, v.param_dtype, c,
                    (1 - momentum) * read_parameter(running_mean, v.param_dtype, c) + momentum * mean);
    write_parameter(running_var, v.param_dtype, c,
                    (1 - momentum) * read_parameter(running_var, v.param_dtype, c) + momentum * var);
  }
}

template <class T>
void normalise_backward(const NormView& v, const T* dy, const T* x, const void* weight, const void* mean_in,
                        const void* invstd_in, bool use_input, T* dx, void* dw, void* db, Context& ctx) {
  typedef Accumulator<T> A;
  double* sums = static_cast<double*>(ctx.workspace(std::size_t(v.I * v.C) * 16 + 16));
  if (!sums) return;
  double* products = sums + v.I * v.C;
  const double count = double(v.count() ? v.count() : 1);
  parallel_for(ctx.threads_for(8 * v.elements(), v.elements() * 8), v.I * v.C, [&](std::int64_t g, int) {
    const double mean = double(static_cast<const A*>(mean_in)[g]), invstd = double(static_cast<const A*>(invstd_in)[g]),
                 w = weight ? read_parameter(weight, v.param_dtype, g % v.C) : 1;
    double sum = 0, product = 0;
    v.each(g, [&](std::int64_t i) {
      const double d = double(to_accumulator(dy[i]));
      sum += d;
      product += d * (double(to_accumulator(x[i])) - mean) * invstd;
    });
    sums[g] = sum;
    products[g] = product;
    v.each(g, [&](std::int64_t i) {
      double d = double(to_accumulator(dy[i]));
      if (use_input) d -= sum / count + (double(to_accumulator(x[i])) - mean) * invstd * product / count;
      dx[i] = from_accumulator<T>(A(d * invstd * w));
    });
  });
  for (std::int64_t c = 0; c < v.C; c++) {
    double sum = 0, product = 0;
    for (std::int64_t i = 0; i < v.I; i++) {
      sum += sums[i * v.C + c];
      product += products[i * v.C + c];
    }
    write_parameter(dw, v.param_dtype, c, product);
    write_parameter(db, v.param_dtype, c, sum);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
