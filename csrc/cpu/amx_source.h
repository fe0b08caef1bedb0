// A block of the source of a convolution on AMX: the caller's pixels, split into bfloat16 parts in scratch, and flags for
// those that are not plain (amx_split.h).
#pragma once
#include "conv_amx.h"
#include "lanes.h"

namespace fastconv::cpu::FC_ISA {
namespace {

enum Flag : std::uint8_t { kHuge = 1, kSmall = 2 };

// bfloat16 values are their own only part: 32 of them in one register.
typedef uint16_t Halves __attribute__((vector_size(FC_VECTOR_BYTES)));
FC_INLINE Halves load_halves(const bf16* p, int64_t n) {
  Halves v{};
  if (n >= kAmxDepth) std::memcpy(&v, p, sizeof v);
  else if (n > 0) v = (Halves)_mm512_maskz_loadu_epi16(__mmask32((1u << n) - 1), p);
  return v;
}

// The largest magnitude met.
struct LargestHalf {
  Halves most{};
  FC_INLINE Halves see(Halves v) {
    const Halves magnitude = v & uint16_t(0x7fff);
    most = magnitude > most ? magnitude : most;
    return v;
  }
  FC_INLINE bool huge(PlainRange range) const {
    return Extremes::any_lane((Words)(Halves)(most >= uint16_t(range.most >> 16)));
  }
};

// Values of a, each with its neighbour in b as a pair: of the first 16, and of the last.
template <int First> FC_INLINE Words pairs_from(Halves a, Halves b) {
  Halves lanes;
  for (int i = 0; i < kAmxDepth; i++) lanes[i] = uint16_t(First + i / 2 + i % 2 * kAmxDepth);
  return (Words)__builtin_shuffle(a, b, lanes);
}
FC_INLINE Words low_pairs(Halves a, Halves b) { return pairs_from<0>(a, b); }
FC_INLINE Words high_pairs(Halves a, Halves b) { return pairs_from<kAmxDepth / 2>(a, b); }

template <class T, int Parts> struct SourceBlock {
  static constexpr bool half = sizeof(T) == 2;
  static constexpr PlainRange range = kActivation<Parts>;
  const TapProblem& p;
  const AmxBlocking& b;
  const T* x;
  uint16_t* scratch;
  std::uint8_t* flags;  // one a pixel; filled only where flagged
  bool flagged = false;

  // Pixel 0 of a row of the source, its first wanted channel, and the strides from there.
  struct Row {
    const T* first;
    int64_t pixel_stride, channel_stride;
  };
  Row row_of(int64_t group, int64_t n, int64_t d, int64_t h) const {
    const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
    const int64_t all = p.groups * p.channels, plane = high.source * wide.source;
    if (p.layout == Layout::channels_last)
      return {x + (((n * depth.source + d) * high.source + h) * wide.source) * all + group * p.channels, all, 1};
    return {x + ((n * all + group * p.channels) * depth.source + d) * plane + h * wide.source, 1, depth.source * plane};
  }

  void zero(uint16_t* to, int64_t pixels) const {
    for (int q = 0; q < Parts; q++) std::memset(to + q * b.part_pitch, 0, std::size_t(pixels * b.pitch) * 2);
  }

  // What a row is made of. A first pass takes all values as they are; where one of them is huge a second one, `Zeroing`,
  // leaves such values out.
  template <bool Zeroing> struct Splitter {
    const int64_t part_pitch;
    Extremes met;
    LargestHalf met_halves;

    FC_INLINE Vec<float> see(Vec<float> v) {
      met.see<Parts>(v);
      return Zeroing ? plain_or_zero(v, range) : v;
    }
    FC_INLINE void put(Vec<float> v, uint16_t* to) { store_split<Parts>(see(v), to, part_pitch); }
    FC_INLINE void put_pairs(Vec<float> v, Vec<float> w, uint16_t* to) {
      store_pairs<Parts>(see(v), see(w), to, part_pitch);
    }
    FC_INLINE Halves see_halves(Halves v) {
      met_halves.see(v);
      return Zeroing ? v & (Halves)((v & uint16_t(0x7fff)) < uint16_t(range.most >> 16)) : v;
    }
    FC_INLINE void copy(Halves v, uint16_t* to) {
      v = see_halves(v);
      std::memcpy(to, &v, sizeof v);
    }
    FC_INLINE bool huge() const {
      return met.huge(range) || (half && met_halves.huge(range));
    }
  };

  // Stores run up to 31 values beyond a pixel: in ascending order, so that the next pixel overwrites them.
  template <class S>
  FC_INLINE void split_last(const T* from, int64_t stride, int64_t pixels, uint16_t* to, S& split) const {
    const bool joined = stride == p.channels && b.pitch == p.channels;
    if constexpr (half) {
      const int64_t length = joined ? pixels * p.channels : p.channels;
      for (int64_t w = 0; w < (joined ? min_of(1, pixels) : pixels); w++, from += stride, to += b.pitch)
        for (int64_t c = 0; c < length; c += kAmxDepth) split.copy(load_halves(from + c, length - c), to + c);
    } else if (b.folded) {
      const int64_t length = joined ? pixels * p.channels : p.channels;
      for (int64_t w = 0; w < (joined ? min_of(1, pixels) : pixels); w++, from += stride, to += b.pitch)
        for (int64_t c = 0; c < length; c += 16) split.put(load_up_to(from + c, length - c), to + c);
    } else if (p.channels % kAmxDepth == 0) {
      for (int64_t w = 0; w < pixels; w++, from += stride, to += b.pitch)
        for (int64_t c = 0; c < p.channels; c += kAmxDepth)
          split.put_pairs(load(from + c), load(from + c + 16), to + c);
    } else {
      for (int64_t w = 0; w < pixels; w++, from += stride, to += b.pitch)
        for (int64_t c = 0; c < p.channels; c += kAmxDepth)
          split.put_pairs(load_up_to(from + c, p.channels - c),
                          load_up_to(from + c + 16, max_of(0, p.channels - c - 16)), to + c);
    }
  }

  // Channels [c, c + 16) of 16 pixels from w on, pixel by pixel.
  FC_INLINE void load_first(const T* from, int64_t stride, int64_t c, int64_t w, int64_t pixels, Vec<float>* r) const {
    for (int i = 0; i < 16; i++)
      r[i] = c + i < p.channels ? load_up_to(from + (c + i) * stride + w, pixels) : Vec<float>{};
    transpose<float>(r);
  }

  template <class S>
  FC_INLINE void split_first(const T* from, int64_t stride, int64_t pixels, uint16_t* to, S& split) const {
    if (b.folded) {
      for (int64_t w = 0; w < pixels; w += 16) {
        const int64_t wn = min_of(16, pixels - w), vectors = ceil_div(p.channels, 16);
        Vec<float> r[4][16];  // such runs have up to 64 channels; pixels are stored whole, in ascending order
        for (int64_t v = 0; v < vectors; v++) load_first(from, stride, 16 * v, w, wn, r[v]);
        for (int64_t i = 0; i < wn; i++)
          for (int64_t v = 0; v < vectors; v++) split.put(r[v][i], to + (w + i) * b.pitch + 16 * v);
      }
      return;
    }
    if constexpr (half) return pair_first(from, stride, pixels, to, split);
    // All pixels of a few channels, rather than all channels of a few pixels: rows that a prefetcher follows.
    for (int64_t c = 0; c < p.channels; c += kAmxDepth)
      for (int64_t w = 0; w < pixels; w += 16) {
        const int64_t wn = min_of(16, pixels - w);
        Vec<float> r[2][16];
        for (int v = 0; v < 2; v++) load_first(from, stride, c + 16 * v, w, wn, r[v]);
        for (int64_t i = 0; i < wn; i++) {
          split.put_pairs(r[0][i], r[1][i], to + (w + i) * b.pitch + c);
        }
      }
  }

  // bfloat16 planes: pairs of channels are transposed as they are, 32 planes side by side, more than hardware prefetches.
  template <class S>
  FC_INLINE void pair_first(const T* from, int64_t stride, int64_t pixels, uint16_t* to, S& split) const {
    for (int64_t c = 0; c < p.channels; c += kAmxDepth)
      for (int64_t w = 0; w < pixels; w += kAmxDepth) {
        const auto row = [&](int64_t channel) {
          __builtin_prefetch(from + channel * stride + w + 4 * kAmxDepth);
          return channel < p.channels ? split.see_halves(load_halves(from + channel * stride + w, pixels - w)) : Halves{};
        };
        Vec<float> r[2][16];
        for (int i = 0; i < 16; i++) {
          const Halves even = row(c + 2 * i), odd = row(c + 2 * i + 1);
          r[0][i] = (Vec<float>)low_pairs(even, odd);
          r[1][i] = (Vec<float>)high_pairs(even, odd);
        }
        for (int v = 0; v < 2; v++) {
          transpose<float>(r[v]);
          uint16_t* pixel = to + (w + 16 * v) * b.pitch + c;
          for (int64_t i = 0; i < min_of(16, pixels - w - 16 * v); i++, pixel += b.pitch)
            store_words(pixel, (Words)r[v][i]);
        }
      }
  }

  // Returns the flags of the pixels together.
  template <bool Zeroing>
  __attribute__((noinline)) int split_row(const Row& row, int64_t first, int64_t step, int64_t pixels,
                                          uint16_t* to) const {
    Splitter<Zeroing> split{b.part_pitch, {}, {}};
    const T* from = row.first + first * row.pixel_stride;
    if (p.layout == Layout::channels_last) split_last(from, step * row.pixel_stride, pixels, to, split);
    else split_first(from, row.channel_stride, pixels, to, split);
    return (split.huge() ? kHuge : 0) | (Parts > 1 && split.met.small(range) ? kSmall : 0);
  }

  __attribute__((noinline)) void flag(const Row& row, int64_t first, int64_t step, int64_t pixels, int64_t at) {
    if (!flagged) std::memset(flags, 0, std::size_t(b.images * b.image_pitch / b.pitch));
    flagged = true;
    for (int64_t w = 0; w < pixels; w++)
      for (int64_t c = 0; c < p.channels; c++) {
        const float v = to_accumulator(row.first[(first + w * step) * row.pixel_stride + c * row.channel_stride]);
        uint32_t bits;
        std::memcpy(&bits, &v, 4);
        bits &= kMagnitude;
        if (bits >= range.most) flags[at + w] |= kHuge;
        else if (bits >= kSmallestNormal && bits < range.least) flags[at + w] |= kSmall;
      }
  }

  // Pixels w0, w0 + step, ... of a row to pixel `at` of scratch and on, zeros outside the source.
  void load_row(int64_t group, int64_t n, int64_t d, int64_t h, int64_t w0, int64_t step, int64_t pixels, int64_t at) {
    const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
    uint16_t* to = scratch + at * b.pitch;
    // What a folded run's last block reads behind the row meets weights that are zero: it has to be finite.
    if (b.folded)
      for (int q = 0; q < Parts; q++)
        std::memset(to + pixels * b.pitch + q * b.part_pitch, 0, kAmxDepth * 2);
    if (d < 0 || d >= depth.source || h < 0 || h >= high.source) return zero(to, pixels);
    const int64_t left = min_of(ceil_div(max_of(0, -w0), step), pixels);
    const int64_t right = max_of(left, min_of(pixels, ceil_div(max_of(0, wide.source - w0), step)));
    const Row row = row_of(group, n, d, h);
    zero(to, left);
    const int64_t first = w0 + left * step;
    const int met = split_row<false>(row, first, step, right - left, to + left * b.pitch);
    if (met & kHuge) split_row<true>(row, first, step, right - left, to + left * b.pitch);
    zero(to + right * b.pitch, pixels - right);
    if (met) flag(row, first, step, right - left, at + left);
  }

  // The block whose first grid point is (g0, h0, w0) of image n0: `images` images of `rows` x `cols` points.
  void fill(int64_t group, int64_t n0, int64_t images, int64_t g0, int64_t h0, int64_t rows, int64_t w0, int64_t cols) {
    const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
    const int64_t line = high.unit / b.high_unit, step = wide.unit / b.wide_unit;
    flagged = false;
    for (int64_t i = 0; i < images; i++)
      for (int64_t t = 0; t < depth.taps; t++)
        for (int64_t r = 0; r < high.span(rows, b.high_unit); r++)
          load_row(group, n0 + i, g0 * depth.unit + depth.first + t * depth.step, h0 * high.unit + high.first + r * line,
                   w0 * wide.unit + wide.first, step, wide.span(cols, b.wide_unit),
                   (i * b.image_pitch + t * b.slice_pitch + r * b.row_pitch) / b.pitch);
  }

  // All flags of the window of grid point (r, c) of image i of the block.
  int window_flags(int64_t i, int64_t r, int64_t c) const {
    const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
    int all = 0;
    for (int64_t t = 0; t < depth.taps; t++)
      for (int64_t u = 0; u < high.taps; u++)
        for (int64_t s = 0; s < wide.taps; s++)
          all |= flags[(i * b.image_pitch + t * b.slice_pitch + (r * b.high_unit + u * high.step) * b.row_pitch) /
                           b.pitch + c * b.wide_unit + s * wide.step];
    return all;
  }

  // The caller's values that grid point (g, h, w) of image n meets, in the order of the panels.
  void gather(int64_t group, int64_t n, int64_t g, int64_t h, int64_t w, float* window) const {
    const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
    const int64_t run = run_length(p), padded = round_up(run, kAmxDepth);
    std::memset(window, 0, std::size_t(b.blocks * kAmxDepth) * 4);
    for (int64_t tap = 0; tap < p.taps(); tap++) {
      const int64_t s = tap % wide.taps, r = tap / wide.taps % high.taps, t = tap / wide.taps / high.taps;
      const int64_t sd = g * depth.unit + depth.first + t * depth.step, sh = h * high.unit + high.first + r * high.step;
      const int64_t sw = w * wide.unit + wide.first + s * wide.step;
      if (sd < 0 || sd >= depth.source || sh < 0 || sh >= high.source || sw < 0 || sw >= wide.source) continue;
      const Row row = row_of(group, n, sd, sh);
      const int64_t first = b.folded ? tap / wide.taps * padded + s * p.channels : tap * padded;
      for (int64_t c = 0; c < p.channels; c++) {
        const int64_t at = first + c, j = at % kAmxDepth;
        window[at - j + place_in_block(j, !half && !b.folded)] =
            to_accumulator(row.first[sw * row.pixel_stride + c * row.channel_stride]);
      }
    }
  }
};

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
