// Python entry points of pooling. Arguments as in torch.nn.functional; all checks here and in PoolShape::make.
#include <cmath>
#include <string>

#include "array_library.h"
#include "bind.h"

namespace fastconv {
namespace {

using std::int64_t;
using std::string;
using py::handle;

void require_dimensions(int nd) {
  if (nd < 1 || nd > 3) throw py::value_error("nd must be 1, 2 or 3, got " + std::to_string(nd));
}

struct Window {
  int64_t kernel[3], stride[3], dilation[3] = {1, 1, 1};
  Padding padding;
  Window(handle kernel_size, handle stride_or_none, int nd) {
    take_ints("kernel_size", kernel_size, nd, kernel);
    if (stride_or_none.is_none())
      for (int i = 0; i < nd; i++) stride[i] = kernel[i];
    else
      take_ints("stride", stride_or_none, nd, stride);
  }
  PoolShape shape(int nd, const int64_t* x_shape, bool ceil_mode, DType dtype, Layout layout) const {
    return PoolShape::make(nd, x_shape, kernel, stride, padding, dilation, ceil_mode, dtype, layout);
  }
};

// The batched shape of an input given as a tuple.
struct InputShape {
  int64_t size[5];
  bool unbatched;
  InputShape(handle x_shape, int nd) {
    int64_t given[5];
    const int n = take_shape("x_shape", x_shape, given, nd + 1, nd + 2);
    unbatched = n == nd + 1;
    size[0] = 1;
    for (int i = 0; i < n; i++) size[i + unbatched] = given[i];
  }
};

Indices take_kind(handle indices) {
  if (PyUnicode_Check(indices.ptr())) {
    if (!PyUnicode_CompareWithASCIIString(indices.ptr(), "none")) return Indices::none;
    if (!PyUnicode_CompareWithASCIIString(indices.ptr(), "flat")) return Indices::flat;
    if (!PyUnicode_CompareWithASCIIString(indices.ptr(), "window")) return Indices::window;
  }
  throw py::value_error("indices must be 'none', 'flat' or 'window', got " + string(py::repr(indices)));
}

// On a GPU this would mean to wait for it: the kernels there leave out what does not fit.
void require_range(const char* name, const Array& indices, int64_t lowest, int64_t plane) {
  if (has_array_library()) return;
  const int64_t n = indices.size(), *p = static_cast<const int64_t*>(indices.data);
  const auto outside = [=](int64_t v) { return v < lowest || v >= plane; };
  bool bad = false;
  for (int64_t i = 0; i < n; i++) bad |= outside(p[i]);
  if (!bad) return;
  int64_t i = 0;
  while (i < n - 1 && !outside(p[i])) i++;
  throw py::value_error(string(name) + " must be between 0 and " + std::to_string(plane - 1) +
                        ", the places of one channel's plane, got " + std::to_string(p[i]));
}

// `a` must have the shape that forward returns.
void require_output_shape(const char* name, const Array& a, const PoolShape& s, int nd, bool unbatched) {
  int64_t shape[5] = {s.N, s.C};
  for (int i = 0; i < nd; i++) shape[2 + i] = s.out[3 - nd + i];
  require_shape(name, a, shape, nd + 2, unbatched);
}

void require_channels(const char* name, const PoolShape& s) {
  if (s.C < 1) throw py::value_error(string(name) + " must have at least one channel, got 0");
}

double bytes(const PoolShape& s) {
  return double(s.N) * double(s.C) * double(s.in_space() + s.out_space()) * double(item_size(s.dtype));
}

Array new_output(const PoolShape& s, int nd, bool unbatched) {
  return new_image(s.dtype, nd, s.N, s.C, s.out, s.layout, unbatched);
}

Array new_input_gradient(const PoolShape& s, int nd, bool unbatched) {
  return new_image(s.dtype, nd, s.N, s.C, s.in, s.layout, unbatched);
}

// ---- maximum -------------------------------------------------------------------------------------------------------

// A tap that the window's number cannot hold (kernels of more than 2^31 taps) is saved as its place in the plane.
Indices saved_as(Indices kind, const PoolShape& s) {
  if (kind != Indices::window || double(s.kernel[0]) * double(s.kernel[1]) * double(s.kernel[2]) < 0x1p31) return kind;
  return Indices::flat;
}

py::object max_pool_forward(handle x, handle kernel, handle stride, handle padding, handle dilation, bool ceil_mode,
                            int nd, handle indices) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  Window window(kernel, stride, nd);
  window.padding = take_padding(padding, nd);
  take_ints("dilation", dilation, nd, window.dilation);
  const PoolShape s = window.shape(nd, in.shape, ceil_mode, in.dtype, in.layout);
  const Indices kind = saved_as(take_kind(indices), s);
  Array y = new_output(s, nd, in.unbatched), saved;
  if (kind == Indices::flat) saved = new_indices(nd, s.N, s.C, s.out, s.layout, in.unbatched);
  if (kind == Indices::window)
    saved = new_window_indices(window_index_size(s), nd, s.N, s.C, s.out, s.layout, in.unbatched);
  run_kernel(bytes(s),
             [&](Context& ctx) { cpu::active().max_pool_forward(s, in.data, y.data, kind, saved.data, ctx); });
  if (kind == Indices::none) return std::move(y.owner);
  return py::make_tuple(std::move(y.owner), std::move(saved.owner));
}

py::object max_pool_backward(handle dy, handle saved, handle x_shape, handle kernel, handle stride, handle padding,
                             handle dilation, bool ceil_mode, int nd) {
  require_dimensions(nd);
  const Array gradient = take_image("dy", dy, nd);
  const InputShape in(x_shape, nd);
  Window window(kernel, stride, nd);
  window.padding = take_padding(padding, nd);
  take_ints("dilation", dilation, nd, window.dilation);
  const PoolShape s = window.shape(nd, in.size, ceil_mode, gradient.dtype, gradient.layout);
  require_output_shape("dy", gradient, s, nd, in.unbatched);
  const std::size_t item = window_index_size(s);
  const bool flat = !py::isinstance<py::array>(saved) ||
                    std::size_t(py::reinterpret_borrow<py::array>(saved).itemsize()) != item;
  const Array index = take_indices("saved", saved, gradient, flat ? 8 : item);
  if (flat) require_range("saved", index, -1, s.in_space());  // -1: the window had no tap in the input
  Array dx = new_input_gradient(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) {
    cpu::active().max_pool_backward(s, gradient.data, flat ? Indices::flat : Indices::window, index.data, dx.data, ctx);
  });
  return std::move(dx.owner);
}

