// What the products of warpgroups share (wgmma, sm_90a): tiles in shared memory, parts of float32, the way out.
//
// A block computes 128 x BN results with two warpgroups, 64 rows each. Tiles of 64 steps lie in shared memory as
// prim::warpgroup_multiply reads them, several `stages` of them: cp.async brings 16-bit values there; float32 comes
// through registers, cut into parts (matrix_gemm.cuh) on its way, each part a plane of bfloat16.
#pragma once
#include "conv.h"
#include "matrix_gemm.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kRowValues = 64;  // of a row of 128 bytes
constexpr int kEight = 8;       // values that move together

template <int bn, int steps_, int stages_> struct WarpgroupTile {
  static constexpr int BM = 128, BN = bn, steps = steps_, stages = stages_, kThreads = 256;
};

// Where eight values lie in a tile, in values: chunk `chunk` of row `row`.
FC_DEVICE int eight_at(int row, int chunk) { return row * kRowValues + (chunk ^ (row & 7)) * kEight; }

// 16-bit values are multiplied as they are, float32 in parts of bfloat16.
template <class T> struct HalfOf { using type = T; };
template <> struct HalfOf<float> { using type = BFloat16; };
template <class T> using Half = typename HalfOf<T>::type;
template <int Parts> constexpr int kPlanes = Parts ? Parts : 1;

struct alignas(16) FourWords {
  uint32_t word[4];
};
template <class T> struct alignas(16) Eight {
  T v[kEight];
};

// Calls f(tag, parts) with a value of the storage type and the number of parts as a type; not for float64.
template <class F> void with_parts(const ConvShape& s, F&& f) {
  if (s.dtype == DType::f16) return f(Float16(), std::integral_constant<int, 0>());
  if (s.dtype == DType::bf16) return f(BFloat16(), std::integral_constant<int, 0>());
  switch (parts_of_float(s)) {
    case 1: return f(float(), std::integral_constant<int, 1>());
    case 2: return f(float(), std::integral_constant<int, 2>());
    default: return f(float(), std::integral_constant<int, 3>());
  }
}

// Stores the parts of eight values, each into its plane.
template <int Parts>
FC_DEVICE void store_parts(const Eight<float>& values, BFloat16* to, int plane, float& largest) {
  FourWords words[Parts];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t parts[Parts];
    split_pair<Parts>(prim::bits_of(values.v[2 * i]), prim::bits_of(values.v[2 * i + 1]), parts, largest);
#pragma unroll
    for (int q = 0; q < Parts; q++) words[q].word[i] = parts[q];
  }
#pragma unroll
  for (int q = 0; q < Parts; q++) *reinterpret_cast<FourWords*>(to + q * plane) = words[q];
}

// Begins the products of 16 steps, those of the lowest parts first; bytes between the planes of the parts.
template <class H, int Parts, int BN, bool across>
FC_DEVICE void multiply_parts(float (&sums)[BN / 2], prim::Operand left, int left_plane, prim::Operand right,
                              int right_plane) {
#pragma unroll
  for (int both = Parts - 1; both >= 0; both--)
#pragma unroll
    for (int q = 0; q <= both; q++)
      prim::warpgroup_multiply<H, BN, across>(sums, left + q * left_plane, right + (both - q) * right_plane,
                                              both < Parts - 1 || q > 0);
}

// The sums of a block to `stage`, `pitch` values a row.
template <int BN, int pitch> FC_DEVICE void spread(const float (&sums)[BN / 2], float* stage) {
  struct alignas(8) Two {
    float v[2];
  };
  const int lane = int(threadIdx.x) % 32, row = int(threadIdx.x) / 32 * 16 + lane / 4, column = lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < BN / 2; i += 2) {
    float* to = stage + (row + i % 4 / 2 * 8) * pitch + i / 4 * 8 + column;
    if constexpr (pitch % 2 == 0) {
      *reinterpret_cast<Two*>(to) = {sums[i], sums[i + 1]};
    } else {
      to[0] = sums[i];
      to[1] = sums[i + 1];
    }
  }
}

}  // namespace
}  // namespace fastconv::cuda
