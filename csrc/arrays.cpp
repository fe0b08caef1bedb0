#include "arrays.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "array_library.h"
#include "cpu/dispatch.h"
#include "pool.h"

namespace fastconv {

int axis(Layout layout, int ndim, int i) {
  if (layout == Layout::channels_first || ndim < 2) return ndim - 1 - i;
  if (i == 0) return 1;
  return i == ndim - 1 ? 0 : ndim - i;
}

namespace {

using std::int64_t;
using std::string;
namespace npy = py::detail;

constexpr int kNpyFloat = 11, kNpyDouble = 12, kNpyHalf = 23, kNpyInt64 = 7, kNpyUint8 = 2, kNpyInt32 = 5;
constexpr int kKeepOrder = 2, kCOrder = 0;
constexpr int kWriteable = 0x0400, kAligned = 0x0100;

// ml_dtypes registers bfloat16 when it is imported; the number is learned from the first such array.
std::atomic<int> bfloat16_number{-1};
PyObject* bfloat16_descr = nullptr;  // borrowed for ever: guarded by the GIL's ordering through the atomic above

string type_text(py::handle object) { return string(Py_TYPE(object.ptr())->tp_name); }

npy::PyArray_Proxy* array_of(const char* name, py::handle object) {
  if (!py::isinstance<py::array>(object))
    throw py::type_error(string(name) + " must be a numpy.ndarray, got " + type_text(object));
  return npy::array_proxy(object.ptr());
}

// "bfloat16" or "some_module.bfloat16"
bool named_bfloat16(PyObject* type) {
  const char* full = reinterpret_cast<PyTypeObject*>(type)->tp_name;
  const char* dot = std::strrchr(full, '.');
  return !std::strcmp(dot ? dot + 1 : full, "bfloat16");
}

DType dtype_of(const char* name, npy::PyArray_Proxy* a) {
  const auto* d = npy::array_descriptor1_proxy(a->descr);
  if (d->byteorder != '>') {
    if (d->type_num == kNpyFloat) return DType::f32;
#if defined(FC_TWO_TYPES)
    if (d->type_num == kNpyDouble || d->type_num == kNpyHalf) {
      PyErr_SetString(PyExc_NotImplementedError, "a build with sanitizers has float32 and bfloat16 alone");
      throw py::error_already_set();
    }
#endif
    if (d->type_num == kNpyDouble) return DType::f64;
    if (d->type_num == kNpyHalf) return DType::f16;
    if (d->type_num == bfloat16_number.load(std::memory_order_acquire)) return DType::bf16;
    if (d->type_num >= 256 && named_bfloat16(d->typeobj)) {
      Py_INCREF(a->descr);
      bfloat16_descr = a->descr;
      bfloat16_number.store(d->type_num, std::memory_order_release);
      return DType::bf16;
    }
  }
  throw py::type_error(string(name) + " must have dtype float32, float64, float16 or bfloat16 in native byte order, got " +
                       string(py::str(py::handle(a->descr))) + (d->byteorder == '>' ? " (big-endian)" : ""));
}

int number_of(DType t) {
  switch (t) {
    case DType::f32: return kNpyFloat;
    case DType::f64: return kNpyDouble;
    case DType::f16: return kNpyHalf;
    default: return bfloat16_number.load();
  }
}

bool dense_in(Layout layout, int ndim, const int64_t* shape, const int64_t* strides, int64_t item) {
  int64_t expected = item;
  for (int i = 0; i < ndim; i++)
    if (shape[i] == 0) return true;
  for (int i = 0; i < ndim; i++) {
    const int a = axis(layout, ndim, i);
    if (shape[a] != 1 && strides[a] != expected) return false;
    expected *= shape[a];
  }
  return true;
}

// Size-1 dimensions leave both layouts possible; then the strides themselves decide, else channels first.
bool found_layout(int ndim, const int64_t* shape, const int64_t* strides, int64_t item, Layout* layout) {
  const bool first = dense_in(Layout::channels_first, ndim, shape, strides, item);
  const bool last = dense_in(Layout::channels_last, ndim, shape, strides, item);
  const bool strides_say_last = ndim > 2 && strides[1] == item && strides[ndim - 1] == shape[1] * item;
  if (!first && !last) return false;
  *layout = last && (!first || strides_say_last) ? Layout::channels_last : Layout::channels_first;
  return true;
}

py::object new_array(int number, int ndim, const int64_t* shape, const int64_t* strides, int64_t bytes, void** data);
void dense_strides(Layout layout, int ndim, const int64_t* shape, int64_t item, int64_t* strides);

py::object copied(py::handle array, int order) {
  if (has_array_library()) {
    const auto* a = npy::array_proxy(array.ptr());
    const auto* d = npy::array_descriptor1_proxy(a->descr);
    const int64_t item = py::reinterpret_borrow<py::array>(array).itemsize();
    int64_t shape[kMaxDims], strides[kMaxDims], elements = 1;
    for (int i = 0; i < a->nd; i++) elements *= shape[i] = a->dimensions[i];
    dense_strides(Layout::channels_first, a->nd, shape, item, strides);
    void* data;
    py::object copy = new_array(d->type_num, a->nd, shape, strides, elements * item, &data);
    copy_elements(copy, array);
    return copy;
  }
  PyObject* p = npy::npy_api::get().PyArray_NewCopy_(array.ptr(), order);
  if (!p) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(p);
}

constexpr const char* kPackedWeight = "fastconv.PackedWeight";
void free_packed_weight(PyObject* capsule) {
  delete static_cast<PackedWeight*>(PyCapsule_GetPointer(capsule, kPackedWeight));
}

void free_block(PyObject* capsule) { pool_release(PyCapsule_GetPointer(capsule, nullptr)); }

// A new array of this numpy type over memory that belongs to `owner`.
py::object array_over(void* block, py::object owner, int number, int ndim, const int64_t* shape, const int64_t* strides,
                      int flags) {
  auto& api = npy::npy_api::get();
  PyObject* descr = number >= 256 ? bfloat16_descr : api.PyArray_DescrFromType_(number);
  if (number >= 256) Py_INCREF(descr);
  Py_intptr_t dims[kMaxDims], steps[kMaxDims];
  for (int i = 0; i < ndim; i++) {
    dims[i] = shape[i];
    steps[i] = strides[i];
  }
  PyObject* a = api.PyArray_NewFromDescr_(api.PyArray_Type_, descr, ndim, dims, steps, block, flags, nullptr);
  if (!a) throw py::error_already_set();
  api.PyArray_SetBaseObject_(a, owner.release().ptr());
  return py::reinterpret_steal<py::object>(a);
}

// The same over a block of the pool.
py::object new_array(int number, int ndim, const int64_t* shape, const int64_t* strides, int64_t bytes, void** data) {
  void* block = pool_acquire(std::size_t(bytes));
  if (!block) throw std::bad_alloc();
  PyObject* owner = PyCapsule_New(block, nullptr, free_block);
  if (!owner) {
    pool_release(block);
    throw py::error_already_set();
  }
  *data = block;
  return array_over(block, py::reinterpret_steal<py::object>(owner), number, ndim, shape, strides,
                    kWriteable | kAligned);
}

void dense_strides(Layout layout, int ndim, const int64_t* shape, int64_t item, int64_t* strides) {
  int64_t step = item;
  for (int i = 0; i < ndim; i++) {
    const int a = axis(layout, ndim, i);
    strides[a] = step;
    step *= shape[a] ? shape[a] : 1;
  }
}

// Output with shape N C space..., given without N where the input came so.
Array new_batched(int number, int64_t item, DType dtype, int ndim, const int64_t* shape, Layout layout,
                  bool unbatched) {
  Array out;
  out.ndim = ndim;
  out.dtype = dtype;
  out.layout = layout;
  out.unbatched = unbatched;
  std::memcpy(out.shape, shape, sizeof(int64_t) * std::size_t(ndim));
  const int64_t elements = checked_elements("output", shape, ndim);
  int64_t strides[kMaxDims];
  dense_strides(layout, ndim, shape, item, strides);
  const int skip = unbatched ? 1 : 0;
  out.owner = new_array(number, ndim - skip, shape + skip, strides + skip, elements * item, &out.data);
  return out;
}

Array new_spatial(int number, int64_t item, DType dtype, int nd, int64_t n, int64_t c, const int64_t* space,
                  Layout layout, bool unbatched) {
  int64_t shape[5] = {n, c};
  for (int i = 0; i < nd; i++) shape[2 + i] = space[3 - nd + i];
  return new_batched(number, item, dtype, nd + 2, shape, layout, unbatched);
}

// Copies an array that is dense in the other layout.
void change_layout(const Array& from, const Array& to, int64_t item) {
  int64_t positions = 1;
  for (int i = 2; i < to.ndim; i++) positions *= to.shape[i];
  const bool last = to.layout == Layout::channels_last;
  const int64_t rows = last ? to.shape[1] : positions, columns = last ? positions : to.shape[1];
  run_kernel(double(to.size()), [&](Context& ctx) {
    cpu::active().change_layout(item, to.shape[0], rows, columns, from.data, to.data, ctx);
  });
}

// Fills `a` from the array `object`, whose rank is known to be right, in one of the two layouts.
void fill(Array& a, const char* name, py::handle object, npy::PyArray_Proxy* p, bool unbatched, const Layout* layout,
          int64_t item) {
  a.unbatched = unbatched;
  const int skip = unbatched ? 1 : 0;
  a.ndim = p->nd + skip;
  int64_t strides[kMaxDims];
  a.shape[0] = 1;
  for (int i = 0; i < p->nd; i++) {
    a.shape[i + skip] = p->dimensions[i];
    strides[i + skip] = p->strides[i];
  }
  if (unbatched) strides[0] = item * a.size();
  const bool aligned = reinterpret_cast<std::uintptr_t>(p->data) % std::size_t(item) == 0;
  Layout found;
  if (aligned && found_layout(a.ndim, a.shape, strides, item, &found) &&
      (!layout || found == *layout || dense_in(*layout, a.ndim, a.shape, strides, item))) {
    a.owner = py::reinterpret_borrow<py::object>(object);
    a.data = p->data;
    a.layout = layout ? *layout : found;
    return;
  }
  if (layout) {
    Array out = new_batched(npy::array_descriptor1_proxy(p->descr)->type_num, item, a.dtype, a.ndim, a.shape, *layout,
                            unbatched);
    const Layout other = *layout == Layout::channels_last ? Layout::channels_first : Layout::channels_last;
    a.data = p->data;
    if (aligned && a.ndim > 2 && dense_in(other, a.ndim, a.shape, strides, item)) change_layout(a, out, item);
    else copy_elements(out.owner, object);
    a = std::move(out);
    return;
  }
  for (const int order : {kKeepOrder, kCOrder}) {
    py::object c = copied(object, order);
    auto* q = npy::array_proxy(c.ptr());
    for (int i = 0; i < q->nd; i++) strides[i + skip] = q->strides[i];
    if (!found_layout(a.ndim, a.shape, strides, item, &found)) continue;
    a.owner = std::move(c);
    a.data = q->data;
    a.layout = found;
    return;
  }
  throw py::value_error(string(name) + " could not be made contiguous");
}

string rank_text(int nd) {
  const char* space[] = {"", "W", "H, W", "D, H, W"};
  return string("(N, C, ") + space[nd] + ") or (C, " + space[nd] + ")";
}

}  // namespace

string shape_text(const int64_t* shape, int ndim) {
  string s = "(";
  for (int i = 0; i < ndim; i++) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (ndim == 1 ? ",)" : ")");
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32: return "float32";
    case DType::f64: return "float64";
    case DType::f16: return "float16";
    default: return "bfloat16";
  }
}

