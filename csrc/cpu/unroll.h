// Loops that are unrolled whatever the optimiser thinks of them, their counter a compile-time constant.
#pragma once
#include <utility>

#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

template <int... I, class F> FC_INLINE void each(std::integer_sequence<int, I...>, F&& f) {
  (f(std::integral_constant<int, I>()), ...);
}
// f(0), f(1), ... f(Count - 1)
template <int Count, class F> FC_INLINE void each(F&& f) {
  each(std::make_integer_sequence<int, Count>(), static_cast<F&&>(f));
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
