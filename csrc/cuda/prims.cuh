// The primitives that kernels are made of, in two bodies: CUDA's, and the simulator's (simt/simt.h).
//
// The only file with inline assembly and CUDA intrinsics (.ci/gpu-gates greps for them elsewhere). Kernels use, besides
// plain C++, threadIdx, blockIdx, blockDim, __syncthreads and what is declared here. They use dynamic shared memory
// alone, take 64-bit offsets, and meet collectives with full, convergent warps.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FC_DEVICE __device__ __forceinline__
#define FC_EVERYWHERE __host__ __device__ inline
#else
#include <atomic>

#include "simt/float16.h"
#include "simt/matrix.h"
#include "simt/simt.h"
#include "simt/warpgroup.h"
#define __global__
#define __launch_bounds__(...)
#define FC_DEVICE inline
#define FC_EVERYWHERE inline
#define threadIdx fastconv::simt::thread_index
#define blockIdx fastconv::simt::block_index
#define blockDim fastconv::simt::block_size
#define __syncthreads fastconv::simt::barrier
#endif

namespace fastconv::cuda {

using std::int64_t;
using std::uint32_t;

// Storage formats of two bytes: arithmetic is in float.
struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};
template <class T> struct AccumulatorOf { using type = float; };
template <> struct AccumulatorOf<double> { using type = double; };
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

namespace prim {

FC_DEVICE float to_accumulator(float v) { return v; }
FC_DEVICE double to_accumulator(double v) { return v; }

#if defined(__CUDACC__)

FC_DEVICE float to_accumulator(Float16 v) { return __half2float(__ushort_as_half(v.bits)); }
FC_DEVICE float to_accumulator(BFloat16 v) { return __uint_as_float(uint32_t(v.bits) << 16); }
template <class T> FC_DEVICE T from_accumulator(Accumulator<T> v) { return v; }
template <> FC_DEVICE Float16 from_accumulator<Float16>(float v) { return {__half_as_ushort(__float2half_rn(v))}; }
template <> FC_DEVICE BFloat16 from_accumulator<BFloat16>(float v) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(v))};
}

FC_DEVICE uint32_t bits_of(float v) { return __float_as_uint(v); }
FC_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
FC_DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FC_DEVICE float larger_magnitude(float m, float v) { return fmaxf(m, fabsf(v)); }  // m where v is NaN
FC_DEVICE float square_root(float v) { return __fsqrt_rn(v); }
FC_DEVICE double square_root(double v) { return __dsqrt_rn(v); }
FC_DEVICE float power(float v, float p) { return powf(v, p); }
FC_DEVICE double power(double v, double p) { return pow(v, p); }
FC_DEVICE bool is_finite(double v) { return isfinite(v); }

FC_DEVICE char* shared_memory() {
  extern __shared__ __align__(1024) char memory[];
  return memory;
}
// *p = max(*p, v): on integers, so that the order of the threads does not matter.
FC_DEVICE void atomic_max(int64_t* p, int64_t v) {
  atomicMax(reinterpret_cast<long long*>(p), static_cast<long long>(v));
}

// v of the lane `distance` further on, or of this lane where there is none; all lanes of a warp.
FC_DEVICE double shuffle_down(double v, int distance) { return __shfl_down_sync(0xffffffffu, v, unsigned(distance)); }

