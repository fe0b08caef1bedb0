// Max pooling backward, and unpooling with its own backward pass.
#include "pool_scatter.h"
#include "pool_tiles.h"

namespace fastconv::cpu::FC_ISA {
namespace {

template <class T, class I>
void scatter_windows(const PoolShape& s, const T* dy, const I* taps, T* dx, Context& ctx) {
  const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
  const int64_t area = s.kernel[1] * s.kernel[2];
  scatter_maxima(s, dy, dx, ctx, [=](int64_t at, int64_t o, int64_t p, int64_t q) -> int64_t {
    const int64_t tap = taps[at];
    const int64_t d = depth.origin(o) + tap / area * depth.dilation;
    const int64_t h = height.origin(p) + tap % area / width.kernel * height.dilation;
    const int64_t w = width.origin(q) + tap % width.kernel * width.dilation;
    // A window without a tap in the input chose nothing; and the numbers come from the caller.
    const bool inside = d >= 0 && d < depth.in && h >= 0 && h < height.in && w >= 0 && w < width.in;
    return inside ? (d * height.in + h) * width.in + w : -1;
  });
}

// ---- window taps in vectors ----------------------------------------------------------------------------------------
//
// Each input gathers from the windows that hold it: dy where the window's tap is the one that lies on this input.
// Nothing is written twice, and the order of the sum is that of the windows.

// The window that has tap k on input x along one dimension, or -1.
FC_INLINE int64_t window_of(const Axis& a, int64_t x, int64_t k) {
  const int64_t start = x + a.pad - k * a.dilation;
  if (start < 0) return -1;
  const int64_t i = a.over_stride(start);
  return i * a.stride == start && i < a.out ? i : -1;
}

struct True {
  constexpr operator bool() const { return true; }
};
struct False {
  constexpr operator bool() const { return false; }
};

// A row of windows (its number in a plane of dy) and the number of the tap at the left end of its windows' own row; or
// one window and its tap. A window has at most 256 taps here, and an input lies on at most as many windows.
struct Source {
  int64_t at, tap;
};
constexpr int kMaxSources = 256;

// The rows of windows that hold the inputs at depth d and height h, in the order of the windows.
FC_INLINE int source_rows(const Axis& depth, const Axis& height, int64_t width_taps, int64_t d, int64_t h,
                          Source* found) {
  int n = 0;
  for (int64_t i = depth.kernel - 1; i >= 0; i--) {
    const int64_t o = window_of(depth, d, i);
    for (int64_t j = height.kernel - 1; o >= 0 && j >= 0; j--) {
      const int64_t p = window_of(height, h, j);
      if (p >= 0) found[n++] = {o * height.out + p, (i * height.kernel + j) * width_taps};
    }
  }
  return n;
}

// Stride 1 and outputs of the input's size: input and window of one number in the array differ by the same distance for
// each tap, in either layout. Where that distance leads into another row, the tap there is never the one sought.
template <class T>
void gather_same_size(const PoolShape& s, const T* dy, const std::uint8_t* taps, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  const int64_t total = s.N * s.C * s.in_space(), pixel = s.layout == Layout::channels_last ? s.C : 1;
  int64_t distance[kMaxSources];
  int count = 0;
  for (int64_t t = 0; t < s.kernel[0]; t++)
    for (int64_t r = 0; r < s.kernel[1]; r++)
      for (int64_t k = 0; k < s.kernel[2]; k++)
        distance[count++] = (((t * s.dilation[0] - s.pad[0]) * s.in[1] + r * s.dilation[1] - s.pad[1]) * s.in[2] +
                             k * s.dilation[2] - s.pad[2]) * pixel;
  for_row_blocks<KeepDenormals>(
      ctx, ceil_div(total, lanes), 0, lanes * (2 * sizeof(T) + 1),
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    const int taps_of_window = count;
    int64_t from[kMaxSources];
    std::memcpy(from, distance, sizeof(int64_t) * std::size_t(taps_of_window));
    const auto sum_at = [&](int64_t i, auto whole) {
      Vec<A> sum{};
      for (int k = taps_of_window - 1; k >= 0; k--) {
        const int64_t at = i - from[k];
        const Mask<A> tap = whole ? load_bytes<A>(taps + at) : load_bytes_within<A>(taps, at, total);
        const Vec<A> v = whole ? load(dy + at) : load_within(dy, at, total, Vec<A>{});
        sum += tap == Mask<A>{} + Lane<A>(k) ? v : Vec<A>{};
      }
      return sum;
    };
    int64_t reach = 0;
    for (int k = 0; k < taps_of_window; k++) reach = max_of(reach, max_of(from[k], -from[k]));
    for (int64_t i = first * lanes; i < min_of(last * lanes, total); i += lanes) {
      if (i >= reach && i + lanes + reach <= total) store(dx + i, sum_at(i, True()));
      else store_up_to(dx + i, sum_at(i, False()), total - i);
    }
  });
}

// Windows of 2 x 2 side by side: a gradient goes to one value of its window, zeros to the others.
template <class T>
void scatter_tiles(const PoolShape& s, const T* dy, const std::uint8_t* taps, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  fill_tiles<T, KeepDenormals>(s, dx, sizeof(T) + 1, ctx, [=](int64_t at, int64_t n) {
    const Vec<A> v = load_up_to(dy + at, n);
    const Mask<A> tap = n >= kLanes<A> ? load_bytes<A>(taps + at) : load_bytes_within<A>(taps + at, 0, n);
    Tile<A> tile;
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) tile.at[k / 2][k % 2] = tap == Mask<A>{} + Lane<A>(k) ? v : Vec<A>{};
    return tile;
  });
}

