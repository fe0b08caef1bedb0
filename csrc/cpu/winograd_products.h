// Winograd's products at one position: M[tile][column] = sum over channels of V[tile][channel] * U[channel][column].
//
// The register tiles of gemm.h, but their sums are short: so many channels are added up from zero, and then to the sums of
// those before them, which rounds less (winograd_sum in tuning.h). A tile goes from one such sum to the next with nothing
// in between, and what fills no tile is a smaller one. As runs of the direct kernel's tiles, a call for every sum, with
// the last tile computed as a whole, they took longer: layers are now faster by (Zen 3, AVX2, 8 images, 1 and 2 threads)
// 1.25 and 1.25, 64 -> 64 channels at 56x56, sums of 16; 1.32 and 1.35, 128 -> 128 at 28x28, of 32; 1.05 and 1.16,
// 256 -> 256 at 14x14, and 1.31 and 1.14, 512 -> 512 at 28x28, of 64; 29 layers of well-known networks 1.23 and 1.22.
#pragma once
#include "gemm.h"

namespace fastconv::cpu::FC_ISA {
namespace {

struct Products {
  const float* v;
  std::int64_t pitch, tiles;   // between tiles of V; how many
  const float* u;              // NV registers a channel, as M has a tile
  std::int64_t channels, sum;  // in all; added up from zero
  bool begun;                  // M holds the sums of earlier channels
  float* m;
};

// Tiles [first, first + Rows) and [other, other + Rows), which may have some in common.
template <int Rows, int NV> FC_INLINE void product_tile(const Products& t, std::int64_t first, std::int64_t other) {
  using A = float;
  constexpr int lanes = kLanes<A>, width = NV * lanes;
  const RowSteps step(t.pitch);
  const A *p = t.v + first * t.pitch, *q = t.v + other * t.pitch, *u = t.u;
  A* const rows[2] = {t.m + first * width, t.m + other * width};
  const auto at = [&](int g, int i, int j) { return rows[g] + i * width + j * lanes; };
  bool begun = t.begun;
  for (std::int64_t left = t.channels; left > 0; left -= t.sum) {
    Sums<A, Rows, NV> acc;
    each_register<Rows, NV>([&](int g, int i, int j) __attribute__((always_inline)) { acc[g][i][j] = Vec<A>{}; });
#pragma GCC unroll kStepsARound
    for (std::int64_t k = min_of(left, t.sum); k > 0; k--) {
      tile_step<A, Rows, NV>(acc, p, q, step, u);
      p++;
      q++;
      u += width;
    }
    if (begun)
      each_register<Rows, NV>([&](int g, int i, int j) __attribute__((always_inline)) { acc[g][i][j] += load(at(g, i, j)); });
    each_register<Rows, NV>([&](int g, int i, int j) __attribute__((always_inline)) { store(at(g, i, j), acc[g][i][j]); });
    begun = true;
  }
}

// Register tiles of 2 x Rows tiles, as many as are whole. Returns the first tile that is left.
template <int Rows, int NV>
__attribute__((noinline)) std::int64_t product_tiles(const Products& given) {
  const Products t = given;
  std::int64_t first = 0;
  for (; first + 2 * Rows <= t.tiles; first += 2 * Rows) product_tile<Rows, NV>(t, first, first + Rows);
  return first;
}
// The last 2 x Rows or 2 x Rows - 1 tiles.
template <int Rows, int NV> __attribute__((noinline)) void last_products(const Products& t, std::int64_t first) {
  product_tile<Rows, NV>(t, first, t.tiles - Rows);
}

// All tiles, 2 x group_rows at a time.
template <int NV, int Rows = kGroupRows>
void multiply_tiles(std::int64_t group_rows, const Products& t, std::int64_t first = 0) {
  if constexpr (Rows > 0) {
    if (Rows == group_rows) first = product_tiles<Rows, NV>(t);
    const std::int64_t groups = ceil_div(t.tiles - first, 2);
    if (groups == Rows) last_products<Rows, NV>(t, first);
    else if (groups > 0) multiply_tiles<NV, Rows - 1>(group_rows, t, first);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
