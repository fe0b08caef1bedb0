// Adaptive average and max pooling, forward and backward.
#include "pool_scatter.h"

namespace fastconv::cpu::FC_ISA {
namespace {

struct AdaptiveAxes {
  AdaptiveAxis depth, height, width;
  explicit AdaptiveAxes(const PoolShape& s)
      : depth(adaptive_axis_of(s, 0)), height(adaptive_axis_of(s, 1)), width(adaptive_axis_of(s, 2)) {}
};

// The ranges floor(i to / from) up to ceil((i + 1) to / from) for i = 0, 1, ..., without a division each.
struct Walk {
  Range range;
  Walk(int64_t from, int64_t to)
      : range{0, ceil_div(to, from)}, from_(from), step_(to / from), rest_(to % from), end_rest_((to - 1) % from) {}
  void next() {
    range.lo += step_;
    range.hi += step_;
    lo_rest_ += rest_;
    end_rest_ += rest_;
    if (lo_rest_ >= from_) lo_rest_ -= from_, range.lo++;
    if (end_rest_ >= from_) end_rest_ -= from_, range.hi++;
  }

 private:
  // lo = (i to - lo_rest) / from, hi - 1 = ((i + 1) to - 1 - end_rest) / from
  int64_t from_, step_, rest_, lo_rest_ = 0, end_rest_;
};

// Sum of n neighbours: vectors, whose lanes remain to be added.
template <class T> FC_INLINE Vec<Accumulator<T>> sum_registers(const T* p, int64_t n) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  Vec<A> sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes)
    for (int k = 0; k < 4; k++) sum[k] += load(p + i + k * lanes);
  for (; i < n; i += lanes) sum[0] += i + lanes <= n ? load(p + i) : load_partial(p + i, n - i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
template <class T> FC_INLINE Accumulator<T> sum_run(const T* p, int64_t n) {
  return sum_lanes<Accumulator<T>>(sum_registers(p, n));
}

// One value after the other, line by line.
template <class T> void average_channels_first(const PoolShape& s, const T* x, T* y, Context& ctx) {
  using A = Accumulator<T>;
  const AdaptiveAxes axes(s);
  const double work = double(s.in_space()) / double(s.out[0]) / double(s.out[1]);
  for_row_blocks<FlushDenormals>(
      ctx, s.N * s.C * s.out[0] * s.out[1], work, work * sizeof(T),
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, 1, s.out);
      const T* plane = x + at.n * s.in_space();
      T* out = y + row * s.out[2];
      const Range d = axes.depth.inputs(at.o), h = axes.height.inputs(at.p);
      const A rows = A(d.size()) * A(h.size());
      Walk inputs(s.out[2], s.in[2]);
      for (int64_t q = 0; q < s.out[2]; q++, inputs.next()) {
        const Range w = inputs.range;
        A sum = 0;
        for (int64_t i = d.lo; i < d.hi; i++)
          for (int64_t j = h.lo; j < h.hi; j++) {
            A line = 0;
            const T* p = plane + (i * s.in[1] + j) * s.in[2];
            for (int64_t k = w.lo; k < w.hi; k++) line += to_accumulator(p[k]);
            sum += line;
          }
        out[q] = from_accumulator<T>(sum / (rows * A(w.size())));
      }
    }
  });
}

template <class T> void average_channels_last(const PoolShape& s, const T* x, T* y, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>, group = 4;
  const AdaptiveAxes axes(s);
  const int64_t blocks = ceil_div(s.C, group * lanes);  // of channels: few windows still make many tasks
  const double work = double(s.in_space()) / double(s.out_space()) * double(group * lanes);
  for_row_blocks<FlushDenormals>(
      ctx, s.N * s.out_space() * blocks, work, work * sizeof(T),
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    for (int64_t task = first; task < last; task++) {
      const int64_t pixel = task / blocks, c = task % blocks * group * lanes, q = pixel % s.out[2];
      const RowPosition at(pixel / s.out[2], 1, s.out);
      const Range d = axes.depth.inputs(at.o), h = axes.height.inputs(at.p), w = axes.width.inputs(q);
      const T* image = x + at.n * s.in_space() * s.C;
      const int64_t vectors = min_of(group, ceil_div(s.C - c, lanes));
      Vec<A> sum[group] = {};
      for (int64_t i = d.lo; i < d.hi; i++)
        for (int64_t j = h.lo; j < h.hi; j++) {
          Vec<A> line[group] = {};
          for (int64_t k = w.lo; k < w.hi; k++) {
            const T* p = image + ((i * s.in[1] + j) * s.in[2] + k) * s.C + c;
            for (int64_t v = 0; v < vectors; v++) line[v] += load_up_to(p + v * lanes, s.C - c - v * lanes);
          }
          for (int64_t v = 0; v < group; v++) sum[v] += line[v];
        }
      const A count = A(d.size()) * A(h.size()) * A(w.size());
      for (int64_t v = 0; v < vectors; v++)
        store_up_to(y + pixel * s.C + c + v * lanes, sum[v] / count, s.C - c - v * lanes);
    }
  });
}

