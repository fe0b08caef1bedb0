// Batch normalisation: one set of statistics for each channel.
#include "norm.h"

namespace fastconv::cpu::FC_ISA {

void batch_norm_forward(const NormShape& s, const void* x, const void* weight, const void* bias, void* running_mean,
                        void* running_var, bool training, double momentum, double eps, void* y, void* mean,
                        void* invstd, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    typedef Accumulator<T> A;
    norm_forward(s, false, static_cast<const T*>(x), weight, bias, running_mean, running_var, training, momentum, eps,
                 Unchanged<T>(), static_cast<T*>(y),
                 {static_cast<A*>(mean), static_cast<A*>(invstd), nullptr, nullptr}, ctx);
  });
}

void batch_norm_backward(const NormShape& s, const void* dy, const void* x, const void* weight, const void* mean,
                         const void* invstd, bool training, void* dx, void* dw, void* db, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    typedef decltype(tag) T;
    norm_backward(s, false, GivenGradient<T>{static_cast<const T*>(dy)}, static_cast<const T*>(x), weight, mean, invstd,
                  training, static_cast<T*>(dx), dw, db, ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
