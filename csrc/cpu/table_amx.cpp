// The tables of processors with AMX, or with AVX512_BF16 alone: convolutions of their own, every other op is the AVX-512
// table's.
#include "../ops.h"
#include "peak.h"
#include "tiles.h"

namespace fastconv::cpu {

#define FC_DECLARE_OP(name, args) void name args;
namespace avx512 {
FC_OPS(FC_DECLARE_OP)
double fma_peak(int threads, bool wide);
}

namespace FC_ISA {

void conv_forward(const ConvShape&, const void* x, const void* w, const void* b, const Epilogue&, void* y, Context&);
void conv_backward_input(const ConvShape&, const void* dy, const void* w, const void* b, void* dx, Context&);
void conv_backward_weight(const ConvShape&, const void* dy, const void* x, void* dw, Context&);
void conv_plan(const ConvShape&, ConvOp, int threads, ConvPlan*);

namespace {

#if !defined(FC_AMX_EMULATED)
// The products of so many rounds of 4 x 16 x 16 sums over a block of the reduction, whose operands stay in registers or L1.
void multiply(const std::uint16_t* values, std::int64_t rounds) {
  const TileScope scope;
#if defined(FC_DOTS)
  constexpr std::int64_t offsets[64] = {};
  float sums[kDotRows * 2 * kAmxRows];
  const TileRows rows{{values}, offsets, 2 * kAmxDepth, 0, kDotRows, 1, kAmxDepth / 2};
  const TileColumns columns{values, offsets, 0, kAmxDepth, 2 * kAmxDepth};
  for (std::int64_t i = 0; i < rounds; i += 16) {
    dot_sums<kDotRows, 2>(nullptr, rows, 0, 0, columns, 64, sums, 2 * kAmxRows);
    used(sums);
  }
#else
  tile_load<4>(values, 64);
  tile_load<5>(values, 64);
  tile_load<6>(values, 64);
  tile_load<7>(values, 64);
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
  for (std::int64_t i = 0; i < rounds; i++) {
    tile_product<0>();
    tile_product<1>();
    tile_product<2>();
    tile_product<3>();
  }
#endif
}

// Of numbers drawn at random: with zeros the processor needs less power, and the clock of one with AMX is a quarter higher.
double tile_peak(int threads) {
  constexpr std::int64_t rounds = 1 << 15;
  return best_rate(threads, double(rounds) * 4 * 2 * kAmxRows * kAmxRows * kAmxDepth, [] {
    alignas(64) std::uint16_t values[2 * kAmxValues];
    std::uint32_t state = 1;
    for (std::uint16_t& v : values) {
      state = state * 1664525u + 1013904223u;
      v = std::uint16_t(0x3f00u | (state >> 16 & 0x807fu));  // 0.5 to 1, of either sign
    }
    multiply(values, rounds);
  });
}
#endif

constexpr Ops with_amx() {
#define FC_TABLE_ENTRY(name, args) avx512::name,
  Ops ops = {"", FC_OPS(FC_TABLE_ENTRY) avx512::fma_peak};
#if defined(FC_AMX_EMULATED)
  ops.isa = "amx-emulated";
#else
  ops.tile_peak = tile_peak;
#if defined(FC_DOTS)
  ops.isa = "avx512_bf16";
#else
  ops.isa = "amx";
#endif
#endif
  ops.conv_forward = conv_forward;
  ops.conv_backward_input = conv_backward_input;
  ops.conv_backward_weight = conv_backward_weight;
  ops.conv_plan = conv_plan;
  return ops;
}

}  // namespace

extern constexpr Ops table = with_amx();

}  // namespace FC_ISA
}  // namespace fastconv::cpu
