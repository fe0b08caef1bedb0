// One constant table per ISA; the linker names any op that is missing.
#include "../ops.h"
#include "gemm.h"
#include "outer_product.h"
#include "peak.h"

namespace fastconv::cpu::FC_ISA {

#define FC_DECLARE_OP(name, args) void name args;
FC_OPS(FC_DECLARE_OP)

namespace {

// A tile of sums as convolutions have them, whose operands lie in L1.
template <class A> double multiply_add_peak(int threads) {
  constexpr std::int64_t steps = 64, rounds = 1 << 12;
  return best_rate(threads, 2.0 * kTileRows * kTileColumns<A> * steps * rounds, [] {
    alignas(64) A columns[steps * kTileRows], rows[steps * kTileColumns<A>];
    for (A& v : columns) v = A(0.5);
    for (A& v : rows) v = A(0.25);
    Vec<A> sums[kTileRows][kColumnVectors] = {};
    for (std::int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 1
      for (std::int64_t k = 0; k < steps; k++)
        add_outer_product(sums, columns + k * kTileRows, rows + k * kTileColumns<A>);
    used(sums);
  });
}

}  // namespace

double fma_peak(int threads, bool wide) {
  return wide ? multiply_add_peak<double>(threads) : multiply_add_peak<float>(threads);
}

#define FC_STRING(x) #x
#define FC_NAME(x) FC_STRING(x)
#define FC_TABLE_ENTRY(name, args) name,
extern constexpr Ops table = {FC_NAME(FC_ISA), FC_OPS(FC_TABLE_ENTRY) fma_peak};

}  // namespace fastconv::cpu::FC_ISA
