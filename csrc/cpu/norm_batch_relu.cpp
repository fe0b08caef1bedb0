// Batch normalisation, a sum and ReLU in one: what three operations would read and write again stays in registers.
//
// The backward pass has no residual. It normalises x again, by the forward pass's own coefficients, to know where ReLU let
// gradients through: y need not be read. (With a residual the gradient of the sum is wanted, too, and a pass that writes
// it among the others was slower than ReLU's own backward pass before batch_norm's: 0.8 to 1.1, Zen 4.)
#include "epilogue.h"
#include "norm.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// What a T that is stored and read again is.
template <class T> FC_INLINE Vec<Accumulator<T>> as_stored(Vec<Accumulator<T>> v) {
  if constexpr (sizeof(T) >= sizeof(float)) return v;
  T values[kLanes<Accumulator<T>>];
  store(values, v);
  return load(values);
}

template <class T, bool adds> struct SumAndRectify {
  typedef Accumulator<T> A;
  Finish<T> finish;

  template <class P> FC_INLINE Vec<A> operator()(Vec<A> v, std::int64_t i, P part) const {
    if constexpr (adds) v += load(finish.add + i, part);
    return finish.at_most(finish.at_least(v));
  }
};

// The gradient where the normalised value, as it was stored, is between the limits or NaN.
template <class T> struct RectifiedGradient {
  typedef Accumulator<T> A;
  static constexpr bool kReadsInput = true;
  static constexpr int kCoefficients = 2;
  struct Line {
    Vec<A> scale, offset;
  };
  const T* dy;
  const A *scale, *offset;
  A high;  // not-a-number, which nothing reaches: none

  RectifiedGradient(const T* dy, const A* scale, const A* offset, const Finish<T>& finish)
      : dy(dy), scale(scale), offset(offset), high(finish.bounded_above() ? finish.high : A(__builtin_nanf(""))) {}

  FC_INLINE Line line(std::int64_t g) const { return {broadcast(scale[g]), broadcast(offset[g])}; }
  template <class P> FC_INLINE Line line(std::int64_t g, P part) const {
    return {load(scale + g, part), load(offset + g, part)};
  }
  template <class P> FC_INLINE Vec<A> operator()(Vec<A> x, Vec<A> mean, std::int64_t i, const Line& k, P part) const {
    const Vec<A> y = as_stored<T>(normalised<A>(x, mean, k.scale, k.offset));
    const Vec<A> d = select<A>(y <= Vec<A>{}, Vec<A>{}, load(dy + i, part));
    return select<A>(y >= broadcast(high), Vec<A>{}, d);
  }
};

}  // namespace

void batch_norm_relu_forward(const NormShape& s, const void* x, const void* weight, const void* bias,
                             void* running_mean, void* running_var, bool training, double momentum, double eps,
                             const void* residual, double high, void* y, void* saved, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    Accumulator<T>* found = static_cast<Accumulator<T>*>(saved);
    const auto run = [&](auto adds) {
      norm_forward(s, false, static_cast<const T*>(x), weight, bias, running_mean, running_var, training, momentum, eps,
                   SumAndRectify<T, decltype(adds)::value>{Finish<T>(Epilogue{residual, 0, high})},
                   static_cast<T*>(y), {found, found + s.C, found + 2 * s.C, found + 3 * s.C}, ctx);
    };
    if (residual) run(Flag<true>());
    else run(Flag<false>());
  });
}

void batch_norm_relu_backward(const NormShape& s, const void* dy, const void* x, const void* weight, const void* saved,
                              bool training, double high, void* dx, void* dw, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    const Accumulator<T>* found = static_cast<const Accumulator<T>*>(saved);
    const RectifiedGradient<T> gradient(static_cast<const T*>(dy), found + 2 * s.C, found + 3 * s.C,
                                        Finish<T>(Epilogue{nullptr, 0, high}));
    norm_backward(s, false, gradient, static_cast<const T*>(x), weight, found, found + s.C, training,
                  static_cast<T*>(dx), dw, db, ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
