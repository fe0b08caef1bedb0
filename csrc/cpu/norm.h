// Normalisation by mean and variance: what batch_norm and instance_norm share.
//
// Moments are taken block by block in two passes over cached data: the block's mean first, then sums of the deviations
// from it, which are as accurate as the deviations whatever the mean. Of rows of channels the first pass takes an eighth
// of a block: values that far from the rest are so many that the variance is at least a ninth of their squared distance,
// and no more than that factor of its accuracy is lost. Blocks are combined in double.
#pragma once
#include "groups.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr std::int64_t kShiftShare = 8;

template <bool b> struct Flag { static constexpr bool value = b; };

// What the forward pass finds out about each group: y = (x - mean) * scale + offset.
template <class A> struct Coefficients {
  A *mean, *invstd;
  A *scale, *offset;  // null: nobody asks for them
};
// Written out, as the backward pass of batch_norm_relu needs the same bits.
template <class A> FC_INLINE Vec<A> normalised(Vec<A> x, Vec<A> mean, Vec<A> scale, Vec<A> offset) {
  return multiply_add(x - mean, scale, offset);
}

// What is done with the normalised values before they are stored: nothing.
template <class T> struct Unchanged {
  FC_INLINE Vec<Accumulator<T>> operator()(Vec<Accumulator<T>> v, std::int64_t, Whole) const { return v; }
  FC_INLINE Vec<Accumulator<T>> operator()(Vec<Accumulator<T>> v, std::int64_t, Part) const { return v; }
};

struct Moments {
  double count, mean, squares;  // squares: sum of squared deviations from the mean
};

// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
FC_INLINE Moments combine(const Moments& a, const Moments& b) {
  const double count = a.count + b.count, share = b.count / count, delta = b.mean - a.mean;
  return {count, a.mean + delta * share, a.squares + b.squares + delta * delta * share * a.count};
}

// From the sum and the sum of squares of `count` deviations from `shift`.
FC_INLINE Moments block_moments(double count, double shift, double sum, double squares) {
  return {count, shift + sum / count, squares - sum * (sum / count)};
}

struct RunningUpdate {
  void *mean, *var;  // null: none
  DType dtype;
  double momentum, count;

  // variance: biased; what is kept is unbiased.
  void operator()(std::int64_t c, double new_mean, double variance) const {
    const auto move = [&](void* p, double to) {
      write_parameter(p, dtype, c, (1 - momentum) * read_parameter(p, dtype, c) + momentum * to);
    };
    move(mean, new_mean);
    move(var, variance * (count / (count - 1)));
  }
};

