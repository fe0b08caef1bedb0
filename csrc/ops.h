// The whole native contract: one line per op. Each ISA fills one constant table of these pointers (cpu/table.cpp).
//
// Pointers are to contiguous memory of the layout and dtype that the shape names; inputs and outputs do not overlap,
// except where noted. `b`, `weight`, `bias`, running statistics and `indices` may be null where the Python function
// takes None. Kernels allocate nothing but ctx.workspace(), throw nothing and know no Python.
#pragma once
#include <cmath>

#include "context.h"
#include "shapes.h"

namespace fastconv {

// How max pooling reports its choice. flat: int64 index into the unpadded spatial plane. window: the tap within the
// window, kept in the smallest of uint8 / int32 that holds taps - 1 (window_index_size), for the backward pass.
enum class Indices : std::uint8_t { none, flat, window };
inline std::size_t window_index_size(const PoolShape& s) {
  return s.kernel[0] * s.kernel[1] * s.kernel[2] <= 256 ? 1 : 4;
}

// What a convolution does to its outputs before it stores them, beside the bias: y = clamp(y + add, low, high).
struct Epilogue {
  const void* add = nullptr;  // of y's shape, dtype and layout; null: nothing
  double low = -HUGE_VAL, high = HUGE_VAL;

  explicit operator bool() const { return add || low > -HUGE_VAL || high < HUGE_VAL; }
};

enum class ConvOp : std::uint8_t { forward, backward_input, backward_weight };

// What explain() tells of a convolution.
struct ConvPlan {
  ConvAlgorithm algorithm;
  const char* kernel;                   // the algorithm, and the variant of it that the blocking chose
  const char* why;
  std::size_t workspace;
  int others;                           // further algorithms that can compute it, in the rule's order
  struct Other {
    ConvAlgorithm algorithm;
    const char* why_not;
  } other[kConvAlgorithms];
};

enum class Activation : std::uint8_t { relu, hardtanh, leaky_relu };  // relu: a, b unused; hardtanh: a = min, b = max;
                                                                      // leaky_relu: a = negative slope

using std::int64_t;
#define FC_OPS(X)                                                                                                      \
  X(conv_forward, (const ConvShape&, const void* x, const void* w, const void* b, const Epilogue&, void* y, Context&)) \
  /* b: bias over the C channels of dx, used by transposed convolution */                                              \
  X(conv_backward_input, (const ConvShape&, const void* dy, const void* w, const void* b, void* dx, Context&))         \
  X(conv_backward_weight, (const ConvShape&, const void* dy, const void* x, void* dw, Context&))                       \
  X(conv_plan, (const ConvShape&, ConvOp, int threads, ConvPlan*))                                                     \
  X(channel_sum, (const NormShape&, const void* dy, void* db, Context&))                                               \
  X(max_pool_forward, (const PoolShape&, const void* x, void* y, Indices, void* indices, Context&))                    \
  X(max_pool_backward, (const PoolShape&, const void* dy, Indices, const void* indices, void* dx, Context&))           \
  X(max_unpool_forward, (const PoolShape&, const void* x, const int64_t* indices, void* y, Context&))                  \
  X(max_unpool_backward, (const PoolShape&, const void* dy, const int64_t* indices, void* dx, Context&))               \
  X(avg_pool_forward, (const PoolShape&, const void* x, void* y, Context&))                                            \
  X(avg_pool_backward, (const PoolShape&, const void* dy, void* dx, Context&))                                         \
  X(lp_pool_forward, (const PoolShape&, const void* x, void* y, Context&))                                             \
  X(lp_pool_backward, (const PoolShape&, const void* dy, const void* x, const void* y, void* dx, Context&))            \
  X(adaptive_avg_pool_forward, (const PoolShape&, const void* x, void* y, Context&))                                   \
  X(adaptive_avg_pool_backward, (const PoolShape&, const void* dy, void* dx, Context&))                                \
  X(adaptive_max_pool_forward, (const PoolShape&, const void* x, void* y, int64_t* indices, Context&))                 \
  X(adaptive_max_pool_backward, (const PoolShape&, const void* dy, const int64_t* indices, void* dx, Context&))        \
  /* mean, invstd: accumulator dtype (f64 for f64, else f32), C values. Statistics in: training false */               \
  X(batch_norm_forward, (const NormShape&, const void* x, const void* weight, const void* bias, void* running_mean,    \
                         void* running_var, bool training, double momentum, double eps, void* y, void* mean,           \
                         void* invstd, Context&))                                                                      \
  X(batch_norm_backward, (const NormShape&, const void* dy, const void* x, const void* weight, const void* mean,       \
                          const void* invstd, bool training, void* dx, void* dw, void* db, Context&))                  \
  /* y = min(max(normalised x + residual, 0), high). saved: mean, invstd, scale and offset of each channel, C values   \
     each, with normalised x = (x - mean) * scale + offset. Backward is that without a residual */                    \
  X(batch_norm_relu_forward, (const NormShape&, const void* x, const void* weight, const void* bias,                   \
                              void* running_mean, void* running_var, bool training, double momentum, double eps,       \
                              const void* residual, double high, void* y, void* saved, Context&))                      \
  X(batch_norm_relu_backward, (const NormShape&, const void* dy, const void* x, const void* weight, const void* saved, \
                               bool training, double high, void* dx, void* dw, void* db, Context&))                    \
  X(instance_norm_forward, (const NormShape&, const void* x, const void* weight, const void* bias, void* running_mean, \
                            void* running_var, bool use_input_stats, double momentum, double eps, void* y, void* mean, \
                            void* invstd, Context&))                                                                   \
  X(instance_norm_backward, (const NormShape&, const void* dy, const void* x, const void* weight, const void* mean,    \
                             const void* invstd, bool use_input_stats, void* dx, void* dw, void* db, Context&))        \
  X(local_response_norm_forward, (const NormShape&, const void* x, int64_t size, double alpha, double beta, double k,  \
                                  void* y, Context&))                                                                  \
  X(local_response_norm_backward, (const NormShape&, const void* dy, const void* x, int64_t size, double alpha,        \
                                   double beta, double k, void* dx, Context&))                                         \
  /* y = a + b, or a where b is null: rows of `length` elements, their starts `step` elements apart. y may be a */      \
  X(add_rows, (DType, int64_t rows, int64_t length, const void* a, int64_t a_step, const void* b, int64_t b_step,      \
               void* y, int64_t y_step, Context&))                                                                     \
  /* y[n][c][r] = x[n][r][c] of `item` bytes each: 1, 2, 4 or 8 */                                                     \
  X(change_layout, (int64_t item, int64_t images, int64_t rows, int64_t columns, const void* x, void* y, Context&))    \
  /* y may be x */                                                                                                     \
  X(activation_forward, (Activation, DType, int64_t n, const void* x, double a, double b, void* y, Context&))          \
  /* relu: ref is y; the others: ref is x */                                                                           \
  X(activation_backward, (Activation, DType, int64_t n, const void* dy, const void* ref, double a, double b, void* dx, \
                          Context&))                                                                                   \
  /* weight: one value where shared, else C values */                                                                  \
  X(prelu_forward, (const NormShape&, const void* x, const void* weight, bool shared, void* y, Context&))              \
  X(prelu_backward, (const NormShape&, const void* dy, const void* x, const void* weight, bool shared, void* dx,       \
                     void* dw, Context&))

namespace cpu {

struct Ops {
  const char* isa;
#define FC_OP_FIELD(name, args) void(*name) args;
  FC_OPS(FC_OP_FIELD)
#undef FC_OP_FIELD
  // Operations a second, measured: of fused multiply-adds of float or (wide) double, a tile of sums with operands in L1, null
  // for a GPU; and of the processor's tiles of bfloat16 on data, null where there are none.
  double (*fma_peak)(int threads, bool wide) = nullptr;
  double (*tile_peak)(int threads) = nullptr;
};

}  // namespace cpu
}  // namespace fastconv
