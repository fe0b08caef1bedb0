// The only AMX intrinsics: eight tile registers of 16 rows x 64 bytes, and the product of two tiles of bfloat16 pairs.
//
// The registers have fixed roles: 0-3 are a block of sums (16 x 16 floats each), 2 x 2 or 4 x 1, 4 and 5 its rows of A
// (16 rows x 16 pairs), 6 and 7 its columns of B (16 pairs x 16 columns); a pair is two steps of the reduction.
//
// With FC_AMX_EMULATED the same functions are plain C++ with the semantics of the processor, so that the kernels run in
// the tests of a machine that has no AMX. TDPBF16PS (Intel's Software Developer's Manual, volume 2): for each sum, the
// even and the odd members of the pairs are two chains of fused multiply-adds from zero, in the order of the rows of B;
// the two are added, then added to the sum. Rounding is to nearest even; denormals are zero, both ways, whatever MXCSR
// says.
#pragma once
#include "parallel.h"
#include "tile_operands.h"

namespace fastconv::cpu::FC_ISA {
namespace {

#if defined(FC_AMX_EMULATED)

alignas(64) thread_local std::uint32_t tile_registers[8][kAmxRows][16];

struct TileScope {
  TileScope() { std::memset(tile_registers, 0, sizeof tile_registers); }
};

template <int Tile> FC_INLINE void tile_load(const void* p, std::int64_t stride) {
  for (int i = 0; i < kAmxRows; i++) std::memcpy(tile_registers[Tile][i], static_cast<const char*>(p) + i * stride, 64);
}
template <int Tile> FC_INLINE void tile_store(void* p, std::int64_t stride) {
  for (int i = 0; i < kAmxRows; i++) std::memcpy(static_cast<char*>(p) + i * stride, tile_registers[Tile][i], 64);
}
template <int Tile> FC_INLINE void tile_zero() { std::memset(tile_registers[Tile], 0, sizeof tile_registers[Tile]); }

__attribute__((noinline)) void emulated_product(const std::uint32_t (*a)[16], const std::uint32_t (*b)[16],
                                                std::uint32_t (*sum)[16]) {
  const FlushDenormals scope;
  typedef std::uint32_t Words __attribute__((vector_size(64)));
  Vec<float> low[kAmxRows], high[kAmxRows];
  for (int k = 0; k < kAmxRows; k++) {
    Words pair;
    std::memcpy(&pair, b[k], 64);
    low[k] = (Vec<float>)(pair << 16);
    high[k] = (Vec<float>)(pair & 0xffff0000u);
  }
  for (int i = 0; i < kAmxRows; i++) {
    Vec<float> even{}, odd{}, c;
    for (int k = 0; k < kAmxRows; k++) {
      const std::uint32_t words[2] = {a[i][k] << 16, a[i][k] & 0xffff0000u};
      float pair[2];
      std::memcpy(pair, words, 8);
      even += broadcast(pair[0]) * low[k];
      odd += broadcast(pair[1]) * high[k];
    }
    std::memcpy(&c, sum[i], 64);
    c += even + odd;
    std::memcpy(sum[i], &c, 64);
  }
}

// sums[Sum] += A[Row] * B[Column]
template <int Sum, int Row = Sum / 2, int Column = Sum % 2> FC_INLINE void tile_product() {
  emulated_product(tile_registers[4 + Row], tile_registers[6 + Column], tile_registers[Sum]);
}

#else

// The tiles of this thread, all of full size. A thread that leaves them configured would pay for them in every switch.
struct TileScope {
  TileScope() {
    struct alignas(64) {
      std::uint8_t palette, start_row, reserved[14];
      std::uint16_t row_bytes[16];
      std::uint8_t rows[16];
    } config = {};
    static_assert(sizeof config == 64, "the layout that LDTILECFG reads");
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
      config.row_bytes[i] = 64;
      config.rows[i] = kAmxRows;
    }
    // GCC's intrinsic says that it reads eight bytes; this says that all of them are read.
    __asm__ __volatile__("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileScope() { _tile_release(); }
};

// The intrinsics paste the register's number into the instruction, hence one case each. GCC's loads do not say that
// they read memory: the barrier keeps earlier stores before them.
#define FC_TILE_CASES(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
template <int Tile> FC_INLINE void tile_load(const void* p, std::int64_t stride) {
  __asm__ __volatile__("" : : : "memory");
#define FC_TILE_CASE(n) \
  if constexpr (Tile == n) _tile_loadd(n, p, stride);
  FC_TILE_CASES(FC_TILE_CASE)
#undef FC_TILE_CASE
}
template <int Tile> FC_INLINE void tile_store(void* p, std::int64_t stride) {
#define FC_TILE_CASE(n) \
  if constexpr (Tile == n) _tile_stored(n, p, stride);
  FC_TILE_CASES(FC_TILE_CASE)
#undef FC_TILE_CASE
  __asm__ __volatile__("" : : : "memory");
}
template <int Tile> FC_INLINE void tile_zero() {
#define FC_TILE_CASE(n) \
  if constexpr (Tile == n) _tile_zero(n);
  FC_TILE_CASES(FC_TILE_CASE)
#undef FC_TILE_CASE
}
#undef FC_TILE_CASES

// sums[Sum] += A[Row] * B[Column]
template <int Sum, int Row = Sum / 2, int Column = Sum % 2> FC_INLINE void tile_product() {
#define FC_TILE_CASE(sum, row, column) \
  if constexpr (Sum == sum && Row == row - 4 && Column == column - 6) _tile_dpbf16ps(sum, row, column);
  FC_TILE_CASE(0, 4, 6)
  FC_TILE_CASE(1, 4, 7)
  FC_TILE_CASE(1, 5, 6)
  FC_TILE_CASE(2, 4, 6)
  FC_TILE_CASE(2, 5, 6)
  FC_TILE_CASE(3, 5, 6)
  FC_TILE_CASE(3, 5, 7)
#undef FC_TILE_CASE
}

#endif

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
