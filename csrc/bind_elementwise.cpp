// Activations: arrays of any rank, in whatever dense order their memory has.
#include "array_library.h"
#include "bind.h"

namespace fastconv {
namespace {

using std::int64_t;
using std::string;

constexpr double kWork = 2;  // per element, in the units of run_kernel

py::object forward(Activation kind, py::handle x_object, double a, double b) {
  const Array x = take_elements("input", x_object);
  Array y = new_like(x);
  const int64_t n = x.size();
  run_kernel(kWork * double(n), [&](Context& ctx) {
    cpu::active().activation_forward(kind, x.dtype, n, x.data, a, b, y.data, ctx);
  });
  return std::move(y.owner);
}

// `name`: of the array that the derivative is a function of.
py::object backward(Activation kind, py::handle dy_object, const char* name, py::handle saved_object, double a,
                    double b) {
  const Array saved = take_elements(name, saved_object);
  const Array dy = take_elements("grad_output", dy_object, &saved);
  require_dtype("grad_output", dy, saved.dtype);
  require_shape("grad_output", dy, saved.shape, saved.ndim, saved.unbatched);
  Array dx = new_like(saved);
  const int64_t n = saved.size();
  run_kernel(kWork * double(n), [&](Context& ctx) {
    cpu::active().activation_backward(kind, saved.dtype, n, dy.data, saved.data, a, b, dx.data, ctx);
  });
  return std::move(dx.owner);
}

py::object relu_forward(py::handle x_object, bool inplace) {
  if (!inplace) return forward(Activation::relu, x_object, 0, 0);
  const Array x = take_elements("input", x_object);
  if (!py::reinterpret_borrow<py::array>(x_object).writeable())
    throw py::value_error("input must be writable with inplace=True, got a read-only array");
  const int64_t n = x.size();
  run_kernel(kWork * double(n), [&](Context& ctx) {
    cpu::active().activation_forward(Activation::relu, x.dtype, n, x.data, 0, 0, x.data, ctx);
  });
  if (!x.owner.is(x_object)) copy_elements(x_object, x.owner);
  return py::reinterpret_borrow<py::object>(x_object);
}

py::object relu_backward(py::handle dy, py::handle y) { return backward(Activation::relu, dy, "output", y, 0, 0); }

struct Limits {
  double low, high;
  Limits(py::handle min_val, py::handle max_val)
      : low(take_real("min_val", min_val)), high(take_real("max_val", max_val)) {
    if (low > high)
      throw py::value_error("min_val must not be larger than max_val, got " + string(py::repr(min_val)) + " and " +
                            string(py::repr(max_val)));
  }
};

py::object hardtanh_forward(py::handle x, py::handle min_val, py::handle max_val) {
  const Limits limits(min_val, max_val);
  return forward(Activation::hardtanh, x, limits.low, limits.high);
}

py::object hardtanh_backward(py::handle dy, py::handle x, py::handle min_val, py::handle max_val) {
  const Limits limits(min_val, max_val);
  return backward(Activation::hardtanh, dy, "input", x, limits.low, limits.high);
}

py::object leaky_relu_forward(py::handle x, py::handle negative_slope) {
  return forward(Activation::leaky_relu, x, take_finite("negative_slope", negative_slope), 0);
}

py::object leaky_relu_backward(py::handle dy, py::handle x, py::handle negative_slope) {
  return backward(Activation::leaky_relu, dy, "input", x, take_finite("negative_slope", negative_slope), 0);
}

// PReLU's weight: one value for all, or one for each channel (dimension 1; an input without one has one channel).
struct Slopes {
  Array weight;
  NormShape shape;
  bool shared;

  Slopes(py::handle weight_object, const Array& x) : weight(take_dense("weight", weight_object)) {
    require_dtype("weight", weight, x.dtype);
    if (weight.ndim > 1)
      throw py::value_error("weight must have at most one dimension, got shape " +
                            shape_text(weight.shape, weight.ndim));
    const int64_t channels = x.ndim > 1 ? x.shape[1] : 1, values = weight.size();
    if (values != 1 && values != channels)
      throw py::value_error("weight must have 1 value, or one for each of the " + std::to_string(channels) +
                            " channels, got " + std::to_string(values));
    shared = values == 1;
    shape = NormShape{1, 1, x.size(), x.dtype, x.dtype, x.layout};
    if (!shared) {
      shape.N = x.shape[0];
      shape.C = channels;
      shape.M = 1;
      for (int i = 2; i < x.ndim; i++) shape.M *= x.shape[i];
    }
  }
};

py::object prelu_forward(py::handle x_object, py::handle weight) {
  const Array x = take_elements("input", x_object);
  const Slopes slopes(weight, x);
  Array y = new_like(x);
  run_kernel(kWork * double(x.size()), [&](Context& ctx) {
    cpu::active().prelu_forward(slopes.shape, x.data, slopes.weight.data, slopes.shared, y.data, ctx);
  });
  return std::move(y.owner);
}

py::tuple prelu_backward(py::handle dy_object, py::handle x_object, py::handle weight) {
  const Array x = take_elements("input", x_object);
  const Array dy = take_elements("grad_output", dy_object, &x);
  require_dtype("grad_output", dy, x.dtype);
  require_shape("grad_output", dy, x.shape, x.ndim, x.unbatched);
  const Slopes slopes(weight, x);
  Array dx = new_like(x), dw = new_like(slopes.weight);
  run_kernel(2 * kWork * double(x.size()), [&](Context& ctx) {
    cpu::active().prelu_backward(slopes.shape, dy.data, x.data, slopes.weight.data, slopes.shared, dx.data, dw.data,
                                 ctx);
  });
  return py::make_tuple(std::move(dx.owner), std::move(dw.owner));
}

}  // namespace

void bind_elementwise(py::module_& m) {
  using py::arg;
  m.def("relu_forward", relu_forward, arg("x"), arg("inplace").noconvert() = false);
  m.def("relu_backward", relu_backward, arg("dy"), arg("y"));
  m.def("hardtanh_forward", hardtanh_forward, arg("x"), arg("min_val"), arg("max_val"));
  m.def("hardtanh_backward", hardtanh_backward, arg("dy"), arg("x"), arg("min_val"), arg("max_val"));
  m.def("leaky_relu_forward", leaky_relu_forward, arg("x"), arg("negative_slope"));
  m.def("leaky_relu_backward", leaky_relu_backward, arg("dy"), arg("x"), arg("negative_slope"));
  m.def("prelu_forward", prelu_forward, arg("x"), arg("weight"));
  m.def("prelu_backward", prelu_backward, arg("dy"), arg("x"), arg("weight"));
}

}  // namespace fastconv
