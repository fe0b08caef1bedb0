// Adaptive average and max pooling, forward and backward.
#include "pool_scatter.h"

namespace fastconv::cpu::FC_ISA {
namespace {

struct AdaptiveAxes {
  AdaptiveAxis depth, height, width;
  explicit AdaptiveAxes(const PoolShape& s)
      : depth(adaptive_axis_of(s, 0)), height(adaptive_axis_of(s, 1)), width(adaptive_axis_of(s, 2)) {}
};

}  // namespace

void adaptive_avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  const AdaptiveAxes axes(s);
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const double work = double(s.in_space()) / double(s.out[0]) / double(s.out[1]);
    for_row_blocks<FlushDenormals>(ctx, s.N * s.C * s.out[0] * s.out[1], work, work * sizeof(T), [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last; row++) {
        const RowPosition at(row, s.C, s.out);
        const T* plane = static_cast<const T*>(x) + at.n * from.n + at.c * from.c;
        T* out = static_cast<T*>(y) + at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
        const Range d = axes.depth.inputs(at.o), h = axes.height.inputs(at.p);
        for (int64_t q = 0; q < s.out[2]; q++) {
          const Range w = axes.width.inputs(q);
          A sum = 0;
          for (int64_t i = d.lo; i < d.hi; i++)
            for (int64_t j = h.lo; j < h.hi; j++) {
              A line = 0;
              const T* p = plane + i * from.space[0] + j * from.space[1];
              for (int64_t k = w.lo; k < w.hi; k++) line += to_accumulator(p[k * from.space[2]]);
              sum += line;
            }
          out[q * to.space[2]] = from_accumulator<T>(sum / (A(d.size()) * A(h.size()) * A(w.size())));
        }
      }
    });
  });
}

void adaptive_avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  const AdaptiveAxes axes(s);
  const Steps from(s.layout, s.C, s.out), to(s.layout, s.C, s.in);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const double work = double(s.in[2]) + double(s.out[2]);
    for_row_blocks<FlushDenormals>(ctx, s.N * s.C * s.in[0] * s.in[1], work, work * sizeof(T), [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last; row++) {
        const RowPosition at(row, s.C, s.in);
        const T* plane = static_cast<const T*>(dy) + at.n * from.n + at.c * from.c;
        T* out = static_cast<T*>(dx) + at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
        const Range d = axes.depth.windows(at.o), h = axes.height.windows(at.p);
        for (int64_t k = 0; k < s.in[2]; k++) {
          const Range w = axes.width.windows(k);
          A sum = 0;
          for (int64_t o = d.lo; o < d.hi; o++)
            for (int64_t p = h.lo; p < h.hi; p++)
              for (int64_t q = w.lo; q < w.hi; q++)
                sum += to_accumulator(plane[o * from.space[0] + p * from.space[1] + q * from.space[2]]) /
                       (A(axes.depth.inputs(o).size()) * A(axes.height.inputs(p).size()) * A(axes.width.inputs(q).size()));
          out[k * to.space[2]] = from_accumulator<T>(sum);
        }
      }
    });
  });
}

void adaptive_max_pool_forward(const PoolShape& s, const void* x, void* y, int64_t* indices, Context& ctx) {
  const AdaptiveAxes axes(s);
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const double work = double(s.in_space()) / double(s.out[0]) / double(s.out[1]);
    for_row_blocks<KeepDenormals>(ctx, s.N * s.C * s.out[0] * s.out[1], work, work * sizeof(T), [&](int64_t first, int64_t last, int) {
      for (int64_t row = first; row < last; row++) {
        const RowPosition at(row, s.C, s.out);
        const T* plane = static_cast<const T*>(x) + at.n * from.n + at.c * from.c;
        const int64_t out = at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
        const Range d = axes.depth.inputs(at.o), h = axes.height.inputs(at.p);
        for (int64_t q = 0; q < s.out[2]; q++) {
          const Range w = axes.width.inputs(q);
          A best = -A(__builtin_inff());
          int64_t place = (d.lo * s.in[1] + h.lo) * s.in[2] + w.lo;
          for (int64_t i = d.lo; i < d.hi; i++)
            for (int64_t j = h.lo; j < h.hi; j++)
              for (int64_t k = w.lo; k < w.hi; k++) {
                const A value = to_accumulator(plane[i * from.space[0] + j * from.space[1] + k * from.space[2]]);
                if (value > best || (value != value && best == best)) {
                  best = value;
                  place = (i * s.in[1] + j) * s.in[2] + k;
                }
              }
          static_cast<T*>(y)[out + q * to.space[2]] = from_accumulator<T>(best);
          if (indices) indices[out + q * to.space[2]] = place;
        }
      }
    });
  });
}

void adaptive_max_pool_backward(const PoolShape& s, const void* dy, const int64_t* indices, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    scatter_flat(s, static_cast<const T*>(dy), indices, static_cast<T*>(dx), ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