Array take_image(const char* name, py::handle object, int nd, const Layout* layout) {
  auto* p = array_of(name, object);
  Array a;
  a.dtype = dtype_of(name, p);
  if (p->nd != nd + 1 && p->nd != nd + 2) {
    int64_t shape[64];
    for (int i = 0; i < p->nd; i++) shape[i] = p->dimensions[i];
    throw py::value_error(string(name) + " must have shape " + rank_text(nd) + ", got " + shape_text(shape, p->nd));
  }
  fill(a, name, object, p, p->nd == nd + 1, layout, int64_t(item_size(a.dtype)));
  return a;
}

Array take_channels(const char* name, py::handle object, const Layout* layout) {
  auto* p = array_of(name, object);
  Array a;
  a.dtype = dtype_of(name, p);
  if (p->nd < 2 || p->nd > kMaxDims)
    throw py::value_error(string(name) + " must have at least two dimensions (N, C, ...), got " +
                          std::to_string(p->nd));
  fill(a, name, object, p, false, layout, int64_t(item_size(a.dtype)));
  return a;
}

Array take_dense(const char* name, py::handle object) {
  auto* p = array_of(name, object);
  Array a;
  a.dtype = dtype_of(name, p);
  if (p->nd > kMaxDims) throw py::value_error(string(name) + " has too many dimensions");
  const Layout first = Layout::channels_first;
  fill(a, name, object, p, false, &first, int64_t(item_size(a.dtype)));
  return a;
}

