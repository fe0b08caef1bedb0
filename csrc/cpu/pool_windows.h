// What all pooling kernels share: where a window lies, how work is cut into tasks, loads past the ends of a row.
#pragma once
#include "lanes.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

struct Range {
  int64_t lo, hi;
  int64_t size() const { return hi - lo; }
};

// One dimension of a pooling.
struct Axis {
  int64_t in, out, kernel, stride, pad, pad_after, dilation;

  // x / stride for x >= 0: the common strides without a division, which would cost more than the work of a short row.
  int64_t over_stride(int64_t x) const { return stride == 1 ? x : stride == 2 ? x >> 1 : x / stride; }
  int64_t origin(int64_t i) const { return i * stride - pad; }  // of window i; the tap k lies at origin + k * dilation
  // The taps of window i that lie in the input.
  Range taps(int64_t i) const {
    const int64_t start = origin(i);
    if (start >= 0 && start + (kernel - 1) * dilation < in) return {0, kernel};  // the usual one, without a division
    const int64_t lo = start < 0 ? ceil_div(-start, dilation) : 0;
    const int64_t hi = start >= in ? 0 : min_of(kernel, (in - 1 - start) / dilation + 1);
    return {lo, max_of(lo, hi)};
  }
  // The inputs of window i, without dilation.
  Range inputs(int64_t i) const {
    const int64_t start = origin(i);
    return {max_of(start, 0), min_of(start + kernel, in)};
  }
  // The windows, without dilation, that hold input x.
  Range windows(int64_t x) const {
    const int64_t end = x + pad;
    return {end < kernel ? 0 : over_stride(end - kernel) + 1, min_of(over_stride(end) + 1, out)};
  }
};

FC_INLINE Axis axis_of(const PoolShape& s, int d) {
  return {s.in[d], s.out[d], s.kernel[d], s.stride[d], s.pad[d], s.pad_after[d], s.dilation[d]};
}

constexpr int64_t kMaxVectorKernel = 4096;             // beyond: one element at a time
constexpr int kMaxWindowRows = 256;                    // kernel[0] * kernel[1]: beyond likewise

// Whether loops over vectors serve this shape: all windows hold an input, and lane numbers and tap numbers are small.
FC_INLINE bool vector_loops_fit(const PoolShape& s) {
  for (int d = 0; d < 3; d++)
    if (s.kernel[d] > kMaxVectorKernel || s.in[d] < s.dilation[d]) return false;
  return s.kernel[0] * s.kernel[1] <= kMaxWindowRows && s.in_space() < (int64_t(1) << 31);
}

}  // namespace

// Windows that are the whole input belong to adaptive pooling, whichever way they are asked for.
void adaptive_avg_pool_forward(const PoolShape&, const void* x, void* y, Context&);
void adaptive_avg_pool_backward(const PoolShape&, const void* dy, void* dx, Context&);

namespace {

// One dimension of an adaptive pooling: window i holds the inputs floor(i in / out) up to ceil((i + 1) in / out).
struct AdaptiveAxis {
  int64_t in, out;

  Range inputs(int64_t i) const { return {i * in / out, ceil_div((i + 1) * in, out)}; }
  Range windows(int64_t x) const { return {x * out / in, ceil_div((x + 1) * out, in)}; }
};

FC_INLINE AdaptiveAxis adaptive_axis_of(const PoolShape& s, int d) { return {s.in[d], s.out[d]}; }

// Distances, in elements, between neighbours of an array of this layout.
struct Steps {
  int64_t n, c, space[3];
  Steps(Layout layout, int64_t channels, const int64_t size[3]) {
    const bool last = layout == Layout::channels_last;
    space[2] = last ? channels : 1;
    space[1] = space[2] * size[2];
    space[0] = space[1] * size[1];
    c = last ? 1 : space[0] * size[0];
    n = channels * size[0] * size[1] * size[2];
  }
};

// Row number -> image, channel, depth and height of an array with O x P rows a channel.
struct RowPosition {
  int64_t n, c, o, p;
  // Of the next row, where there is one channel (or c counts as part of n).
  void next(const int64_t size[3]) {
    if (++p < size[1]) return;
    p = 0;
    if (++o < size[0]) return;
    o = 0;
    n++;
  }
  RowPosition(int64_t row, int64_t channels, const int64_t size[3]) {
    p = row % size[1];
    row /= size[1];
    o = row % size[0];
    row /= size[0];
    c = row % channels;
    n = row / channels;
  }
};

// Cuts `rows` rows of `bytes` each into tasks of about kTaskBytes, and runs f(first, last, thread) for each.
constexpr double kTaskBytes = 128e3;  // long enough to hide the cost of taking a task, short enough to share evenly
template <class Scope, class F>
FC_INLINE void for_row_blocks(Context& ctx, int64_t rows, double flops, double bytes, F&& f) {
  if (rows < 1) return;
  const int threads = ctx.threads_for(flops * double(rows), bytes * double(rows));
  int64_t block = threads == 1 ? rows : max_of(1, int64_t(kTaskBytes / (bytes + 1)));
  block = min_of(block, ceil_div(rows, threads));
  parallel_for<Scope>(threads, ceil_div(rows, block), [&](int64_t task, int thread) {
    f(task * block, min_of(rows, (task + 1) * block), thread);
  });
}

template <class T> FC_INLINE void fill_zero(T* p, int64_t n) { std::memset(p, 0, std::size_t(n) * sizeof(T)); }

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
