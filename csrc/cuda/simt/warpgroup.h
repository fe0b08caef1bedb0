// wgmma by its layouts of shared memory (PTX ISA, "Asynchronous warpgroup-level matrix shared memory layout", swizzling of
// 128 bytes) and its fragments, which are those of mma.sync. Products are computed when they are waited for: reading
// a sum before, or overwriting an operand, gives wrong results.
#pragma once
#include "matrix.h"

namespace fastconv::simt {

struct WarpgroupProduct {
  const char *a, *b;
  float (*value)(std::uint16_t);
  int lead, columns;
  bool across, add;
  float* d;

  // Value of the operand at `base`, of a place of the result and a step of the sum.
  float at(const char* base, int place, int step) const {
    auto address = reinterpret_cast<std::uintptr_t>(base);
    if (across) address += std::uintptr_t(place / 64 * lead + step / 8 * 1024 + step % 8 * 128 + place % 64 * 2);
    else address += std::uintptr_t(place / 8 * 1024 + place % 8 * 128 + step * 2);
    address ^= (address >> 7 & 7) << 4;
    const auto* p = reinterpret_cast<const std::uint16_t*>(address);
    check_shared(p, 2);
    return value(*p);
  }
};

void fence_for_warpgroups();
void begin_product(const WarpgroupProduct& product);
void warpgroup_commit();
void warpgroup_wait();  // runs what was committed

// The part of warp `warp` of a warpgroup in a product: 16 rows; `sums` are its lanes' registers.
inline void run_product(const WarpgroupProduct& p, int warp, float* const (&sums)[kWarp]) {
  static thread_local float left[16][16], right[256][16];
  bool finite = true, empty_row[16];
  for (int r = 0; r < 16; r++) {
    empty_row[r] = true;
    for (int k = 0; k < 16; k++) {
      left[r][k] = p.at(p.a, 16 * warp + r, k);
      empty_row[r] = empty_row[r] && left[r][k] == 0;
    }
  }
  for (int c = 0; c < p.columns; c++)
    for (int k = 0; k < 16; k++) {
      right[c][k] = p.at(p.b, c, k);
      finite = finite && std::isfinite(right[c][k]);
    }
  for (int lane = 0; lane < kWarp; lane++)
    for (int e = 0; e < p.columns / 2; e++) {
      const int row = lane / 4 + e % 4 / 2 * 8, column = e / 4 * 8 + 2 * (lane % 4) + e % 2;
      float& sum = sums[lane][e];
      if (!p.add) sum = 0;
      if (empty_row[row] && finite) continue;
      double products[16];
      for (int k = 0; k < 16; k++) products[k] = double(left[row][k]) * double(right[column][k]);
      sum = truncated_sum(sum, products);
    }
}

}  // namespace fastconv::simt