// One window after the other, its gradient added to the value it chose: a plane that stays in cache takes fewer steps so
// than vectors of inputs do, each of which looks at all windows that hold it; above all where rows are short.
constexpr int64_t kScatteredPlane = 16 << 10;  // values
FC_INLINE bool scatters(const PoolShape& s) {
  return s.layout == Layout::channels_first && s.in_space() <= kScatteredPlane && vector_loops_fit(s);
}
template <class T>
void scatter_planes(const PoolShape& shape, const T* dy, const std::uint8_t* taps, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  constexpr bool direct = sizeof(A) == sizeof(T);  // float16 and bfloat16 add up in float and are rounded once
  const int64_t plane = shape.in_space();
  A* scratch = nullptr;
  if (!direct) {
    scratch = static_cast<A*>(ctx.workspace(std::size_t(ctx.threads()) * std::size_t(plane) * sizeof(A)));
    if (!scratch) return;
  }
  const double bytes = double(plane) * sizeof(T) + double(shape.out_space()) * (sizeof(T) + 1);
  for_row_blocks<KeepDenormals>(
      ctx, shape.N * shape.C, 0, bytes, [&](int64_t first, int64_t last, int thread) __attribute__((noinline)) {
    const PoolShape s = shape;  // a copy: the compiler need not assume that a store changes it
    // How far a tap lies from its window's origin. What is no tap leads out of the plane: the caller may give any byte.
    std::int32_t distance[256];
    for (int64_t k = 0; k < 256; k++) {
      const int64_t t = k / (s.kernel[1] * s.kernel[2]), r = k / s.kernel[2] % s.kernel[1], c = k % s.kernel[2];
      const int64_t to = (t * s.dilation[0] * s.in[1] + r * s.dilation[1]) * s.in[2] + c * s.dilation[2];
      distance[k] = t < s.kernel[0] ? std::int32_t(to) : 1 << 30;
    }
    const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
    const T* values = dy + first * s.out_space();
    const std::uint8_t* chosen = taps + first * s.out_space();
    for (int64_t i = first; i < last; i++) {
      A* const sum = direct ? reinterpret_cast<A*>(dx + i * plane) : scratch + thread * plane;
      fill_zero(sum, plane);
      for (int64_t o = 0; o < depth.out; o++)
        for (int64_t p = 0; p < height.out; p++) {
          std::int32_t origin = std::int32_t((depth.origin(o) * s.in[1] + height.origin(p)) * s.in[2] - width.pad);
          for (int64_t q = 0; q < width.out; q++, origin += std::int32_t(width.stride)) {
            const std::uint32_t place = std::uint32_t(origin + distance[*chosen++]);
            const A v = to_accumulator(*values++);
            if (place < std::uint32_t(plane)) sum[place] += v;
          }
        }
      if (!direct)
        for (int64_t k = 0; k < plane; k += kLanes<A>)
          store_up_to(dx + i * plane + k, load_up_to(sum + k, plane - k), plane - k);
    }
  });
}

