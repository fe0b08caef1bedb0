// The micro-kernel of processors that multiply pairs of bfloat16 in vector registers (AVX512_BF16) and have no AMX: the
// same operands as that of amx_tiles.h, of one part.
//
// VDPBF16PS adds to 16 sums the products of 16 pairs, one after the other, rounded to nearest even; denormals are zero,
// both ways, whatever MXCSR says. A tile of 8 rows x 2 registers keeps its units busy (Zen 4: 235 GFLOP/s of 235 on one
// core with the panel in L2, as do 4 to 14 rows). One register, of up to 16 columns, takes 16 rows: a sum waits 6 cycles
// for the next product, of which a core begins two a cycle (Zen 5, against 8 rows, 1 and 2 threads: 5x5 32 -> 16 at 28x28
// 1.5 and 1.4, the weight gradient of 16 -> 32 1.3 and 1.28; 3x3 64 -> 12 at 56x56 1.3, 16 -> 16 1.25 and 1.14, 1x1 96 -> 16
// at 28x28 1.29 and 1.23).
#pragma once
#include "parallel.h"
#include "tile_operands.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int kDotRows = 8, kNarrowDotRows = 16;
// By so many pairs weights are asked for before they are read, as in gemm.h: one image, weights from memory, Zen 5, 1 and 2
// threads, 512 -> 2048 at 7x7 1.25 and 1.31 times as fast, 3x3 512 -> 512 at 7x7 1.32 and 1.30, 8 images 1.0.
constexpr int kPairsAhead = 64;

// Nothing to configure.
struct TileScope {
  TileScope() {}
};

// Sums leave the registers as they are, or rounded to bfloat16: they are never denormal, which the instruction would flush.
template <int NV> FC_INLINE void put_sums(const Vec<float> (&v)[NV], float* to) {
#pragma GCC unroll 2
  for (int j = 0; j < NV; j++) store(to + 16 * j, v[j]);
}
FC_INLINE void put_sums(const Vec<float> (&v)[2], bf16* to) {
  const __m512bh both = _mm512_cvtne2ps_pbh((__m512)v[1], (__m512)v[0]);
  std::memcpy(to, &both, sizeof both);
}

// `Rows` rows from `first` on of group g, by NV tiles of columns.
template <int Rows, int NV, class AnyRows, class Out>
__attribute__((noinline)) void dot_sums(const float* start, const AnyRows& a, int g, int64_t first, const TileColumns& b,
                                        int64_t count, Out* out, int64_t out_stride) {
  const int64_t stride = a.stride_bytes / 2;
  Vec<float> acc[Rows][NV];
#pragma GCC unroll 2
  for (int j = 0; j < NV; j++) {
    const Vec<float> value = start ? load(start + 16 * j) : Vec<float>{};
#pragma GCC unroll 16
    for (int i = 0; i < Rows; i++) acc[i][j] = value;
  }
  const uint16_t* const rows = a.group[g] + first * stride;
  const int64_t run_blocks = a.run_blocks, last_pairs = a.last_pairs, second = b.second;
  for (int64_t block = 0, left = run_blocks; block < count; block++) {
    const uint16_t* p = rows + a.offsets[block];
    const uint16_t* q = p + Rows / 2 * stride;
    const uint16_t* w = b.panel + b.offsets[block];
    int64_t pairs = kAmxDepth / 2;
    if (--left == 0) {
      left = run_blocks;
      pairs = last_pairs;
    }
#pragma GCC unroll 1
    for (; pairs > 0; pairs--, p += 2, q += 2, w += kAmxDepth) {
      Words pair[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) {
        __builtin_prefetch(w + j * second + kPairsAhead * kAmxDepth);
        pair[j] = *reinterpret_cast<const LooseWords*>(w + j * second);
      }
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i++) {
        uint32_t value;
        std::memcpy(&value, i < Rows / 2 ? p + i * stride : q + (i - Rows / 2) * stride, 4);
        const __m512bh row = (__m512bh)_mm512_set1_epi32(int(value));
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++)
          acc[i][j] = (Vec<float>)_mm512_dpbf16_ps((__m512)acc[i][j], row, (__m512bh)pair[j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++) put_sums(acc[i], out + i * out_stride);
}

template <int NV, class AnyRows, class Out>
void group_sums(const float* start, const AnyRows& a, int g, const TileColumns& b, int64_t count, Out* out,
                int64_t stride) {
  constexpr int most = NV == 1 ? kNarrowDotRows : kDotRows;
  for (int64_t i = 0; i < a.rows; i += most, out += most * stride) switch (min_of(most, a.rows - i)) {
#define FC_DOT_ROWS(n) \
  case n: \
    if constexpr (n <= most) dot_sums<n, NV>(start, a, g, i, b, count, out, stride); \
    break;
      FC_DOT_ROWS(1)
      FC_DOT_ROWS(2)
      FC_DOT_ROWS(3)
      FC_DOT_ROWS(4)
      FC_DOT_ROWS(5)
      FC_DOT_ROWS(6)
      FC_DOT_ROWS(7)
      FC_DOT_ROWS(8)
      FC_DOT_ROWS(9)
      FC_DOT_ROWS(10)
      FC_DOT_ROWS(11)
      FC_DOT_ROWS(12)
      FC_DOT_ROWS(13)
      FC_DOT_ROWS(14)
      FC_DOT_ROWS(15)
      FC_DOT_ROWS(16)
#undef FC_DOT_ROWS
    }
}

// As amx_tiles.h says; `out` may also be of bfloat16.
template <int Parts, class Out>
void wide_sums(const float* start, const TileRows& a, const TileColumns& b, int64_t count, Out* const (&out)[2],
               int64_t stride) {
  static_assert(Parts <= kMostParts);
  for (int g = 0; g < 2 && out[g]; g++) group_sums<2>(start, a, g, b, count, out[g], stride);
}
template <int Parts>
void narrow_sums(const float* start, const NarrowRows& a, const TileColumns& b, int64_t count, float* const (&out)[4],
                 int64_t stride) {
  for (int g = 0; g < 4 && out[g]; g++) group_sums<1>(start, a, g, b, count, out[g], stride);
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
