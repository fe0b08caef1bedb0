// batch_norm (alone and with ReLU), instance_norm and local_response_norm: arrays to NormShape and pointers.
//
// Everything is checked before anything is written: running statistics are updated by the kernel, after all checks.
#include <cmath>

#include "array_library.h"
#include "bind.h"

namespace fastconv {
namespace {

using std::int64_t;
using std::string;

NormShape norm_shape(const char* name, const Array& x, int least_dims) {
  if (x.ndim < least_dims)
    throw py::value_error(string(name) + " must have at least " + std::to_string(least_dims) +
                          " dimensions (N, C, ...), got shape " + shape_text(x.shape, x.ndim));
  checked_elements(name, x.shape, x.ndim);
  NormShape s{x.shape[0], x.shape[1], 1, x.dtype, x.dtype, x.layout};
  for (int i = 2; i < x.ndim; i++) s.M *= x.shape[i];
  return s;
}

DType statistics_dtype(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

// Of the dtype, shape and layout of x.
Array take_like(const char* name, py::handle object, const Array& x) {
  Array a = take_channels(name, object, &x.layout);
  require_dtype(name, a, x.dtype);
  require_shape(name, a, x.shape, x.ndim, x.unbatched);
  return a;
}
Array take_gradient(py::handle object, const Array& x) { return take_like("grad_output", object, x); }

// The per-channel arguments of one call, all of one dtype: that of x, or float32 beside 16-bit x.
class Parameters {
 public:
  explicit Parameters(NormShape& s) : s_(s) {}

  Array take(const char* name, py::handle object) {
    if (object.is_none()) return Array();
    Array a = take_dense(name, object);
    const bool narrow = s_.dtype == DType::f16 || s_.dtype == DType::bf16;
    if (a.dtype != s_.dtype && !(narrow && a.dtype == DType::f32))
      throw py::type_error(string(name) + " must have dtype " + dtype_name(s_.dtype) + (narrow ? " or float32" : "") +
                           " beside an input of dtype " + dtype_name(s_.dtype) + ", got " + dtype_name(a.dtype));
    if (first_ && a.dtype != s_.param_dtype)
      throw py::type_error(string(name) + " must have dtype " + dtype_name(s_.param_dtype) + " like " + first_ +
                           ", got " + dtype_name(a.dtype));
    if (!first_) first_ = name;
    s_.param_dtype = a.dtype;
    require_shape(name, a, &s_.C, 1, false);
    return a;
  }

 private:
  NormShape& s_;
  const char* first_ = nullptr;
};

// Whether two arrays share memory; where numpy gives up on the exact answer they count as sharing.
bool share_memory(py::handle a, py::handle b) {
  const py::module_ numpy = py::module_::import("numpy");
  if (!numpy.attr("may_share_memory")(a, b).cast<bool>()) return false;
  try {
    return numpy.attr("shares_memory")(a, b, 100000).cast<bool>();
  } catch (py::error_already_set& e) {
    if (!e.matches(numpy.attr("exceptions").attr("TooHardError"))) throw;
    return true;
  }
}

// Running statistics: (C,) arrays that a training call updates in place, whatever their strides.
class RunningStatistics {
 public:
  RunningStatistics(Parameters& parameters, py::handle mean, py::handle var, bool required)
      : mean_object_(mean), var_object_(var), mean_(parameters.take("running_mean", mean)),
        var_(parameters.take("running_var", var)) {
    if (bool(mean_) != bool(var_))
      throw py::value_error("running_mean and running_var must both be given, or neither");
    if (required && !mean_)
      throw py::value_error("running_mean must be given where the statistics of the input are not used, got None");
  }

  // `others`: name and array of what must not change under the update.
  template <std::size_t n> void require_updatable(const std::pair<const char*, py::handle> (&others)[n]) const {
    if (!mean_) return;
    const std::pair<const char*, py::handle> own[] = {{"running_mean", mean_object_}, {"running_var", var_object_}};
    for (const auto& [name, object] : own) {
      const auto a = py::reinterpret_borrow<py::array>(object);
      if (!a.writeable()) throw py::value_error(string(name) + " must be writable, since training updates it");
      if (a.shape(0) > 1 && std::abs(a.strides(0)) < a.itemsize())
        throw py::value_error(string(name) + " must not overlap itself, got stride " + std::to_string(a.strides(0)));
      for (const auto& [other_name, other] : others)
        if (!other.is_none() && share_memory(object, other))
          throw py::value_error(string(name) + " must not overlap " + other_name);
    }
    if (share_memory(mean_object_, var_object_))
      throw py::value_error("running_mean must not overlap running_var");
  }

  void* mean() const { return mean_.data; }
  void* var() const { return var_.data; }
  explicit operator bool() const { return bool(mean_); }

  // The kernel updated a contiguous copy where the strides required one.
  void write_back() const {
    if (!mean_) return;
    if (!mean_.owner.is(mean_object_)) copy_elements(mean_object_, mean_.owner);
    if (!var_.owner.is(var_object_)) copy_elements(var_object_, var_.owner);
  }

 private:
  py::handle mean_object_, var_object_;
  Array mean_, var_;
};

// torch refuses 0 where a batch is normalised by its own statistics, and only there.
double take_eps(py::handle object, bool may_be_zero) {
  const double eps = take_finite("eps", object);
  if (eps < 0 || (eps == 0 && !may_be_zero))
    throw py::value_error(string("eps must be ") + (may_be_zero ? "at least 0" : "positive") + ", got " +
                          string(py::repr(object)));
  return eps;
}

// Arguments of a forward pass, checked. `instances`: statistics of each image and channel (N, C) rather than of each
// channel (C,).
struct NormArguments {
  Array x;
  NormShape shape;
  Parameters parameters;
  Array weight, bias;
  RunningStatistics running;
  double eps, momentum = 0;

  NormArguments(bool instances, py::handle x_object, py::handle weight_object, py::handle bias_object,
                py::handle running_mean, py::handle running_var, bool use_input, py::handle momentum_object,
                py::handle eps_object)
      : x(take_channels("input", x_object)), shape(norm_shape("input", x, instances ? 3 : 2)), parameters(shape),
        weight(parameters.take("weight", weight_object)), bias(parameters.take("bias", bias_object)),
        running(parameters, running_mean, running_var, !use_input), eps(take_eps(eps_object, instances || !use_input)) {
    if (!use_input) return;
    running.require_updatable({{"input", x_object}, {"weight", weight_object}, {"bias", bias_object}});
    if (running) momentum = take_finite("momentum", momentum_object);
    if (instances && shape.M == 1)
      throw py::value_error("input must have more than 1 spatial element where its statistics are used, got shape " +
                            shape_text(x.shape, x.ndim));
    if (!instances && (shape.N == 1 && shape.M == 1))
      throw py::value_error("input: Expected more than 1 value per channel when training, got shape " +
                            shape_text(x.shape, x.ndim));
  }
};

using NormForward = decltype(cpu::Ops::batch_norm_forward);
using NormBackward = decltype(cpu::Ops::batch_norm_backward);

py::tuple norm_forward(bool instances, py::handle x_object, py::handle weight, py::handle bias,
                       py::handle running_mean, py::handle running_var, bool use_input, py::handle momentum,
                       py::handle eps) {
  const NormArguments given(instances, x_object, weight, bias, running_mean, running_var, use_input, momentum, eps);
  const Array& x = given.x;
  const NormShape& s = given.shape;
  const int64_t groups[] = {s.N, s.C};
  Array y = new_like(x), mean = new_dense(statistics_dtype(s.dtype), instances ? 2 : 1, instances ? groups : groups + 1),
        invstd = new_like(mean);
  const NormForward op = instances ? cpu::active().instance_norm_forward : cpu::active().batch_norm_forward;
  run_kernel(4.0 * double(x.size()), [&](Context& ctx) {
    op(s, x.data, given.weight.data, given.bias.data, given.running.mean(), given.running.var(), use_input,
       given.momentum, given.eps, y.data, mean.data, invstd.data, ctx);
  });
  if (use_input) given.running.write_back();
  return py::make_tuple(std::move(y.owner), std::move(mean.owner), std::move(invstd.owner));
}

py::tuple norm_backward(bool instances, py::handle dy_object, py::handle x_object, py::handle weight,
                        py::handle mean_object, py::handle invstd_object, bool use_input) {
  const Array x = take_channels("input", x_object);
  NormShape s = norm_shape("input", x, instances ? 3 : 2);
  const Array dy = take_gradient(dy_object, x);
  Parameters parameters(s);
  const Array w = parameters.take("weight", weight);
  const int64_t groups[] = {s.N, s.C};
  const auto take_statistics = [&](const char* name, py::handle object) {
    Array a = take_dense(name, object);
    require_dtype(name, a, statistics_dtype(s.dtype));
    require_shape(name, a, instances ? groups : groups + 1, instances ? 2 : 1, false);
    return a;
  };
  const Array mean = take_statistics("mean", mean_object), invstd = take_statistics("invstd", invstd_object);
  Array dx = new_like(x), dw = new_dense(s.param_dtype, 1, &s.C), db = new_dense(s.param_dtype, 1, &s.C);
  const NormBackward op = instances ? cpu::active().instance_norm_backward : cpu::active().batch_norm_backward;
  run_kernel(8.0 * double(x.size()), [&](Context& ctx) {
    op(s, dy.data, x.data, w.data, mean.data, invstd.data, use_input, dx.data, dw.data, db.data, ctx);
  });
  return py::make_tuple(std::move(dx.owner), std::move(dw.owner), std::move(db.owner));
}

// The upper limit of batch_norm_relu.
double take_limit(py::handle object) {
  const double limit = take_real("max_val", object);
  if (!(limit > 0)) throw py::value_error("max_val must be positive, got " + string(py::repr(object)));
  return limit;
}

py::tuple batch_norm_relu_forward(py::handle x_object, py::handle weight, py::handle bias, py::handle running_mean,
                                  py::handle running_var, bool training, py::handle momentum, py::handle eps,
                                  py::handle residual_object, py::handle max_val) {
  const NormArguments given(false, x_object, weight, bias, running_mean, running_var, training, momentum, eps);
  const Array& x = given.x;
  const NormShape& s = given.shape;
  const Array residual = residual_object.is_none() ? Array() : take_like("residual", residual_object, x);
  if (training) given.running.require_updatable({{"residual", residual_object}});
  const double high = take_limit(max_val);
  const int64_t coefficients[] = {4, s.C};
  Array y = new_like(x), saved = new_dense(statistics_dtype(s.dtype), 2, coefficients);
  run_kernel(6.0 * double(x.size()), [&](Context& ctx) {
    cpu::active().batch_norm_relu_forward(s, x.data, given.weight.data, given.bias.data, given.running.mean(),
                                          given.running.var(), training, given.momentum, given.eps, residual.data, high,
                                          y.data, saved.data, ctx);
  });
  if (training) given.running.write_back();
  return py::make_tuple(std::move(y.owner), std::move(saved.owner));
}

py::tuple batch_norm_relu_backward(py::handle dy_object, py::handle x_object, py::handle weight,
                                   py::handle saved_object, bool training, py::handle max_val) {
  const Array x = take_channels("input", x_object);
  NormShape s = norm_shape("input", x, 2);
  const Array dy = take_gradient(dy_object, x);
  Parameters parameters(s);
  const Array w = parameters.take("weight", weight), saved = take_dense("saved", saved_object);
  const int64_t coefficients[] = {4, s.C};
  require_dtype("saved", saved, statistics_dtype(s.dtype));
  require_shape("saved", saved, coefficients, 2, false);
  const double high = take_limit(max_val);
  Array dx = new_like(x), dw = new_dense(s.param_dtype, 1, &s.C), db = new_dense(s.param_dtype, 1, &s.C);
  run_kernel(10.0 * double(x.size()), [&](Context& ctx) {
    cpu::active().batch_norm_relu_backward(s, dy.data, x.data, w.data, saved.data, training, high, dx.data, dw.data,
                                           db.data, ctx);
  });
  return py::make_tuple(std::move(dx.owner), std::move(dw.owner), std::move(db.owner));
}

struct ResponseParameters {
  int64_t size;
  double alpha, beta, k;
  ResponseParameters(py::handle size_object, py::handle alpha_object, py::handle beta_object, py::handle k_object)
      : size(take_int("size", size_object)), alpha(take_finite("alpha", alpha_object)),
        beta(take_finite("beta", beta_object)), k(take_finite("k", k_object)) {
    if (size < 1) throw py::value_error("size must be at least 1, got " + std::to_string(size));
  }
};

py::object local_response_norm_forward(py::handle x_object, py::handle size, py::handle alpha, py::handle beta,
                                       py::handle k) {
  const Array x = take_channels("input", x_object);
  const NormShape s = norm_shape("input", x, 3);
  const ResponseParameters p(size, alpha, beta, k);
  Array y = new_like(x);
  run_kernel(20.0 * double(x.size()), [&](Context& ctx) {
    cpu::active().local_response_norm_forward(s, x.data, p.size, p.alpha, p.beta, p.k, y.data, ctx);
  });
  return std::move(y.owner);
}

py::object local_response_norm_backward(py::handle dy_object, py::handle x_object, py::handle size, py::handle alpha,
                                        py::handle beta, py::handle k) {
  const Array x = take_channels("input", x_object);
  const NormShape s = norm_shape("input", x, 3);
  const Array dy = take_gradient(dy_object, x);
  const ResponseParameters p(size, alpha, beta, k);
  Array dx = new_like(x);
  run_kernel(40.0 * double(x.size()), [&](Context& ctx) {
    cpu::active().local_response_norm_backward(s, dy.data, x.data, p.size, p.alpha, p.beta, p.k, dx.data, ctx);
  });
  return std::move(dx.owner);
}

template <bool instances>
py::tuple bound_forward(py::handle x, py::handle weight, py::handle bias, py::handle running_mean,
                        py::handle running_var, bool use_input, py::handle momentum, py::handle eps) {
  return norm_forward(instances, x, weight, bias, running_mean, running_var, use_input, momentum, eps);
}

template <bool instances>
py::tuple bound_backward(py::handle dy, py::handle x, py::handle weight, py::handle mean, py::handle invstd,
                         bool use_input) {
  return norm_backward(instances, dy, x, weight, mean, invstd, use_input);
}

}  // namespace

void bind_norm(py::module_& m) {
  using py::arg;
  m.def("batch_norm_forward", bound_forward<false>, arg("x"), arg("weight"), arg("bias"), arg("running_mean"),
        arg("running_var"), arg("training").noconvert(), arg("momentum"), arg("eps"));
  m.def("batch_norm_backward", bound_backward<false>, arg("dy"), arg("x"), arg("weight"), arg("mean"), arg("invstd"),
        arg("training").noconvert());
  m.def("batch_norm_relu_forward", batch_norm_relu_forward, arg("x"), arg("weight"), arg("bias"), arg("running_mean"),
        arg("running_var"), arg("training").noconvert(), arg("momentum"), arg("eps"), arg("residual"), arg("max_val"));
  m.def("batch_norm_relu_backward", batch_norm_relu_backward, arg("dy"), arg("x"), arg("weight"), arg("saved"),
        arg("training").noconvert(), arg("max_val"));
  m.def("instance_norm_forward", bound_forward<true>, arg("x"), arg("weight"), arg("bias"), arg("running_mean"),
        arg("running_var"), arg("use_input_stats").noconvert(), arg("momentum"), arg("eps"));
  m.def("instance_norm_backward", bound_backward<true>, arg("dy"), arg("x"), arg("weight"), arg("mean"),
        arg("invstd"), arg("use_input_stats").noconvert());
  m.def("local_response_norm_forward", local_response_norm_forward, arg("x"), arg("size"), arg("alpha"), arg("beta"),
        arg("k"));
  m.def("local_response_norm_backward", local_response_norm_backward, arg("dy"), arg("x"), arg("size"), arg("alpha"),
        arg("beta"), arg("k"));
}

}  // namespace fastconv