Array take_elements(const char* name, py::handle object, const Array* like) {
  auto* p = array_of(name, object);
  Array a;
  a.dtype = dtype_of(name, p);
  if (p->nd > kMaxDims) throw py::value_error(string(name) + " has too many dimensions");
  fill(a, name, object, p, false, like ? &like->layout : nullptr, int64_t(item_size(a.dtype)));
  return a;
}

StridedArray take_strided(const char* name, py::handle object) {
  auto* p = array_of(name, object);
  StridedArray a;
  a.dtype = dtype_of(name, p);
  if (p->nd > kMaxDims) throw py::value_error(string(name) + " has too many dimensions");
  const int64_t item = int64_t(item_size(a.dtype));
  bool aligned = reinterpret_cast<std::uintptr_t>(p->data) % std::size_t(item) == 0;
  for (int i = 0; i < p->nd; i++) aligned = aligned && p->strides[i] % item == 0;
  a.ndim = p->nd;
  for (int i = 0; i < p->nd; i++) {
    a.shape[i] = p->dimensions[i];
    a.strides[i] = p->strides[i] / item;
  }
  if (!aligned) return made_dense(name, (a.owner = py::reinterpret_borrow<py::object>(object), a), a.layout);
  a.owner = py::reinterpret_borrow<py::object>(object);
  a.data = p->data;
  const int n = a.ndim;
  if (n > 2 && a.shape[1] > 1 && a.strides[1] == 1 && a.strides[n - 1] >= a.shape[1]) a.layout = Layout::channels_last;
  return a;
}