template <int stride, class T>
void gather_channels_first(const PoolShape& shape, const T* dy, const std::uint8_t* taps, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>, rows_at_once = 8;
  const double windows = 1.0 / double(shape.stride[1] * shape.stride[2]);  // for each input
  const double bytes = double(shape.in[2]) * (sizeof(T) + windows * (sizeof(T) + 1));
  for_row_blocks<KeepDenormals>(
      ctx, shape.N * shape.C * shape.in[0] * shape.in[1], 0, bytes,
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    const PoolShape s = shape;  // a copy: the compiler need not assume that a store changes it
    const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
    const int64_t together = max_of(1, min_of(rows_at_once, kMaxSources / (s.kernel[0] * s.kernel[1])));
    const T* const values = dy;
    const std::uint8_t* const chosen = taps;
    T* const out = dx;
    Source source[kMaxSources];
    int sources[rows_at_once + 1] = {0};
    RowPosition at(first, 1, s.in);
    for (int64_t row = first; row < last; row += together) {
      const int64_t count = min_of(together, last - row);
      for (int64_t i = 0; i < count; i++, at.next(s.in)) {
        Source* mine = source + sources[i];
        const int found = source_rows(depth, height, width.kernel, at.o, at.p, mine);
        for (int k = 0; k < found; k++) mine[k].at = (mine[k].at + at.n * s.out[0] * s.out[1]) * width.out;
        sources[i + 1] = sources[i] + found;
      }
      for (int64_t w = 0; w < width.in; w += stride * lanes) {
        // Input w + e, e below the stride, lies on tap k of window (w + e + pad - k) / stride, for every stride-th k.
        Span<A> span[kMaxSources];
        for (int64_t k = 0; k < width.kernel; k++) {
          const int64_t e = stride == 1 ? 0 : (k - width.pad) & 1;
          span[k] = Span<A>((w + e + width.pad - k) / stride, width.out);
        }
        const int64_t n = width.in - w;
        for (int64_t i = 0; i < count; i++) {
          Vec<A> sum[stride] = {};  // of the taps kernel - 1, kernel - 1 - stride, ...; of kernel - 2, ...
#pragma GCC unroll 2
          for (int e = 0; e < stride; e++)
            for (int64_t k = width.kernel - 1 - e; k >= 0; k -= stride)
              for (int j = sources[i]; j < sources[i + 1]; j++) {
                const Mask<A> tap = load_bytes_span<A>(chosen + source[j].at, span[k]);
                const Vec<A> v = load_span(values + source[j].at, span[k]);
                sum[e] += tap == Mask<A>{} + Lane<A>(source[j].tap + k) ? v : Vec<A>{};
              }
          T* to = out + (row + i) * width.in + w;
          if constexpr (stride == 1) {
            store_up_to(to, sum[0], n);
          } else {
            const bool swap = (width.kernel - 1 - width.pad) & 1;  // sum[0] is that of the odd inputs
            const Vec<A> even = swap ? sum[1] : sum[0], odd = swap ? sum[0] : sum[1];
            store_up_to(to, interleave_low<A>(even, odd), n);
            if (n > lanes) store_up_to(to + lanes, interleave_high<A>(even, odd), n - lanes);
          }
        }
      }
    }
  });
}

template <class T>
void gather_channels_last(const PoolShape& shape, const T* dy, const std::uint8_t* taps, T* dx, Context& ctx) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  const double windows = 1.0 / double(shape.stride[1] * shape.stride[2]);  // for each input
  const double bytes = double(shape.in[2]) * double(shape.C) * (sizeof(T) + windows * (sizeof(T) + 1));
  for_row_blocks<KeepDenormals>(
      ctx, shape.N * shape.in[0] * shape.in[1], 0, bytes,
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    const PoolShape s = shape;  // a copy: the compiler need not assume that a store changes it
    const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
    const int64_t channels = s.C;
    RowPosition at(first, 1, s.in);
    for (int64_t row = first; row < last; row++, at.next(s.in)) {
      const int64_t image = at.n * depth.out * height.out * width.out;
      Source line[kMaxSources], source[kMaxSources];
      const int lines = source_rows(depth, height, width.kernel, at.o, at.p, line);
      for (int64_t w = 0; w < width.in; w++) {
        int sources = 0;
        for (int64_t k = width.kernel - 1; k >= 0; k--) {
          const int64_t q = window_of(width, w, k);
          for (int i = 0; q >= 0 && i < lines; i++)
            source[sources++] = {(image + line[i].at * width.out + q) * channels, line[i].tap + k};
        }
        T* out = dx + (row * width.in + w) * channels;
        const auto gather = [&](int64_t c, auto size) __attribute__((always_inline)) {
          Vec<A> sum{};
          for (int i = 0; i < sources; i++) {
            const Mask<A> tap = load_bytes<A>(taps + source[i].at + c, size);
            sum += tap == Mask<A>{} + Lane<A>(source[i].tap) ? load(dy + source[i].at + c, size) : Vec<A>{};
          }
          store(out + c, sum, size);
        };
        int64_t c = 0;
        for (; c + lanes <= channels; c += lanes) gather(c, Whole());
        if (c < channels) gather(c, Part{channels - c});
      }
    }
  });
}

