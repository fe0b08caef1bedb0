// dx[chosen place] += dy, plane by plane: the backward pass of every max pooling whose windows have no faster form.
#pragma once
#include "pool_windows.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// place(element of dy, o, p, q) is the place in the plane that the window chose, or -1. One task is a plane or, in
// channels-last arrays, kScatterChannels of them, so that no two threads write to one place. float16 and bfloat16 add
// up in a float plane and are rounded once.
constexpr int64_t kScatterChannels = 16;
template <class T, class Place>
FC_INLINE void scatter_maxima(const PoolShape& s, const T* dy, T* dx, Context& ctx, Place&& place) {
  using A = Accumulator<T>;
  constexpr bool direct = sizeof(A) == sizeof(T);
  const int64_t chunk = s.layout == Layout::channels_last ? min_of(kScatterChannels, s.C) : 1;
  const int64_t chunks = ceil_div(s.C, chunk), tasks = s.N * chunks, plane = s.in_space();
  const Steps from(s.layout, s.C, s.out), to(s.layout, s.C, s.in);
  const double bytes = double(s.out_space()) * (sizeof(T) + 2) + double(plane) * sizeof(T);
  const int threads = ctx.threads_for(0, double(s.N) * double(s.C) * bytes);
  A* scratch = nullptr;
  if (!direct) {
    scratch = static_cast<A*>(ctx.workspace(std::size_t(threads) * std::size_t(chunk * plane) * sizeof(A)));
    if (!scratch) return;
  }
  parallel_for<KeepDenormals>(threads, tasks, [&](int64_t task, int thread) {
    const int64_t n = task / chunks, c0 = task % chunks * chunk, width = min_of(chunk, s.C - c0);
    T* out = dx + n * to.n + c0 * to.c;
    A* sum = direct ? reinterpret_cast<A*>(out) : scratch + thread * chunk * plane;
    const int64_t pitch = direct ? to.space[2] : width;  // between neighbouring places in `sum`
    if (pitch == width) fill_zero(sum, plane * width);
    else
      for (int64_t i = 0; i < plane; i++) fill_zero(sum + i * pitch, width);
    const int64_t start = n * from.n + c0 * from.c;
    int64_t pixel = start;
    for (int64_t o = 0; o < s.out[0]; o++)
      for (int64_t p = 0; p < s.out[1]; p++)
        for (int64_t q = 0; q < s.out[2]; q++, pixel += from.space[2])
          for (int64_t c = 0; c < width; c++) {
            const int64_t target = place(pixel + c, o, p, q);
            if (std::uint64_t(target) < std::uint64_t(plane)) sum[target * pitch + c] += to_accumulator(dy[pixel + c]);
          }
    if (!direct)
      for (int64_t i = 0; i < plane; i++)
        for (int64_t c = 0; c < width; c++) out[i * to.space[2] + c] = from_accumulator<T>(sum[i * width + c]);
  });
}

// The same for int64 places in the plane. The binding has checked their range, but another thread may write to them.
template <class T>
FC_INLINE void scatter_flat(const PoolShape& s, const T* dy, const int64_t* indices, T* dx, Context& ctx) {
  scatter_maxima(s, dy, dx, ctx, [=](int64_t at, int64_t, int64_t, int64_t) { return indices[at]; });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
