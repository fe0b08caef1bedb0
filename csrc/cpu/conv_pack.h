// Moving convolution operands between the caller's arrays and the engine's blocks: image rows into channels-last
// scratch, weights into panels, finished tiles into the output. Values are converted to the accumulator type on the way
// in and rounded once on the way out.
#pragma once
#include "epilogue.h"
#include "lanes.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

template <class A> FC_INLINE void zero_fill(A* p, int64_t n) { std::memset(p, 0, std::size_t(n) * sizeof(A)); }

// n values of storage type T -> accumulator type.
template <class T, class A> FC_INLINE void convert(const T* src, A* dst, int64_t n) {
  constexpr int lanes = kLanes<A>;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(dst + i, load(src + i));
  if (i < n) store_partial(dst + i, load_partial(src + i, n - i), n - i);
}

// Pixels [w0, w1) of one channels-last row, zero outside [0, width). src is pixel 0, its first wanted channel.
template <class T, class A>
void pack_row_last(const T* src, int64_t width, int64_t pixel_stride, int64_t w0, int64_t w1, int64_t channels, A* dst,
                   int64_t pitch) {
  const int64_t left = min_of(max_of(0, -w0), w1 - w0), right = max_of(min_of(w1, width), w0 + left);
  zero_fill(dst, left * pitch);
  dst += left * pitch;
  if (pitch == channels && pixel_stride == channels) {
    convert(src + (w0 + left) * pixel_stride, dst, (right - w0 - left) * channels);
    dst += (right - w0 - left) * pitch;
  } else {
    for (int64_t w = w0 + left; w < right; w++, dst += pitch) convert(src + w * pixel_stride, dst, channels);
  }
  zero_fill(dst, (w1 - right) * pitch);
}

// kLanes pixels of which n exist, every step-th of a row that ends `room` values behind p.
template <int step, class T> FC_INLINE Vec<Accumulator<T>> load_pixels(const T* p, int64_t n, int64_t room) {
  if constexpr (step == 1) return load_up_to(p, n);
  constexpr int lanes = kLanes<Accumulator<T>>;
  const auto second = room > lanes ? load_up_to(p + lanes, room - lanes) : Vec<Accumulator<T>>{};
  return even_lanes<Accumulator<T>>(load_up_to(p, room), second);
}

// The same from a channels-first row: src is channel 0's row, channel_stride elements to the next channel. Its pixels are
// `step` values apart, and it has `values` of them (step 1: as many as pixels).
template <class T, class A, int step = 1>
void pack_row_first(const T* src, int64_t width, int64_t channel_stride, int64_t w0, int64_t w1, int64_t channels,
                    A* dst, int64_t pitch, int64_t values = 0) {
  constexpr int lanes = kLanes<A>;
  const int64_t left = min_of(max_of(0, -w0), w1 - w0), right = max_of(min_of(w1, width), w0 + left);
  zero_fill(dst, left * pitch);
  zero_fill(dst + (right - w0) * pitch, (w1 - right) * pitch);
  dst += left * pitch;
  src += (w0 + left) * step;
  values -= (w0 + left) * step;
  const int64_t pixels = right - w0 - left;
  if (step == 1 && channels == 1 && pitch == 1) {
    convert(src, dst, pixels);
    return;
  }
  for (int64_t c = 0; c < channels; c += lanes) {
    const int64_t cn = min_of(lanes, channels - c);
    for (int64_t w = 0; w < pixels; w += lanes) {
      const int64_t wn = min_of(lanes, pixels - w);
      Vec<A> r[lanes];
      const auto row = [&](int64_t i) __attribute__((always_inline)) { return src + (c + i) * channel_stride + w * step; };
      // The next rows: so many planes are more than hardware prefetches. Zen 5, 1 and 2 threads: 128 -> 128 channels at 112x112
      // 1.05 and 1.02 times as fast, 512 -> 512 at 28x28 1.07 and 1.05, with stride 2 128 -> 128 at 56x56 1.09 and 1.05.
      if (step == 1 && width > lanes)
#pragma GCC unroll 16
        for (int i = 0; i < lanes; i++) __builtin_prefetch(row(min_of(i, cn - 1)) + width, 0, 2);
      for (int i = 0; i < lanes; i++) r[i] = i < cn ? load_pixels<step>(row(i), wn, values - w * step) : Vec<A>{};
      transpose<A>(r);
      A* d = dst + w * pitch + c;
      if (cn == lanes)
        for (int64_t i = 0; i < wn; i++) store(d + i * pitch, r[i]);
      else
        for (int64_t i = 0; i < wn; i++) store_partial(d + i * pitch, r[i], cn);
    }
  }
}

