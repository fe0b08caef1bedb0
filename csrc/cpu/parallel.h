// The one place where a kernel's work is divided among threads, and the flush-to-zero scope.
#pragma once
#include <cstdint>
#include "../ops.h"
#include "team.h"
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

// Tasks in equal shares of neighbours, one a thread; whoever has finished its own takes what others have left.
class Shares {
 public:
  Shares(int team, std::int64_t tasks) : count_(team < kMost ? team : kMost) {
    for (int i = 0; i < count_; i++) share_[i] = {tasks * i / count_, tasks * (i + 1) / count_};
  }

  template <class F> FC_INLINE void run(int thread, F& f) {
    for (int i = 0; i < count_; i++) {
      Share& from = share_[(thread + i) % count_];
      for (;;) {
        const std::int64_t task = __atomic_fetch_add(&from.next, 1, __ATOMIC_RELAXED);
        if (task >= from.end) break;
        f(task, thread);
      }
    }
  }

 private:
  static constexpr int kMost = 64;
  struct alignas(64) Share {
    std::int64_t next, end;
  } share_[kMost];
  int count_;
};

// Runs f(task, thread) for every task in [0, tasks). Each thread starts with the same share in every call, so that it
// finds in its own cache what it wrote in the last one. Which thread runs a task must not change its result; no two run
// with the same `thread` at a time, and thread 0 may have to run them all. Scope: FlushDenormals for arithmetic,
// KeepDenormals for ops that move values.
template <class Scope = FlushDenormals, class F> FC_INLINE void parallel_for(int threads, std::int64_t tasks, F&& f) {
  if (threads > 1 && tasks > 1) {
    const int team = int(min_of(threads, tasks));
    struct Job {
      Shares shares;
      decltype(&f) body;
    } job{Shares(team, tasks), &f};
    const auto work = [](void* context, int thread) {
      Scope scope;
      Job& job = *static_cast<Job*>(context);
      job.shares.run(thread, *job.body);
    };
    run_in_team(team, work, &job);
    return;
  }
  Scope scope;
  for (std::int64_t task = 0; task < tasks; task++) f(task, 0);
}

// Calls f(T()) with the C++ type that stores this dtype, which is not f64. FC_TWO_TYPES: the build with sanitizers has
// one type of full and one of half width, and its arrays.cpp refuses the others, which are the same templates.
template <class F> FC_INLINE void with_float_sums(DType dtype, F&& f) {
  if (dtype == DType::f32) f(float());
  else if (dtype == DType::bf16) f(bf16());
#if !defined(FC_TWO_TYPES)
  else f(f16());
#endif
}
// The same with all types.
template <class F> FC_INLINE void with_type(DType dtype, F&& f) {
#if !defined(FC_TWO_TYPES)
  if (dtype == DType::f64) return f(double());
#endif
  with_float_sums(dtype, f);
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
