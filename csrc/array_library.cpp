#include "array_library.h"

#include <cstring>
#include <unordered_map>

#include "pool.h"

namespace fastconv {
namespace {

// All of it is guarded by the GIL. Never destroyed: arrays may outlive the interpreter's modules.
struct State {
  py::object library;
  std::unordered_map<void*, py::object> owners;
  py::object failure;  // what its allocator raised, other than MemoryError
};
State& state() {
  static State* s = new State;
  return *s;
}

void* allocate(std::size_t bytes) {
  const py::gil_scoped_acquire gil;
  State& s = state();
  if (!s.library) return nullptr;
  try {
    const auto block = s.library.attr("allocate")(bytes ? bytes : 1).cast<py::tuple>();
    void* address = reinterpret_cast<void*>(block[0].cast<std::uintptr_t>());
    s.owners[address] = block[1];
    return address;
  } catch (py::error_already_set& e) {
    s.failure = e.matches(PyExc_MemoryError) ? py::object() : e.value();
    return nullptr;
  }
}

bool release(void* block) {
  const py::gil_scoped_acquire gil;
  return state().owners.erase(block) > 0;
}

bool in_use() { return bool(state().library); }

constexpr PoolHooks kHooks{in_use, allocate, release};

}  // namespace

void set_array_library(const py::object& library) {
  state().library = library.is_none() ? py::object() : library;
  set_pool_hooks(&kHooks);
}

bool has_array_library() { return bool(state().library); }

bool raise_allocation_failure() {
  const py::object failure = std::move(state().failure);
  state().failure = py::object();
  if (failure) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(failure.ptr())), failure.ptr());
  return bool(failure);
}

py::object owner_of(std::uintptr_t address) {
  const auto& owners = state().owners;
  const auto found = owners.find(reinterpret_cast<void*>(address));
  if (found == owners.end()) throw py::value_error("no output of this module lies at this address");
  return found->second;
}

void copy_elements(py::handle to, py::handle from) {
  if (state().library) state().library.attr("copy")(to, from);
  else py::module_::import("numpy").attr("copyto")(to, from);
}

void zero_elements(const Array& a) {
  if (state().library) state().library.attr("zero")(a.owner);
  else std::memset(a.data, 0, std::size_t(a.size()) * item_size(a.dtype));
}

}  // namespace fastconv