// An array of images, and `count` of its channels from `channel` on.
template <class T> struct ImageChannels {
  const T* data;
  Layout layout;
  int64_t all, channel, count;
  int64_t high, wide;
};

// Pixels of `images` images from row h0, column w0 on -> block[image][row][column][channel], `pitch` values between
// columns, zero outside the images.
template <class T, class A>
void pack_block(const ImageChannels<T>& from, int64_t n0, int64_t images, int64_t h0, int64_t rows, int64_t w0,
                int64_t cols, A* block, int64_t pitch) {
  const int64_t plane = from.high * from.wide;
  for (int64_t i = 0; i < images; i++)
    for (int64_t r = 0; r < rows; r++, block += cols * pitch) {
      const int64_t n = n0 + i, h = h0 + r;
      if (h < 0 || h >= from.high)
        zero_fill(block, cols * pitch);
      else if (from.layout == Layout::channels_last)
        pack_row_last<T, A>(from.data + (n * plane + h * from.wide) * from.all + from.channel, from.wide, from.all, w0,
                            w0 + cols, from.count, block, pitch);
      else
        pack_row_first<T, A>(from.data + (n * from.all + from.channel) * plane + h * from.wide, from.wide, plane, w0,
                             w0 + cols, from.count, block, pitch);
    }
}

// Which panel row a weight goes to: slot[tap] * channels + channel, slot < 0 where the tap is not part of the problem.
struct WeightSource {
  int64_t column_stride;   // to the next output channel of the panel
  int64_t channel_stride;  // to the next reduction channel
  int64_t taps;            // consecutive elements per (column, channel)
  int64_t channels;
  const std::int32_t* slot;
};

// kLanes output channels of a filter of one tap, weights of an output channel next to each other. Sixteen streams of
// one cache line a block are more than hardware prefetches.
template <class T, class A>
FC_INLINE int64_t pack_one_tap(const T* w, int64_t column_stride, int64_t channels, int64_t width, A* panel) {
  constexpr int lanes = kLanes<A>;
  // Whole cache lines of a row: of rows a power of two apart, few stay in L1 until their next turn.
  constexpr int line = lanes > 64 / int(sizeof(T)) ? lanes : 64 / int(sizeof(T));
  int64_t c = 0;
  for (; c + line <= channels; c += line)
#pragma GCC unroll 4
    for (int part = 0; part < line; part += lanes) {
      Vec<A> r[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; i++) {
        const T* row = w + i * column_stride + c + part;
        if (part == 0) __builtin_prefetch(row + 4 * line);
        r[i] = load(row);
      }
      transpose<A>(r);
#pragma GCC unroll 16
      for (int i = 0; i < lanes; i++) store(panel + (c + part + i) * width, r[i]);
    }
  return c;
}