StridedArray made_dense(const char* name, const StridedArray& a, Layout layout) {
  StridedArray out;
  static_cast<Array&>(out) = a;
  fill(out, name, a.owner, npy::array_proxy(a.owner.ptr()), false, &layout, int64_t(item_size(a.dtype)));
  dense_strides(layout, out.ndim, out.shape, 1, out.strides);
  return out;
}

Array take_indices(const char* name, py::handle object, const Array& like, std::size_t item) {
  auto* p = array_of(name, object);
  const auto* d = npy::array_descriptor1_proxy(p->descr);
  if (d->kind != (item == 1 ? 'u' : 'i') || d->byteorder == '>' ||
      std::size_t(py::reinterpret_borrow<py::array>(object).itemsize()) != item)
    throw py::type_error(string(name) + " must have dtype " + (item == 1 ? "uint8" : item == 4 ? "int32" : "int64") +
                         ", got " + string(py::str(py::handle(p->descr))));
  Array a;
  const int skip = like.unbatched ? 1 : 0;
  bool same = p->nd == like.ndim - skip;
  for (int i = 0; same && i < p->nd; i++) same = p->dimensions[i] == like.shape[i + skip];
  if (!same) {
    int64_t shape[64];
    for (int i = 0; i < p->nd; i++) shape[i] = p->dimensions[i];
    throw py::value_error(string(name) + " must have shape " + shape_text(like.shape + skip, like.ndim - skip) +
                          ", got " + shape_text(shape, p->nd));
  }
  fill(a, name, object, p, like.unbatched, &like.layout, int64_t(item));
  return a;
}

void require_dtype(const char* name, const Array& a, DType dtype) {
  if (a.dtype != dtype)
    throw py::type_error(string(name) + " must have dtype " + dtype_name(dtype) + " like the other arrays, got " +
                         dtype_name(a.dtype));
}

