// The only SIMD intrinsics: a thin layer over GCC/Clang vector extensions, compiled once per ISA.
//
// Vec<A> is one register of A (float or double). Storage types T (float, double, f16, bf16) convert on load and store;
// f16 and bf16 compute in float. Everything is in an anonymous namespace: a weak symbol compiled for AVX-512 must never
// be picked by the linker for a baseline object.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define FC_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define FC_VECTOR_BYTES 32
#else
#define FC_VECTOR_BYTES 16
#endif
#define FC_INLINE inline __attribute__((always_inline))

namespace fastconv::cpu::FC_ISA {
namespace {

struct f16 { std::uint16_t bits; };
struct bf16 { std::uint16_t bits; };

template <class A> struct VecOf;
template <> struct VecOf<float> {
  typedef float type __attribute__((vector_size(FC_VECTOR_BYTES)));
  typedef float loose __attribute__((vector_size(FC_VECTOR_BYTES), aligned(4), may_alias));
  typedef std::int32_t mask __attribute__((vector_size(FC_VECTOR_BYTES)));
};
template <> struct VecOf<double> {
  typedef double type __attribute__((vector_size(FC_VECTOR_BYTES)));
  typedef double loose __attribute__((vector_size(FC_VECTOR_BYTES), aligned(8), may_alias));
  typedef std::int64_t mask __attribute__((vector_size(FC_VECTOR_BYTES)));
};
template <class A> using Vec = typename VecOf<A>::type;
template <class A> using Mask = typename VecOf<A>::mask;          // all ones or zero per lane
template <class A> struct LaneOf { typedef std::int32_t type; };
template <> struct LaneOf<double> { typedef std::int64_t type; };
template <class A> using Lane = typename LaneOf<A>::type;         // the integer type of a mask's lanes
template <class A> constexpr int kLanes = FC_VECTOR_BYTES / int(sizeof(A));
// Steps of a reduction in one round of a micro-kernel's loop. Zen 3 dispatches six operations a cycle, for this thread and its
// core's other one: with two steps a round 16 forward layers were 1.06 times as fast with 2 threads, ten 1.04 with one, with
// four 1.03; 74 backward ones with two 1.02. AVX-512 has 28 products to a round's overhead.
constexpr int kStepsARound = FC_VECTOR_BYTES == 64 ? 1 : 2;

// The type that values of storage type T are computed in.
template <class T> struct AccumulatorOf { typedef float type; };
template <> struct AccumulatorOf<double> { typedef double type; };
template <class T> using Accumulator = typename AccumulatorOf<T>::type;

// a - 0 is a for every a, -0 too, and folds to one broadcast; a + 0 does neither.
template <class A> FC_INLINE Vec<A> broadcast(A a) { return a - Vec<A>{}; }
template <class A> FC_INLINE Vec<A> select(Mask<A> m, Vec<A> a, Vec<A> b) { return m ? a : b; }

// ---- scalars -------------------------------------------------------------------------------------------------------
FC_INLINE float to_accumulator(float v) { return v; }
FC_INLINE double to_accumulator(double v) { return v; }
FC_INLINE float to_accumulator(bf16 v) {
  std::uint32_t bits = std::uint32_t(v.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
FC_INLINE float to_accumulator(f16 v) {
#if defined(__F16C__)
  return _cvtsh_ss(v.bits);
#else
  // Shift exponent and mantissa into place; multiplying by 2^112 rebias normals and denormals alike.
  std::uint32_t magnitude = std::uint32_t(v.bits & 0x7fff) << 13, sign = std::uint32_t(v.bits & 0x8000) << 16;
  float f;
  if ((v.bits & 0x7c00) == 0x7c00) {
    magnitude |= 0x7f800000u;
    std::memcpy(&f, &magnitude, 4);
  } else if (v.bits & 0x7c00) {
    magnitude += 112u << 23;
    std::memcpy(&f, &magnitude, 4);
  } else {
    f = float(v.bits & 0x3ff) * 0x1p-24f;
  }
  std::uint32_t bits;
  std::memcpy(&bits, &f, 4);
  bits |= sign;
  std::memcpy(&f, &bits, 4);
  return f;
#endif
}
template <class T> FC_INLINE T from_accumulator(Accumulator<T> v);
template <> FC_INLINE float from_accumulator<float>(float v) { return v; }
template <> FC_INLINE double from_accumulator<double>(double v) { return v; }
template <> FC_INLINE bf16 from_accumulator<bf16>(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{std::uint16_t((bits >> 16) | 0x40)};  // NaN stays a NaN
  return bf16{std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};                  // to nearest, ties to even
}
template <> FC_INLINE f16 from_accumulator<f16>(float v) {
#if defined(__F16C__)
  return f16{std::uint16_t(_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))};
#else
  std::uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return f16{std::uint16_t(sign | 0x7e00u | ((bits >> 13) & 0x3ffu))};
  if (bits >= 0x477ff000u) return f16{std::uint16_t(sign | 0x7c00u)};           // rounds to infinity
  if (bits < 0x33000001u) return f16{std::uint16_t(sign)};                      // rounds to zero
  std::uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u, shift = 13;
  const int exponent = int(bits >> 23) - 112;
  if (exponent < 1) shift += std::uint32_t(1 - exponent);
  std::uint32_t half = mantissa >> shift;
  const std::uint32_t rest = mantissa & ((1u << shift) - 1), mid = 1u << (shift - 1);
  half += rest > mid || (rest == mid && (half & 1));
  // The implicit one of a normal number carries into the exponent field by this addition.
  return f16{std::uint16_t(sign | (exponent < 1 ? half : half + (std::uint32_t(exponent - 1) << 10)))};
#endif
}

// sum + a * b, rounded once where the ISA can. Written out wherever two code paths promise the same bits: whether the
// compiler contracts a * b + c depends on the optimiser.
FC_INLINE float multiply_add(float a, float b, float sum) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, sum);
#else
  return sum + a * b;
#endif
}
FC_INLINE double multiply_add(double a, double b, double sum) {
#if defined(__FMA__)
  return __builtin_fma(a, b, sum);
#else
  return sum + a * b;
#endif
}
#if defined(__AVX512F__)
FC_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> sum) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
}
FC_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> sum) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum);
}
#elif defined(__FMA__)
FC_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> sum) {
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
}
FC_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> sum) {
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
}
#else
FC_INLINE Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> sum) { return sum + a * b; }
FC_INLINE Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> sum) { return sum + a * b; }
#endif