py::object max_unpool_forward(handle x, handle indices, handle output_size, int nd) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  int64_t size[3];
  take_ints("output_size", output_size, nd, size);
  for (int i = 0; i < nd; i++)
    if (size[i] < 1) throw py::value_error("output_size must be at least 1, got " + std::to_string(size[i]));
  const PoolShape s = PoolShape::make_adaptive(nd, in.shape, size, in.dtype, in.layout);
  require_channels("input", s);
  const Array index = take_indices("indices", indices, in);
  require_range("indices", index, 0, s.out_space());
  Array y = new_output(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) {
    cpu::active().max_unpool_forward(s, in.data, static_cast<const int64_t*>(index.data), y.data, ctx);
  });
  return std::move(y.owner);
}

py::object max_unpool_backward(handle dy, handle indices, int nd) {
  require_dimensions(nd);
  const Array gradient = take_image("dy", dy, nd);
  if (!py::isinstance<py::array>(indices))
    throw py::type_error("indices must be a numpy.ndarray, got " + string(Py_TYPE(indices.ptr())->tp_name));
  const auto given = py::reinterpret_borrow<py::array>(indices);
  if (given.ndim() != (gradient.unbatched ? nd + 1 : nd + 2))
    throw py::value_error("indices must have as many dimensions as dy, got " + std::to_string(given.ndim()));
  // Only the spatial sizes of the indices are free: they are those of the pooled array.
  Array like;
  like.ndim = nd + 2;
  like.layout = gradient.layout;
  like.unbatched = gradient.unbatched;
  like.shape[0] = gradient.shape[0];
  like.shape[1] = gradient.shape[1];
  for (int i = 0; i < nd; i++) like.shape[2 + i] = given.shape(given.ndim() - nd + i);
  const PoolShape s =
      PoolShape::make_adaptive(nd, like.shape, gradient.shape + 2, gradient.dtype, gradient.layout);
  require_channels("dy", s);
  const Array index = take_indices("indices", indices, like);
  require_range("indices", index, 0, s.out_space());
  Array dx = new_input_gradient(s, nd, gradient.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) {
    cpu::active().max_unpool_backward(s, gradient.data, static_cast<const int64_t*>(index.data), dx.data, ctx);
  });
  return std::move(dx.owner);
}

// ---- average and power average -------------------------------------------------------------------------------------

void take_divisor(PoolShape& s, bool count_include_pad, handle divisor_override) {
  s.count_include_pad = count_include_pad;
  if (divisor_override.is_none()) return;
  s.divisor_override = take_int("divisor_override", divisor_override);
  if (s.divisor_override == 0) throw py::value_error("divisor_override must not be zero, got 0");
}

