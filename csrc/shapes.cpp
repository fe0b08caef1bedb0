#include "shapes.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "settings.h"

namespace fastconv {
namespace {

using std::int64_t;
using std::string;

// No array holds more bytes than this; products are checked against it so that later sums and offsets cannot wrap.
constexpr int64_t kMaxBytes = int64_t(1) << 62;

[[noreturn]] void fail(const string& message) { throw std::invalid_argument(message); }

string text(const int64_t* v, int n) {
  string s = "(";
  for (int i = 0; i < n; i++) s += (i ? ", " : "") + std::to_string(v[i]);
  return s + (n == 1 ? ",)" : ")");
}

int64_t multiply(int64_t a, int64_t b, const char* what) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r) || r > kMaxBytes || r < -kMaxBytes)
    fail(string(what) + ": the sizes " + std::to_string(a) + " and " + std::to_string(b) +
         " are too large, their product overflows the index range");
  return r;
}

int64_t add(int64_t a, int64_t b, const char* what) {
  int64_t r;
  if (__builtin_add_overflow(a, b, &r) || r > kMaxBytes || r < -kMaxBytes)
    fail(string(what) + ": the sizes " + std::to_string(a) + " and " + std::to_string(b) +
         " are too large, their sum overflows the index range");
  return r;
}

void require_at_least(const char* name, const int64_t* v, int nd, int64_t least) {
  for (int i = 0; i < nd; i++)
    if (v[i] < least)
      fail(string(name) + " must be " + (least == 0 ? "non-negative" : "at least " + std::to_string(least)) + ", got " +
           (nd == 1 ? std::to_string(v[i]) : text(v, nd)));
}

void require_space(const int64_t* x_shape, int nd) {
  for (int i = 0; i < nd; i++)
    if (x_shape[2 + i] < 1)
      fail("input must have non-empty spatial dimensions, got shape " + text(x_shape, nd + 2));
}

void require_kernel(const int64_t* w_shape, int nd) {
  for (int i = 0; i < nd + 2; i++)
    if (w_shape[i] < 1) fail("weight must have no empty dimension, got shape " + text(w_shape, nd + 2));
}

// Spatial arrays of nd entries go to the back of three; the front is filled with the neutral value.
void spread(int64_t* three, const int64_t* v, int nd, int64_t neutral) {
  for (int i = 0; i < 3; i++) three[i] = i < 3 - nd ? neutral : v[i - (3 - nd)];
}

// dilation * (kernel - 1) + 1
int64_t extent(int64_t kernel, int64_t dilation, const char* what) {
  return add(multiply(dilation, kernel - 1, what), 1, what);
}

// The step to a second window that does not exist may be near 2^63, and kernels multiply it for lanes that they mask
// later: one window gives the same results with any stride.
int64_t useful_stride(int64_t stride, int64_t windows, int64_t in) { return windows == 1 ? std::min(stride, in) : stride; }

// Positions within the padded input are multiplied by sizes and strides before they are compared with the borders.
void require_padded(int64_t padded) {
  constexpr int64_t most = int64_t(1) << 44;
  if (padded > most)
    fail("padding must leave a padded size of at most 2^44 in each dimension, got " + std::to_string(padded));
}

struct Pads {
  int64_t before, after;
};

// Of dimension d of three, of which the last nd count.
Pads pads_of(const Padding& padding, int nd, int d, int64_t in, int64_t window, int64_t stride) {
  if (padding.kind == Padding::valid) return {0, 0};
  if (padding.kind == Padding::same) {
    // ONNX SAME_UPPER, which is torch's "same" for stride 1: ceil(in / stride) outputs, the odd one out at the end.
    const int64_t outputs = (in - 1) / stride + 1;
    const int64_t needed = add(multiply(outputs - 1, stride, "stride"), window, "padding") - in;
    return needed > 0 ? Pads{needed / 2, needed - needed / 2} : Pads{0, 0};
  }
  const Pads pads = {padding.before[d - (3 - nd)], padding.after[d - (3 - nd)]};
  if (pads.before < 0 || pads.after < 0)
    fail("padding must be non-negative, got " + std::to_string(pads.before < 0 ? pads.before : pads.after));
  return pads;
}

ConvShape with_settings() {
  ConvShape s{};
  s.precision = float32_precision();
  s.algorithm = conv_algorithm();
  return s;
}

void check_sizes(const ConvShape& s) {
  const int64_t x[] = {s.N, s.C, s.in[0], s.in[1], s.in[2]};
  const int64_t w[] = {s.K, s.group_in(), s.kernel[0], s.kernel[1], s.kernel[2]};
  const int64_t y[] = {s.N, s.K, s.out[0], s.out[1], s.out[2]};
  checked_elements("input", x, 5);
  checked_elements("weight", w, 5);
  checked_elements("output", y, 5);
}

}  // namespace

int64_t checked_elements(const char* what, const int64_t* shape, int ndim) {
  int64_t product = 1, elements = 1;
  for (int i = 0; i < ndim; i++) {
    if (shape[i] < 0) fail(string(what) + ": sizes must be non-negative, got " + text(shape, ndim));
    product = multiply(product, shape[i] ? shape[i] : 1, what);
    elements *= shape[i];
  }
  multiply(product, 8, what);
  return elements;
}