// ---- vectors: kLanes<Accumulator<T>> values ------------------------------------------------------------------------
FC_INLINE Vec<float> load(const float* p) { return *reinterpret_cast<const VecOf<float>::loose*>(p); }
FC_INLINE Vec<double> load(const double* p) { return *reinterpret_cast<const VecOf<double>::loose*>(p); }
FC_INLINE void store(float* p, Vec<float> v) { *reinterpret_cast<VecOf<float>::loose*>(p) = v; }
FC_INLINE void store(double* p, Vec<double> v) { *reinterpret_cast<VecOf<double>::loose*>(p) = v; }

#if defined(__AVX512F__)
FC_INLINE Vec<float> load(const f16* p) { return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
FC_INLINE Vec<float> load(const bf16* p) {
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
FC_INLINE void store(f16* p, Vec<float> v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
FC_INLINE void store(bf16* p, Vec<float> v) {
  // Not vcvtneps2bf16: that instruction flushes denormals whatever the mode.
  const __m512i bits = (__m512i)v, odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  r = _mm512_mask_or_epi32(r, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(r));
}
// First n lanes (0 <= n <= lanes); the others read as zero and touch no memory.
FC_INLINE Vec<float> load_partial(const float* p, std::int64_t n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
}
FC_INLINE Vec<double> load_partial(const double* p, std::int64_t n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
}
FC_INLINE void store_partial(float* p, Vec<float> v, std::int64_t n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
FC_INLINE void store_partial(double* p, Vec<double> v, std::int64_t n) {
  _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
}
// IEEE maximum of pooling: NaN in either operand gives NaN; equal operands give a.
FC_INLINE Vec<float> max_nan(Vec<float> a, Vec<float> b) {
  // vmaxps gives its second operand for equal zeros and where one is NaN; what remains is a NaN in b.
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)b, (__m512)b, _CMP_UNORD_Q);
  return (Vec<float>)_mm512_mask_mov_ps(_mm512_max_ps((__m512)b, (__m512)a), nan, (__m512)b);
}
#else
// A register's worth of 16-bit values where they lie, and the same in 32 bits each.
typedef std::uint16_t Narrow __attribute__((vector_size(FC_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef std::uint32_t Wide __attribute__((vector_size(FC_VECTOR_BYTES)));
#if defined(__AVX2__)
FC_INLINE Vec<float> load(const f16* p) { return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
FC_INLINE void store(f16* p, Vec<float> v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#else
// As the scalars above, without branches. Nothing here is a denormal float, which the kernels' mode flushes, but what
// rounds to zero.
FC_INLINE Vec<float> load(const f16* p) {
  const Wide half = __builtin_convertvector(*reinterpret_cast<const Narrow*>(p), Wide);
  const Wide magnitude = (half & 0x7fffu) << 13;
  const Vec<float> small = (Vec<float>)(magnitude + (113u << 23)) - 0x1p-14f;
  const Wide other = magnitude + ((half & 0x7c00u) == 0x7c00u ? Wide{} + (224u << 23) : Wide{} + (112u << 23));
  return (Vec<float>)(((half & 0x7c00u) == 0u ? (Wide)small : other) | (half & 0x8000u) << 16);
}
FC_INLINE void store(f16* p, Vec<float> v) {
  const Wide sign = (Wide)v & 0x80000000u, bits = (Wide)v ^ sign;
  const Wide normal = (bits - (112u << 23) + 0xfffu + ((bits >> 13) & 1u)) >> 13;  // a carry reaches the exponent
  const Wide small = (Wide)((Vec<float>)bits + 0.5f) - (126u << 23);               // the sum rounds to units of 2^-24
  const Wide nan = ((bits >> 13) & 0x3ffu) | 0x7e00u;
  const Wide large = bits > 0x7f800000u ? nan : Wide{} + 0x7c00u;
  const Wide half = bits < (113u << 23) ? small : bits < (143u << 23) ? normal : large;
  *reinterpret_cast<Narrow*>(p) = __builtin_convertvector(half | sign >> 16, Narrow);
}
#endif
FC_INLINE Vec<float> load(const bf16* p) {
  return (Vec<float>)(__builtin_convertvector(*reinterpret_cast<const Narrow*>(p), Wide) << 16);
}
FC_INLINE void store(bf16* p, Vec<float> v) {
  const Wide bits = (Wide)v, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  *reinterpret_cast<Narrow*>(p) = __builtin_convertvector(v == v ? rounded : quiet, Narrow);
}
#if defined(__AVX2__)
// The lanes i with lo <= i < hi.
template <class A> FC_INLINE Mask<A> lanes_between(std::int64_t lo, std::int64_t hi) {
  Mask<A> lane;
  for (int i = 0; i < kLanes<A>; i++) lane[i] = i;
  return (lane >= Mask<A>{} + Lane<A>(lo)) & (lane < Mask<A>{} + Lane<A>(hi));
}
FC_INLINE Vec<float> load_masked(const float* p, Mask<float> m) {
  return (Vec<float>)_mm256_maskload_ps(p, (__m256i)m);
}
FC_INLINE Vec<double> load_masked(const double* p, Mask<double> m) {
  return (Vec<double>)_mm256_maskload_pd(p, (__m256i)m);
}
FC_INLINE Vec<float> load_partial(const float* p, std::int64_t n) { return load_masked(p, lanes_between<float>(0, n)); }
FC_INLINE Vec<double> load_partial(const double* p, std::int64_t n) {
  return load_masked(p, lanes_between<double>(0, n));
}
// By halves: AMD's processors take vmaskmov's stores apart (Zen 3: 5 to 7 ns each, this 2 to 4). n below kLanes, as in all
// calls: a whole register is `store`.
FC_INLINE void store_partial(float* p, Vec<float> v, std::int64_t n) {
  __m128 part = _mm256_castps256_ps128((__m256)v);
  if (n & 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps((__m256)v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi((__m64*)p, part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, part);
}
FC_INLINE void store_partial(double* p, Vec<double> v, std::int64_t n) {
  __m128d part = _mm256_castpd256_pd128((__m256d)v);
  if (n & 2) {
    _mm_storeu_pd(p, part);
    part = _mm256_extractf128_pd((__m256d)v, 1);
    p += 2;
  }
  if (n & 1) _mm_store_sd(p, part);
}
#else
template <class A> FC_INLINE Vec<A> load_lanes(const A* p, std::int64_t n) {
  Vec<A> v{};
  for (std::int64_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}
template <class A> FC_INLINE void store_lanes(A* p, Vec<A> v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i++) p[i] = v[i];
}
FC_INLINE Vec<float> load_partial(const float* p, std::int64_t n) { return load_lanes(p, n); }
FC_INLINE Vec<double> load_partial(const double* p, std::int64_t n) { return load_lanes(p, n); }
FC_INLINE void store_partial(float* p, Vec<float> v, std::int64_t n) { store_lanes(p, v, n); }
FC_INLINE void store_partial(double* p, Vec<double> v, std::int64_t n) { store_lanes(p, v, n); }
#endif
FC_INLINE Vec<float> max_nan(Vec<float> a, Vec<float> b) {
#if defined(__AVX2__)
  const __m256 larger = _mm256_max_ps((__m256)b, (__m256)a);
  return (Vec<float>)_mm256_blendv_ps(larger, (__m256)b, _mm256_cmp_ps((__m256)b, (__m256)b, _CMP_UNORD_Q));
#else
  const Mask<float> keep = (a >= b) | (a != a);
  return keep ? a : b;
#endif
}
#endif
FC_INLINE Vec<double> max_nan(Vec<double> a, Vec<double> b) {
  const Mask<double> keep = (a >= b) | (a != a);
  return keep ? a : b;
}
// Where b is larger than a, or the first NaN: a = b and its code with it.
#if defined(__AVX512F__)
FC_INLINE void take_larger(Vec<float>& a, Mask<float>& code, Vec<float> b, Mask<float> b_code) {
  const __mmask16 number = _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q);
  const __mmask16 take = _mm512_mask_cmp_ps_mask(number, (__m512)b, (__m512)a, _CMP_NLE_UQ);  // greater or unordered
  a = (Vec<float>)_mm512_mask_mov_ps((__m512)a, take, (__m512)b);
  code = (Mask<float>)_mm512_mask_mov_epi32((__m512i)code, take, (__m512i)b_code);
}
FC_INLINE void take_larger(Vec<double>& a, Mask<double>& code, Vec<double> b, Mask<double> b_code) {
  const __mmask8 number = _mm512_cmp_pd_mask((__m512d)a, (__m512d)a, _CMP_ORD_Q);
  const __mmask8 take = _mm512_mask_cmp_pd_mask(number, (__m512d)b, (__m512d)a, _CMP_NLE_UQ);
  a = (Vec<double>)_mm512_mask_mov_pd((__m512d)a, take, (__m512d)b);
  code = (Mask<double>)_mm512_mask_mov_epi64((__m512i)code, take, (__m512i)b_code);
}
#else
template <class V, class M> FC_INLINE void take_larger(V& a, M& code, V b, M b_code) {
  const M take = (b > a) | ((b != b) & (a == a));
  a = take ? b : a;
  code = take ? b_code : code;
}
#endif
#if defined(__AVX512F__)
template <class H> FC_INLINE Vec<float> load_partial_halves(const H* p, std::int64_t n) {
  H buffer[kLanes<float>];
  _mm256_storeu_si256((__m256i*)buffer, _mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p));
  return load(buffer);
}
template <class H> FC_INLINE void store_partial_halves(H* p, Vec<float> v, std::int64_t n) {
  H buffer[kLanes<float>];
  store(buffer, v);
  _mm256_mask_storeu_epi16(p, __mmask16((1u << n) - 1), _mm256_loadu_si256((const __m256i*)buffer));
}
#else
template <class H> FC_INLINE Vec<float> load_partial_halves(const H* p, std::int64_t n) {
  H buffer[kLanes<float>] = {};
  std::memcpy(buffer, p, std::size_t(n) * 2);
  return load(buffer);
}
template <class H> FC_INLINE void store_partial_halves(H* p, Vec<float> v, std::int64_t n) {
  H buffer[kLanes<float>];
  store(buffer, v);
  std::memcpy(p, buffer, std::size_t(n) * 2);
}
#endif
FC_INLINE Vec<float> load_partial(const f16* p, std::int64_t n) { return load_partial_halves(p, n); }
FC_INLINE Vec<float> load_partial(const bf16* p, std::int64_t n) { return load_partial_halves(p, n); }
FC_INLINE void store_partial(f16* p, Vec<float> v, std::int64_t n) { store_partial_halves(p, v, n); }
FC_INLINE void store_partial(bf16* p, Vec<float> v, std::int64_t n) { store_partial_halves(p, v, n); }

// Whole register where n says so, else the first n lanes: the form for the last step of a loop.
template <class T> FC_INLINE Vec<Accumulator<T>> load_up_to(const T* p, std::int64_t n) {
  return n >= kLanes<Accumulator<T>> ? load(p) : load_partial(p, n);
}
template <class T> FC_INLINE void store_up_to(T* p, Vec<Accumulator<T>> v, std::int64_t n) {
  if (n >= kLanes<Accumulator<T>>) store(p, v);
  else store_partial(p, v, n);
}

// The two shapes of a step through memory: a whole register, or the first n lanes at the end. Overloads on them let one
// generic lambda serve both; `keep` zeroes the lanes that a Part does not have.
struct Whole {};
struct Part { std::int64_t n; };
template <class T> FC_INLINE Vec<Accumulator<T>> load(const T* p, Whole) { return load(p); }
template <class T> FC_INLINE Vec<Accumulator<T>> load(const T* p, Part part) { return load_partial(p, part.n); }
template <class T> FC_INLINE void store(T* p, Vec<Accumulator<T>> v, Whole) { store(p, v); }
template <class T> FC_INLINE void store(T* p, Vec<Accumulator<T>> v, Part part) { store_partial(p, v, part.n); }
template <class A> FC_INLINE Vec<A> keep(Vec<A> v, Whole) { return v; }
template <class A> FC_INLINE Vec<A> keep(Vec<A> v, Part part) {
  Mask<A> lane;
  for (int i = 0; i < kLanes<A>; i++) lane[i] = i;
  return select<A>(lane < Mask<A>{} + decltype(lane[0] + 0)(part.n), v, Vec<A>{});
}

// The lanes i with 0 <= w + i < n: found once, used for many rows of n values.
template <class A> struct Span {
  std::int64_t w;
#if defined(__AVX512F__)
  unsigned mask;
#else
  int lo, hi;  // lo <= i < hi
#if defined(__AVX2__)
  Mask<A> lanes;
#endif
#endif
  Span() {}
  Span(std::int64_t w, std::int64_t n) : w(w) {
    const std::int64_t from = w < 0 ? (-w < kLanes<A> ? -w : kLanes<A>) : 0;
    const std::int64_t to = n - w > kLanes<A> ? kLanes<A> : n - w > from ? n - w : from;
#if defined(__AVX512F__)
    mask = ((1u << to) - 1) & ~((1u << from) - 1);
#else
    lo = int(from);
    hi = int(to);
#if defined(__AVX2__)
    lanes = lanes_between<A>(from, to);
#endif
#endif
  }
};
// row[w + i] in the lanes of the span; the others are `fill` and touch no memory.
template <class T>
FC_INLINE Vec<Accumulator<T>> load_span(const T* row, const Span<Accumulator<T>>& span, Vec<Accumulator<T>> fill) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<float>)_mm512_mask_loadu_ps((__m512)fill, __mmask16(span.mask), row + span.w);
  else if constexpr (sizeof(T) == 8)
    return (Vec<double>)_mm512_mask_loadu_pd((__m512d)fill, __mmask8(span.mask), row + span.w);
  else {
    T values[kLanes<float>];
    const __mmask16 mask = __mmask16(span.mask);
    _mm256_storeu_si256((__m256i*)values, _mm256_maskz_loadu_epi16(mask, row + span.w));
    return (Vec<float>)_mm512_mask_mov_ps((__m512)fill, mask, (__m512)load(values));
  }
#else
#if defined(__AVX2__)
  if constexpr (sizeof(T) >= 4)
    return select<Accumulator<T>>(span.lanes, load_masked(row + span.w, span.lanes), fill);
#endif
  if (span.hi - span.lo == kLanes<Accumulator<T>>) return load(row + span.w);
  Accumulator<T> values[kLanes<Accumulator<T>>];
  std::memcpy(values, &fill, sizeof fill);
  for (std::int64_t i = span.lo; i < span.hi; i++) values[i] = to_accumulator(row[span.w + i]);
  return load(values);
#endif
}
// The same with zeros in the others.
template <class T> FC_INLINE Vec<Accumulator<T>> load_span(const T* row, const Span<Accumulator<T>>& span) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  if constexpr (sizeof(T) >= 4) return load_masked(row + span.w, span.lanes);
#endif
  return load_span(row, span, Vec<Accumulator<T>>{});
}
template <class T>
FC_INLINE Vec<Accumulator<T>> load_within(const T* row, std::int64_t w, std::int64_t n, Vec<Accumulator<T>> fill) {
  if (w >= 0 && w + kLanes<Accumulator<T>> <= n) return load(row + w);
  return load_span(row, Span<Accumulator<T>>(w, n), fill);
}

// Bytes as lane numbers. GCC expands the same in vector extensions to one scalar move a lane.
template <class A> FC_INLINE Mask<A> load_bytes(const std::uint8_t* p) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return (Mask<A>)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  else return (Mask<A>)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i*)p));
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return (Mask<A>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  else {
    int four;
    std::memcpy(&four, p, 4);
    return (Mask<A>)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
  }
#else
  Mask<A> v;
  for (int i = 0; i < kLanes<A>; i++) v[i] = p[i];
  return v;
#endif
}
template <class A> FC_INLINE Mask<A> load_bytes_span(const std::uint8_t* row, const Span<A>& span) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_maskz_loadu_epi8(__mmask16(span.mask), row + span.w);
  if constexpr (sizeof(A) == 4) return (Mask<A>)_mm512_cvtepu8_epi32(bytes);
  else return (Mask<A>)_mm512_cvtepu8_epi64(bytes);
#else
  if (span.hi - span.lo == kLanes<A>) return load_bytes<A>(row + span.w);
  std::uint8_t bytes[kLanes<A>] = {};
  for (std::int64_t i = span.lo; i < span.hi; i++) bytes[i] = row[span.w + i];
  return load_bytes<A>(bytes);
#endif
}
// As load_within, with 0 outside.
template <class A> FC_INLINE Mask<A> load_bytes_within(const std::uint8_t* row, std::int64_t w, std::int64_t n) {
  if (w >= 0 && w + kLanes<A> <= n) return load_bytes<A>(row + w);
  return load_bytes_span<A>(row, Span<A>(w, n));
}
template <class A> FC_INLINE Mask<A> load_bytes(const std::uint8_t* p, Whole) { return load_bytes<A>(p); }
template <class A> FC_INLINE Mask<A> load_bytes(const std::uint8_t* p, Part part) {
  return load_bytes_within<A>(p, 0, part.n);
}
// The low bytes of the first n lanes.
template <class A> FC_INLINE void store_bytes(std::uint8_t* p, Mask<A> v, std::int64_t n) {
#if defined(__AVX512F__)
  const __mmask16 mask = __mmask16((1u << n) - 1);
  if constexpr (sizeof(A) == 4) _mm512_mask_cvtepi32_storeu_epi8(p, mask, (__m512i)v);
  else _mm512_mask_cvtepi64_storeu_epi8(p, __mmask8(mask), (__m512i)v);
#else
#if defined(__AVX2__)
  if constexpr (sizeof(A) == 4) {
    if (n == kLanes<A>) {
      const __m256i low = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(0xff));  // packing limits, bytes wrap
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
      return _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
    }
  }
