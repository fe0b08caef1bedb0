// Batch and instance normalisation, forward and backward.
//
// Moments of a chunk are taken in two passes, the mean and then the deviations from it; chunks are combined in double
// (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
#include "channel_reduce.cuh"

namespace fastconv::cuda {
namespace {

// Weights, biases and running statistics, of a dtype that is not that of x where x is of 16 bits.
FC_DEVICE double read_parameter(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f32: return double(static_cast<const float*>(p)[i]);
    case DType::f64: return static_cast<const double*>(p)[i];
    case DType::f16: return double(prim::to_accumulator(static_cast<const Float16*>(p)[i]));
    default: return double(prim::to_accumulator(static_cast<const BFloat16*>(p)[i]));
  }
}
FC_DEVICE void write_parameter(void* p, DType dtype, int64_t i, double v) {
  switch (dtype) {
    case DType::f32: static_cast<float*>(p)[i] = float(v); break;
    case DType::f64: static_cast<double*>(p)[i] = v; break;
    case DType::f16: static_cast<Float16*>(p)[i] = prim::from_accumulator<Float16>(float(v)); break;
    default: static_cast<BFloat16*>(p)[i] = prim::from_accumulator<BFloat16>(float(v));
  }
}

// Per group: mean and squared deviations of each chunk.
template <class T>
__global__ void __launch_bounds__(kThreads) moments_kernel(Groups g, const T* x, double* partials) {
  const int64_t chunk = int64_t(blockIdx.x) % g.chunks, tile = int64_t(blockIdx.x) / g.chunks;
  const Share share(g, tile, chunk);
  const double count = double(share.end - chunk * g.chunk);
  const Places places(g, share.group);
  double sum = 0, squares = 0;
  for (int64_t i = share.first; i < share.end; i += share.step)
    sum += double(prim::to_accumulator(x[places(i)]));
  const double mean = block_sum(sum, g.last) / count;
  for (int64_t i = share.first; i < share.end; i += share.step) {
    const double d = double(prim::to_accumulator(x[places(i)])) - mean;
    squares += d * d;
  }
  squares = block_sum(squares, g.last);
  if (share.group >= 0 && int(threadIdx.x) < (g.last ? kLanes : 1)) {
    partials[partial_index(g, share.group, chunk, 0, 2)] = mean;
    partials[partial_index(g, share.group, chunk, 1, 2)] = squares;
  }
}

struct Statistics {
  const void *weight, *bias;
  void *running_mean, *running_var;
  DType param_dtype;
  bool use_input;
  double momentum, eps;
};

// What is kept in running_var is unbiased.
FC_DEVICE void update_running(const Statistics& s, int64_t c, double mean, double var, double count) {
  const double m = read_parameter(s.running_mean, s.param_dtype, c), v = read_parameter(s.running_var, s.param_dtype, c);
  write_parameter(s.running_mean, s.param_dtype, c, (1 - s.momentum) * m + s.momentum * mean);
  write_parameter(s.running_var, s.param_dtype, c, (1 - s.momentum) * v + s.momentum * (var * (count / (count - 1))));
}

// y = (x - centre) * scale + offset
template <class A> struct Affine {
  A *centre, *scale, *offset;
};

// One thread a group: statistics, and the affine map that they make. `moments`: mean and variance of all groups, for
// running statistics of several instances; null where there is one.
template <class A>
__global__ void statistics_kernel(Groups g, Statistics s, const double* partials, double* moments, A* mean_out,
                                  A* invstd_out, Affine<A> map) {
  const int64_t i = element();
  if (i >= g.I * g.C) return;
  const int64_t c = i % g.C;
  double mean = 0, var = 0;
  if (!s.use_input) {
    mean = read_parameter(s.running_mean, s.param_dtype, c);
    var = read_parameter(s.running_var, s.param_dtype, c);
  } else if (g.count) {
    double count = 0;
    for (int64_t t = 0; t < g.chunks; t++) {
      const int64_t start = t * g.chunk, end = start + g.chunk < g.count ? start + g.chunk : g.count;
      const double more = double(end - start), share = more / (count + more);
      const double delta = partials[partial_index(g, i, t, 0, 2)] - mean;
      mean = t ? mean + delta * share : delta;
      var += partials[partial_index(g, i, t, 1, 2)] + (t ? delta * delta * share * count : 0);
      count += more;
    }
    var /= count;
    if (moments) {
      moments[2 * i] = mean;
      moments[2 * i + 1] = var;
    } else if (s.running_mean) {
      update_running(s, c, mean, var, count);
    }
  }
  const double invstd = 1 / prim::square_root(var + s.eps);
  const double slope = invstd * (s.weight ? read_parameter(s.weight, s.param_dtype, c) : 1);
  mean_out[i] = A(mean);
  invstd_out[i] = A(invstd);
  map.centre[i] = A(mean);
  map.scale[i] = A(slope);
  // What rounding the mean loses is made up by the offset.
  const double lost = prim::is_finite(mean) ? (double(A(mean)) - mean) * slope : 0;
  map.offset[i] = A((s.bias ? read_parameter(s.bias, s.param_dtype, c) : 0) + lost);
}

// The running statistics move towards the mean over the instances.
__global__ void running_kernel(Groups g, Statistics s, const double* moments) {
  const int64_t c = element();
  if (c >= g.C) return;
  double mean = 0, var = 0;
  for (int64_t i = 0; i < g.I; i++) {
    mean += moments[2 * (i * g.C + c)];
    var += moments[2 * (i * g.C + c) + 1];
  }
  update_running(s, c, mean / double(g.I), var / double(g.I), double(g.count));
}

// Group of element i of the whole array.
FC_DEVICE int64_t group_of(const Groups& g, int64_t i) {
  if (!g.last) return g.M == g.count ? divide(i, g.M) : remainder_of(divide(i, g.M), g.C);
  const int64_t c = take_digit(i, g.C);
  return g.I == 1 ? c : divide(i, g.count) * g.C + c;
}

template <class T>
__global__ void normalise_kernel(Groups g, int64_t n, const T* x, Affine<Accumulator<T>> map, T* y) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t j = group_of(g, i);
  y[i] = prim::from_accumulator<T>((prim::to_accumulator(x[i]) - map.centre[j]) * map.scale[j] + map.offset[j]);
}

