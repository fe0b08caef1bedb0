// Arrays in memory that this code must not touch: a GPU's, through a Python object that speaks for their library.
//
// The bindings know NumPy arrays alone. For CuPy they are given NumPy views of device addresses, whose shape, strides and
// dtype are checked as any array's; what moves bytes goes through these functions (fastconv/cuda.py has the object).
#pragma once
#include "arrays.h"

namespace fastconv {

// allocate(bytes) -> (address, owner), copy(to, from) and zero(array); None: the host's memory.
void set_array_library(const py::object& library);
bool has_array_library();
// Makes what the library's allocator raised, where that was no MemoryError, Python's error; false where it was none.
bool raise_allocation_failure();
py::object owner_of(std::uintptr_t address);          // what allocate gave for an output

void copy_elements(py::handle to, py::handle from);   // broadcasts
void zero_elements(const Array& a);

}  // namespace fastconv