template <class T>
void max_pool_backward_taps(const PoolShape& s, const T* dy, const std::uint8_t* taps, T* dx, Context& ctx) {
  bool same = true;
  for (int d = 0; d < 3; d++) same &= s.stride[d] == 1 && s.in[d] == s.out[d];
  if (same) gather_same_size<T>(s, dy, taps, dx, ctx);
  else if (are_tiles(s)) scatter_tiles<T>(s, dy, taps, dx, ctx);
  else if (scatters(s)) scatter_planes<T>(s, dy, taps, dx, ctx);
  else if (s.layout == Layout::channels_last) gather_channels_last<T>(s, dy, taps, dx, ctx);
  else if (s.dilation[2] > 1 || s.stride[2] > 2) scatter_windows(s, dy, taps, dx, ctx);
  else if (s.stride[2] == 1) gather_channels_first<1, T>(s, dy, taps, dx, ctx);
  else gather_channels_first<2, T>(s, dy, taps, dx, ctx);
}

// Values move as they are, so their size is all that matters.
template <class F> FC_INLINE void with_item(DType dtype, F&& f) {
  switch (item_size(dtype)) {
    case 2: f(std::uint16_t()); break;
    case 4: f(std::uint32_t()); break;
    default: f(std::uint64_t()); break;
  }
}

// The binding has checked the range of all indices; checking again costs nothing measurable and holds even while
// another thread writes to them.

// Runs f(n, first channel, channels) so that each plane is one thread's.
template <class F> FC_INLINE void for_planes(const PoolShape& s, Context& ctx, F&& f) {
  const int64_t chunk = s.layout == Layout::channels_last ? min_of(kScatterChannels, s.C) : 1;
  const int64_t chunks = ceil_div(s.C, chunk);
  const double bytes = double(s.N) * double(s.C) * double(s.in_space() + s.out_space()) * double(item_size(s.dtype));
  parallel_for<KeepDenormals>(ctx.threads_for(0, bytes), s.N * chunks, [&](int64_t task, int) {
    const int64_t c = task % chunks * chunk;
    f(task / chunks, c, min_of(chunk, s.C - c));
  });
}

}  // namespace

void max_pool_backward(const PoolShape& s, const void* dy, Indices kind, const void* indices, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* from = static_cast<const T*>(dy);
    T* to = static_cast<T*>(dx);
    if (kind == Indices::flat) scatter_flat(s, from, static_cast<const int64_t*>(indices), to, ctx);
    else if (window_index_size(s) == 1)
      max_pool_backward_taps<T>(s, from, static_cast<const std::uint8_t*>(indices), to, ctx);
    else scatter_windows(s, from, static_cast<const std::int32_t*>(indices), to, ctx);
  });
}

void max_unpool_forward(const PoolShape& s, const void* x, const int64_t* indices, void* y, Context& ctx) {
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  with_item(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_planes(s, ctx, [&](int64_t n, int64_t c0, int64_t width) {
      T* out = static_cast<T*>(y) + n * to.n + c0 * to.c;
      for (int64_t i = 0; i < s.out_space(); i++)
        for (int64_t c = 0; c < width; c++) out[i * to.space[2] + c] = 0;
      const int64_t start = n * from.n + c0 * from.c;
      for (int64_t i = 0; i < s.in_space(); i++)
        for (int64_t c = 0; c < width; c++) {
          const int64_t at = start + i * from.space[2] + c;
          const int64_t place = indices[at];
          if (std::uint64_t(place) < std::uint64_t(s.out_space()))
            out[place * to.space[2] + c] = static_cast<const T*>(x)[at];
        }
    });
  });
}

void max_unpool_backward(const PoolShape& s, const void* dy, const int64_t* indices, void* dx, Context& ctx) {
  const Steps from(s.layout, s.C, s.out), to(s.layout, s.C, s.in);
  with_item(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    for_planes(s, ctx, [&](int64_t n, int64_t c0, int64_t width) {
      const T* plane = static_cast<const T*>(dy) + n * from.n + c0 * from.c;
      const int64_t start = n * to.n + c0 * to.c;
      for (int64_t i = 0; i < s.in_space(); i++)
        for (int64_t c = 0; c < width; c++) {
          const int64_t at = start + i * to.space[2] + c;
          const int64_t place = indices[at];
          static_cast<T*>(dx)[at] =
              std::uint64_t(place) < std::uint64_t(s.out_space()) ? plane[place * from.space[2] + c] : T(0);
        }
    });
  });
}

}  // namespace fastconv::cpu::FC_ISA
