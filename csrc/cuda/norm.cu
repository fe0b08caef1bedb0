// Batch and instance normalisation, forward and backward; batch normalisation with a sum and ReLU in the same passes.
//
// x is read once for its moments: a few values in registers give their mean and their deviations from it, what several
// have is combined in double (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979), threads' and chunks' by the mean of their means and how far each is from it.
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

// Mean and squared deviations from it of the values seen so far, of V groups.
template <int V> struct Moments {
  double count = 0, mean[V] = {}, squares[V] = {};

  // Adds `n` values of each group, all within registers.
  template <class T, int rows> FC_DEVICE void add(const Pack<T, V> (&values)[rows], int n) {
    if (n == 0) return;
    const double before = count;
    count += n;
    const double share = double(n) / count, spread = before * share, part = 1.0 / n;
#pragma unroll
    for (int j = 0; j < V; j++) {
      double sum = 0, own = 0;
#pragma unroll
      for (int r = 0; r < rows; r++)
        if (r < n) sum += double(prim::to_accumulator(values[r].v[j]));
      const double centre = sum * part;
#pragma unroll
      for (int r = 0; r < rows; r++) {
        const double d = double(prim::to_accumulator(values[r].v[j])) - centre;
        if (r < n) own += d * d;
      }
      const double delta = before == 0 ? 0 : centre - mean[j];
      mean[j] = before == 0 ? centre : mean[j] + delta * share;
      squares[j] += own + delta * delta * spread;
    }
  }
};

// Per group: mean and squared deviations of each chunk.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) moments_kernel(Groups g, bool aligned, const T* x, double* partials) {
  constexpr int rows = sizeof(T) == 2 ? 8 : 4;  // that are under way at once
  const int64_t tile = divide(int64_t(blockIdx.x), g.chunks), chunk = int64_t(blockIdx.x) - tile * g.chunks;
  const Share<V> share(g, tile, chunk);
  const Places places(g, share.group);
  const bool whole = aligned && share.valid == V;
  const double count = double(share.end - chunk * g.chunk);
  Moments<V> moments;
  for (int64_t i = share.first; i < share.end; i += rows * share.step) {
    Pack<T, V> values[rows];
    int n = 0;
#pragma unroll
    for (int r = 0; r < rows; r++) {
      const int64_t at = i + r * share.step;
      if (at >= share.end) continue;
      values[r] = load_pack<T, V>(x + places(at), share.valid, whole);
      n = r + 1;
    }
    moments.add(values, n);
  }
  double mean[V], squares[V];
#pragma unroll
  for (int j = 0; j < V; j++) mean[j] = moments.mean[j] * moments.count;
  block_sums<V>(mean, g.last);
#pragma unroll
  for (int j = 0; j < V; j++) {
    mean[j] /= count;
    const double delta = moments.count == 0 ? 0 : moments.mean[j] - mean[j];
    squares[j] = moments.squares[j] + delta * delta * moments.count;
  }
  block_sums<V>(squares, g.last);
  store_partials<V>(g, share, chunk, 0, 2, mean, partials);
  store_partials<V>(g, share, chunk, 1, 2, squares, partials);
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
template <class A> FC_DEVICE A normalised(A x, A centre, A scale, A offset) { return (x - centre) * scale + offset; }

