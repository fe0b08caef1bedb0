// The one place that forks threads, and the flush-to-zero scope.
#pragma once
#include <cstdint>
#if defined(_OPENMP)
#include <omp.h>
#endif
#include "../ops.h"
#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Denormal operands cost a microcode assist of 100+ cycles on the FMA units. Inside this scope they read, and results
// of their size are written, as zero; the caller's mode is restored on exit, on every thread.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_ | (1ull << 24)));
  }
  ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_)); }

 private:
  std::uint64_t saved_;
#endif
};

struct KeepDenormals {
  KeepDenormals() {}
};

// Runs f(task, thread) for every task in [0, tasks). Each thread starts with a share of neighbouring tasks, the same in
// every call, so that it finds in its own cache what it wrote in the last one; then it takes what others have left.
// Which thread runs a task must not change its result. Scope: FlushDenormals for arithmetic, KeepDenormals for ops that
// move values.
template <class Scope = FlushDenormals, class F> FC_INLINE void parallel_for(int threads, std::int64_t tasks, F&& f) {
#if defined(_OPENMP)
  if (threads > 1 && tasks > 1) {
    constexpr int kMostShares = 64;
    const int team = int(min_of(threads, tasks)), shares = team < kMostShares ? team : kMostShares;
    struct alignas(64) Share {
      std::int64_t next, end;
    } share[kMostShares];
    for (int i = 0; i < shares; i++) share[i] = {tasks * i / shares, tasks * (i + 1) / shares};
#pragma omp parallel num_threads(team)
    {
      Scope scope;
      const int thread = omp_get_thread_num();
      for (int i = 0; i < shares; i++) {
        Share& from = share[(thread + i) % shares];
        for (;;) {
          const std::int64_t task = __atomic_fetch_add(&from.next, 1, __ATOMIC_RELAXED);
          if (task >= from.end) break;
          f(task, thread);
        }
      }
    }
    return;
  }
#endif
  Scope scope;
  for (std::int64_t task = 0; task < tasks; task++) f(task, 0);
}

// Calls f(T()) with the C++ type that stores this dtype.
template <class F> FC_INLINE void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: f(float()); break;
    case DType::f64: f(double()); break;
    case DType::f16: f(f16()); break;
    case DType::bf16: f(bf16()); break;
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
