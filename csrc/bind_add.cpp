// Sums and concatenation of arrays of any rank, whose strides may be those of a part of a larger array; memory layouts.
#include <cstring>
#include <vector>

#include "array_library.h"
#include "bind.h"

namespace fastconv {
namespace {

using std::int64_t;
using std::string;

// Arrays of one shape as rows whose elements lie side by side in all of them.
struct RowWalk {
  int64_t rows = 1, length = 1, step[3] = {};

  // Dimensions are taken from the fastest in `layout` to the slowest; false where they do not join to two.
  bool set(int ndim, const int64_t* shape, Layout layout, std::initializer_list<const int64_t*> strides) {
    bool inner = true, outer = false;
    for (int i = 0; i < ndim; i++) {
      const int d = axis(layout, ndim, i);
      if (shape[d] == 1) continue;
      if (inner && joins(d, length, strides, nullptr)) {
        length *= shape[d];
        continue;
      }
      inner = false;
      if (!outer) {
        int k = 0;
        for (const int64_t* s : strides) step[k++] = s[d];
        outer = true;
      } else if (!joins(d, rows, strides, step)) {
        return false;
      }
      rows *= shape[d];
    }
    return true;
  }

 private:
  // Whether dimension d goes on where `count` elements, `step` (null: 1) apart, end.
  static bool joins(int d, int64_t count, std::initializer_list<const int64_t*> strides, const int64_t* step) {
    int k = 0;
    for (const int64_t* s : strides)
      if (s[d] != count * (step ? step[k++] : 1)) return false;
    return true;
  }
};

struct Span {
  const char *low, *high;
  explicit Span(const StridedArray& a) {
    int64_t below = 0, above = 0;
    for (int i = 0; i < a.ndim; i++) (a.strides[i] < 0 ? below : above) += a.strides[i] * (a.shape[i] - 1);
    const int64_t item = int64_t(item_size(a.dtype));
    low = static_cast<const char*>(a.data) + below * item;
    high = static_cast<const char*>(a.data) + (above + 1) * item;
  }
};

bool overlap(const StridedArray& a, const StridedArray& b) {
  const Span p(a), q(b);
  return p.low < q.high && q.low < p.high;
}

bool same_place(const StridedArray& a, const StridedArray& b) {
  bool same = a.data == b.data;
  for (int i = 0; same && i < a.ndim; i++) same = a.shape[i] == 1 || a.strides[i] == b.strides[i];
  return same;
}

void run(const RowWalk& walk, const StridedArray& a, const void* b, void* y, int y_number) {
  run_kernel(2 * double(walk.rows) * double(walk.length), [&](Context& ctx) {
    cpu::active().add_rows(a.dtype, walk.rows, walk.length, a.data, walk.step[0], b, walk.step[1], y,
                           walk.step[y_number], ctx);
  });
}

py::object add_forward(py::handle a_object, py::handle b_object, bool inplace) {
  StridedArray a = take_strided("input", a_object), b = take_strided("other", b_object);
  require_dtype("other", b, a.dtype);
  require_shape("other", b, a.shape, a.ndim, false);
  if (inplace && !py::reinterpret_borrow<py::array>(a_object).writeable())
    throw py::value_error("input must be writable with inplace=True, got a read-only array");
  RowWalk walk;
  if (inplace && a.owner.is(a_object) && a.size()) {
    if (overlap(a, b) && !same_place(a, b)) {
      StridedArray copy = new_strided(b, b.shape);
      copy_elements(copy.owner, b.owner);
      b = std::move(copy);
    }
    if (walk.set(a.ndim, a.shape, a.layout, {a.strides, b.strides, a.strides})) {
      run(walk, a, b.data, a.data, 2);
      return py::reinterpret_borrow<py::object>(a_object);
    }
    walk = RowWalk();
  }
  StridedArray y = new_strided(a, a.shape);
  if (y.size()) {
    if (!walk.set(a.ndim, a.shape, y.layout, {a.strides, b.strides, y.strides})) {
      a = made_dense("input", a, y.layout);
      b = made_dense("other", b, y.layout);
      walk = RowWalk();
      walk.set(a.ndim, a.shape, y.layout, {a.strides, b.strides, y.strides});
    }
    run(walk, a, b.data, y.data, 2);
  }
  if (!inplace) return std::move(y.owner);
  copy_elements(a_object, y.owner);
  return py::reinterpret_borrow<py::object>(a_object);
}

py::object cat_forward(py::handle dim_object, const py::args& objects) {
  std::vector<StridedArray> parts;
  int number = 0;
  for (py::handle object : objects)
    parts.push_back(take_strided(("arrays[" + std::to_string(number++) + "]").c_str(), object));
  if (parts.empty()) throw py::value_error("arrays must hold at least one array, got none");
  const StridedArray& first = parts[0];
  const int64_t given = take_int("dim", dim_object);
  if (given < -first.ndim || given >= first.ndim)
    throw py::value_error("dim must lie in [" + std::to_string(-first.ndim) + ", " + std::to_string(first.ndim) +
                          "), got " + std::to_string(given));
  const int dim = int(given < 0 ? given + first.ndim : given);
  int64_t shape[kMaxDims];
  std::memcpy(shape, first.shape, sizeof shape);
  shape[dim] = 0;
  number = 0;
  for (const StridedArray& part : parts) {
    const string name = "arrays[" + std::to_string(number++) + "]";
    require_dtype(name.c_str(), part, first.dtype);
    int64_t wanted[kMaxDims];
    std::memcpy(wanted, first.shape, sizeof wanted);
    if (part.ndim == first.ndim) wanted[dim] = part.shape[dim];
    require_shape(name.c_str(), part, wanted, first.ndim, false);
    if (__builtin_add_overflow(shape[dim], part.shape[dim], &shape[dim]))
      throw py::value_error("arrays have too many elements together");
  }
  StridedArray y = new_strided(first, shape);
  char* to = static_cast<char*>(y.data);
  for (StridedArray& part : parts) {
    if (!part.size()) continue;
    RowWalk walk;
    if (!walk.set(y.ndim, part.shape, y.layout, {part.strides, y.strides})) {
      part = made_dense("arrays", part, y.layout);
      walk = RowWalk();
      walk.set(y.ndim, part.shape, y.layout, {part.strides, y.strides});
    }
    run(walk, part, nullptr, to, 1);
    to += part.shape[dim] * y.strides[dim] * int64_t(item_size(y.dtype));
  }
  return std::move(y.owner);
}

py::object layout_forward(py::handle x_object, bool channels_last) {
  const Layout layout = channels_last ? Layout::channels_last : Layout::channels_first;
  return take_channels("input", x_object, &layout).owner;
}

}  // namespace

void bind_add(py::module_& m) {
  using py::arg;
  m.def("add_forward", add_forward, arg("a"), arg("b"), arg("inplace").noconvert() = false);
  m.def("cat_forward", cat_forward);
  m.def("layout_forward", layout_forward, arg("x"), arg("channels_last").noconvert());
}

}  // namespace fastconv