// Statistics of 32 groups a block, and the affine maps that they make. `moments`: mean and variance of all groups, for
// running statistics of several instances; null where there is one.
template <class A>
__global__ void statistics_kernel(Groups g, Statistics s, const double* partials, double* moments, A* invstd_out,
                                  Affine<A> map) {
  const int64_t i = group_of_lane();
  const bool mine = i < g.groups();
  const int64_t c = remainder_of(mine ? i : 0, g.C);
  double mean = 0, var = 0;
  if (!s.use_input) {
    mean = read_parameter(s.running_mean, s.param_dtype, c);
    var = read_parameter(s.running_var, s.param_dtype, c);
  } else if (g.count) {
    const double count = double(g.count);
    const auto each = [&](const auto& f) {  // the sum of f(chunk, its values) over all chunks
      double sum[1] = {0};
      if (mine)
        for (int64_t t = int(threadIdx.x) / kLanes; t < g.chunks; t += kRows)
          sum[0] += f(t, double(g.count - t * g.chunk < g.chunk ? g.count - t * g.chunk : g.chunk));
      block_sums<1>(sum, true);
      return sum[0];
    };
    mean = each([&](int64_t t, double n) { return partials[partial_index(g, i, t, 0, 2)] * n; }) / count;
    var = each([&](int64_t t, double n) {
      const double delta = partials[partial_index(g, i, t, 0, 2)] - mean;
      return partials[partial_index(g, i, t, 1, 2)] + delta * delta * n;
    }) / count;
  }
  if (!mine || !first_of_group()) return;
  if (s.use_input && g.count) {
    if (moments) {
      moments[2 * i] = mean;
      moments[2 * i + 1] = var;
    } else if (s.running_mean) {
      update_running(s, c, mean, var, double(g.count));
    }
  }
  const double invstd = 1 / prim::square_root(var + s.eps);
  const double slope = invstd * (s.weight ? read_parameter(s.weight, s.param_dtype, c) : 1);
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

// V neighbouring elements of one thread: of one group, or channels-last of neighbouring ones (`step` 1).
template <int V> struct GroupsOfPack {
  int64_t first, step;
  FC_DEVICE GroupsOfPack(const Groups& g, int64_t i) : first(group_of(g, i)), step(g.last && V > 1) {}
  // Of each element its group's value; where they differ, they are loaded 16 bytes at a time.
  template <class A> FC_DEVICE void load(const A* values, A (&of)[V]) const {
    constexpr int width = V < kVector<A> ? V : kVector<A>;
    if (step) {
#pragma unroll
      for (int j = 0; j < V; j += width) {
        const Pack<A, width> pack = load_pack<A, width>(values + first + j);
#pragma unroll
        for (int k = 0; k < width; k++) of[j + k] = pack.v[k];
      }
    } else {
      const A value = values[first];
#pragma unroll
      for (int j = 0; j < V; j++) of[j] = value;
    }
  }
};
// Whether V neighbouring elements are such a pack everywhere, and the groups' values can be loaded as `load` does.
template <int V, class... P> bool comes_in_packs(const Groups& g, const P*... values) {
  return (g.last ? g.C : g.M) % V == 0 && (!g.last || all_aligned(values...));
}

// What is done with the normalised values before they are stored, of which `more` holds what lies beside them: nothing.
template <class T> struct Unchanged {
  static constexpr const T* residual = nullptr;
  template <int V> FC_DEVICE Pack<T, V> more(int64_t) const { return {}; }
  FC_DEVICE Accumulator<T> operator()(Accumulator<T> v, T) const { return v; }
};
// Or the residual added, if there is one, and both held between 0 and `high`. NaN stays NaN.
template <class T> struct SumAndRectify {
  const T* residual;
  Accumulator<T> high;
  template <int V> FC_DEVICE Pack<T, V> more(int64_t i) const {
    return residual ? load_pack<T, V>(residual + i) : Pack<T, V>{};
  }
  FC_DEVICE Accumulator<T> operator()(Accumulator<T> v, T beside) const {
    if (residual) v += prim::to_accumulator(beside);
    if (v <= 0) v = 0;
    if (v > high) v = high;
    return v;
  }
};

template <class T, int V, class Last>
__global__ void normalise_kernel(Groups g, int64_t n, const T* x, Affine<Accumulator<T>> map, Last last, T* y) {
  const int64_t i = element() * V;
  if (i >= n) return;
  const GroupsOfPack<V> group(g, i);
  Pack<T, V> pack = load_pack<T, V>(x + i);
  const Pack<T, V> more = last.template more<V>(i);
  Accumulator<T> centre[V], scale[V], offset[V];
  group.load(map.centre, centre);
  group.load(map.scale, scale);
  group.load(map.offset, offset);
#pragma unroll
  for (int j = 0; j < V; j++)
    pack.v[j] = prim::from_accumulator<T>(
        last(normalised(prim::to_accumulator(pack.v[j]), centre[j], scale[j], offset[j]), more.v[j]));
  store_pack<T, V>(y + i, pack);
}

// What is found about each group: C or N C values each. scale and offset: null where nobody asks for them.
struct Found {
  void *mean, *invstd, *scale, *offset;
};

template <class T, class Last>
void forward(const NormShape& shape, bool instances, const T* x, const Statistics& s, const Last& last, T* y,
             const Found& found, Context& ctx) {
  using A = Accumulator<T>;
  const Groups g(shape, instances);
  const int64_t groups = g.groups(), n = groups * g.count;
  const bool averages = s.use_input && s.running_mean && g.I > 1 && g.count;
  const std::size_t partial_bytes = g.partial_bytes(2), moment_bytes = averages ? std::size_t(groups) * 16 : 0;
  char* scratch = static_cast<char*>(ctx.workspace(partial_bytes + moment_bytes + std::size_t(groups) * 2 * sizeof(A)));
  if (!scratch) return;
  double* partials = reinterpret_cast<double*>(scratch);
  double* moments = averages ? reinterpret_cast<double*>(scratch + partial_bytes) : nullptr;
  A* maps = reinterpret_cast<A*>(scratch + partial_bytes + moment_bytes);
  const Affine<A> map{static_cast<A*>(found.mean), found.scale ? static_cast<A*>(found.scale) : maps,
                      found.offset ? static_cast<A*>(found.offset) : maps + groups};
  if (s.use_input && g.count)
    with_width<T>(g, [&](auto width, bool aligned) {
      constexpr int V = decltype(width)::value;
      launch(ctx, "moments", moments_kernel<T, V>, g.tiles() * g.chunks, kThreads, kSumBytes<V>, g, aligned, x, partials);
    }, x);
  launch_groups(ctx, "norm_statistics", statistics_kernel<A>, groups, g, s, partials, moments,
                static_cast<A*>(found.invstd), map);
  if (averages) launch_elements(ctx, "running_statistics", running_kernel, g.C, g, s, moments);
  constexpr int V = kVector<T>;
  if (comes_in_packs<V>(g, map.centre, map.scale, map.offset) && all_aligned(x, y, last.residual))
    launch_packs<V>(ctx, "normalise", normalise_kernel<T, V, Last>, n, g, n, x, map, last, y);
  else launch_elements(ctx, "normalise", normalise_kernel<T, 1, Last>, n, g, n, x, map, last, y);
}

// The gradient of the normalised values, as it is given.
template <class T> struct GivenGradient {
  using A = Accumulator<T>;
  static constexpr bool kReadsInput = false;
  static constexpr const A *scale = nullptr, *offset = nullptr;
  FC_DEVICE A operator()(A d, A, A, A, A) const { return d; }
};
// Or as ReLU lets it through where the normalised values, as T holds them, are between 0 and `high`.
template <class T> struct RectifiedGradient {
  using A = Accumulator<T>;
  static constexpr bool kReadsInput = true;
  const A *scale, *offset;
  A high;
  FC_DEVICE A operator()(A d, A x, A mean, A by, A plus) const {
    const A y = prim::to_accumulator(prim::from_accumulator<T>(normalised(x, mean, by, plus))),
            limit = prim::to_accumulator(prim::from_accumulator<T>(high));
    if (y <= 0 || (y >= limit && limit - limit == 0)) d = 0;  // an infinite limit is none
    return d;
  }
};

template <class T, class Gradient> struct GradientSums {
  static constexpr int kSums = 2;  // of dy, and of dy * (x - mean)
  static constexpr int kAtOnce = Gradient::kReadsInput ? 1 : 2;  // with two, registers were spilled for sm_100
  const T *dy, *x;
  const Accumulator<T>* mean;
  Gradient gradient;
  template <int V>
  FC_DEVICE void add(int64_t at, int64_t group, int valid, bool whole, double (&sums)[2][V]) const {
    const Pack<T, V> given = load_pack<T, V>(dy + at, valid, whole), from = load_pack<T, V>(x + at, valid, whole);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const int64_t k = group + (j < valid ? j : 0);
      const Accumulator<T> value = prim::to_accumulator(from.v[j]), centre = mean[k];
      Accumulator<T> d = prim::to_accumulator(given.v[j]);
      if constexpr (Gradient::kReadsInput) d = gradient(d, value, centre, gradient.scale[k], gradient.offset[k]);
      sums[0][j] += double(d);
      sums[1][j] += double(d) * (double(value) - double(centre));
    }
  }
};

