// Max pooling backward, and unpooling with its own backward pass.
#include "pool_scatter.h"

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

// Values move as they are, so their size is all that matters.
template <class F> FC_INLINE void with_item(DType dtype, F&& f) {
  switch (item_size(dtype)) {
    case 2: f(std::uint16_t()); break;
    case 4: f(std::uint32_t()); break;
    default: f(std::uint64_t()); break;
  }
}

// The binding has checked the range of all indices; checking again costs nothing measurable and holds even while another
// thread writes to them.

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
    else if (window_index_size(s) == 1) scatter_windows(s, from, static_cast<const std::uint8_t*>(indices), to, ctx);
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
