// Convolution, transposed convolution and linear layers: arrays and parameters in, one kernel call, arrays out.
#include <algorithm>
#include <cstring>
#include <string>

#include "array_library.h"
#include "bind.h"
#include "cpu/conv_chain.h"
#include "threads.h"

namespace fastconv {
namespace {

using std::int64_t;

// Stride, padding, dilation, groups of a call, as the shape objects want them.
struct ConvParameters {
  int nd = 2;
  int64_t stride[3], dilation[3], output_padding[3] = {0, 0, 0}, groups = 1;
  Padding padding;
};

ConvParameters parameters(py::handle stride, py::handle padding, py::handle dilation, py::handle groups, int nd) {
  if (nd < 1 || nd > 3) throw py::value_error("nd must be 1, 2 or 3, got " + std::to_string(nd));
  ConvParameters p;
  p.nd = nd;
  take_ints("stride", stride, nd, p.stride);
  p.padding = take_padding(padding, nd);
  take_ints("dilation", dilation, nd, p.dilation);
  p.groups = take_int("groups", groups);
  return p;
}

// (out channels, in channels / groups, kernel...) in C order.
Array take_weight(const char* name, py::handle object, int nd, DType dtype) {
  Array w = take_dense(name, object);
  require_dtype(name, w, dtype);
  if (w.ndim != nd + 2)
    throw py::value_error(std::string(name) + " must have " + std::to_string(nd + 2) + " dimensions, got shape " +
                          shape_text(w.shape, w.ndim));
  return w;
}

Array take_bias(py::handle object, int64_t channels, DType dtype) {
  Array b;
  if (object.is_none()) return b;
  b = take_dense("bias", object);
  require_dtype("bias", b, dtype);
  if (b.ndim != 1 || b.shape[0] != channels)
    throw py::value_error("bias must have shape (" + std::to_string(channels) + ",), got " +
                          shape_text(b.shape, b.ndim));
  return b;
}

ConvShape shape_of(const ConvParameters& p, bool transposed, const int64_t* x_shape, const int64_t* w_shape,
                   DType dtype, Layout layout) {
  return transposed ? ConvShape::make_transposed(p.nd, x_shape, w_shape, p.stride, p.padding, p.output_padding,
                                                 p.groups, p.dilation, dtype, layout)
                    : ConvShape::make(p.nd, x_shape, w_shape, p.stride, p.padding, p.dilation, p.groups, dtype, layout);
}

// Shape of a function's output: N and the channels and space of its side of the convolution.
void output_shape(const ConvShape& s, bool transposed, int nd, int64_t* shape) {
  shape[0] = s.N;
  shape[1] = transposed ? s.C : s.K;
  for (int i = 0; i < nd; i++) shape[2 + i] = (transposed ? s.in : s.out)[3 - nd + i];
}

double work(const ConvShape& s) { return s.flops() / 64 + double(s.N) * double(s.C * s.in_space() + s.K * s.out_space()); }

// A filter as large as the image, its padding none: one output pixel an image.
bool whole_image(const ConvShape& s) {
  bool whole = s.G == 1 && s.taps() > 1;
  for (int d = 0; d < 3; d++)
    whole = whole && s.out[d] == 1 && s.pad[d] == 0 && s.kernel[d] == s.in[d] && (s.dilation[d] == 1 || s.in[d] == 1);
  return whole;
}

// The layer of (channel, tap) features that its input gradient is a product with.
ConvShape whole_image_layer(const ConvShape& s, int64_t images) {
  return ConvShape::make_linear(images, s.C * s.taps(), s.K, s.dtype);
}

// Most bytes of channels-first gradients that wait to be copied to a channels-last array.
constexpr int64_t kWholeImageBytes = int64_t(8) << 20;

// The input gradient of such a filter, and the transposed convolution of single pixels that generators begin with. The
// kernels of convolutions go through all taps for each position, and all taps but one meet the zeros around dy.
void whole_image_gradient(const ConvShape& s, const Array& dy, const Array& w, const Array& b, const Array& dx) {
  const int64_t features = s.C * s.taps(), item = int64_t(item_size(s.dtype));
  Array bias;
  if (b) {
    const int64_t shape[2] = {s.C, s.taps()};
    bias = new_dense(s.dtype, 2, shape);
    copy_elements(bias.owner, b.owner.attr("reshape")(s.C, 1));
  }
  const auto product = [&](int64_t first, int64_t images, void* to) {
    const ConvShape layer = whole_image_layer(s, images);
    const char* from = static_cast<const char*>(dy.data) + first * s.K * item;
    run_kernel(work(layer), [&](Context& ctx) {
      cpu::active().conv_backward_input(layer, from, w.data, bias.data, to, ctx);
    });
  };
  if (s.layout == Layout::channels_first || s.C == 1) return product(0, s.N, dx.data);
  const int64_t most = std::max<int64_t>(1, kWholeImageBytes / (features * item));
  for (int64_t n = 0; n < s.N; n += most) {
    const int64_t images = std::min(most, s.N - n);
    int64_t shape[5] = {images, s.C};
    std::copy(s.in, s.in + 3, shape + 2);
    const Array first = new_dense(s.dtype, 5, shape);
    product(n, images, first.data);
    const py::object to = dx.unbatched ? dx.owner : py::object(dx.owner[py::slice(n, n + images, 1)]);
    copy_elements(to, first.owner.attr("reshape")(to.attr("shape")));
  }
}

void input_gradient(const ConvShape& s, const Array& dy, const Array& w, const Array& b, const Array& dx) {
  if (!s.N) return;
  if (whole_image(s)) return whole_image_gradient(s, dy, w, b, dx);
  run_kernel(work(s), [&](Context& ctx) {
    cpu::active().conv_backward_input(s, dy.data, w.data, b.data, dx.data, ctx);
  });
}

// An epilogue that limits results.
Epilogue take_limits(py::handle low, py::handle high) {
  Epilogue e;
  e.low = take_real("low", low) + 0.0;  // -0 is 0
  e.high = take_real("high", high);
  if (e.low > e.high)
    throw py::value_error("low must not be above high, got low=" + std::string(py::str(low)) +
                          " and high=" + std::string(py::str(high)));
  return e;
}

// An array that is added to an output like y.
Array take_added(py::handle object, const Array& y, int nd) {
  if (object.is_none()) return Array();
  const Array add = take_image("add", object, nd, &y.layout);
  require_dtype("add", add, y.dtype);
  require_shape("add", add, y.shape, nd + 2, y.unbatched);
  return add;
}

py::object forward(const ConvParameters& p, py::handle x_object, py::handle w_object, py::handle b_object,
                   py::handle add_object, py::handle low, py::handle high) {
  const Array x = take_image("input", x_object, p.nd);
  const Array w = take_weight("weight", w_object, p.nd, x.dtype);
  const ConvShape s = shape_of(p, false, x.shape, w.shape, x.dtype, x.layout);
  const Array b = take_bias(b_object, s.K, x.dtype);
  const Array y = new_image(x.dtype, p.nd, s.N, s.K, s.out, x.layout, x.unbatched);
  Epilogue epilogue = take_limits(low, high);
  const Array add = take_added(add_object, y, p.nd);
  epilogue.add = add.data;
  if (s.N)
    run_kernel(work(s), [&](Context& ctx) {
      cpu::active().conv_forward(s, x.data, w.data, b.data, epilogue, y.data, ctx);
    }, packed_weight_of(w));
  return y.owner;
}

// One (w, b, stride, padding, dilation, groups, low, high) of a chain, and the shape of what it gives.
struct ChainStage : ConvStage {
  Array owned_w, owned_b;

