// The step of a tile whose rows lie next to each other: in panels, and in the pixels of channels-last arrays.
#pragma once
#include "lanes.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// sums[i][j] += column[i] * row[j], i < Rows, j < NV vectors.
template <class A, int Rows, int NV>
FC_INLINE void add_outer_product(Vec<A> (&sums)[Rows][NV], const A* column, const A* row) {
  Vec<A> b[NV];
#pragma GCC unroll 2
  for (int j = 0; j < NV; j++) b[j] = load(row + j * kLanes<A>);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i++) {
    const Vec<A> a = broadcast(column[i]);
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) sums[i][j] = multiply_add(a, b[j], sums[i][j]);
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
