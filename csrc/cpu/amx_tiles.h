// The micro-kernel of AMX: a 2 x 2 block of sums over blocks of 32 reduction steps, all products of split operands.
//
// A block of the reduction takes 4, 12 or 24 tile products (16 cycles each, whatever is in the tiles) and 4, 8 or 14
// tile loads. With three parts the product of the leading parts comes last, after all that are 2^-8 of it and less: a
// short reduction then rounds about as often as a chain of fused multiply-adds does.
#pragma once
#include "amx.h"
#include "tile_operands.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// The products with new rows of A, or new columns of B; the other operand is in its registers. Each load stands right
// before the first product that needs it: so many loads from L2 at once would not hide behind the products before them.
template <int Part, bool Two> FC_INLINE void next_a(const TileRows& a, int64_t offset) {
  tile_load<4>(a.group[0] + offset + Part * a.part_pitch, a.stride_bytes);
  tile_product<0>();
  tile_product<1>();
  if constexpr (Two) {
    tile_load<5>(a.group[1] + offset + Part * a.part_pitch, a.stride_bytes);
    tile_product<2>();
    tile_product<3>();
  }
}
template <int Part, bool Two> FC_INLINE void next_b(const TileColumns& b, const uint16_t* block) {
  tile_load<6>(block + Part * b.part_pitch, b.stride_bytes);
  tile_product<0>();
  if constexpr (Two) tile_product<2>();
  tile_load<7>(block + Part * b.part_pitch + b.second, b.stride_bytes);
  tile_product<1>();
  if constexpr (Two) tile_product<3>();
}
// Both are new.
template <int Part, bool Two>
FC_INLINE void next_both(const TileRows& a, int64_t offset, const TileColumns& b, const uint16_t* block) {
  tile_load<6>(block + Part * b.part_pitch, b.stride_bytes);
  tile_load<4>(a.group[0] + offset, a.stride_bytes);
  tile_product<0>();
  if constexpr (Two) {
    tile_load<5>(a.group[1] + offset, a.stride_bytes);
    tile_product<2>();
  }
  tile_load<7>(block + Part * b.part_pitch + b.second, b.stride_bytes);
  tile_product<1>();
  if constexpr (Two) tile_product<3>();
}

// Adds `count` blocks to the sums; without Two only the first group's.
template <int Parts, bool Two> FC_INLINE void accumulate_tiles(const TileRows& a, const TileColumns& b, int64_t count) {
  for (int64_t j = 0; j < count; j++) {
    const int64_t offset = a.offsets[j];
    const uint16_t* block = b.panel + b.offsets[j];
    next_both<Parts - 1, Two>(a, offset, b, block);
    if constexpr (Parts == 2) {
      next_b<0, Two>(b, block);
      next_a<1, Two>(a, offset);
    } else if constexpr (Parts == 3) {
      next_b<1, Two>(b, block);
      next_a<1, Two>(a, offset);
      next_b<0, Two>(b, block);
      next_a<2, Two>(a, offset);
      next_a<0, Two>(a, offset);
    }
  }
}

// A tile of sums, all of whose rows begin as `start` does (null: with zeros).
template <int Tile> FC_INLINE void begin_tile(const float* start) {
  if (start) tile_load<Tile>(start, 0);
  else tile_zero<Tile>();
}

// The sums of two groups, or of one where out[1] is null, of 32 columns each: rows of out[i], `stride` floats apart. They
// begin as the 32 values of `start`, null for zeros.
template <int Parts>
__attribute__((noinline)) void wide_sums(const float* start, const TileRows& a, const TileColumns& b, int64_t count,
                                         float* const (&out)[2], int64_t stride) {
  const float* const second = start ? start + 16 : nullptr;
  begin_tile<0>(start);
  begin_tile<1>(second);
  if (out[1]) {
    begin_tile<2>(start);
    begin_tile<3>(second);
    accumulate_tiles<Parts, true>(a, b, count);
    tile_store<2>(out[1], stride * 4);
    tile_store<3>(out[1] + 16, stride * 4);
  } else {
    accumulate_tiles<Parts, false>(a, b, count);
  }
  tile_store<0>(out[0], stride * 4);
  tile_store<1>(out[0] + 16, stride * 4);
}

// Four groups of rows by one tile of columns: with two groups a sum would wait for its last product.
template <int Part> FC_INLINE void narrow_products(const NarrowRows& a, int64_t offset) {
  const int64_t at = offset + Part * a.part_pitch;
  tile_load<4>(a.group[0] + at, a.stride_bytes);
  tile_product<0, 0, 0>();
  tile_load<5>(a.group[1] + at, a.stride_bytes);
  tile_product<1, 1, 0>();
  tile_load<4>(a.group[2] + at, a.stride_bytes);
  tile_product<2, 0, 0>();
  tile_load<5>(a.group[3] + at, a.stride_bytes);
  tile_product<3, 1, 0>();
}
template <int Parts> FC_INLINE void accumulate_narrow(const NarrowRows& a, const TileColumns& b, int64_t count) {
  for (int64_t j = 0; j < count; j++) {
    const int64_t offset = a.offsets[j];
    const uint16_t* block = b.panel + b.offsets[j];
    tile_load<6>(block + (Parts - 1) * b.part_pitch, b.stride_bytes);
    narrow_products<0>(a, offset);
    if constexpr (Parts == 3) {
      tile_load<6>(block + b.part_pitch, b.stride_bytes);
      narrow_products<0>(a, offset);
      narrow_products<1>(a, offset);
    }
    if constexpr (Parts > 1) {
      tile_load<6>(block, b.stride_bytes);
      if constexpr (Parts == 2) narrow_products<0>(a, offset);
      narrow_products<1>(a, offset);
    }
    if constexpr (Parts == 3) {
      narrow_products<2>(a, offset);
      narrow_products<0>(a, offset);
    }
  }
}

// The sums of up to four groups of 16 columns each, to those of `out` that are not null; the others' rows are read too.
template <int Parts>
__attribute__((noinline)) void narrow_sums(const float* start, const NarrowRows& a, const TileColumns& b, int64_t count,
                                           float* const (&out)[4], int64_t stride) {
  begin_tile<0>(start);
  begin_tile<1>(start);
  begin_tile<2>(start);
  begin_tile<3>(start);
  accumulate_narrow<Parts>(a, b, count);
  tile_store<0>(out[0], stride * 4);
  if (out[1]) tile_store<1>(out[1], stride * 4);
  if (out[2]) tile_store<2>(out[2], stride * 4);
  if (out[3]) tile_store<3>(out[3], stride * 4);
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