// `use_input`: the statistics are the input's own, else the running ones.
template <class T, bool use_input, class Last> struct NormForward {
  typedef Accumulator<T> A;
  static constexpr bool kReduces = use_input, kFinishes = true, kApplies = true;

  const GroupView& v;
  const T* x;
  T* y;
  const void *weight, *bias;
  DType param_dtype;
  double eps;
  RunningUpdate running;
  Coefficients<A> found;
  Last last;
  Partials<3> partials;            // mean, squares and count of a chunk
  double *group_mean, *group_var;  // instance_norm with running statistics: averaged at the end

  void reduce(std::int64_t g, std::int64_t t) const {
    Moments m{};
    for (std::int64_t b = v.first_block(t); b < v.first_block(t + 1); b++) {
      const Block block = v.plane_block(g, b);
      const double count = double(block.planes * block.length);
      double sum = 0, deviations[2] = {};
      add_plane_block<A, 1>(v, block, &sum, [&](std::int64_t i, auto part, Vec<A>* acc) __attribute__((always_inline)) {
        acc[0] += load(x + i, part);
      });
      const A shift = A(sum / count);
      const Vec<A> shifts = broadcast<A>(shift);
      add_plane_block<A, 2>(v, block, deviations,
                            [&](std::int64_t i, auto part, Vec<A>* acc) __attribute__((always_inline)) {
                              const Vec<A> d = keep<A>(load(x + i, part) - shifts, part);
                              acc[0] += d;
                              acc[1] += d * d;
                            });
      const Moments next = block_moments(count, double(shift), deviations[0], deviations[1]);
      m = m.count ? combine(m, next) : next;
    }
    *partials.at(g, t, 0) = m.mean;
    *partials.at(g, t, 1) = m.squares;
    *partials.at(g, t, 2) = m.count;
  }

  void reduce_rows(std::int64_t instance, std::int64_t t, std::int64_t c, std::int64_t width) const {
    double *mean = partials.at(instance * v.C + c, t, 0), *squares = partials.at(instance * v.C + c, t, 1),
           *count = partials.at(instance * v.C + c, t, 2);
    alignas(64) A shift[1][kRowTile], deviations[2][kRowTile];
    const T* const from = x;  // a copy: the compiler need not assume that a store changes it
    const A* const shifts = shift[0];
    const std::int64_t first = v.first_row(t), end = v.first_row(t + 1);
    for (std::int64_t j = 0; j < width; j++) {
      mean[j] = squares[j] = 0;
      count[j] = double(end - first);
    }
    for (std::int64_t r = first; r < end; r += v.block) {
      const std::int64_t rows = min_of(v.block, end - r), offset = v.row_offset(instance, r) + c;
      std::memset(shift, 0, sizeof shift);
      std::memset(deviations, 0, sizeof deviations);
      add_rows<A, 1>(v.template single_sum<A>(1), offset, ceil_div(rows, kShiftShare), v.C, width, shift,
                     [=](std::int64_t i, std::int64_t, auto part, Vec<A>* acc) __attribute__((always_inline)) {
                       acc[0] += load(from + i, part);
                     });
      const A share_of_row = A(1) / A(ceil_div(rows, kShiftShare));
      for (std::int64_t j = 0; j < width; j++) shift[0][j] *= share_of_row;
      add_rows<A, 2>(v.template single_sum<A>(3), offset, rows, v.C, width, deviations,
                     [=](std::int64_t i, std::int64_t j, auto part, Vec<A>* acc) __attribute__((always_inline)) {
                       const Vec<A> d = load(from + i, part) - load(shifts + j);
                       acc[0] += d;
                       acc[1] += d * d;
                     });
      // `combine`, for all channels at once.
      const double before = double(r - first), share = double(rows) / (before + double(rows)), each = 1 / double(rows);
      for (std::int64_t j = 0; j < width; j++) {
        const double sum = double(deviations[0][j]), delta = double(shift[0][j]) + sum * each - mean[j];
        mean[j] += delta * share;
        squares[j] += double(deviations[1][j]) - sum * sum * each + delta * delta * share * before;
      }
    }
  }

  // Mean and variance in double throughout, for what the accumulator's range does not hold.
  void wide_moments(std::int64_t g, double* mean, double* var) const {
    const double count = double(v.count());
    *mean = *var = 0;
    v.each(g, [&](std::int64_t i) { *mean += double(to_accumulator(x[i])); });
    *mean /= count;
    v.each(g, [&](std::int64_t i) {
      const double d = double(to_accumulator(x[i])) - *mean;
      *var += d * d;
    });
    *var /= count;
  }

  // Chunk by chunk for all groups, as Partials::total.
  void finish(std::int64_t first, std::int64_t groups) const {
    double mean[kFinishTogether] = {}, var[kFinishTogether] = {};
    if (use_input && v.count()) {
      const double count = double(v.count());
      for (std::int64_t t = 0; t < v.chunks; t++) {
        const double *const means = partials.at(first, t, 0), *const counts = partials.at(first, t, 2);
        for (std::int64_t j = 0; j < groups; j++) mean[j] += counts[j] * means[j];
      }
      for (std::int64_t j = 0; j < groups; j++) mean[j] /= count;
      for (std::int64_t t = 0; t < v.chunks; t++) {
        const double *const means = partials.at(first, t, 0), *const squares = partials.at(first, t, 1),
                     *const counts = partials.at(first, t, 2);
        for (std::int64_t j = 0; j < groups; j++) {
          const double delta = means[j] - mean[j];
          var[j] += squares[j] + counts[j] * delta * delta;
        }
      }
      for (std::int64_t j = 0; j < groups; j++) var[j] /= count;
    }
    for (std::int64_t j = 0; j < groups; j++) settle(first + j, mean[j], var[j]);
  }

  // What follows from a group's mean and variance.
  void settle(std::int64_t g, double mean, double var) const {
    const std::int64_t c = g % v.C;
    if (!use_input) {
      mean = read_parameter(running.mean, param_dtype, c);
      var = read_parameter(running.var, param_dtype, c);
    } else if (v.count()) {
      // Squares overflow or vanish in float; not-a-number (then of either kind) is told from infinity.
      if (!__builtin_isfinite(var) || var + eps < 1e-30) wide_moments(g, &mean, &var);
      if (running.mean && v.I == 1) running(c, mean, var);
      if (group_mean) {
        group_mean[g] = mean;
        group_var[g] = var;
      }
    }
    const double invstd = 1 / __builtin_sqrt(var + eps),
                 slope = invstd * (weight ? read_parameter(weight, param_dtype, c) : 1);
    found.mean[g] = A(mean);
    found.invstd[g] = A(invstd);
    found.scale[g] = A(slope);
    // What rounding the mean loses is made up by the offset.
    const double lost = __builtin_isfinite(mean) ? (double(A(mean)) - mean) * slope : 0;
    found.offset[g] = A((bias ? read_parameter(bias, param_dtype, c) : 0) + lost);
  }

  void apply(std::int64_t g, std::int64_t t) const {
    const Vec<A> mean = broadcast<A>(found.mean[g]), scale = broadcast<A>(found.scale[g]),
                 offset = broadcast<A>(found.offset[g]);
    const T* const from = x;  // copies: the compiler need not assume that a store changes them
    T* const to = y;
    const Last finally = last;
    for (std::int64_t b = v.first_block(t + 1); b-- > v.first_block(t);)
      v.template each_in<A>(v.plane_block(g, b), [=](std::int64_t i, auto part) __attribute__((always_inline)) {
        store(to + i, finally(normalised<A>(load(from + i, part), mean, scale, offset), i, part), part);
      });
  }

  void apply_rows(std::int64_t instance, std::int64_t t, std::int64_t c, std::int64_t width) const {
    const T* const from = x;
    T* const to = y;
    const Coefficients<A> of = found;
    const Last finally = last;
    struct Line {
      Vec<A> mean, scale, offset;
    };
    each_row<A>(
        v.template single<A>(3), v.row_offset(instance, v.first_row(t)) + c, v.first_row(t + 1) - v.first_row(t), v.C,
        instance * v.C + c, width,
        [=](std::int64_t g, auto part) __attribute__((always_inline)) {
          return Line{load(of.mean + g, part), load(of.scale + g, part), load(of.offset + g, part)};
        },
        [=](std::int64_t i, const Line& k, auto part) __attribute__((always_inline)) {
          store(to + i, finally(normalised<A>(load(from + i, part), k.mean, k.scale, k.offset), i, part), part);
        });
  }
};