ConvShape ConvShape::make(int nd, const int64_t* x_shape, const int64_t* w_shape, const int64_t* stride,
                          const Padding& padding, const int64_t* dilation, int64_t groups, DType dtype,
                          Layout layout) {
  require_at_least("stride", stride, nd, 1);
  require_at_least("dilation", dilation, nd, 1);
  if (groups < 1) fail("groups must be at least 1, got " + std::to_string(groups));
  require_kernel(w_shape, nd);
  checked_elements("input", x_shape, nd + 2);
  checked_elements("weight", w_shape, nd + 2);
  require_space(x_shape, nd);
  if (x_shape[1] % groups || x_shape[1] / groups != w_shape[1])
    fail("weight of shape " + text(w_shape, nd + 2) + " with groups=" + std::to_string(groups) +
         " needs an input of " + std::to_string(multiply(w_shape[1], groups, "groups")) + " channels, got input shape " +
         text(x_shape, nd + 2));
  if (w_shape[0] % groups)
    fail("weight must have a number of output channels divisible by groups=" + std::to_string(groups) + ", got shape " +
         text(w_shape, nd + 2));
  ConvShape s = with_settings();
  s.N = x_shape[0];
  s.C = x_shape[1];
  s.K = w_shape[0];
  s.G = groups;
  s.dtype = dtype;
  s.layout = layout;
  spread(s.in, x_shape + 2, nd, 1);
  spread(s.kernel, w_shape + 2, nd, 1);
  spread(s.stride, stride, nd, 1);
  spread(s.dilation, dilation, nd, 1);
  for (int d = 3 - nd; d < 3; d++) {
    const int64_t window = extent(s.kernel[d], s.dilation[d], "dilation");
    const auto [before, after] = pads_of(padding, nd, d, s.in[d], window, s.stride[d]);
    const int64_t padded = add(add(s.in[d], before, "padding"), after, "padding");
    if (padded < window)
      fail("kernel of extent " + std::to_string(window) + " (weight shape " + text(w_shape, nd + 2) + ", dilation " +
           std::to_string(s.dilation[d]) + ") does not fit the padded input of size " + std::to_string(padded));
    require_padded(padded);
    s.pad[d] = before;
    s.out[d] = (padded - window) / s.stride[d] + 1;
    s.stride[d] = useful_stride(s.stride[d], s.out[d], s.in[d]);
  }
  for (int d = 0; d < 3 - nd; d++) s.out[d] = 1;
  check_sizes(s);
  return s;
}

ConvShape ConvShape::make_transposed(int nd, const int64_t* x_shape, const int64_t* w_shape, const int64_t* stride,
                                     const Padding& padding, const int64_t* output_padding, int64_t groups,
                                     const int64_t* dilation, DType dtype, Layout layout) {
  require_at_least("stride", stride, nd, 1);
  require_at_least("dilation", dilation, nd, 1);
  require_at_least("output_padding", output_padding, nd, 0);
  if (groups < 1) fail("groups must be at least 1, got " + std::to_string(groups));
  if (padding.kind == Padding::same || padding.kind == Padding::valid)
    fail("padding of a transposed convolution must be given in numbers, got \"same\" or \"valid\"");
  require_kernel(w_shape, nd);
  checked_elements("input", x_shape, nd + 2);
  checked_elements("weight", w_shape, nd + 2);
  require_space(x_shape, nd);
  if (x_shape[1] != w_shape[0] || x_shape[1] % groups)
    fail("weight of shape " + text(w_shape, nd + 2) + " with groups=" + std::to_string(groups) +
         " needs an input of " + std::to_string(w_shape[0]) + " channels, divisible by groups, got input shape " +
         text(x_shape, nd + 2));
  ConvShape s = with_settings();
  s.N = x_shape[0];
  s.C = multiply(w_shape[1], groups, "groups");  // channels of the convolution's input: the transposed one's output
  s.K = x_shape[1];
  s.G = groups;
  s.dtype = dtype;
  s.layout = layout;
  spread(s.out, x_shape + 2, nd, 1);
  spread(s.kernel, w_shape + 2, nd, 1);
  spread(s.stride, stride, nd, 1);
  spread(s.dilation, dilation, nd, 1);
  for (int d = 0; d < 3 - nd; d++) s.in[d] = 1;
  for (int d = 3 - nd; d < 3; d++) {
    const int i = d - (3 - nd);
    const int64_t before = padding.before[i], after = padding.after[i], extra = output_padding[i];
    if (before < 0 || after < 0)
      fail("padding must be non-negative, got " + std::to_string(before < 0 ? before : after));
    if (extra >= s.stride[d] && extra >= s.dilation[d])
      fail("output_padding must be smaller than stride or dilation, got " + std::to_string(extra) + " with stride " +
           std::to_string(s.stride[d]) + " and dilation " + std::to_string(s.dilation[d]));
    const int64_t window = extent(s.kernel[d], s.dilation[d], "dilation");
    const int64_t full = add(add(multiply(s.out[d] - 1, s.stride[d], "stride"), window, "output"), extra, "output");
    const int64_t size = full - add(before, after, "padding");
    if (size < 1)
      fail("padding " + std::to_string(before) + " + " + std::to_string(after) +
           " leaves no output: a transposed convolution of this input gives " + std::to_string(full) +
           " values before it is cropped");
    require_padded(full);
    s.pad[d] = before;
    s.in[d] = size;
    s.stride[d] = useful_stride(s.stride[d], s.out[d], size);
  }
  check_sizes(s);
  return s;
}