// The gradient of each window is divided by its size; a row of inputs first sums those of the windows above each other
// into a line, which then spreads along the width.
template <class T> void average_backward_channels_first(const PoolShape& s, const T* dy, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  const int64_t pitch = round_up(s.out[2], kLanes<A>);
  A* const scratch = static_cast<A*>(ctx.workspace(std::size_t(ctx.threads()) * std::size_t(pitch) * sizeof(A)));
  if (!scratch) return;
  const AdaptiveAxes axes(s);
  const double bytes = (double(s.in[2]) + double(s.out[2])) * sizeof(T);
  for_row_blocks<FlushDenormals>(
      ctx, s.N * s.C * s.in[0] * s.in[1], 0, bytes,
      [&](int64_t first, int64_t last, int thread) __attribute__((noinline)) {
    A* const line = scratch + thread * pitch;
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, 1, s.in);
      const T* plane = dy + at.n * s.out_space();
      const Range d = axes.depth.windows(at.o), h = axes.height.windows(at.p);
      fill_zero(line, s.out[2]);
      for (int64_t o = d.lo; o < d.hi; o++)
        for (int64_t p = h.lo; p < h.hi; p++) {
          const A rows = A(axes.depth.inputs(o).size()) * A(axes.height.inputs(p).size());
          Walk inputs(s.out[2], s.in[2]);
          for (int64_t q = 0; q < s.out[2]; q++, inputs.next())
            line[q] += to_accumulator(plane[(o * s.out[1] + p) * s.out[2] + q]) / (rows * A(inputs.range.size()));
        }
      T* out = dx + row * s.in[2];
      Walk windows(s.in[2], s.out[2]);
      for (int64_t k = 0; k < s.in[2]; k++, windows.next()) {
        A sum = line[windows.range.lo];
        for (int64_t q = windows.range.lo + 1; q < windows.range.hi; q++) sum += line[q];
        out[k] = from_accumulator<T>(sum);
      }
    }
  });
}

template <class T> void average_backward_channels_last(const PoolShape& s, const T* dy, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  const AdaptiveAxes axes(s);
  bool equal = true;  // windows of one size: one division of the sum
  for (int d = 0; d < 3; d++) equal &= s.in[d] % s.out[d] == 0;
  const Vec<A> size = broadcast<A>(A(double(s.in_space()) / double(s.out_space())));
  const double bytes = (double(s.in[2]) + double(s.out[2])) * double(s.C) * sizeof(T);
  for_row_blocks<FlushDenormals>(
      ctx, s.N * s.in[0] * s.in[1], 0, bytes,
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, 1, s.in);
      const T* image = dy + at.n * s.out_space() * s.C;
      const Range d = axes.depth.windows(at.o), h = axes.height.windows(at.p);
      Walk windows(s.in[2], s.out[2]);
      for (int64_t k = 0; k < s.in[2]; k++, windows.next()) {
        const Range w = windows.range;
        T* out = dx + (row * s.in[2] + k) * s.C;
        for (int64_t c = 0; c < s.C; c += lanes) {
          Vec<A> sum{};
          for (int64_t o = d.lo; o < d.hi; o++)
            for (int64_t p = h.lo; p < h.hi; p++)
              for (int64_t q = w.lo; q < w.hi; q++) {
                const Vec<A> v = load_up_to(image + ((o * s.out[1] + p) * s.out[2] + q) * s.C + c, s.C - c);
                sum += equal ? v
                             : v / (A(axes.depth.inputs(o).size()) * A(axes.height.inputs(p).size()) *
                                    A(axes.width.inputs(q).size()));
              }
          store_up_to(out + c, equal ? sum / size : sum, s.C - c);
        }
      }
    }
  });
}