template <class T, class Last>
void norm_forward(const NormShape& s, bool instances, const T* x, const void* weight, const void* bias,
                  void* running_mean, void* running_var, bool use_input, double momentum, double eps, const Last& last,
                  T* y, Coefficients<Accumulator<T>> found, Context& ctx) {
  typedef Accumulator<T> A;
  const GroupView v(s, instances);
  const std::int64_t groups = v.groups();
  const bool averages = use_input && running_mean && v.I > 1 && v.count();
  const std::size_t partials = use_input ? Partials<3>::bytes(v) : 0, doubles = averages ? std::size_t(groups) * 16 : 0;
  char* scratch = static_cast<char*>(ctx.workspace(partials + doubles + std::size_t(groups) * 2 * sizeof(A) + 1));
  if (!scratch) return;
  double* group_mean = averages ? reinterpret_cast<double*>(scratch + partials) : nullptr;
  if (!found.scale) {
    found.scale = reinterpret_cast<A*>(scratch + partials + doubles);
    found.offset = found.scale + groups;
  }
  const RunningUpdate running{running_mean, running_var, s.param_dtype, momentum, double(v.count())};
  const int threads = ctx.threads_for(4 * v.elements(), 2 * v.elements() * sizeof(T));
  const auto run = [&](auto own) {
    run_groups<FlushDenormals>(
        v, threads, NormForward<T, decltype(own)::value, Last>{
                        v, x, y, weight, bias, s.param_dtype, eps, running, found, last,
                        {v, reinterpret_cast<double*>(scratch)}, group_mean, group_mean + groups});
  };
  if (use_input) run(Flag<true>());
  else run(Flag<false>());
  if (!averages) return;
  for (std::int64_t c = 0; c < v.C; c++) {
    double mean = 0, var = 0;
    for (std::int64_t i = 0; i < v.I; i++) {
      mean += group_mean[i * v.C + c];
      var += group_mean[groups + i * v.C + c];
    }
    running(c, mean / double(v.I), var / double(v.I));
  }
}

