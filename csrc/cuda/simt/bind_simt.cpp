// Settings and counters of the simulator, in fastconv._cuda_simt.
#include <string>

#include "../../bind.h"
#include "simt.h"

namespace fastconv {
namespace {

void set_schedule(const std::string& name) {
  if (!simt::set_schedule(name.c_str()))
    throw py::value_error("schedule must be 'up', 'down', 'shuffled' or 'rotate', got '" + name + "'");
}

py::dict counters() {
  const simt::Counters& c = simt::counters;
  py::dict d;
  d["launches"] = c.launches;
  d["blocks"] = c.blocks;
  d["barriers"] = c.barriers;
  d["collectives"] = c.collectives;
  d["async_copies"] = c.async_copies;
  d["matrix_loads"] = c.matrix_loads;
  d["matrix_products"] = c.matrix_products;
  d["bank_conflicts"] = c.bank_conflicts;
  return d;
}

py::list stop_recording() {
  py::list launches;
  for (const simt::Launch& l : simt::stop_recording())
    launches.append(py::make_tuple(l.kernel, l.blocks, l.threads, l.shared_bytes));
  return launches;
}

}  // namespace

void bind_simt(py::module_& m) {
  m.def("set_schedule", set_schedule, py::arg("name"));
  m.def("schedule", [] { return std::string(simt::schedule_name()); });
  m.def("counters", counters);
  m.def("start_recording", simt::start_recording);
  m.def("stop_recording", stop_recording);
  m.def("reset_counters", [] { simt::counters = {}; });
}

}  // namespace fastconv
