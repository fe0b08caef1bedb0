// Where pooling windows lie: places of elements in arrays of either layout, and the taps of a window along one axis.
//
// I is the type of indices: 32 bits hold those of most arrays and are several times as fast. Channels-last, one thread
// serves V neighbouring channels, 16 bytes, where they come in such packs; else V is 1.
#pragma once
#include <algorithm>

#include "vectors.cuh"

namespace fastconv::cuda {
namespace {

// n / d for n >= 0, d > 0.
template <class I> FC_DEVICE I quotient(I n, I d) {
  if constexpr (sizeof(I) == 4) return I(uint32_t(n) / uint32_t(d));
  else return divide(n, d);
}
template <class I> FC_DEVICE I over(I n, I step) { return step == 1 ? n : quotient(n, step); }
template <class I> FC_DEVICE I last_digit(I& n, I base) {
  const I rest = quotient(n, base), digit = n - rest * base;
  n = rest;
  return digit;
}

template <class I> struct Place {
  I n, c, at[3];
};

// An array N C D H W in either layout.
template <class I> struct Volume {
  I C, size[3], image, channel, step[3];
  bool last;

  Volume(Layout layout, int64_t channels, const int64_t* sizes)
      : C(I(channels)), size{I(sizes[0]), I(sizes[1]), I(sizes[2])}, last(layout == Layout::channels_last) {
    step[2] = last ? C : 1;
    step[1] = step[2] * size[2];
    step[0] = step[1] * size[1];
    channel = last ? 1 : step[0] * size[0];
    image = C * size[0] * size[1] * size[2];
  }
  // Of the V elements that lie from position i V on in memory.
  template <int V> FC_DEVICE Place<I> place(I i) const {
    Place<I> p;
    if (last) p.c = last_digit<I>(i, C / V) * V;
    for (int d = 2; d >= 0; d--) p.at[d] = size[d] == 1 ? 0 : last_digit<I>(i, size[d]);
    if (!last) p.c = last_digit<I>(i, C);
    p.n = i;
    return p;
  }
  FC_DEVICE I plane(const Place<I>& p) const { return p.n * image + p.c * channel; }
  FC_DEVICE I offset(I d, I h, I w) const { return d * step[0] + h * step[1] + w * step[2]; }
};

template <class I> struct Range {
  I low, high;
  FC_DEVICE I length() const { return high - low; }
};
template <class I> FC_DEVICE Range<I> range(I low, I high) { return {low, high > low ? high : low}; }

template <class I> struct Axis {
  I in, out, kernel, stride, pad, pad_after, dilation;

  Axis() = default;
  Axis(const PoolShape& s, int d)
      : in(I(s.in[d])), out(I(s.out[d])), kernel(I(s.kernel[d])), stride(I(s.stride[d])), pad(I(s.pad[d])),
        pad_after(I(s.pad_after[d])), dilation(I(s.dilation[d])) {}
  FC_DEVICE I origin(I i) const { return i * stride - pad; }
  // The taps of window i that lie in the input.
  FC_DEVICE Range<I> taps(I i) const {
    const I start = origin(i);
    const I low = start < 0 ? over<I>(-start + dilation - 1, dilation) : 0;
    const I fit = start >= in ? 0 : over<I>(in - 1 - start, dilation) + 1;
    return range<I>(low, fit < kernel ? fit : kernel);
  }
  // The inputs of window i, without dilation.
  FC_DEVICE Range<I> inputs(I i) const {
    const I start = origin(i), end = start + kernel;
    return range<I>(start > 0 ? start : 0, end < in ? end : in);
  }
  // The windows whose span, dilation included, holds input x.
  FC_DEVICE Range<I> windows(I x) const {
    const I end = x + pad, reach = (kernel - 1) * dilation + 1;
    const I fit = over<I>(end, stride) + 1;
    return range<I>(end < reach ? 0 : over<I>(end - reach, stride) + 1, fit < out ? fit : out);
  }
};

// Window i of an adaptive pooling holds the inputs floor(i in / out) up to ceil((i + 1) in / out).
template <class I> struct AdaptiveAxis {
  I in, out;

  AdaptiveAxis() = default;
  AdaptiveAxis(const PoolShape& s, int d) : in(I(s.in[d])), out(I(s.out[d])) {}
  static FC_DEVICE I floor_of(I i, I to, I from) { return I(divide(int64_t(i) * to, int64_t(from))); }
  static FC_DEVICE I ceil_of(I i, I to, I from) {
    return I(divide(int64_t(i) * to + from - 1, int64_t(from)));
  }
  FC_DEVICE Range<I> inputs(I i) const {
    if (out == 1) return {0, in};  // global pooling divides nothing
    return {floor_of(i, in, out), ceil_of(i + 1, in, out)};
  }
  FC_DEVICE Range<I> windows(I x) const {
    if (out == 1) return {0, 1};
    return {floor_of(x, out, in), ceil_of(x + 1, out, in)};
  }
};

// Both sides of a pooling.
template <class I, template <class> class A> struct Pool {
  using Index = I;
  Volume<I> in, out;
  A<I> axis[3];

  explicit Pool(const PoolShape& s)
      : in(s.layout, s.C, s.in), out(s.layout, s.C, s.out), axis{A<I>(s, 0), A<I>(s, 1), A<I>(s, 2)} {}
};
inline int64_t inputs(const PoolShape& s) { return s.N * s.C * s.in_space(); }
inline int64_t outputs(const PoolShape& s) { return s.N * s.C * s.out_space(); }

// Calls f(index, width): an index type that holds all places, windows beyond the input included, as a value, and V as a
// type. arrays: those that packs are moved of.
template <class T, class F, class... P> void with_packs(const PoolShape& s, const F& f, const P*... arrays) {
  constexpr int V = kVector<T>;
  int64_t reach = std::max(inputs(s), outputs(s)) + 16 * kThreads;
  for (int d = 0; d < 3; d++)
    reach = std::max(reach, s.out[d] * s.stride[d] + s.kernel[d] * s.dilation[d] + s.in[d] + s.pad[d] + s.pad_after[d]);
  using One = std::integral_constant<int, 1>;
  if (reach > INT32_MAX) f(int64_t(), One());
  else if (s.layout == Layout::channels_last && s.C % V == 0 && all_aligned(arrays...))
    f(int32_t(), std::integral_constant<int, V>());
  else f(int32_t(), One());
}

// Calls f(tag, pool, width): a value of the storage type, the pooling with its index type, and V as a type.
template <template <class> class A, class F, class... P>
void with_pool(const PoolShape& s, const F& f, const P*... arrays) {
  with_type(s.dtype, [&](auto tag) {
    with_packs<decltype(tag)>(s, [&](auto index, auto width) { f(tag, Pool<decltype(index), A>(s), width); }, arrays...);
  });
}

}  // namespace
}  // namespace fastconv::cuda
