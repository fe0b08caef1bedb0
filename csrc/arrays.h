// NumPy arrays in and out of the native module: the checks that every binding shares.
//
// take_* turns a Python object into a contiguous block of known dtype and layout, copying where strides, alignment or
// read order require it, and raises TypeError / ValueError that name the argument. new_* makes an output from the pool.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "context.h"
#include "packed_weight.h"
#include "shapes.h"

namespace fastconv {
namespace py = pybind11;

constexpr int kMaxDims = 32;

struct Array {
  py::object owner;             // the array, or a contiguous copy of it
  void* data = nullptr;
  int ndim = 0;                 // of `shape`: an image is always batched, N C spatial...
  std::int64_t shape[kMaxDims] = {};
  DType dtype = DType::f32;
  Layout layout = Layout::channels_first;
  bool unbatched = false;       // the caller's array had no batch dimension

  std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < ndim; i++) n *= shape[i];
    return n;
  }
  explicit operator bool() const { return bool(owner); }
};

// Number i of the axes from the fastest to the slowest: W H D C N, or C W H D N.
int axis(Layout layout, int ndim, int i);
std::string shape_text(const std::int64_t* shape, int ndim);
const char* dtype_name(DType dtype);

// An (N, C, S1..Snd) or (C, S1..Snd) float array. `layout`: the layout it must come in (copied if its strides differ).
Array take_image(const char* name, py::handle object, int nd, const Layout* layout = nullptr);
// (N, C) or (N, C, any rank): for batch_norm and its kin.
Array take_channels(const char* name, py::handle object, const Layout* layout = nullptr);
// Any rank, C order.
Array take_dense(const char* name, py::handle object);
// Any rank, any dense order kept (for elementwise ops): data is the lowest address, size() elements in a row.
// `like`: an array whose strides the result must have.
Array take_elements(const char* name, py::handle object, const Array* like = nullptr);
// Any rank, any strides: `layout` is the order that they come closest to, `strides` count elements. Copied where data is
// not aligned.
struct StridedArray : Array {
  std::int64_t strides[kMaxDims] = {};
};
StridedArray take_strided(const char* name, py::handle object);
// The array itself in dense memory of `layout`: a copy where it is not.
StridedArray made_dense(const char* name, const StridedArray& a, Layout layout);
// int64 array of exactly this shape and layout. `item`: bytes of one value, 1 for uint8 and 4 for int32 window taps.
Array take_indices(const char* name, py::handle object, const Array& like, std::size_t item = 8);

void require_dtype(const char* name, const Array& a, DType dtype);     // TypeError
void require_shape(const char* name, const Array& a, const std::int64_t* shape, int ndim, bool unbatched);  // ValueError

// Outputs. Data is uninitialised. Raise MemoryError where memory is short.
Array new_image(DType dtype, int nd, std::int64_t n, std::int64_t c, const std::int64_t* space, Layout layout,
                bool unbatched);
Array new_indices(int nd, std::int64_t n, std::int64_t c, const std::int64_t* space, Layout layout, bool unbatched);
Array new_window_indices(std::size_t item, int nd, std::int64_t n, std::int64_t c, const std::int64_t* space,
                         Layout layout, bool unbatched);
Array new_dense(DType dtype, int ndim, const std::int64_t* shape);
Array new_like(const Array& a);                                        // same dtype, shape and strides
// A read-only copy that owns a PackedWeight, and the PackedWeight of an array that is one and nothing else: null for
// its views, and where somebody made it writable. Weights alone are asked for it.
py::object frozen_copy(const Array& a);
PackedWeight* packed_weight_of(const Array& a);
StridedArray new_strided(const StridedArray& like, const int64_t* shape);  // dense, in the layout of `like`

// Parameters. `space` arrays are the last nd of three, as in shapes.h (leading entries left untouched).
std::int64_t take_int(const char* name, py::handle object);            // TypeError for bool, float, ...
double take_real(const char* name, py::handle object);                 // TypeError for bool, ...; ValueError for NaN
double take_finite(const char* name, py::handle object);               // ValueError for infinities too
void take_ints(const char* name, py::handle object, int nd, std::int64_t* values);      // one number or nd of them
Padding take_padding(py::handle object, int nd);                       // number(s), pairs, "same", "valid"
int take_shape(const char* name, py::handle object, std::int64_t* shape, int least, int most);  // returns its length

int thread_count();                                                    // threads.cpp

// Runs f(ctx) with the GIL released where the work is worth it; MemoryError where the workspace could not be had.
template <class F> void run_kernel(double work, F&& f, PackedWeight* weight = nullptr) {
  Context ctx(thread_count(), weight);
  if (work < 50e3) {
    f(ctx);
  } else {
    py::gil_scoped_release release;
    f(ctx);
  }
  if (ctx.out_of_memory()) throw std::bad_alloc();
}

}  // namespace fastconv