template <class T>
void forward(const NormShape& shape, bool instances, const T* x, const Statistics& s, T* y, void* mean, void* invstd,
             Context& ctx) {
  using A = Accumulator<T>;
  const Groups g(shape, instances);
  const int64_t groups = g.groups(), n = groups * g.count;
  const bool averages = s.use_input && s.running_mean && g.I > 1 && g.count;
  const std::size_t partial_bytes = g.partial_bytes(2), moment_bytes = averages ? std::size_t(groups) * 16 : 0;
  char* scratch = static_cast<char*>(ctx.workspace(partial_bytes + moment_bytes + std::size_t(groups) * 3 * sizeof(A)));
  if (!scratch) return;
  double* partials = reinterpret_cast<double*>(scratch);
  double* moments = averages ? reinterpret_cast<double*>(scratch + partial_bytes) : nullptr;
  A* maps = reinterpret_cast<A*>(scratch + partial_bytes + moment_bytes);
  const Affine<A> map{maps, maps + groups, maps + 2 * groups};
  if (s.use_input && g.count)
    launch(ctx, "moments", moments_kernel<T>, g.tiles() * g.chunks, kThreads, kSumBytes, g, x, partials);
  launch_elements(ctx, "norm_statistics", statistics_kernel<A>, groups, g, s, partials, moments, static_cast<A*>(mean),
                  static_cast<A*>(invstd), map);
  if (averages) launch_elements(ctx, "running_statistics", running_kernel, g.C, g, s, moments);
  launch_elements(ctx, "normalise", normalise_kernel<T>, n, g, n, x, map, y);
}

template <class T> struct GradientSums {
  static constexpr int kSums = 2;  // of dy, and of dy * (x - mean)
  const T *dy, *x;
  const Accumulator<T>* mean;
  FC_DEVICE void add(int64_t i, int64_t group, double (&sums)[2]) const {
    const double g = double(prim::to_accumulator(dy[i]));
    sums[0] += g;
    sums[1] += g * (double(prim::to_accumulator(x[i])) - double(mean[group]));
  }
};

// dx = (dy - level - (x - mean) * slope) * scale
template <class A>
__global__ void gradient_statistics_kernel(Groups g, const void* weight, DType param_dtype, const A* invstd,
                                           const double* partials, A* level, A* slope, A* scale) {
  const int64_t i = element();
  if (i >= g.I * g.C) return;
  const double inverse = double(invstd[i]), count = double(g.count ? g.count : 1);
  level[i] = A(group_total(g, partials, i, 0, 2) / count);
  slope[i] = A(group_total(g, partials, i, 1, 2) * inverse * inverse / count);
  scale[i] = A(inverse * (weight ? read_parameter(weight, param_dtype, i % g.C) : 1));
}

