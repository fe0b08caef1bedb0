// What fastconv/cuda.py needs of the native module besides the operations.
#include <string>

#include "../array_library.h"
#include "../bind.h"
#include "conv.h"
#include "primitive_probe.h"
#ifndef FC_SIMT
#include "device.h"
#endif

namespace fastconv {
namespace {

void set_conv_tile(const std::string& name) {
  using cuda::TileChoice;
  if (name == "by_shape") cuda::set_tile_choice(TileChoice::by_shape);
  else if (name == "small") cuda::set_tile_choice(TileChoice::small);
  else if (name == "large") cuda::set_tile_choice(TileChoice::large);
  else throw py::value_error("tile must be 'by_shape', 'small' or 'large', got '" + name + "'");
}

py::list primitives() {
  py::list names;
  for (int i = 0; cuda::primitive_name(i); i++) {
    const std::string name = cuda::primitive_name(i);
    if (name.rfind("warpgroup", 0) != 0 || cuda::has_warpgroups()) names.append(name);
  }
  return names;
}

void check_words(const char* name, const py::array& a) {
  if (!a.dtype().is(py::dtype::of<std::uint32_t>()) || a.ndim() != 1 || a.size() != cuda::kProbeWords ||
      a.strides(0) != 4)
    throw py::value_error(std::string(name) + " must be " + std::to_string(cuda::kProbeWords) +
                          " uint32 in a row, got " + std::string(py::str(a.dtype())) + " of " +
                          std::to_string(a.size()));
}

// The words that a primitive makes of `input` (primitive_probe.cu), in `output`.
py::object run_primitive(const std::string& name, const py::array& input, const py::array& output) {
  check_words("input", input);
  check_words("output", output);
  auto* out = static_cast<std::uint32_t*>(const_cast<void*>(output.data()));
  if (!cuda::run_primitive(name, static_cast<const std::uint32_t*>(input.data()), out))
    throw py::value_error("name must be one of primitives(), got '" + name + "'");
  return output;
}

#ifdef FC_SIMT
std::uintptr_t stream = 0;  // the simulator has none; kept for the tests of what fastconv/cuda.py passes

void set_stream(std::uintptr_t s) { stream = s; }
std::uintptr_t get_stream() { return stream; }
#else
using cuda::get_stream;
using cuda::set_stream;
#endif

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("set_array_library", [](const py::object& library) { set_array_library(library); }, py::arg("library"));
  m.def("owner_of", owner_of, py::arg("address"));
  m.def("set_stream", set_stream, py::arg("stream"));
  m.def("get_stream", get_stream);
  m.def("set_conv_tile", set_conv_tile, py::arg("name"));
  m.def("primitives", primitives);
  m.def("run_primitive", run_primitive, py::arg("name"), py::arg("input"), py::arg("output"));
#ifndef FC_SIMT
  m.def("device_count", cuda::device_count);
  m.def("runtime_version", cuda::runtime_version);
  m.def("driver_version", cuda::driver_version);
#endif
}

}  // namespace fastconv
