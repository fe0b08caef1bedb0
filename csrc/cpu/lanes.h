// Lanes that change places between registers: every second one, interleaved ones, the transpose of a block.
#pragma once
#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Every second lane of a and b in a row, from the first or from the second on. GCC makes four shuffles of one of AVX2's
// eight lanes where two do.
template <class A> FC_INLINE Vec<A> even_lanes(Vec<A> a, Vec<A> b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return (Vec<A>)_mm256_permute4x64_pd((__m256d)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88), 0xd8);
#endif
  Mask<A> m;
  for (int i = 0; i < kLanes<A>; i++) m[i] = 2 * i;
  return __builtin_shuffle(a, b, m);
}
template <class A> FC_INLINE Vec<A> odd_lanes(Vec<A> a, Vec<A> b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return (Vec<A>)_mm256_permute4x64_pd((__m256d)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd), 0xd8);
#endif
  Mask<A> m;
  for (int i = 0; i < kLanes<A>; i++) m[i] = 2 * i + 1;
  return __builtin_shuffle(a, b, m);
}
// Lanes 1, 2, ... of a, then `last`.
template <class A> FC_INLINE Vec<A> shift_in(Vec<A> a, A last) {
  Mask<A> m;
  for (int i = 0; i < kLanes<A>; i++) m[i] = i + 1;
  return __builtin_shuffle(a, broadcast(last), m);
}

// ---- register transpose: r[i][j] -> r[j][i], kLanes x kLanes ---------------------------------------------------------
// log2(lanes) rounds of the perfect shuffle: each interleaves row i with row i + lanes / 2.
template <class A> FC_INLINE Vec<A> interleave_low(Vec<A> a, Vec<A> b) {
  Mask<A> m;
  for (int i = 0; i < kLanes<A>; i++) m[i] = i / 2 + (i % 2) * kLanes<A>;
  return __builtin_shuffle(a, b, m);
}
template <class A> FC_INLINE Vec<A> interleave_high(Vec<A> a, Vec<A> b) {
  Mask<A> m;
  for (int i = 0; i < kLanes<A>; i++) m[i] = kLanes<A> / 2 + i / 2 + (i % 2) * kLanes<A>;
  return __builtin_shuffle(a, b, m);
}
template <class A> FC_INLINE void transpose(Vec<A>* r) {
  constexpr int n = kLanes<A>;
#if defined(__AVX2__) && !defined(__AVX512F__)
  // Within halves first: a round of the perfect shuffle takes two instructions a register here.
  if constexpr (sizeof(A) == 4) {
    __m256 *v = (__m256*)r, t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 4) {
      const __m256 a = _mm256_unpacklo_ps(v[i], v[i + 1]), b = _mm256_unpackhi_ps(v[i], v[i + 1]);
      const __m256 c = _mm256_unpacklo_ps(v[i + 2], v[i + 3]), d = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);
      t[i] = _mm256_shuffle_ps(a, c, 0x44);
      t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
      t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
      t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      v[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
      v[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
    return;
  }
#endif
  for (int round = 1; round < n; round *= 2) {
    Vec<A> t[n];
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; i++) {
      t[2 * i] = interleave_low<A>(r[i], r[i + n / 2]);
      t[2 * i + 1] = interleave_high<A>(r[i], r[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++) r[i] = t[i];
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
