// The operands of products of bfloat16 pairs, in blocks of 32 steps of the reduction, which are 16 pairs: what
// amx_tiles.h and dot_tiles.h compute with.
#pragma once
#include "amx_split.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int kAmxRows = 16;        // rows of a tile
constexpr int kAmxDepth = 32;       // reduction steps of one product: 16 pairs
constexpr int kAmxValues = 512;     // bfloat16 values of a tile

#if defined(FC_DOTS)
constexpr ConvAlgorithm kTileAlgorithm = ConvAlgorithm::bfloat16_dots;
constexpr int kMostParts = 1;  // products of split operands would be slower than fused multiply-adds
constexpr bool kAnyTile = true;  // tiles of any number of rows and of pairs
#else
constexpr ConvAlgorithm kTileAlgorithm = ConvAlgorithm::amx;
constexpr int kMostParts = 3;
constexpr bool kAnyTile = false;
#endif

// f(type, parts) for arrays of this dtype and precision.
template <int N> struct PartCount {
  static constexpr int value = N;
};
template <class F> auto with_parts(const ConvShape& s, F&& f) {
  if (s.dtype == DType::bf16) return f(bf16(), PartCount<1>());
  if constexpr (kMostParts == 3) {
    if (amx_parts(s) == 2) return f(float(), PartCount<2>());
    if (amx_parts(s) == 3) return f(float(), PartCount<3>());
  }
  return f(float(), PartCount<1>());
}

// Rows of A: row i of group g and block j starts at group[g] + offsets[j] + i * stride; parts are part_pitch apart. A
// group has `rows` of them, and of each run_blocks blocks the last has last_pairs pairs; AMX takes both for 16 and
// multiplies zeros behind the pairs.
template <int Groups> struct RowsOfGroups {
  const uint16_t* group[Groups];
  const int64_t* offsets;
  int64_t stride_bytes, part_pitch, rows, run_blocks, last_pairs;
};
using TileRows = RowsOfGroups<2>;
using NarrowRows = RowsOfGroups<4>;  // by one tile of columns

// Columns of B: block j starts at panel + offsets[j], its part p at + p * part_pitch, its second tile at + second.
struct TileColumns {
  const uint16_t* panel;
  const int64_t* offsets;
  int64_t part_pitch, second, stride_bytes;
};

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