py::object avg_pool_forward(handle x, handle kernel, handle stride, handle padding, bool ceil_mode,
                            bool count_include_pad, handle divisor_override, int nd) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  Window window(kernel, stride, nd);
  window.padding = take_padding(padding, nd);
  PoolShape s = window.shape(nd, in.shape, ceil_mode, in.dtype, in.layout);
  take_divisor(s, count_include_pad, divisor_override);
  Array y = new_output(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) { cpu::active().avg_pool_forward(s, in.data, y.data, ctx); });
  return std::move(y.owner);
}

py::object avg_pool_backward(handle dy, handle x_shape, handle kernel, handle stride, handle padding, bool ceil_mode,
                             bool count_include_pad, handle divisor_override, int nd) {
  require_dimensions(nd);
  const Array gradient = take_image("dy", dy, nd);
  const InputShape in(x_shape, nd);
  Window window(kernel, stride, nd);
  window.padding = take_padding(padding, nd);
  PoolShape s = window.shape(nd, in.size, ceil_mode, gradient.dtype, gradient.layout);
  take_divisor(s, count_include_pad, divisor_override);
  require_output_shape("dy", gradient, s, nd, in.unbatched);
  Array dx = new_input_gradient(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) { cpu::active().avg_pool_backward(s, gradient.data, dx.data, ctx); });
  return std::move(dx.owner);
}

double take_norm_type(handle norm_type) {
  if (PyBool_Check(norm_type.ptr()) || !PyNumber_Check(norm_type.ptr()))
    throw py::type_error("norm_type must be a number, got " + string(py::repr(norm_type)));
  const double p = PyFloat_AsDouble(norm_type.ptr());
  if (p == -1 && PyErr_Occurred()) {
    const bool too_large = PyErr_ExceptionMatches(PyExc_OverflowError);
    PyErr_Clear();
    if (too_large) throw py::value_error("norm_type must be within the range of float64");
    throw py::type_error("norm_type must be a real number, got " + string(py::repr(norm_type)));
  }
  if (!std::isfinite(p) || p == 0)
    throw py::value_error("norm_type must be finite and not zero, got " + string(py::repr(norm_type)));
  return p;
}

py::object lp_pool_forward(handle x, handle norm_type, handle kernel, handle stride, bool ceil_mode, int nd) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  const Window window(kernel, stride, nd);
  PoolShape s = window.shape(nd, in.shape, ceil_mode, in.dtype, in.layout);
  s.norm_type = take_norm_type(norm_type);
  Array y = new_output(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) { cpu::active().lp_pool_forward(s, in.data, y.data, ctx); });
  return std::move(y.owner);
}

py::object lp_pool_backward(handle dy, handle x, handle y, handle norm_type, handle kernel, handle stride,
                            bool ceil_mode, int nd) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  const Window window(kernel, stride, nd);
  PoolShape s = window.shape(nd, in.shape, ceil_mode, in.dtype, in.layout);
  s.norm_type = take_norm_type(norm_type);
  const Array gradient = take_image("dy", dy, nd, &in.layout), out = take_image("y", y, nd, &in.layout);
  require_dtype("dy", gradient, in.dtype);
  require_dtype("y", out, in.dtype);
  require_output_shape("dy", gradient, s, nd, in.unbatched);
  require_output_shape("y", out, s, nd, in.unbatched);
  Array dx = new_input_gradient(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) {
    cpu::active().lp_pool_backward(s, gradient.data, in.data, out.data, dx.data, ctx);
  });
  return std::move(dx.owner);
}

// ---- adaptive ------------------------------------------------------------------------------------------------------

// An integer, or one per dimension of which any may be None to keep the size of the input.
PoolShape adaptive_shape(const Array& in, handle output_size, int nd) {
  int64_t size[3];
  const bool sequence = PyTuple_Check(output_size.ptr()) || PyList_Check(output_size.ptr());
  if (output_size.is_none() || (sequence && PySequence_Size(output_size.ptr()) == nd)) {
    for (int i = 0; i < nd; i++) {
      const auto entry = output_size.is_none()
                             ? py::object(py::none())
                             : py::reinterpret_steal<py::object>(PySequence_GetItem(output_size.ptr(), i));
      size[i] = entry.is_none() ? in.shape[2 + i] : take_int("output_size", entry);
    }
  } else {
    take_ints("output_size", output_size, nd, size);
  }
  return PoolShape::make_adaptive(nd, in.shape, size, in.dtype, in.layout);
}

// The pooling whose output gradient is dy.
PoolShape adaptive_backward_shape(const Array& dy, const InputShape& in, int nd) {
  const PoolShape s = PoolShape::make_adaptive(nd, in.size, dy.shape + 2, dy.dtype, dy.layout);
  require_output_shape("dy", dy, s, nd, in.unbatched);
  return s;
}

