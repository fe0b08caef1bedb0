// Measuring what the processor's units reach.
#pragma once
#include <time.h>

#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Operations a second of `threads` threads, each of which calls work(), of so many operations: the best of eight runs.
template <class Work> double best_rate(int threads, double operations, const Work& work) {
  const auto seconds = [] {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
  };
  double best = 0;
  for (int repeat = 0; repeat < 8; repeat++) {
    const double start = seconds();
    parallel_for(threads, threads, [&](std::int64_t, int) { work(); });
    const double rate = double(threads) * operations / (seconds() - start);
    best = rate > best ? rate : best;
  }
  return best;
}

// Somebody might read what lies there.
FC_INLINE void used(const void* p) { __asm__ __volatile__("" : : "r"(p) : "memory"); }

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