FC_DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
// 16 bytes from global to shared memory without a register; zeros where not valid, and nothing is read there.
FC_DEVICE void async_copy_16(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
FC_DEVICE void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `n` of this thread's groups of copies are under way.
template <int n> FC_DEVICE void async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory"); }

// Four 8x8 matrices of 16-bit values: lane i gives the address of row i % 8 of matrix i / 8 and receives from each
// matrix the values (i / 4, 2 (i % 4)) and the next.
FC_DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same of the transposed matrices: the values (2 (i % 4), i / 4) and the one below.
FC_DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// d += a b, a 16x16 by rows, b 16x8 by columns, sums in float.
template <class T> FC_DEVICE void multiply_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
FC_DEVICE void multiply_16816<BFloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
FC_DEVICE void multiply_16816<Float16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- warpgroups: 128 threads that multiply together, on sm_90a alone --------------------------------------------------
//
// Operands lie in shared memory, 64 values of 16 bits to a row of 128 bytes, whose chunk c of row r stands at c ^ r % 8.
// Rows are the places that a sum runs along (`across` false: 8 rows to 1024 bytes) or the steps of the sum (`across`).

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasWarpgroups = true;
FC_DEVICE void fence_for_warpgroups() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
constexpr bool kHasWarpgroups = false;
FC_DEVICE void fence_for_warpgroups() {}
#endif
template <int n> FC_DEVICE void warpgroup_begin(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
FC_DEVICE void warpgroup_commit() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// All products of this warpgroup are in d, and what they read may be overwritten.
template <int n> FC_DEVICE void warpgroup_wait(float (&d)[n]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// Where an operand begins, as the descriptor that the instruction takes; sums of it and multiples of 16 bytes are others.
struct Operand {
  uint32_t low, high;
  FC_DEVICE Operand operator+(int bytes) const { return {low + unsigned(bytes >> 4), high}; }
};
// lead: bytes between blocks of 64 places, where they lie `across`.
FC_DEVICE Operand warpgroup_operand(const void* at, int lead) {
  return {(shared_address(at) & 0x3ffffu) >> 4 | unsigned(lead >> 4) << 16, 1024u >> 4 | 1u << 30};
}
template <class T, int n, bool across> struct WarpgroupProduct;
#define FC_REGISTERS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FC_REGISTERS_16(i) FC_REGISTERS_4(i), FC_REGISTERS_4(i + 4), FC_REGISTERS_4(i + 8), FC_REGISTERS_4(i + 12)
#define FC_NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define FC_NAMES_32 FC_NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define FC_NAMES_64                                                                                         \
  FC_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
              "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define FC_WARPGROUP_PRODUCT(T, type, n, names, a0, a1, b0, add, turned, ...)                                           \
  template <bool across> struct WarpgroupProduct<T, n, across> {                                                     \
    static FC_DEVICE void run(float (&d)[n / 2], Operand left, Operand right, int more) {                            \
      asm volatile("{.reg .pred p; .reg .b64 a, b; setp.ne.b32 p, " add ", 0;"                                       \
                   "mov.b64 a, {" a0 ", " a1 "}; mov.b64 b, {" b0 ", " a1 "};"                                       \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type " {" names "}, a, b, p, 1, 1, " turned ", " \
                   turned ";}"                                                                                       \
                   : __VA_ARGS__                                                                                     \
                   : "r"(left.low), "r"(left.high), "r"(right.low), "r"(more), "n"(int(across)));                    \
    }                                                                                                                \
  };
#define FC_WARPGROUP_PRODUCTS(T, type)                                                                               \
  FC_WARPGROUP_PRODUCT(T, type, 32, FC_NAMES_16, "%16", "%17", "%18", "%19", "%20", FC_REGISTERS_16(0))              \
  FC_WARPGROUP_PRODUCT(T, type, 64, FC_NAMES_32, "%32", "%33", "%34", "%35", "%36", FC_REGISTERS_16(0),              \
                       FC_REGISTERS_16(16))                                                                          \
  FC_WARPGROUP_PRODUCT(T, type, 128, FC_NAMES_64, "%64", "%65", "%66", "%67", "%68", FC_REGISTERS_16(0),             \
                       FC_REGISTERS_16(16), FC_REGISTERS_16(32), FC_REGISTERS_16(48))
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
FC_WARPGROUP_PRODUCTS(BFloat16, "bf16.bf16")
FC_WARPGROUP_PRODUCTS(Float16, "f16.f16")
#else
template <class T, int n, bool across> struct WarpgroupProduct {
  static FC_DEVICE void run(float (&)[n / 2], Operand, Operand, int) { __trap(); }
};
#endif
// d = a b, and d added where `add`: 64 places of a by n of b, 16 steps. The warpgroup's warp w has rows 16 w to 16 w +
// 15, each in the fragments of multiply_16816, eight columns after eight.
template <class T, int n, bool across>
FC_DEVICE void warpgroup_multiply(float (&d)[n / 2], Operand a, Operand b, bool add) {
  WarpgroupProduct<T, n, across>::run(d, a, b, int(add));
}

#else

FC_DEVICE float to_accumulator(Float16 v) { return simt::float16_to_float(v.bits); }
FC_DEVICE float to_accumulator(BFloat16 v) { return simt::bfloat16_to_float(v.bits); }
template <class T> FC_DEVICE T from_accumulator(Accumulator<T> v) { return v; }
template <> FC_DEVICE Float16 from_accumulator<Float16>(float v) { return {simt::float_to_float16(v)}; }
template <> FC_DEVICE BFloat16 from_accumulator<BFloat16>(float v) { return {simt::float_to_bfloat16(v)}; }

FC_DEVICE uint32_t bits_of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}
FC_DEVICE float float_of(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
FC_DEVICE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
FC_DEVICE float larger_magnitude(float m, float v) { return std::fabs(v) > m ? std::fabs(v) : m; }
FC_DEVICE float square_root(float v) { return std::sqrt(v); }
FC_DEVICE double square_root(double v) { return std::sqrt(v); }
FC_DEVICE float power(float v, float p) { return std::pow(v, p); }
FC_DEVICE double power(double v, double p) { return std::pow(v, p); }
FC_DEVICE bool is_finite(double v) { return std::isfinite(v); }

FC_DEVICE char* shared_memory() { return simt::shared_memory(); }
FC_DEVICE void atomic_max(int64_t* p, int64_t v) {
  if (v > *p) *p = v;
}

FC_DEVICE double shuffle_down(double v, int distance) {
  struct In {
    double v;
    int distance;
  } in{v, distance};
  double out;
  simt::collective("shuffle_down", [](simt::Lane* lanes) {
    for (int i = 0; i < simt::kWarp; i++) {
      const int from = i + static_cast<const In*>(lanes[i].in)->distance;
      *static_cast<double*>(lanes[i].out) = static_cast<const In*>(lanes[from < simt::kWarp ? from : i].in)->v;
    }
  }, &in, &out);
  return out;
}

FC_DEVICE void async_copy_16(void* to, const void* from, bool valid) { simt::async_copy(to, from, 16, valid); }
FC_DEVICE void async_commit() { simt::async_commit(); }
template <int n> FC_DEVICE void async_wait() { simt::async_wait(n); }
FC_DEVICE void load_matrices(uint32_t (&r)[4], const void* row) { simt::load_matrices(r, row); }
FC_DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row) { simt::load_matrices_transposed(r, row); }
template <class T> FC_DEVICE void multiply_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
template <>
FC_DEVICE void multiply_16816<BFloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt::multiply_16816("multiply bfloat16", simt::bfloat16_to_float, d, a, b);
}
template <>
FC_DEVICE void multiply_16816<Float16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  simt::multiply_16816("multiply float16", simt::float16_to_float, d, a, b);
}

constexpr bool kHasWarpgroups = true;
FC_DEVICE void fence_for_warpgroups() { simt::fence_for_warpgroups(); }
template <int n> FC_DEVICE void warpgroup_begin(float (&)[n]) {}
FC_DEVICE void warpgroup_commit() { simt::warpgroup_commit(); }
template <int n> FC_DEVICE void warpgroup_wait(float (&)[n]) { simt::warpgroup_wait(); }
struct Operand {
  const char* at;
  int lead;
  Operand operator+(int bytes) const { return {at + bytes, lead}; }
};
FC_DEVICE Operand warpgroup_operand(const void* at, int lead) { return {static_cast<const char*>(at), lead}; }
template <class T, int n, bool across>
FC_DEVICE void warpgroup_multiply(float (&d)[n / 2], Operand a, Operand b, bool add) {
  constexpr bool brain = std::is_same<T, BFloat16>::value;
  const auto value = brain ? simt::bfloat16_to_float : simt::float16_to_float;
  simt::begin_product({a.at, b.at, value, b.lead, n, across, add, d});
}

#endif

}  // namespace prim
}  // namespace fastconv::cuda