void require_shape(const char* name, const Array& a, const int64_t* shape, int ndim, bool unbatched) {
  bool same = a.ndim == ndim && a.unbatched == unbatched;
  for (int i = 0; same && i < ndim; i++) same = a.shape[i] == shape[i];
  if (same) return;
  const int skip = unbatched ? 1 : 0, own = a.unbatched ? 1 : 0;
  throw py::value_error(string(name) + " must have shape " + shape_text(shape + skip, ndim - skip) + ", got " +
                        shape_text(a.shape + own, a.ndim - own));
}

Array new_image(DType dtype, int nd, int64_t n, int64_t c, const int64_t* space, Layout layout, bool unbatched) {
  return new_spatial(number_of(dtype), int64_t(item_size(dtype)), dtype, nd, n, c, space, layout, unbatched);
}

Array new_indices(int nd, int64_t n, int64_t c, const int64_t* space, Layout layout, bool unbatched) {
  return new_spatial(kNpyInt64, 8, DType::f64, nd, n, c, space, layout, unbatched);
}

Array new_window_indices(std::size_t item, int nd, int64_t n, int64_t c, const int64_t* space, Layout layout,
                         bool unbatched) {
  return new_spatial(item == 1 ? kNpyUint8 : kNpyInt32, int64_t(item), DType::f32, nd, n, c, space, layout, unbatched);
}

py::object frozen_copy(const Array& a) {
  const int64_t item = int64_t(item_size(a.dtype)), bytes = a.size() * item;
  void* block = pool_acquire(std::size_t(bytes));
  if (!block) throw std::bad_alloc();
  std::memcpy(block, a.data, std::size_t(bytes));
  int64_t strides[kMaxDims];
  dense_strides(Layout::channels_first, a.ndim, a.shape, item, strides);
  auto weight = std::make_unique<PackedWeight>(block);
  py::object owner = py::reinterpret_steal<py::object>(PyCapsule_New(weight.get(), kPackedWeight, free_packed_weight));
  if (!owner) throw py::error_already_set();
  weight.release();
  return array_over(block, std::move(owner), number_of(a.dtype), a.ndim, a.shape, strides, kAligned);
}

PackedWeight* packed_weight_of(const Array& a) {
  const auto* p = npy::array_proxy(a.owner.ptr());
  if (!p->base || p->flags & kWriteable || !PyCapsule_IsValid(p->base, kPackedWeight)) return nullptr;
  auto* weight = static_cast<PackedWeight*>(PyCapsule_GetPointer(p->base, kPackedWeight));
  return weight->data() == a.data ? weight : nullptr;
}

Array new_dense(DType dtype, int ndim, const int64_t* shape) {
  return new_batched(number_of(dtype), int64_t(item_size(dtype)), dtype, ndim, shape, Layout::channels_first, false);
}

Array new_like(const Array& a) {
  return new_batched(number_of(a.dtype), int64_t(item_size(a.dtype)), a.dtype, a.ndim, a.shape, a.layout, a.unbatched);
}

StridedArray new_strided(const StridedArray& like, const int64_t* shape) {
  StridedArray y;
  y.ndim = like.ndim;
  y.dtype = like.dtype;
  y.layout = like.layout;
  std::memcpy(y.shape, shape, sizeof(int64_t) * std::size_t(y.ndim));
  static_cast<Array&>(y) = new_like(y);
  dense_strides(y.layout, y.ndim, y.shape, 1, y.strides);
  return y;
}

int64_t take_int(const char* name, py::handle object) {
  if (PyLong_CheckExact(object.ptr())) {
    const long long v = PyLong_AsLongLong(object.ptr());
    if (v != -1 || !PyErr_Occurred()) return v;
  } else if (PyIndex_Check(object.ptr()) && !PyBool_Check(object.ptr()) && !py::isinstance<py::array>(object)) {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
    if (!index) {
      PyErr_Clear();
      throw py::type_error(string(name) + " must be an integer, got " + type_text(object));
    }
    const long long v = PyLong_AsLongLong(index.ptr());
    if (v != -1 || !PyErr_Occurred()) return v;
  } else {
    throw py::type_error(string(name) + " must be an integer, got " + string(py::repr(object)) + " of type " +
                         type_text(object));
  }
  PyErr_Clear();
  throw py::value_error(string(name) + " must fit a 64-bit integer, got " + string(py::str(object)));
}

