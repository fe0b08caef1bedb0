// Shape objects: the only numbers a kernel sees.
//
// Every object is built by its make() (shapes.cpp), which checks all sizes in 64-bit arithmetic that cannot wrap and
// throws std::invalid_argument (a ValueError in Python) naming the argument, the value and the rule. Forward and
// backward use the same make(), so no kernel ever meets an unvalidated number.
//
// Space is always three-dimensional: a 1-D problem has D = H = 1, a 2-D problem has D = 1. Letters:
//   input N C D H W, kernel (K, C/G) T R S, output N K O P Q; per-dimension arrays are ordered (depth, height, width).
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastconv {

enum class DType : std::uint8_t { f32, f64, f16, bf16 };
enum class Layout : std::uint8_t { channels_first, channels_last };

// How exactly float32 products are computed: fastconv.set_float32_precision. A kernel may be more exact than asked.
enum class Precision : std::uint8_t { highest, high, medium };
constexpr const char* kPrecisionNames[] = {"highest", "high", "medium"};

// How a convolution is computed; `automatic` leaves it to the rule in cpu/conv_select.cpp.
enum class ConvAlgorithm : std::uint8_t {
  automatic, direct, pointwise, narrow, depthwise, tap_products, winograd_2x2, winograd_3x3,
  winograd_4x4, amx, bfloat16_dots
};
constexpr const char* kConvAlgorithmNames[] = {
    "", "direct", "pointwise", "narrow", "depthwise", "tap_products", "winograd_2x2", "winograd_3x3", "winograd_4x4",
    "amx", "bfloat16_dots"};
constexpr int kConvAlgorithms = int(sizeof(kConvAlgorithmNames) / sizeof(*kConvAlgorithmNames));

// Outputs of a tile along each side, of Winograd's algorithms; 0: another one.
constexpr int winograd_tile(ConvAlgorithm a) {
  return a == ConvAlgorithm::winograd_2x2 ? 2 : a == ConvAlgorithm::winograd_3x3 ? 3 : a == ConvAlgorithm::winograd_4x4 ? 4 : 0;
}

inline std::size_t item_size(DType t) { return t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2; }

// What the caller asked of padding, before the sizes are known.
struct Padding {
  enum Kind : std::uint8_t { numbers, pairs, same, valid } kind = numbers;  // numbers: the same before and after
  std::int64_t before[3] = {0, 0, 0};
  std::int64_t after[3] = {0, 0, 0};
};

struct ConvShape {
  std::int64_t N, C, K, G;      // batch, input channels, output channels, groups (C and K count all groups)
  std::int64_t in[3];           // D H W
  std::int64_t kernel[3];       // T R S
  std::int64_t out[3];          // O P Q
  std::int64_t stride[3], pad[3], dilation[3];  // pad: before; what lies behind the input is zero by its size
  DType dtype;
  Layout layout;                // of input and output alike; weights are always contiguous (K, C/G, T, R, S)
  Precision precision;          // both from settings.h, when the call is made
  ConvAlgorithm algorithm;
  bool linear = false;          // pixels are the rows of a matrix: a batch of any size

  std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  std::int64_t in_space() const { return in[0] * in[1] * in[2]; }
  std::int64_t out_space() const { return out[0] * out[1] * out[2]; }
  std::int64_t group_in() const { return C / G; }
  std::int64_t group_out() const { return K / G; }
  bool depthwise() const { return G == C && G > 1; }  // one input channel a group, any multiplier K/G
  double flops() const {
    return 2.0 * double(N) * double(K) * double(out_space()) * double(group_in()) * double(taps());
  }

  // x_shape: N C spatial..., w_shape: K C/G kernel...; nd spatial dimensions in both.
  static ConvShape make(int nd, const std::int64_t* x_shape, const std::int64_t* w_shape, const std::int64_t* stride,
                        const Padding& padding, const std::int64_t* dilation, std::int64_t groups, DType dtype,
                        Layout layout);
  // The convolution whose input gradient is this transposed convolution: x_shape N C spatial..., w_shape C K/G kernel....
  static ConvShape make_transposed(int nd, const std::int64_t* x_shape, const std::int64_t* w_shape,
                                   const std::int64_t* stride, const Padding& padding,
                                   const std::int64_t* output_padding, std::int64_t groups,
                                   const std::int64_t* dilation, DType dtype, Layout layout);
  // y[m, k] = sum_c x[m, c] w[k, c] as a 1x1 convolution over one channels-last row of `rows` pixels.
  static ConvShape make_linear(std::int64_t rows, std::int64_t in_features, std::int64_t out_features, DType dtype);
};

struct PoolShape {
  std::int64_t N, C;
  std::int64_t in[3], kernel[3], out[3];        // adaptive pooling leaves kernel, stride, pad, dilation at 1, 1, 0, 1
  std::int64_t stride[3], pad[3], dilation[3];  // pad: before the input
  std::int64_t pad_after[3];
  bool ceil_mode, count_include_pad;
  std::int64_t divisor_override;                // 0: none
  double norm_type;                             // Lp pooling
  DType dtype;
  Layout layout;

  std::int64_t in_space() const { return in[0] * in[1] * in[2]; }
  std::int64_t out_space() const { return out[0] * out[1] * out[2]; }

  // torch's rule: the last window must start inside the input or the padding before it. Padding by numbers is at most
  // kernel / 2, as in torch; by pairs it is smaller than the window, so that every window reaches the input.
  static PoolShape make(int nd, const std::int64_t* x_shape, const std::int64_t* kernel, const std::int64_t* stride,
                        const Padding& padding, const std::int64_t* dilation, bool ceil_mode, DType dtype,
                        Layout layout);
  // Window of output i along one dimension: floor(i * in / out) up to ceil((i + 1) * in / out).
  static PoolShape make_adaptive(int nd, const std::int64_t* x_shape, const std::int64_t* output_size, DType dtype,
                                 Layout layout);
};

// N C M with M the product of all spatial sizes.
struct NormShape {
  std::int64_t N, C, M;
  DType dtype;         // of x, y, dx, dy
  DType param_dtype;   // of weight, bias, running statistics and their gradients: dtype, or f32 beside f16 / bf16
  Layout layout;
};

// Throws std::invalid_argument where the product of the sizes (zeros counted as one) overflows memory's index range.
std::int64_t checked_elements(const char* what, const std::int64_t* shape, int ndim);

}  // namespace fastconv