// The gradient of the normalised values, as it is given: of the value x that lies at i, with what is known of its channel
// (`line`).
template <class T> struct GivenGradient {
  typedef Accumulator<T> A;
  static constexpr bool kReadsInput = false;
  static constexpr int kCoefficients = 0;  // of a channel
  struct Line {};
  const T* dy;

  FC_INLINE Line line(std::int64_t) const { return {}; }
  template <class P> FC_INLINE Line line(std::int64_t, P) const { return {}; }
  template <class P> FC_INLINE Vec<A> operator()(Vec<A>, Vec<A>, std::int64_t i, const Line&, P part) const {
    return load(dy + i, part);
  }
};

template <class T, bool use_input, class Incoming> struct NormBackward {
  typedef Accumulator<T> A;
  typedef typename Incoming::Line GradientLine;
  static constexpr bool kReduces = true, kFinishes = true, kApplies = true;

  const GroupView& v;
  Incoming dy;
  const T* x;
  T* dx;
  const void* weight;
  DType param_dtype;
  const A *mean, *invstd;
  void *dw, *db;                     // of one instance
  Partials<2> partials;              // sums of dy and of dy * (x - mean)
  double *instance_dw, *instance_db;  // of many: summed at the end
  A *scale, *level, *slope;          // dx = (dy - level - (x - mean) * slope) * scale

  void reduce(std::int64_t g, std::int64_t t) const {
    const Vec<A> mid = broadcast<A>(mean[g]);
    const Incoming gradient = dy;  // copies: the compiler need not assume that a store changes them
    const GradientLine line = gradient.line(g);
    const T* const from = x;
    sum_planes<A, 2>(partials, g, t, [=](std::int64_t i, auto part, Vec<A>* acc) __attribute__((always_inline)) {
      const Vec<A> value = load(from + i, part), d = gradient(value, mid, i, line, part);
      acc[0] += d;
      acc[1] += d * keep<A>(value - mid, part);
    });
  }
  void reduce_rows(std::int64_t instance, std::int64_t t, std::int64_t c, std::int64_t width) const {
    const std::int64_t g = instance * v.C + c;
    const A* const mids = mean + g;
    const Incoming gradient = dy;
    const T* const from = x;
    sum_rows<A, 2>(partials, instance, t, c, width, 1 + Incoming::kCoefficients,
                   [=](std::int64_t i, std::int64_t j, auto part, Vec<A>* acc) __attribute__((always_inline)) {
                     const Vec<A> value = load(from + i, part), mid = load(mids + j, part),
                                  d = gradient(value, mid, i, gradient.line(g + j, part), part);
                     acc[0] += d;
                     acc[1] += d * (value - mid);
                   });
  }

  void finish(std::int64_t first, std::int64_t groups) const {
    double sums[kFinishTogether], products[kFinishTogether];
    partials.total(first, groups, 0, sums);
    partials.total(first, groups, 1, products);
    for (std::int64_t j = 0; j < groups; j++) settle(first + j, sums[j], products[j]);
  }

  // What follows from a group's sums.
  void settle(std::int64_t g, double sum, double product) const {
    const std::int64_t c = g % v.C;
    const double count = double(max_of(v.count(), 1)), inverse = double(invstd[g]);
    product *= inverse;
    if (instance_dw) {
      instance_dw[g] = product;
      instance_db[g] = sum;
    } else {
      write_parameter(dw, param_dtype, c, product);
      write_parameter(db, param_dtype, c, sum);
    }
    scale[g] = A(inverse * (weight ? read_parameter(weight, param_dtype, c) : 1));
    level[g] = A(sum / count);
    slope[g] = A(product * inverse / count);
  }

  void apply(std::int64_t g, std::int64_t t) const {
    const Line k{broadcast<A>(mean[g]), broadcast<A>(level[g]), broadcast<A>(slope[g]), broadcast<A>(scale[g]),
                 dy.line(g)};
    const Incoming gradient = dy;
    const T* const from = x;
    T* const to = dx;
    for (std::int64_t b = v.first_block(t + 1); b-- > v.first_block(t);)
      v.template each_in<A>(v.plane_block(g, b), [=](std::int64_t i, auto part) __attribute__((always_inline)) {
        step(gradient, from, to, i, k, part);
      });
  }

  void apply_rows(std::int64_t instance, std::int64_t t, std::int64_t c, std::int64_t width) const {
    const Incoming gradient = dy;
    const T* const from = x;
    T* const to = dx;
    const A *const mid = mean, *const minus = level, *const along = slope, *const by = scale;
    each_row<A>(
        v.template single<A>(4 + Incoming::kCoefficients), v.row_offset(instance, v.first_row(t)) + c,
        v.first_row(t + 1) - v.first_row(t), v.C, instance * v.C + c, width,
        [=](std::int64_t g, auto part) __attribute__((always_inline)) {
          return Line{load(mid + g, part), load(minus + g, part), load(along + g, part), load(by + g, part),
                      gradient.line(g, part)};
        },
        [=](std::int64_t i, const Line& k, auto part) __attribute__((always_inline)) {
          step(gradient, from, to, i, k, part);
        });
  }

 private:
  struct Line {
    Vec<A> mid, minus, along, by;
    GradientLine gradient;
  };
  template <class P>
  static FC_INLINE void step(const Incoming& gradient, const T* from, T* to, std::int64_t i, const Line& k, P part) {
    Vec<A> value{};
    if constexpr (use_input || Incoming::kReadsInput) value = load(from + i, part);
    Vec<A> d = gradient(value, k.mid, i, k.gradient, part);
    if constexpr (use_input) d = d - k.minus - (value - k.mid) * k.along;
    store(to + i, d * k.by, part);
  }
};

