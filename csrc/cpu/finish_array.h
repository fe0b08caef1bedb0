// The epilogue as a pass of its own, after kernels that do not take it along.
#pragma once
#include "epilogue.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

template <class T> void finish_array(const Finish<T>& finish, std::int64_t n, T* y, int threads) {
  constexpr std::int64_t piece = 16 << 10;
  parallel_for(threads, ceil_div(n, piece), [&](std::int64_t task, int) {
    for (std::int64_t i = task * piece, end = min_of(i + piece, n); i < end; i += kLanes<Accumulator<T>>)
      store_up_to(y + i, finish(load_up_to(y + i, end - i), i, end - i), end - i);
  });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