// dx = (dy - level - (x - mean) * slope) * scale
template <class A>
__global__ void gradient_statistics_kernel(Groups g, const void* weight, DType param_dtype, const A* invstd,
                                           const double* partials, A* level, A* slope, A* scale) {
  const int64_t i = group_of_lane();
  const double sum = group_total(g, partials, i, 0, 2), product = group_total(g, partials, i, 1, 2);
  if (i >= g.groups() || !first_of_group()) return;
  const double inverse = double(invstd[i]), count = double(g.count ? g.count : 1);
  level[i] = A(sum / count);
  slope[i] = A(product * inverse * inverse / count);
  scale[i] = A(inverse * (weight ? read_parameter(weight, param_dtype, remainder_of(i, g.C)) : 1));
}

// dw and db of 32 channels a block: sums over the instances and their chunks.
template <class A>
__global__ void parameter_gradient_kernel(Groups g, const A* invstd, const double* partials, DType param_dtype, void* dw,
                                          void* db) {
  const int64_t c = group_of_lane();
  double product[1] = {0}, sum[1] = {0};
  if (c < g.C)
    for (int64_t t = int(threadIdx.x) / kLanes; t < g.I * g.chunks; t += kRows) {
      const int64_t instance = g.I == 1 ? 0 : divide(t, g.chunks), chunk = t - instance * g.chunks, i = instance * g.C + c;
      product[0] += partials[partial_index(g, i, chunk, 1, 2)] * double(invstd[i]);
      sum[0] += partials[partial_index(g, i, chunk, 0, 2)];
    }
  block_sums<1>(product, true);
  block_sums<1>(sum, true);
  if (c >= g.C || !first_of_group()) return;
  write_parameter(dw, param_dtype, c, product[0]);
  write_parameter(db, param_dtype, c, sum[0]);
}