// dw and db: sums over the instances.
template <class A>
__global__ void parameter_gradient_kernel(Groups g, const A* invstd, const double* partials, DType param_dtype, void* dw,
                                          void* db) {
  const int64_t c = element();
  if (c >= g.C) return;
  double product = 0, sum = 0;
  for (int64_t i = 0; i < g.I; i++) {
    product += group_total(g, partials, i * g.C + c, 1, 2) * double(invstd[i * g.C + c]);
    sum += group_total(g, partials, i * g.C + c, 0, 2);
  }
  write_parameter(dw, param_dtype, c, product);
  write_parameter(db, param_dtype, c, sum);
}

template <class T>
__global__ void input_gradient_kernel(Groups g, int64_t n, bool use_input, const T* dy, const T* x,
                                      const Accumulator<T>* mean, const Accumulator<T>* level,
                                      const Accumulator<T>* slope, const Accumulator<T>* scale, T* dx) {
  const int64_t i = element();
  if (i >= n) return;
  const int64_t j = group_of(g, i);
  Accumulator<T> d = prim::to_accumulator(dy[i]);
  if (use_input) d = d - level[j] - (prim::to_accumulator(x[i]) - mean[j]) * slope[j];
  dx[i] = prim::from_accumulator<T>(d * scale[j]);
}

template <class T>
void backward(const NormShape& s, bool instances, const T* dy, const T* x, const void* weight, const void* mean_data,
              const void* invstd_data, bool use_input, T* dx, void* dw, void* db, Context& ctx) {
  using A = Accumulator<T>;
  const Groups g(s, instances);
  const int64_t groups = g.groups(), n = groups * g.count;
  const A *mean = static_cast<const A*>(mean_data), *invstd = static_cast<const A*>(invstd_data);
  const std::size_t partial_bytes = g.partial_bytes(2);
  char* scratch = static_cast<char*>(ctx.workspace(partial_bytes + std::size_t(groups) * 3 * sizeof(A)));
  if (!scratch) return;
  double* partials = reinterpret_cast<double*>(scratch);
  A* level = reinterpret_cast<A*>(scratch + partial_bytes);
  A *slope = level + groups, *scale = slope + groups;
  reduce_groups(ctx, "norm_gradient_sums", g, GradientSums<T>{dy, x, mean}, partials);
  launch_elements(ctx, "norm_gradient_statistics", gradient_statistics_kernel<A>, groups, g, weight, s.param_dtype,
                  invstd, partials, level, slope, scale);
  launch_elements(ctx, "norm_parameter_gradient", parameter_gradient_kernel<A>, g.C, g, invstd, partials, s.param_dtype,
                  dw, db);
  launch_elements(ctx, "norm_input_gradient", input_gradient_kernel<T>, n, g, n, use_input, dy, x, mean, level, slope,
                  scale, dx);
}

void forward_of(const NormShape& s, bool instances, const void* x, const Statistics& statistics, void* y, void* mean,
                void* invstd, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    forward(s, instances, static_cast<const T*>(x), statistics, static_cast<T*>(y), mean, invstd, ctx);
  });
}
void backward_of(const NormShape& s, bool instances, const void* dy, const void* x, const void* weight,
                 const void* mean, const void* invstd, bool use_input, void* dx, void* dw, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    backward(s, instances, static_cast<const T*>(dy), static_cast<const T*>(x), weight, mean, invstd, use_input,
             static_cast<T*>(dx), dw, db, ctx);
  });
}

}  // namespace

void batch_norm_forward(const NormShape& s, const void* x, const void* weight, const void* bias, void* running_mean,
                        void* running_var, bool training, double momentum, double eps, void* y, void* mean,
                        void* invstd, Context& ctx) {
  forward_of(s, false, x, {weight, bias, running_mean, running_var, s.param_dtype, training, momentum, eps}, y, mean,
             invstd, ctx);
}
void batch_norm_backward(const NormShape& s, const void* dy, const void* x, const void* weight, const void* mean,
                         const void* invstd, bool training, void* dx, void* dw, void* db, Context& ctx) {
  backward_of(s, false, dy, x, weight, mean, invstd, training, dx, dw, db, ctx);
}
void instance_norm_forward(const NormShape& s, const void* x, const void* weight, const void* bias, void* running_mean,
                           void* running_var, bool use_input_stats, double momentum, double eps, void* y, void* mean,
                           void* invstd, Context& ctx) {
  forward_of(s, true, x, {weight, bias, running_mean, running_var, s.param_dtype, use_input_stats, momentum, eps}, y,
             mean, invstd, ctx);
}
void instance_norm_backward(const NormShape& s, const void* dy, const void* x, const void* weight, const void* mean,
                            const void* invstd, bool use_input_stats, void* dx, void* dw, void* db, Context& ctx) {
  backward_of(s, true, dy, x, weight, mean, invstd, use_input_stats, dx, dw, db, ctx);
}

}  // namespace fastconv::cuda