template <class T, class Incoming>
void norm_backward(const NormShape& s, bool instances, const Incoming& dy, const T* x, const void* weight,
                   const void* mean, const void* invstd, bool use_input, T* dx, void* dw, void* db, Context& ctx) {
  typedef Accumulator<T> A;
  const GroupView v(s, instances);
  const std::int64_t groups = v.groups();
  const std::size_t partials = Partials<2>::bytes(v), doubles = instances ? std::size_t(groups) * 16 : 0;
  char* scratch = static_cast<char*>(ctx.workspace(partials + doubles + std::size_t(groups) * 3 * sizeof(A) + 1));
  if (!scratch) return;
  double* per_instance = instances ? reinterpret_cast<double*>(scratch + partials) : nullptr;
  A* coefficients = reinterpret_cast<A*>(scratch + partials + doubles);
  const int threads = ctx.threads_for(8 * v.elements(), 3 * v.elements() * sizeof(T));
  const auto run = [&](auto own) {
    run_groups<FlushDenormals>(
        v, threads, NormBackward<T, decltype(own)::value, Incoming>{
                        v, dy, x, dx, weight, s.param_dtype, static_cast<const A*>(mean),
                        static_cast<const A*>(invstd), dw, db, {v, reinterpret_cast<double*>(scratch)}, per_instance,
                        per_instance + groups, coefficients, coefficients + groups, coefficients + 2 * groups});
  };
  if (use_input) run(Flag<true>());
  else run(Flag<false>());
  if (!instances) return;
  for (std::int64_t c = 0; c < v.C; c++) {
    double product = 0, sum = 0;
    for (std::int64_t i = 0; i < v.I; i++) {
      product += per_instance[i * v.C + c];
      sum += per_instance[groups + i * v.C + c];
    }
    write_parameter(dw, s.param_dtype, c, product);
    write_parameter(db, s.param_dtype, c, sum);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