// `columns` output channels from w on -> panel [row][width], missing columns zero.
template <class T, class A>
void pack_panel(const T* w, const WeightSource& s, int64_t columns, int64_t width, A* panel) {
  constexpr int lanes = kLanes<A>;
  for (int64_t j = 0; j < width; j += lanes) {
    const int64_t n = max_of(0, min_of(lanes, columns - j));
    if (s.column_stride == 1) {
      for (int64_t c = 0; c < s.channels; c++)
        store(panel + (s.slot[0] * s.channels + c) * width + j, load_up_to(w + c * s.channel_stride + j, n));
      continue;
    }
    // Rows of the register block are output channels, its columns consecutive weights of one output channel: all
    // (channel, tap) pairs where these are consecutive, else the taps of one channel.
    const bool merged = s.channel_stride == s.taps;
    const int64_t outer = merged ? 1 : s.channels, inner = merged ? s.channels * s.taps : s.taps;
    const int64_t done = merged && s.taps == 1 && n == lanes
                             ? pack_one_tap<T, A>(w + j * s.column_stride, s.column_stride, s.channels, width, panel + j)
                             : 0;
    for (int64_t o = 0; o < outer; o++) {
      int64_t channel = o + done, tap = 0;
      for (int64_t k = done; k < inner; k += lanes) {
        const int64_t kn = min_of(lanes, inner - k);
        Vec<A> r[lanes];
        for (int i = 0; i < lanes; i++)
          r[i] = i < n ? load_up_to(w + (j + i) * s.column_stride + o * s.channel_stride + k, kn) : Vec<A>{};
        transpose<A>(r);
        for (int64_t i = 0; i < kn; i++) {
          if (s.slot[tap] >= 0) store(panel + (s.slot[tap] * s.channels + channel) * width + j, r[i]);
          if (++tap == s.taps) {
            tap = 0;
            channel++;
          }
        }
      }
    }
  }
}

// A matrix whose rows are reduction steps, `pitch` apart -> panels of `width` columns, `panel_pitch` apart: whole rows of
// it at a time, as neighbours in a column may be pages apart. Missing columns are zero; a last panel of at most kLanes
// is that narrow.
template <class T, class A>
void pack_rows(const T* w, int64_t pitch, int64_t steps, int64_t columns, int64_t width, A* panels, int64_t panel_pitch) {
  constexpr int lanes = kLanes<A>;
  constexpr int64_t kRowsAhead = 4;
  for (int64_t c = 0; c < steps; c++, w += pitch) {
    A* panel = panels;
    int64_t k = 0;
    for (; k + width <= columns; k += width, panel += panel_pitch)
      for (int64_t j = 0; j < width; j += lanes) {
        __builtin_prefetch(w + kRowsAhead * pitch + k + j);
        store(panel + c * width + j, load(w + k + j));
      }
    const int64_t left = columns - k, narrow = left > lanes ? width : lanes;
    for (int64_t j = 0; left > 0 && j < narrow; j += lanes)
      store(panel + c * narrow + j, load_up_to(w + k + j, left - j));
  }
}

// [pixel][width] -> channels-first planes: y[k * plane + pixel * step], k < columns. `finish` is for such a y.
template <class T, class A>
void unpack_first(const A* tile, int64_t width, int64_t pixels, int64_t columns, T* y, int64_t plane, int64_t step,
                  const Finish<T>& finish = {}) {
  constexpr int lanes = kLanes<A>;
  for (int64_t k = 0; k < columns; k += lanes) {
    const int64_t kn = min_of(lanes, columns - k);
    for (int64_t p = 0; p < pixels; p += lanes) {
      const int64_t pn = min_of(lanes, pixels - p);
      Vec<A> r[lanes];
      for (int i = 0; i < lanes; i++) r[i] = i < pn ? load(tile + (p + i) * width + k) : Vec<A>{};
      transpose<A>(r);
      for (int64_t i = 0; i < kn; i++) {
        T* row = y + (k + i) * plane + p * step;
        if (finish.wanted) r[i] = finish(r[i], row - y, pn);  // an output has step 1
        if (step == 1) {
          store_up_to(row, r[i], pn);
        } else {
          A lane[lanes];
          store(lane, r[i]);
          for (int64_t q = 0; q < pn; q++) row[q * step] = from_accumulator<T>(lane[q]);
        }
      }
    }
  }
}

// [pixel][width] -> channels-last pixels: y[pixel * stride + k], k < columns.
template <class T, class A>
void unpack_last(const A* tile, int64_t width, int64_t pixels, int64_t columns, T* y, int64_t stride,
                 const Finish<T>& finish = {}) {
  constexpr int lanes = kLanes<A>;
  for (int64_t p = 0; p < pixels; p++)
    for (int64_t k = 0; k < columns; k += lanes) {
      Vec<A> v = load(tile + p * width + k);
      if (finish.wanted) v = finish(v, p * stride + k, columns - k);
      store_up_to(y + p * stride + k, v, columns - k);
    }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
