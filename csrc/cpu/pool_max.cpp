// Max pooling forward. Of equal values the first in (depth, height, width) order wins, the first NaN before all numbers;
// what lies outside the input is no candidate.
#include "pool_windows.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Where a chosen tap is reported: nowhere, as the tap's number in the window, or as the place in the plane.
struct IndexOutput {
  Indices kind;
  void* data;
  std::size_t item;

  IndexOutput(const PoolShape& s, Indices kind, void* data)
      : kind(kind), data(data), item(kind == Indices::flat ? 8 : window_index_size(s)) {}
  FC_INLINE void put(int64_t at, int64_t value) const {
    if (item == 1) static_cast<std::uint8_t*>(data)[at] = std::uint8_t(value);
    else if (item == 4) static_cast<std::int32_t*>(data)[at] = std::int32_t(value);
    else static_cast<int64_t*>(data)[at] = value;
  }
};

// One element at a time: any layout, any parameters.
template <class T>
void max_pool_elements(const PoolShape& s, const T* x, T* y, const IndexOutput& index, Context& ctx) {
  using A = Accumulator<T>;
  const Axis axis[3] = {axis_of(s, 0), axis_of(s, 1), axis_of(s, 2)};
  const Steps from(s.layout, s.C, s.in), to(s.layout, s.C, s.out);
  const double taps = double(axis[0].taps(0).size() * axis[1].taps(0).size() * axis[2].taps(0).size());
  const double elements = double(s.out[2]) * taps;
  for_row_blocks<KeepDenormals>(ctx, s.N * s.C * s.out[0] * s.out[1], elements, elements * sizeof(T), [&](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, s.C, s.out);
      const T* plane = x + at.n * from.n + at.c * from.c;
      const int64_t out = at.n * to.n + at.c * to.c + at.o * to.space[0] + at.p * to.space[1];
      const Range t = axis[0].taps(at.o), r = axis[1].taps(at.p);
      const int64_t d0 = axis[0].origin(at.o), h0 = axis[1].origin(at.p);
      for (int64_t q = 0; q < s.out[2]; q++) {
        const Range w = axis[2].taps(q);
        const int64_t w0 = axis[2].origin(q);
        A best = -A(__builtin_inff());
        int64_t tap = (t.lo * s.kernel[1] + r.lo) * s.kernel[2] + w.lo;
        int64_t place = t.size() && r.size() && w.size()
                            ? ((d0 + t.lo * s.dilation[0]) * s.in[1] + h0 + r.lo * s.dilation[1]) * s.in[2] + w0 + w.lo * s.dilation[2]
                            : -1;
        for (int64_t i = t.lo; i < t.hi; i++)
          for (int64_t j = r.lo; j < r.hi; j++)
            for (int64_t k = w.lo; k < w.hi; k++) {
              const int64_t d = d0 + i * s.dilation[0], h = h0 + j * s.dilation[1], v = w0 + k * s.dilation[2];
              const A value = to_accumulator(plane[d * from.space[0] + h * from.space[1] + v * from.space[2]]);
              if (value > best || (value != value && best == best)) {
                best = value;
                tap = (i * s.kernel[1] + j) * s.kernel[2] + k;
                place = (d * s.in[1] + h) * s.in[2] + v;
              }
            }
        const int64_t o = out + q * to.space[2];
        y[o] = from_accumulator<T>(best);
        if (index.kind != Indices::none) index.put(o, index.kind == Indices::flat ? place : tap);
      }
    }
  });
}

}  // namespace

void max_pool_forward(const PoolShape& s, const void* x, void* y, Indices kind, void* indices, Context& ctx) {
  const IndexOutput index(s, kind, indices);
  with_type(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    max_pool_elements<T>(s, static_cast<const T*>(x), static_cast<T*>(y), index, ctx);
  });
}

}  // namespace fastconv::cpu::FC_ISA