ConvShape ConvShape::make_linear(int64_t rows, int64_t in_features, int64_t out_features, DType dtype) {
  ConvShape s = with_settings();
  s.N = rows ? 1 : 0;
  s.C = in_features;
  s.K = out_features;
  s.G = 1;
  s.linear = true;
  for (int d = 0; d < 3; d++) {
    s.in[d] = s.out[d] = d == 2 && rows ? rows : 1;
    s.kernel[d] = s.stride[d] = s.dilation[d] = 1;
  }
  s.dtype = dtype;
  s.layout = Layout::channels_last;
  check_sizes(s);
  return s;
}

PoolShape PoolShape::make(int nd, const int64_t* x_shape, const int64_t* kernel, const int64_t* stride,
                          const Padding& padding, const int64_t* dilation, bool ceil_mode, DType dtype,
                          Layout layout) {
  require_at_least("kernel_size", kernel, nd, 1);
  require_at_least("stride", stride, nd, 1);
  require_at_least("dilation", dilation, nd, 1);
  checked_elements("input", x_shape, nd + 2);
  checked_elements("kernel_size", kernel, nd);
  require_space(x_shape, nd);
  if (x_shape[1] < 1) fail("input must have at least one channel, got shape " + text(x_shape, nd + 2));
  PoolShape s{};
  s.N = x_shape[0];
  s.C = x_shape[1];
  s.ceil_mode = ceil_mode;
  s.dtype = dtype;
  s.layout = layout;
  spread(s.in, x_shape + 2, nd, 1);
  spread(s.kernel, kernel, nd, 1);
  spread(s.stride, stride, nd, 1);
  spread(s.dilation, dilation, nd, 1);
  for (int d = 0; d < 3 - nd; d++) s.out[d] = 1;
  for (int d = 3 - nd; d < 3; d++) {
    const int64_t window = extent(s.kernel[d], s.dilation[d], "dilation");
    const auto [before, after] = pads_of(padding, nd, d, s.in[d], window, s.stride[d]);
    const int64_t larger = std::max(before, after);
    if (padding.kind == Padding::numbers && larger > s.kernel[d] / 2)
      fail("padding must be at most half of kernel_size, got padding " + std::to_string(larger) + " with kernel_size " +
           std::to_string(s.kernel[d]));
    if (larger >= window)
      fail("padding must be smaller than the window, dilation * (kernel_size - 1) + 1 = " + std::to_string(window) +
           ", got " + std::to_string(larger));
    const int64_t padded = add(add(s.in[d], before, "padding"), after, "padding");
    const int64_t room = add(padded, -window, "kernel_size");
    int64_t out = room < 0 ? 0 : room / s.stride[d] + 1;
    if (ceil_mode) {
      // One more window where the stride does not divide, unless it would start in the padding behind the input.
      const int64_t up =
          room < 0 ? (room + s.stride[d] > 0 ? 1 : 0) : room / s.stride[d] + (room % s.stride[d] != 0) + 1;
      out = up > 0 && (up - 1) * s.stride[d] >= s.in[d] + before ? up - 1 : up;
    }
    if (out < 1)
      fail("kernel_size of extent " + std::to_string(window) + " does not fit the padded input of size " +
           std::to_string(padded) + " (input shape " + text(x_shape, nd + 2) + ")");
    s.pad[d] = before;
    s.pad_after[d] = after;
    s.out[d] = out;
    s.stride[d] = useful_stride(s.stride[d], out, s.in[d]);
  }
  const int64_t y[] = {s.N, s.C, s.out[0], s.out[1], s.out[2]};
  checked_elements("output", y, 5);
  return s;
}

PoolShape PoolShape::make_adaptive(int nd, const int64_t* x_shape, const int64_t* output_size, DType dtype,
                                   Layout layout) {
  require_at_least("output_size", output_size, nd, 0);
  checked_elements("input", x_shape, nd + 2);
  require_space(x_shape, nd);
  PoolShape s{};
  s.N = x_shape[0];
  s.C = x_shape[1];
  s.dtype = dtype;
  s.layout = layout;
  spread(s.in, x_shape + 2, nd, 1);
  spread(s.out, output_size, nd, 1);
  for (int d = 0; d < 3; d++) {
    s.kernel[d] = s.stride[d] = s.dilation[d] = 1;
    // floor(i * in / out) is computed in 64 bits.
    multiply(s.in[d], s.out[d], "output_size");
  }
  const int64_t y[] = {s.N, s.C, s.out[0], s.out[1], s.out[2]};
  checked_elements("output", y, 5);
  return s;
}

}  // namespace fastconv