double take_real(const char* name, py::handle object) {
  if (!PyFloat_CheckExact(object.ptr()) &&
      (PyBool_Check(object.ptr()) || !py::isinstance(object, py::module_::import("numbers").attr("Real"))))
    throw py::type_error(string(name) + " must be a real number, got " + type_text(object));
  const double v = PyFloat_AsDouble(object.ptr());
  if (v == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    throw py::value_error(string(name) + " must fit a 64-bit float, got " + string(py::str(object)));
  }
  if (v != v) throw py::value_error(string(name) + " must be a number, got nan");
  return v;
}

double take_finite(const char* name, py::handle object) {
  const double v = take_real(name, object);
  if (!std::isfinite(v)) throw py::value_error(string(name) + " must be finite, got " + std::to_string(v));
  return v;
}

namespace {

bool is_sequence(py::handle object) {
  if (PyTuple_Check(object.ptr()) || PyList_Check(object.ptr())) return true;
  // An array of no dimensions has no entries.
  return py::isinstance<py::array>(object) && py::reinterpret_borrow<py::array>(object).ndim() > 0;
}

py::object as_tuple(py::handle object) {
  PyObject* t = PySequence_Tuple(object.ptr());
  if (!t) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(t);
}

[[noreturn]] void wrong_length(const char* name, py::handle object, int nd, std::size_t got) {
  throw py::value_error(string(name) + " must be one integer or " + std::to_string(nd) + " of them, got " +
                        std::to_string(got) + ": " + string(py::repr(object)));
}

}  // namespace

void take_ints(const char* name, py::handle object, int nd, int64_t* values) {
  if (!is_sequence(object)) {
    const int64_t v = take_int(name, object);
    for (int i = 0; i < nd; i++) values[i] = v;
    return;
  }
  const auto t = py::reinterpret_borrow<py::tuple>(as_tuple(object));
  if (t.size() == 1) {
    const int64_t v = take_int(name, t[0]);
    for (int i = 0; i < nd; i++) values[i] = v;
    return;
  }
  if (t.size() != std::size_t(nd)) wrong_length(name, object, nd, t.size());
  for (int i = 0; i < nd; i++) values[i] = take_int(name, t[std::size_t(i)]);
}

Padding take_padding(py::handle object, int nd) {
  Padding p;
  if (PyUnicode_Check(object.ptr())) {
    const string s = py::cast<string>(object);
    if (s == "same") p.kind = Padding::same;
    else if (s == "valid") p.kind = Padding::valid;
    else throw py::value_error("padding must be integers, pairs, 'same' or 'valid', got '" + s + "'");
    return p;
  }
  if (is_sequence(object) && PySequence_Size(object.ptr()) > 0) {
    const auto t = py::reinterpret_borrow<py::tuple>(as_tuple(object));
    if (is_sequence(t[0])) {
      if (t.size() != std::size_t(nd))
        throw py::value_error("padding must have one (before, after) pair per dimension, " + std::to_string(nd) +
                              ", got " + string(py::repr(object)));
      for (int i = 0; i < nd; i++) {
        if (!is_sequence(t[std::size_t(i)]) || PySequence_Size(py::object(t[std::size_t(i)]).ptr()) != 2)
          throw py::value_error("padding must have one (before, after) pair per dimension, got " +
                                string(py::repr(object)));
        const auto pair = py::reinterpret_borrow<py::tuple>(as_tuple(t[std::size_t(i)]));
        p.before[i] = take_int("padding", pair[0]);
        p.after[i] = take_int("padding", pair[1]);
      }
      p.kind = Padding::pairs;
      return p;
    }
  }
  take_ints("padding", object, nd, p.before);
  for (int i = 0; i < nd; i++) p.after[i] = p.before[i];
  return p;
}

int take_shape(const char* name, py::handle object, int64_t* shape, int least, int most) {
  if (!is_sequence(object)) throw py::type_error(string(name) + " must be a sequence of integers, got " + type_text(object));
  const auto t = py::reinterpret_borrow<py::tuple>(as_tuple(object));
  const int n = int(t.size());
  if (n < least || n > most)
    throw py::value_error(string(name) + " must have " + std::to_string(least) + " to " + std::to_string(most) +
                          " sizes, got " + std::to_string(n));
  for (int i = 0; i < n; i++) shape[i] = take_int(name, t[std::size_t(i)]);
  return n;
}

}  // namespace fastconv