py::object adaptive_avg_pool_forward(handle x, handle output_size, int nd) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  const PoolShape s = adaptive_shape(in, output_size, nd);
  Array y = new_output(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) { cpu::active().adaptive_avg_pool_forward(s, in.data, y.data, ctx); });
  return std::move(y.owner);
}

py::object adaptive_avg_pool_backward(handle dy, handle x_shape, int nd) {
  require_dimensions(nd);
  const Array gradient = take_image("dy", dy, nd);
  const InputShape in(x_shape, nd);
  const PoolShape s = adaptive_backward_shape(gradient, in, nd);
  Array dx = new_input_gradient(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) { cpu::active().adaptive_avg_pool_backward(s, gradient.data, dx.data, ctx); });
  return std::move(dx.owner);
}

py::object adaptive_max_pool_forward(handle x, handle output_size, int nd, handle indices) {
  require_dimensions(nd);
  const Array in = take_image("input", x, nd);
  const PoolShape s = adaptive_shape(in, output_size, nd);
  require_channels("input", s);
  const bool wanted = take_kind(indices) != Indices::none;
  Array y = new_output(s, nd, in.unbatched), saved;
  if (wanted) saved = new_indices(nd, s.N, s.C, s.out, s.layout, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) {
    cpu::active().adaptive_max_pool_forward(s, in.data, y.data, static_cast<int64_t*>(saved.data), ctx);
  });
  if (!wanted) return std::move(y.owner);
  return py::make_tuple(std::move(y.owner), std::move(saved.owner));
}

py::object adaptive_max_pool_backward(handle dy, handle saved, handle x_shape, int nd) {
  require_dimensions(nd);
  const Array gradient = take_image("dy", dy, nd);
  const InputShape in(x_shape, nd);
  const PoolShape s = adaptive_backward_shape(gradient, in, nd);
  require_channels("dy", s);
  const Array index = take_indices("saved", saved, gradient);
  require_range("saved", index, 0, s.in_space());
  Array dx = new_input_gradient(s, nd, in.unbatched);
  run_kernel(bytes(s), [&](Context& ctx) {
    cpu::active().adaptive_max_pool_backward(s, gradient.data, static_cast<const int64_t*>(index.data), dx.data, ctx);
  });
  return std::move(dx.owner);
}

}  // namespace

void bind_pool(py::module_& m) {
  using py::arg;
  m.def("max_pool_forward", max_pool_forward, arg("x"), arg("kernel"), arg("stride"), arg("padding"),
        arg("dilation"), arg("ceil_mode"), arg("nd"), arg("indices"));
  m.def("max_pool_backward", max_pool_backward, arg("dy"), arg("saved"), arg("x_shape"), arg("kernel"), arg("stride"),
        arg("padding"), arg("dilation"), arg("ceil_mode"), arg("nd"));
  m.def("max_unpool_forward", max_unpool_forward, arg("x"), arg("indices"), arg("output_size"), arg("nd"));
  m.def("max_unpool_backward", max_unpool_backward, arg("dy"), arg("indices"), arg("nd"));
  m.def("avg_pool_forward", avg_pool_forward, arg("x"), arg("kernel"), arg("stride"), arg("padding"), arg("ceil_mode"),
        arg("count_include_pad"), arg("divisor_override"), arg("nd"));
  m.def("avg_pool_backward", avg_pool_backward, arg("dy"), arg("x_shape"), arg("kernel"), arg("stride"),
        arg("padding"), arg("ceil_mode"), arg("count_include_pad"), arg("divisor_override"), arg("nd"));
  m.def("lp_pool_forward", lp_pool_forward, arg("x"), arg("norm_type"), arg("kernel"), arg("stride"), arg("ceil_mode"),
        arg("nd"));
  m.def("lp_pool_backward", lp_pool_backward, arg("dy"), arg("x"), arg("y"), arg("norm_type"), arg("kernel"),
        arg("stride"), arg("ceil_mode"), arg("nd"));
  m.def("adaptive_avg_pool_forward", adaptive_avg_pool_forward, arg("x"), arg("output_size"), arg("nd"));
  m.def("adaptive_avg_pool_backward", adaptive_avg_pool_backward, arg("dy"), arg("x_shape"), arg("nd"));
  m.def("adaptive_max_pool_forward", adaptive_max_pool_forward, arg("x"), arg("output_size"), arg("nd"),
        arg("indices"));
  m.def("adaptive_max_pool_backward", adaptive_max_pool_backward, arg("dy"), arg("saved"), arg("x_shape"), arg("nd"));
}

}  // namespace fastconv
