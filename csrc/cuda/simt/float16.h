// float16 and bfloat16 to float and back on any CPU, rounding to nearest even, as cvt.rn does.
#pragma once
#include <cstdint>
#include <cstring>

namespace fastconv::simt {

inline float float_of(std::uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
inline std::uint32_t bits_of(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

inline float bfloat16_to_float(std::uint16_t v) { return float_of(std::uint32_t(v) << 16); }
inline std::uint16_t float_to_bfloat16(float v) {
  const std::uint32_t bits = bits_of(v);
  if (v != v) return 0x7fff;
  return std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float float16_to_float(std::uint16_t v) {
  const std::uint32_t sign = std::uint32_t(v & 0x8000) << 16, magnitude = v & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // Halves as the float of the same exponent field are 2^112 too small; this also normalises subnormal ones.
  return float_of(sign | bits_of(float_of(magnitude << 13) * 0x1p112f));
}
inline std::uint16_t float_to_float16(float v) {
  const std::uint32_t bits = bits_of(v), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7fff;
  if (magnitude >= 0x477ff000) return std::uint16_t(sign | 0x7c00);  // from 65520 on nearest is infinity
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 leaves the multiples of 2^-24 in the low bits, rounded.
    return std::uint16_t(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
  }
  return std::uint16_t(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

}  // namespace fastconv::simt