template <class T, int V, class Gradient>
__global__ void input_gradient_kernel(Groups g, int64_t n, bool use_input, const T* dy, const T* x, Gradient gradient,
                                      const Accumulator<T>* mean, const Accumulator<T>* level,
                                      const Accumulator<T>* slope, const Accumulator<T>* scale, T* dx) {
  const int64_t i = element() * V;
  if (i >= n) return;
  const GroupsOfPack<V> group(g, i);
  Pack<T, V> pack = load_pack<T, V>(dy + i), from{};
  if (use_input || Gradient::kReadsInput) from = load_pack<T, V>(x + i);
  Accumulator<T> centre[V], base[V], by[V], factor[V], map_scale[V] = {}, map_offset[V] = {};
  group.load(mean, centre);
  group.load(level, base);
  group.load(slope, by);
  group.load(scale, factor);
  if constexpr (Gradient::kReadsInput) {
    group.load(gradient.scale, map_scale);
    group.load(gradient.offset, map_offset);
  }
#pragma unroll
  for (int j = 0; j < V; j++) {
    const Accumulator<T> value = prim::to_accumulator(from.v[j]);
    Accumulator<T> d = gradient(prim::to_accumulator(pack.v[j]), value, centre[j], map_scale[j], map_offset[j]);
    if (use_input) d = d - base[j] - (value - centre[j]) * by[j];
    pack.v[j] = prim::from_accumulator<T>(d * factor[j]);
  }
  store_pack<T, V>(dx + i, pack);
}

template <class T, class Gradient>
void backward(const NormShape& s, bool instances, const T* dy, const T* x, const Gradient& gradient, const void* weight,
              const void* mean_data, const void* invstd_data, bool use_input, T* dx, void* dw, void* db, Context& ctx) {
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
  reduce_groups<T>(ctx, "norm_gradient_sums", g, GradientSums<T, Gradient>{dy, x, mean, gradient}, partials, dy, x);
  launch_groups(ctx, "norm_gradient_statistics", gradient_statistics_kernel<A>, groups, g, weight, s.param_dtype, invstd,
                partials, level, slope, scale);
  launch_groups(ctx, "norm_parameter_gradient", parameter_gradient_kernel<A>, g.C, g, invstd, partials, s.param_dtype, dw,
                db);
  constexpr int V = kVector<T>;
  if (comes_in_packs<V>(g, mean, gradient.scale, gradient.offset) && all_aligned(dy, x, dx))
    launch_packs<V>(ctx, "norm_input_gradient", input_gradient_kernel<T, V, Gradient>, n, g, n, use_input, dy, x,
                    gradient, mean, level, slope, scale, dx);
  else
    launch_elements(ctx, "norm_input_gradient", input_gradient_kernel<T, 1, Gradient>, n, g, n, use_input, dy, x,
                    gradient, mean, level, slope, scale, dx);
}

void forward_of(const NormShape& s, bool instances, const void* x, const Statistics& statistics, void* y, void* mean,
                void* invstd, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    forward(s, instances, static_cast<const T*>(x), statistics, Unchanged<T>(), static_cast<T*>(y),
            {mean, invstd, nullptr, nullptr}, ctx);
  });
}
void backward_of(const NormShape& s, bool instances, const void* dy, const void* x, const void* weight,
                 const void* mean, const void* invstd, bool use_input, void* dx, void* dw, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    backward(s, instances, static_cast<const T*>(dy), static_cast<const T*>(x), GivenGradient<T>(), weight, mean,
             invstd, use_input, static_cast<T*>(dx), dw, db, ctx);
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
void batch_norm_relu_forward(const NormShape& s, const void* x, const void* weight, const void* bias,
                             void* running_mean, void* running_var, bool training, double momentum, double eps,
                             const void* residual, double high, void* y, void* saved, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    A* found = static_cast<A*>(saved);
    forward(s, false, static_cast<const T*>(x),
            Statistics{weight, bias, running_mean, running_var, s.param_dtype, training, momentum, eps},
            SumAndRectify<T>{static_cast<const T*>(residual), A(high)}, static_cast<T*>(y),
            {found, found + s.C, found + 2 * s.C, found + 3 * s.C}, ctx);
  });
}
void batch_norm_relu_backward(const NormShape& s, const void* dy, const void* x, const void* weight, const void* saved,
                              bool training, double high, void* dx, void* dw, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulator<T>;
    const A* found = static_cast<const A*>(saved);
    const RectifiedGradient<T> gradient{found + 2 * s.C, found + 3 * s.C, A(high)};
    backward(s, false, static_cast<const T*>(dy), static_cast<const T*>(x), gradient, weight, found, found + s.C,
             training, static_cast<T*>(dx), dw, db, ctx);
  });
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
