// float32 operands for a processor that multiplies bfloat16: a value is the sum of two or three bfloat16 parts, each of
// them the rest of the ones before it, rounded. Three parts hold all 24 bits of a float32, products of parts are exact.
//
//   parts  products                              left out, at most     class
//   1      a0 b0                                 2^-7 of |a||b|        bfloat16 inputs: "medium", bfloat16 arrays
//   2      a0 b0 + a0 b1 + a1 b0                 3 * 2^-16             "high"
//   3      all a_i b_j with i + j <= 2           2^-23                 "highest"
//
// The parts of a small value would be denormals, which AMX reads as zero, and a value near the limit would round to
// infinity. So operands are *plain* (kActivation, kWeight): within a range in which no part and no product of parts
// that counts is lost (2^-58 * 2^-42 leaves 26 bits above the smallest normal number). What lies outside is found while
// it is split, and computed by fused multiply-adds (conv_amx.h says how).
#pragma once
#include "../ops.h"
#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;
using std::uint16_t;
using std::uint32_t;

// Parts of an operand of this convolution.
FC_INLINE int amx_parts(const ConvShape& s) {
  if (s.dtype == DType::bf16 || s.precision == Precision::medium) return 1;
  return s.precision == Precision::high ? 2 : 3;
}

typedef uint32_t Words __attribute__((vector_size(FC_VECTOR_BYTES)));
typedef uint32_t LooseWords __attribute__((vector_size(FC_VECTOR_BYTES), aligned(2), may_alias));

constexpr uint32_t kMagnitude = 0x7fffffffu, kUpperHalf = 0xffff0000u, kSmallestNormal = 0x00800000u;
constexpr uint32_t float_bits_of_power(int exponent) { return uint32_t(127 + exponent) << 23; }

// Bits of the magnitudes [least, most) that are plain; zeros and denormals, which are zeros here, always are.
struct PlainRange {
  uint32_t least, most;
};
// A single part has nothing to lose but its rounding to infinity.
constexpr PlainRange kOnePart = {kSmallestNormal, float_bits_of_power(127)};
template <int Parts>
constexpr PlainRange kActivation =
    Parts == 1 ? kOnePart : PlainRange{float_bits_of_power(-58), float_bits_of_power(58)};
template <int Parts>
constexpr PlainRange kWeight =
    Parts == 1 ? kOnePart : PlainRange{float_bits_of_power(-42), float_bits_of_power(42)};

// The largest magnitude met, and the least that is neither zero nor denormal (less kSmallestNormal).
struct Extremes {
  Words most{}, least = ~Words{};
  template <int Parts> FC_INLINE void see(Vec<float> v) {
    const Words magnitude = (Words)v & kMagnitude, above = magnitude - kSmallestNormal;
    most = magnitude > most ? magnitude : most;
    if (Parts > 1) least = above < least ? above : least;
  }
  FC_INLINE bool huge(PlainRange range) const { return any_lane((Words)(most >= range.most)); }
  FC_INLINE bool small(PlainRange range) const { return any_lane((Words)(least < range.least - kSmallestNormal)); }
  FC_INLINE bool plain(PlainRange range) const { return !huge(range) && !small(range); }
  static FC_INLINE bool any_lane(Words w) {
    uint32_t lane[16], all = 0;
    std::memcpy(lane, &w, sizeof w);
    for (uint32_t l : lane) all |= l;
    return all != 0;
  }
};

// Denormals and values beyond the range become zero.
FC_INLINE Vec<float> plain_or_zero(Vec<float> v, PlainRange range) {
  const Words magnitude = (Words)v & kMagnitude;
  return (Vec<float>)((Words)v & (Words)(magnitude - kSmallestNormal < range.most - kSmallestNormal));
}

// part[p] has the bits of the p-th bfloat16 in its upper half.
template <int Parts> FC_INLINE void split(Vec<float> v, Words* part) {
  if constexpr (Parts == 1) {
    const Words bits = (Words)v;
    part[0] = (bits + 0x7fffu + ((bits >> 16) & 1u)) & kUpperHalf;  // to nearest, ties to even
  } else {
#pragma GCC unroll 3
    for (int p = 0; p < Parts; p++) {
      // Ties away from zero: one instruction less, and the next part holds the difference anyway.
      part[p] = ((Words)v + 0x8000u) & kUpperHalf;
      v -= (Vec<float>)part[p];
    }
  }
}

// Parts of two neighbours of the reduction, as the pairs of a tile.
template <int Parts> FC_INLINE void split_pairs(Vec<float> first, Vec<float> second, Words* pair) {
  Words a[Parts], b[Parts];
  split<Parts>(first, a);
  split<Parts>(second, b);
#pragma GCC unroll 3
  for (int p = 0; p < Parts; p++) pair[p] = (a[p] >> 16) | b[p];
}

// `rows` rows of 32 sums, rounded to bfloat16. Sums of AMX are never denormal, which the instruction would flush.
FC_INLINE void store_rounded(const float* sums, int64_t rows, bf16* to, int64_t stride) {
  for (int64_t i = 0; i < rows; i++, sums += 32, to += stride) {
#if defined(__AVX512BF16__)
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)load(sums + 16), (__m512)load(sums));
    std::memcpy(to, &both, sizeof both);
#else
    store(to, load(sums));
    store(to + 16, load(sums + 16));
#endif
  }
}

// 16 values of every part, part_pitch elements apart.
template <int Parts> FC_INLINE void store_split(Vec<float> v, uint16_t* to, int64_t part_pitch) {
  typedef uint16_t Halves __attribute__((vector_size(FC_VECTOR_BYTES / 2), aligned(2), may_alias));
  Words part[Parts];
  split<Parts>(v, part);
#pragma GCC unroll 3
  for (int p = 0; p < Parts; p++)
    *reinterpret_cast<Halves*>(to + p * part_pitch) = __builtin_convertvector(part[p] >> 16, Halves);
}

FC_INLINE void store_words(uint16_t* to, Words w) { *reinterpret_cast<LooseWords*>(to) = w; }

// Two registers' values pair by pair: 32 values of every part. Half the instructions of storing them one after the other.
template <int Parts> FC_INLINE void store_pairs(Vec<float> first, Vec<float> second, uint16_t* to, int64_t part_pitch) {
  Words pair[Parts];
  split_pairs<Parts>(first, second, pair);
#pragma GCC unroll 3
  for (int p = 0; p < Parts; p++) store_words(to + p * part_pitch, pair[p]);
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
