// Windows of 2 x 2 side by side in channels-first arrays: each row of windows fills its two rows of the gradient.
#pragma once
#include "pool_windows.h"

namespace fastconv::cpu::FC_ISA {
namespace {

FC_INLINE bool are_tiles(const PoolShape& s) {
  bool fit = s.layout == Layout::channels_first && s.kernel[0] == 1 && s.in[0] == s.out[0] && s.stride[0] == 1;
  for (int d = 1; d < 3; d++)
    fit &= s.kernel[d] == 2 && s.stride[d] == 2 && s.pad[d] == 0 && s.dilation[d] == 1 && s.in[d] >= 2 * s.out[d];
  return fit;
}

// The values of kLanes windows: [row][column].
template <class A> struct Tile {
  Vec<A> at[2][2];
};

// dx = tile(at, n) of the windows from element `at` of dy on, where dy has n elements or more than kLanes; zeros where no
// window is. window_bytes: what tile reads for a window. A row of no more than kLanes windows is stored as whole
// registers where what spills over is written afterwards.
template <class T, class Scope, class F>
FC_INLINE void fill_tiles(const PoolShape& shape, T* dx, std::size_t window_bytes, Context& ctx, F&& tile_of) {
  using A = Accumulator<T>;
  constexpr int64_t lanes = kLanes<A>;
  const double bytes = double(shape.out[2]) * double(4 * sizeof(T) + window_bytes);
  for_row_blocks<Scope>(
      ctx, shape.N * shape.C * shape.out[0] * shape.out[1], 0, bytes,
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    const int64_t height = shape.in[1], width = shape.in[2], rows = shape.out[1], windows = shape.out[2];
    const auto tile = tile_of;  // a copy: the compiler need not assume that a store changes it
    int64_t plane = first / rows, p = first % rows;
    const int64_t all = shape.N * shape.C * shape.out_space();
    const T* const end = dx + ((last - 1) / rows * height + 2 * ((last - 1) % rows) + 2) * width;  // of the task's tiles
    const bool narrow = windows <= lanes;
    // Where two rows of windows fit one register: the lanes of the tile's two columns that make a row of dx.
    Mask<A> row_of[2];
    for (int k = 0; k < 2; k++)
      for (int i = 0; i < lanes; i++) row_of[k][i] = min_of(k * windows + i / 2, lanes - 1) + i % 2 * lanes;
    for (int64_t row = first; row < last;) {
      T* to = dx + (plane * height + 2 * p) * width;
      int64_t done = 1;
      if (2 * windows <= lanes && row + 1 < last && p + 1 < rows) {
        const Tile<A> t = tile(row * windows, all - row * windows);
        done = 2;
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
          store_up_to(to + k * width, __builtin_shuffle(t.at[k % 2][0], t.at[k % 2][1], row_of[k / 2]), 2 * windows);
      } else {
        for (int64_t q = 0; q < windows; q += lanes) {
          const Tile<A> t = tile(row * windows + q, all - row * windows - q);
          const bool spills = narrow && to + width + 2 * lanes <= end;
          const int64_t n = spills ? 2 * round_up(windows, lanes / 2) : 2 * (windows - q);
#pragma GCC unroll 2
          for (int r = 0; r < 2; r++) {
            store_up_to(to + r * width + 2 * q, interleave_low<A>(t.at[r][0], t.at[r][1]), n);
            if (n > lanes)
              store_up_to(to + r * width + 2 * q + lanes, interleave_high<A>(t.at[r][0], t.at[r][1]), n - lanes);
          }
        }
      }
      for (int64_t r = 0; r < 2 * done; r++)
        for (int64_t i = 2 * windows; i < width; i += lanes) store_up_to(to + r * width + i, Vec<A>{}, width - i);
      row += done;
      p += done;
      if (p == rows) {
        if (height > 2 * rows) fill_zero(to + 2 * done * width, (height - 2 * rows) * width);
        p = 0;
        plane++;
      }
    }
  });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
