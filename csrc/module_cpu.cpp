// The extension module fastconv._cpu: configuration here, the ops in bind_*.cpp. The CUDA module,
// fastconv._cuda, and the simulator of its kernels, fastconv._cuda_simt, are the same over another table of kernels.
#include <cstdlib>
#include <new>
#include <string>

#include "array_library.h"
#include "bind.h"
#include "pool.h"
#include "settings.h"
#include "threads.h"

namespace fastconv {
namespace {

std::string isa_list() {
  const char* names[8];
  const int n = cpu::supported(names, 8);
  std::string s;
  for (int i = 0; i < n; i++) s += (i ? ", " : "") + std::string(names[i]);
  return s;
}

void set_isa(const std::string& name) {
  if (!cpu::select(name.c_str()))
    throw py::value_error("isa '" + name + "' is unknown or not supported by this CPU; supported: " + isa_list());
}

void set_precision(const std::string& name) {
  for (const Precision p : {Precision::highest, Precision::high, Precision::medium})
    if (name == kPrecisionNames[int(p)]) return set_float32_precision(p);
  throw py::value_error("precision must be 'highest', 'high' or 'medium', got '" + name + "'");
}

void set_algorithm(const std::string& name) {
  std::string known;
  for (int i = 0; i < kConvAlgorithms; i++) {
    if (name == kConvAlgorithmNames[i]) return set_conv_algorithm(ConvAlgorithm(i));
    known += (i ? ", '" : "'") + std::string(kConvAlgorithmNames[i]) + "'";
  }
  throw py::value_error("conv algorithm must be one of " + known + ", got '" + name + "'");
}

void check_environment() {
  const char* text = std::getenv("FASTCONV_NUM_THREADS");
  if (text && *text && !thread_info().fastconv_num_threads)
    throw py::value_error("FASTCONV_NUM_THREADS must be a whole number from 1 to 4095, got '" + std::string(text) + "'");
}

py::dict thread_dict() {
  const ThreadInfo& t = thread_info();
  py::dict d;
  const auto or_none = [](int v) -> py::object { return v ? py::object(py::int_(v)) : py::object(py::none()); };
  d["threads"] = thread_count();
  d["why"] = in_forked_child() ? std::string("one thread: this process was forked after import")
             : threads_were_set() ? std::string("set_num_threads")
                                  : t.why;
  d["affinity"] = t.affinity;
  d["cgroup_quota"] = or_none(t.cgroup);
  d["OMP_NUM_THREADS"] = or_none(t.omp_num_threads);
  d["FASTCONV_NUM_THREADS"] = or_none(t.fastconv_num_threads);
  return d;
}

py::dict build_info() {
  py::dict d;
#if defined(__clang__)
  d["compiler"] = "clang " __clang_version__;
#else
  d["compiler"] = "gcc " __VERSION__;
#endif
  d["isa_why"] = cpu::why();
  return d;
}

}  // namespace
}  // namespace fastconv

PYBIND11_MODULE(FC_MODULE, m, pybind11::mod_gil_not_used()) {
  using namespace fastconv;
  m.doc() = "Native kernels of fastconv. Call them through fastconv.nn.functional.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const std::bad_alloc&) {
      if (!raise_allocation_failure())
        PyErr_SetString(PyExc_MemoryError, "cannot allocate the output or the workspace of this call");
    }
  });
  bind_conv(m);
  bind_pool(m);
  bind_norm(m);
  bind_elementwise(m);
  bind_add(m);
#ifdef FC_CUDA
  bind_cuda(m);
#endif
#ifdef FC_SIMT
  bind_simt(m);
#endif
  m.def("isa", [] { return std::string(cpu::active().isa); });
  m.def("set_isa", set_isa, py::arg("name"));
  m.def("available_isas", [] {
    const char* names[8];
    const int n = cpu::supported(names, 8);
    py::list found;
    for (int i = 0; i < n; i++) found.append(std::string(names[i]));
    return py::tuple(found);
  });
  m.def("get_num_threads", [] { return thread_count(); });
  m.def("set_num_threads", [](int n) {
    if (n < 1 || n > 4095) throw py::value_error("num_threads must be between 1 and 4095, got " + std::to_string(n));
    set_thread_count(n);
  }, py::arg("n"));
  m.def("thread_info", thread_dict);
  m.def("build_info", build_info);
  m.def("set_float32_precision", set_precision, py::arg("precision"));
  m.def("get_float32_precision", [] { return std::string(kPrecisionNames[int(float32_precision())]); });
  m.def("set_conv_algorithm", set_algorithm, py::arg("name"));
  m.def("get_conv_algorithm", [] { return std::string(kConvAlgorithmNames[int(conv_algorithm())]); });
  m.def("fma_peak", [](bool wide) {
    const auto measure = cpu::active().fma_peak;
    return measure ? measure(thread_count(), wide) : 0.0;
  }, py::arg("wide"));
  m.def("tile_peak", [] {
    const auto measure = cpu::active().tile_peak;
    return measure ? measure(thread_count()) : 0.0;
  });
  m.def("workspace_peak", [] { return workspace_peak(); });
  m.def("reset_workspace_peak", [] { reset_workspace_peak(); });
  m.def("release_memory", [] { pool_trim(); });
  thread_info();  // installs the fork handler before any thread exists
  check_environment();
  if (const char* forced = std::getenv("FASTCONV_ISA"); forced && *forced) set_isa(forced);
  if (const char* forced = std::getenv("FASTCONV_ALGO"); forced && *forced) set_algorithm(forced);
}
