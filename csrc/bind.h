// Each family of ops binds itself; the module file calls these in turn.
#pragma once
#include "arrays.h"
#include "cpu/dispatch.h"

namespace fastconv {

void bind_conv(py::module_& m);
void bind_pool(py::module_& m);
void bind_norm(py::module_& m);
void bind_elementwise(py::module_& m);
void bind_add(py::module_& m);
void bind_cuda(py::module_& m);  // cuda/: what the Python side of GPU arrays needs
void bind_simt(py::module_& m);  // cuda/simt: settings and counters of the simulator

}  // namespace fastconv
