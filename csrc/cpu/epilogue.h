// What a convolution makes of its sums before it stores them: y = clamp(sum + bias + add), in registers.
#pragma once
#include "../ops.h"
#include "vec.h"

namespace fastconv::cpu::FC_ISA {
namespace {

template <class T> struct Finish {
  using A = Accumulator<T>;
  const T* add = nullptr;  // of y's shape and layout
  A low = -A(__builtin_inff()), high = A(__builtin_inff());
  A zero = -A(0);  // 0 where `low` is: makes 0 of -0, and nothing else of anything
  bool wanted = false;

  Finish() {}
  explicit Finish(const Epilogue& e)
      : add(static_cast<const T*>(e.add)), low(bound(e.low)), high(bound(e.high)), zero(low == A(0) ? A(0) : -A(0)),
        wanted(bool(e)) {}
  // The same for a y that begins `elements` later.
  Finish behind(std::int64_t elements) const {
    Finish f = *this;
    if (add) f.add += elements;
    return f;
  }
  // Of the first n lanes, whose place in y is `at`. NaN stays NaN, as in the activations.
  FC_INLINE Vec<A> operator()(Vec<A> v, std::int64_t at, std::int64_t n) const {
    if (add) v += load_up_to(add + at, n);
    return at_most(at_least(v));
  }
  // v <= low ? low : v, in one instruction for the comparison and one for a zero's sign.
  FC_INLINE Vec<A> at_least(Vec<A> v) const {
    return select<A>(v < broadcast(low), broadcast(low), v) + broadcast(zero);
  }
  FC_INLINE Vec<A> at_most(Vec<A> v) const { return select<A>(v > broadcast(high), broadcast(high), v); }
  FC_INLINE bool bounded_above() const { return high < A(__builtin_inff()); }

 private:
  static A bound(double v) { return A(to_accumulator(from_accumulator<T>(A(v)))); }
};

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