#endif
  for (std::int64_t i = 0; i < n; i++) p[i] = std::uint8_t(v[i]);
#endif
}

// Sum of all lanes in a fixed order (halves, then quarters, ...), the same on every call.
template <class A> FC_INLINE A sum_lanes(Vec<A> v) {
  A lane[kLanes<A>];
  std::memcpy(lane, &v, sizeof v);
  for (int half = kLanes<A> / 2; half; half /= 2)
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  return lane[0];
}

FC_INLINE Vec<float> square_root(Vec<float> v) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_sqrt_ps((__m256)v);
#elif defined(__SSE2__)
  return (Vec<float>)_mm_sqrt_ps((__m128)v);
#else
  for (int i = 0; i < kLanes<float>; i++) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}
FC_INLINE Vec<double> square_root(Vec<double> v) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_sqrt_pd((__m512d)v);
#elif defined(__AVX2__)
  return (Vec<double>)_mm256_sqrt_pd((__m256d)v);
#elif defined(__SSE2__)
  return (Vec<double>)_mm_sqrt_pd((__m128d)v);
#else
  for (int i = 0; i < kLanes<double>; i++) v[i] = __builtin_sqrt(v[i]);
  return v;
#endif
}

FC_INLINE std::int64_t min_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
FC_INLINE std::int64_t max_of(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
FC_INLINE std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
FC_INLINE std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