  void take(py::handle object, int nd, DType dtype, Layout layout, int64_t* image_shape) {
    if (!py::isinstance<py::tuple>(object) || py::len(object) != 8)
      throw py::type_error("stages must hold tuples (w, b, stride, padding, dilation, groups, low, high), got " +
                           std::string(py::str(py::type::of(object))));
    const py::tuple t = py::reinterpret_borrow<py::tuple>(object);
    owned_w = take_weight("weight", t[0], nd, dtype);
    shape = shape_of(parameters(t[2], t[3], t[4], t[5], nd), false, image_shape, owned_w.shape, dtype, layout);
    owned_b = take_bias(t[1], shape.K, dtype);
    w = owned_w.data;
    b = owned_b.data;
    epilogue = take_limits(t[6], t[7]);
    weight = packed_weight_of(owned_w);
    output_shape(shape, false, nd, image_shape);
  }
};

// Convolutions in a row; `add_object` is added to the last one's results before they are limited.
py::object chain_forward(py::handle x_object, py::handle stages_object, int nd, py::handle add_object) {
  parameters(py::int_(1), py::int_(0), py::int_(1), py::int_(1), nd);  // the rule for nd
  const Array x = take_image("input", x_object, nd);
  if (!py::isinstance<py::list>(stages_object) && !py::isinstance<py::tuple>(stages_object))
    throw py::type_error("stages must be a list, got " + std::string(py::str(py::type::of(stages_object))));
  const py::sequence list = py::reinterpret_borrow<py::sequence>(stages_object);
  const std::size_t given = list.size();
  if (given < 1 || given > kMostStages)
    throw py::value_error("stages must have 1 to " + std::to_string(kMostStages) + " entries, got " +
                          std::to_string(given));
  const int count = int(given);
  ChainStage taken[kMostStages];
  ConvStage stages[kMostStages];
  int64_t shape[5];
  std::copy(x.shape, x.shape + nd + 2, shape);
  for (int i = 0; i < count; i++) {
    taken[i].take(py::object(list[std::size_t(i)]), nd, x.dtype, x.layout, shape);
    stages[i] = taken[i];
  }
  const auto image_of = [&](const ConvShape& s) {
    return new_image(x.dtype, nd, s.N, s.K, s.out, x.layout, x.unbatched);
  };
  ConvStage& last = stages[count - 1];
  const Array y = image_of(last.shape);
  const Array add = take_added(add_object, y, nd);
  last.epilogue.add = add.data;
  if (!last.shape.N) return y.owner;
#ifndef FC_CUDA
  bool done = false;
  double all = 0;
  for (int i = 0; i < count; i++) all += work(stages[i].shape);
  if (count > 1)
    run_kernel(all, [&](Context& ctx) { done = cpu::chain_in_bands(stages, count, x.data, y.data, ctx); });
  if (done) return y.owner;
#endif
  Array from = x;
  for (int i = 0; i < count; i++) {
    const ConvStage& stage = stages[i];
    const Array to = i + 1 < count ? image_of(stage.shape) : y;
    run_kernel(work(stage.shape), [&](Context& ctx) {
      cpu::active().conv_forward(stage.shape, from.data, stage.w, stage.b, stage.epilogue, to.data, ctx);
    }, stage.weight);
    from = to;
  }
  return y.owner;
}

py::object transposed_forward(const ConvParameters& p, py::handle x_object, py::handle w_object, py::handle b_object) {
  const Array x = take_image("input", x_object, p.nd);
  const Array w = take_weight("weight", w_object, p.nd, x.dtype);
  const ConvShape s = shape_of(p, true, x.shape, w.shape, x.dtype, x.layout);
  const Array b = take_bias(b_object, s.C, x.dtype);
  const Array y = new_image(x.dtype, p.nd, s.N, s.C, s.in, x.layout, x.unbatched);
  input_gradient(s, x, w, b, y);
  return y.owner;
}

// Full shape with the batch dimension; where the caller left it out, it is 1.
bool take_batched_shape(const char* name, py::handle object, int nd, int64_t* shape) {
  int64_t given[5];
  const int n = take_shape(name, object, given, nd + 1, nd + 2);
  const bool unbatched = n == nd + 1;
  shape[0] = 1;
  std::memcpy(shape + (unbatched ? 1 : 0), given, sizeof(int64_t) * std::size_t(n));
  return unbatched;
}

py::object backward_input(const ConvParameters& p, bool transposed, py::handle dy_object, py::handle w_object,
                          py::handle x_shape_object) {
  const Array dy = take_image("dy", dy_object, p.nd);
  const Array w = take_weight("weight", w_object, p.nd, dy.dtype);
  int64_t x_shape[5], y_shape[5];
  const bool unbatched = take_batched_shape("x_shape", x_shape_object, p.nd, x_shape);
  const ConvShape s = shape_of(p, transposed, x_shape, w.shape, dy.dtype, dy.layout);
  output_shape(s, transposed, p.nd, y_shape);
  require_shape("dy", dy, y_shape, p.nd + 2, unbatched);
  const Array dx = new_image(dy.dtype, p.nd, s.N, transposed ? s.K : s.C, transposed ? s.out : s.in, dy.layout, unbatched);
  if (!transposed) input_gradient(s, dy, w, Array(), dx);
  else if (s.N)
    run_kernel(work(s), [&](Context& ctx) {
      cpu::active().conv_forward(s, dy.data, w.data, nullptr, Epilogue(), dx.data, ctx);
    });
  return dx.owner;
}

py::object backward_weight(const ConvParameters& p, bool transposed, py::handle dy_object, py::handle x_object,
                           py::handle w_shape_object) {
  Array x = take_image("input", x_object, p.nd), dy = take_image("dy", dy_object, p.nd);
  // In one format: the smaller array is copied, or one channel seen as the plane that it is in both.
  if (dy.layout != x.layout && dy.size() > x.size()) x = take_image("input", x_object, p.nd, &dy.layout);
  if (dy.layout != x.layout) dy = take_image("dy", dy_object, p.nd, &x.layout);
  require_dtype("dy", dy, x.dtype);
  int64_t w_shape[5], y_shape[5];
  take_shape("w_shape", w_shape_object, w_shape, p.nd + 2, p.nd + 2);
  const ConvShape s = shape_of(p, transposed, x.shape, w_shape, x.dtype, x.layout);
  output_shape(s, transposed, p.nd, y_shape);
  require_shape("dy", dy, y_shape, p.nd + 2, x.unbatched);
  const Array dw = new_dense(x.dtype, p.nd + 2, w_shape);
  if (!s.N) {
    zero_elements(dw);
  } else {
    // The transposed convolution's input is the output side of the convolution it transposes.
    run_kernel(work(s), [&](Context& ctx) {
      cpu::active().conv_backward_weight(s, transposed ? x.data : dy.data, transposed ? dy.data : x.data, dw.data, ctx);
    });
  }
  return dw.owner;
}

py::object sum_channels(int64_t n, int64_t c, int64_t m, const Array& dy) {
  const Array db = new_dense(dy.dtype, 1, &c);
  const NormShape s{n, c, m, dy.dtype, dy.dtype, dy.layout};
  if (n * m == 0) zero_elements(db);
  else run_kernel(double(n * c * m), [&](Context& ctx) { cpu::active().channel_sum(s, dy.data, db.data, ctx); });
  return db.owner;
}

py::object backward_bias(py::handle dy_object, int nd) {
  if (nd < 1 || nd > 3) throw py::value_error("nd must be 1, 2 or 3, got " + std::to_string(nd));
  const Array dy = take_image("dy", dy_object, nd);
  int64_t space = 1;
  for (int i = 0; i < nd; i++) space *= dy.shape[2 + i];
  return sum_channels(dy.shape[0], dy.shape[1], space, dy);
}

// ---- linear: rows x in -> rows x out, any leading shape ------------------------------------------------------------

int64_t leading(const Array& a) {
  int64_t n = 1;
  for (int i = 0; i + 1 < a.ndim; i++) n *= a.shape[i];
  return n;
}

Array take_linear_weight(py::handle object, DType dtype) {
  Array w = take_dense("weight", object);
  require_dtype("weight", w, dtype);
  if (w.ndim != 1 && w.ndim != 2)
    throw py::value_error("weight must have shape (out_features, in_features) or (in_features,), got " +
                          shape_text(w.shape, w.ndim));
  return w;
}

Array take_rows(const char* name, py::handle object) {
  Array a = take_dense(name, object);
  if (a.ndim < 1) throw py::value_error(std::string(name) + " must have at least one dimension, got a 0-d array");
  return a;
}

// The last dimension of `shape` becomes `features`, or goes where the weight is a vector.
Array new_rows(const Array& like, int lead, int64_t features, bool vector) {
  int64_t shape[kMaxDims];
  std::memcpy(shape, like.shape, sizeof(int64_t) * std::size_t(lead));
  shape[lead] = features;
  return new_dense(like.dtype, vector ? lead : lead + 1, shape);
}

py::object linear_forward(py::handle x_object, py::handle w_object, py::handle b_object) {
  const Array x = take_rows("input", x_object);
  const Array w = take_linear_weight(w_object, x.dtype);
  const bool vector = w.ndim == 1;
  const int64_t in = w.shape[w.ndim - 1], out = vector ? 1 : w.shape[0], rows = leading(x);
  if (x.shape[x.ndim - 1] != in)
    throw py::value_error("input must have " + std::to_string(in) + " features in its last dimension for weight of shape " +
                          shape_text(w.shape, w.ndim) + ", got shape " + shape_text(x.shape, x.ndim));
  Array b;
  if (vector && !b_object.is_none()) {
    b = take_dense("bias", b_object);
    require_dtype("bias", b, x.dtype);
    if (b.size() != 1 || b.ndim > 1)
      throw py::value_error("bias must be one value for a weight vector, got shape " + shape_text(b.shape, b.ndim));
  } else {
    b = take_bias(b_object, out, x.dtype);
  }
  const Array y = new_rows(x, x.ndim - 1, out, vector);
  if (rows * out == 0) return y.owner;
  if (in == 0) {
    // An empty sum: the bias alone.
    if (!b) zero_elements(y);
    else copy_elements(y.owner, vector ? b.owner.attr("reshape")(py::tuple()) : b.owner);
    return y.owner;
  }
  const ConvShape s = ConvShape::make_linear(rows, in, out, x.dtype);
  run_kernel(work(s), [&](Context& ctx) {
    cpu::active().conv_forward(s, x.data, w.data, b.data, Epilogue(), y.data, ctx);
  }, packed_weight_of(w));
  return y.owner;
}

void require_rows(const Array& dy, int lead, const int64_t* shape, int64_t features, bool vector) {
  int64_t wanted[kMaxDims];
  std::memcpy(wanted, shape, sizeof(int64_t) * std::size_t(lead));
  wanted[lead] = features;
  require_shape("dy", dy, wanted, vector ? lead : lead + 1, false);
}

py::object linear_backward_input(py::handle dy_object, py::handle w_object) {
  const Array dy = take_dense("dy", dy_object);
  const Array w = take_linear_weight(w_object, dy.dtype);
  const bool vector = w.ndim == 1;
  const int64_t in = w.shape[w.ndim - 1], out = vector ? 1 : w.shape[0];
  const int lead = vector ? dy.ndim : dy.ndim - 1;
  if (lead < 0) throw py::value_error("dy must have at least one dimension, got a 0-d array");
  require_rows(dy, lead, dy.shape, out, vector);
  const Array dx = new_rows(dy, lead, in, false);
  const int64_t rows = out ? dy.size() / out : 0;
  if (dx.size() == 0) return dx.owner;
  if (rows * out == 0) {
    zero_elements(dx);
    return dx.owner;
  }
  const ConvShape s = ConvShape::make_linear(rows, in, out, dy.dtype);
  run_kernel(work(s), [&](Context& ctx) { cpu::active().conv_backward_input(s, dy.data, w.data, nullptr, dx.data, ctx); });
  return dx.owner;
}

// vector: the layer's weight is (in_features,) and dy has no feature dimension.
py::object linear_backward_weight(py::handle dy_object, py::handle x_object) {
  const Array x = take_rows("input", x_object);
  const Array dy = take_dense("dy", dy_object);
  require_dtype("dy", dy, x.dtype);
  const bool vector = dy.ndim == x.ndim - 1;
  const int64_t in = x.shape[x.ndim - 1], out = vector || dy.ndim == 0 ? 1 : dy.shape[dy.ndim - 1], rows = leading(x);
  require_rows(dy, x.ndim - 1, x.shape, out, vector);
  const int64_t shape[2] = {out, in};
  const Array dw = new_dense(x.dtype, vector ? 1 : 2, vector ? shape + 1 : shape);
  if (dw.size() == 0) return dw.owner;
  if (rows == 0) {
    zero_elements(dw);
    return dw.owner;
  }
  const ConvShape s = ConvShape::make_linear(rows, in, out, x.dtype);
  run_kernel(work(s), [&](Context& ctx) { cpu::active().conv_backward_weight(s, dy.data, x.data, dw.data, ctx); });
  return dw.owner;
}

py::object linear_backward_bias(py::handle dy_object) {
  Array dy = take_rows("dy", dy_object);
  dy.layout = Layout::channels_last;
  return sum_channels(leading(dy), dy.shape[dy.ndim - 1], 1, dy);
}

// ---- frozen weights -------------------------------------------------------------------------------------------------

py::object pack_weight(py::handle w_object) {
  const Array w = take_dense("weight", w_object);
  if (w.ndim < 1 || w.ndim > 5)
    throw py::value_error("weight must have 1 to 5 dimensions, got shape " + shape_text(w.shape, w.ndim));
  return frozen_copy(w);
}

std::size_t packed_bytes(py::handle w_object) {
  const PackedWeight* weight = packed_weight_of(take_dense("weight", w_object));
  return weight ? weight->bytes() : 0;
}

// ---- what explain() asks -------------------------------------------------------------------------------------------

DType dtype_from(const std::string& name) {
  for (const DType t : {DType::f32, DType::f64, DType::f16, DType::bf16})
    if (name == dtype_name(t)) return t;
  throw py::type_error("dtype must be float32, float64, float16 or bfloat16, got " + name);
}

py::dict plan(const std::string& op, py::handle x_shape_object, py::handle w_shape_object, py::handle stride,
              py::handle padding, py::handle dilation, py::handle groups, const std::string& dtype, bool channels_last) {
  int64_t w_shape[5], x_shape[5], out[5];
  const int nd = take_shape("w_shape", w_shape_object, w_shape, 3, 5) - 2;
  const ConvParameters p = parameters(stride, padding, dilation, groups, nd);
  take_batched_shape("x_shape", x_shape_object, nd, x_shape);
  const bool transposed = op.rfind("conv_transpose_", 0) == 0;
  const std::string kind = transposed ? op.substr(15) : op.rfind("conv_", 0) == 0 ? op.substr(5) : "";
  ConvOp which;
  if (kind == "forward") which = transposed ? ConvOp::backward_input : ConvOp::forward;
  else if (kind == "backward_input") which = transposed ? ConvOp::forward : ConvOp::backward_input;
  else if (kind == "backward_weight") which = ConvOp::backward_weight;
  else throw py::value_error("op must be conv_forward, conv_backward_input, conv_backward_weight or their conv_transpose_ twins, got '" + op + "'");
  const ConvShape s = shape_of(p, transposed, x_shape, w_shape, dtype_from(dtype),
                               channels_last ? Layout::channels_last : Layout::channels_first);
  output_shape(s, transposed, nd, out);
  ConvPlan c{};
  const bool whole = which == ConvOp::backward_input && s.N && whole_image(s);
  cpu::active().conv_plan(whole ? whole_image_layer(s, s.N) : s, which, thread_count(), &c);
  if (whole) c.why = "a filter as large as the image: a matrix product over the output channels";
  py::list shape;
  for (int i = 0; i < nd + 2; i++) shape.append(out[i]);
  py::dict d;
  const auto name = [](ConvAlgorithm a) { return std::string(kConvAlgorithmNames[int(a)]); };
  py::dict others;
  for (int i = 0; i < c.others; i++) others[name(c.other[i].algorithm).c_str()] = std::string(c.other[i].why_not);
  d["algorithm"] = name(c.algorithm);
  d["kernel"] = std::string(c.kernel);
  d["why"] = std::string(c.why);
  d["others"] = others;
  d["workspace"] = c.workspace;
  d["output_shape"] = py::tuple(shape);
  d["flops"] = s.flops();
  d["isa"] = std::string(cpu::active().isa);
  return d;
}

}  // namespace

void bind_conv(py::module_& m) {
  using py::arg;
  using H = py::handle;
  m.def("conv_forward",
        [](H x, H w, H b, H stride, H padding, H dilation, H groups, int nd, H add, H low, H high) {
          return forward(parameters(stride, padding, dilation, groups, nd), x, w, b, add, low, high);
        },
        arg("x"), arg("w"), arg("b"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"), arg("nd"),
        arg("add") = py::none(), arg("low") = -HUGE_VAL, arg("high") = HUGE_VAL);
  m.def("conv_chain_forward", chain_forward, arg("x"), arg("stages"), arg("nd"), arg("add") = py::none());
  m.def("conv_backward_input",
        [](H dy, H w, H x_shape, H stride, H padding, H dilation, H groups, int nd) {
          return backward_input(parameters(stride, padding, dilation, groups, nd), false, dy, w, x_shape);
        },
        arg("dy"), arg("w"), arg("x_shape"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"), arg("nd"));
  m.def("conv_backward_weight",
        [](H dy, H x, H w_shape, H stride, H padding, H dilation, H groups, int nd) {
          return backward_weight(parameters(stride, padding, dilation, groups, nd), false, dy, x, w_shape);
        },
        arg("dy"), arg("x"), arg("w_shape"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"), arg("nd"));
  m.def("pack_weight", pack_weight, arg("weight"));
  m.def("packed_bytes", packed_bytes, arg("weight"));
  m.def("conv_backward_bias", backward_bias, arg("dy"), arg("nd"));

  const auto transposed = [](H stride, H padding, H output_padding, H groups, H dilation, int nd) {
    ConvParameters p = parameters(stride, padding, dilation, groups, nd);
    take_ints("output_padding", output_padding, nd, p.output_padding);
    return p;
  };
  m.def("conv_transpose_forward",
        [=](H x, H w, H b, H stride, H padding, H output_padding, H groups, H dilation, int nd) {
          return transposed_forward(transposed(stride, padding, output_padding, groups, dilation, nd), x, w, b);
        },
        arg("x"), arg("w"), arg("b"), arg("stride"), arg("padding"), arg("output_padding"), arg("groups"),
        arg("dilation"), arg("nd"));
  m.def("conv_transpose_backward_input",
        [=](H dy, H w, H x_shape, H stride, H padding, H output_padding, H groups, H dilation, int nd) {
          return backward_input(transposed(stride, padding, output_padding, groups, dilation, nd), true, dy, w, x_shape);
        },
        arg("dy"), arg("w"), arg("x_shape"), arg("stride"), arg("padding"), arg("output_padding"), arg("groups"),
        arg("dilation"), arg("nd"));
  m.def("conv_transpose_backward_weight",
        [=](H dy, H x, H w_shape, H stride, H padding, H output_padding, H groups, H dilation, int nd) {
          return backward_weight(transposed(stride, padding, output_padding, groups, dilation, nd), true, dy, x, w_shape);
        },
        arg("dy"), arg("x"), arg("w_shape"), arg("stride"), arg("padding"), arg("output_padding"), arg("groups"),
        arg("dilation"), arg("nd"));

  m.def("linear_forward", linear_forward, arg("x"), arg("w"), arg("b"));
  m.def("linear_backward_input", linear_backward_input, arg("dy"), arg("w"));
  m.def("linear_backward_weight", linear_backward_weight, arg("dy"), arg("x"));
  m.def("linear_backward_bias", linear_backward_bias, arg("dy"));
  m.def("conv_plan", plan, arg("op"), arg("x_shape"), arg("w_shape"), arg("stride") = 1, arg("padding") = 0,
        arg("dilation") = 1, arg("groups") = 1, arg("dtype") = "float32", arg("channels_last") = false);
}

}  // namespace fastconv