constexpr int64_t kSmallPlane = 1024;
constexpr int64_t kRun = 4096;  // sums of sums: a long sum in one float would lose the digits of what is added

// One window: the average of a plane, and its gradient in every place.
template <class T> void average_planes(const PoolShape& s, const T* x, T* y, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  const int64_t plane = s.in_space();
  for_row_blocks<FlushDenormals>(ctx, s.N * s.C, 0, double(plane) * sizeof(T), [&](int64_t first, int64_t last, int) {
    int64_t i = first;
    // Small planes: a register of sums each, whose lanes are then added up for all of them together.
    for (; plane <= kSmallPlane && i + lanes <= last; i += lanes) {
      Vec<A> sum[lanes];
      for (int64_t l = 0; l < lanes; l++) sum[l] = sum_registers(x + (i + l) * plane, plane);
      transpose<A>(sum);
      for (int64_t half = lanes / 2; half; half /= 2)
        for (int64_t l = 0; l < half; l++) sum[l] += sum[l + half];
      store(y + i, (Vec<A>{} + sum[0]) / A(plane));  // no -0, as below
    }
    for (; i < last; i++) {
      A sum = 0;
      for (int64_t k = 0; k < plane; k += kRun) sum += sum_run(x + i * plane + k, min_of(kRun, plane - k));
      y[i] = from_accumulator<T>(sum / A(plane));
    }
  });
}
template <class T> void average_planes_backward(const PoolShape& s, const T* dy, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  const int64_t plane = s.in_space();
  for_row_blocks<FlushDenormals>(ctx, s.N * s.C, 0, double(plane) * sizeof(T), [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; i++) {
      const Vec<A> value = broadcast<A>(to_accumulator(dy[i]) / A(plane));
      for (int64_t k = 0; k < plane; k += kLanes<A>) store_up_to(dx + i * plane + k, value, plane - k);
    }
  });
}

// An average of one value each.
bool is_identity(const PoolShape& s) {
  return s.in[0] == s.out[0] && s.in[1] == s.out[1] && s.in[2] == s.out[2];
}
void copy_all(const PoolShape& s, const void* from, void* to) {
  std::memcpy(to, from, std::size_t(s.N * s.C * s.in_space()) * item_size(s.dtype));
}

}  // namespace

void adaptive_avg_pool_forward(const PoolShape& s, const void* x, void* y, Context& ctx) {
  if (s.out_space() == 0) return;
  if (is_identity(s)) return copy_all(s, x, y);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (s.layout == Layout::channels_last)
      average_channels_last<T>(s, static_cast<const T*>(x), static_cast<T*>(y), ctx);
    else if (s.out_space() == 1) average_planes<T>(s, static_cast<const T*>(x), static_cast<T*>(y), ctx);
    else average_channels_first<T>(s, static_cast<const T*>(x), static_cast<T*>(y), ctx);
  });
}

void adaptive_avg_pool_backward(const PoolShape& s, const void* dy, void* dx, Context& ctx) {
  if (s.out_space() == 0) {
    std::memset(dx, 0, std::size_t(s.N * s.C * s.in_space()) * item_size(s.dtype));
    return;
  }
  if (is_identity(s)) return copy_all(s, dy, dx);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (s.layout == Layout::channels_last)
      average_backward_channels_last<T>(s, static_cast<const T*>(dy), static_cast<T*>(dx), ctx);
    else if (s.out_space() == 1) average_planes_backward<T>(s, static_cast<const T*>(dy), static_cast<T*>(dx), ctx);
    else average_backward_channels_first<T>(s, static_cast<const T*>(dy), static_cast<T*>(dx), ctx);
  });
}

void adaptive_max_pool_forward(const PoolShape& s, const void* x, void* y, int64_t* indices, Context& ctx) {
  if (s.out_space() == 0) return;
  const AdaptiveAxes axes(s);
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    using A = Accumulator<T>;
    const double work = double(s.in_space()) / double(s.out[0]) / double(s.out[1]);
    for_row_blocks<KeepDenormals>(
        ctx, s.N * s.C * s.out[0] * s.out[1], work, work * sizeof(T),
        [&](int64_t first, int64_t last, int) {
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
