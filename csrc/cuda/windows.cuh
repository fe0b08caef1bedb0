// Where pooling windows lie: places of elements in arrays of either layout, and the taps of a window along one axis.
#pragma once
#include "launch.h"

namespace fastconv::cuda {
namespace {

struct Place {
  int64_t n, c, at[3];
};

// An array N C D H W in either layout.
struct Volume {
  int64_t C, size[3], image, channel, step[3];
  bool last;

  Volume(Layout layout, int64_t channels, const int64_t* sizes)
      : C(channels), size{sizes[0], sizes[1], sizes[2]}, last(layout == Layout::channels_last) {
    step[2] = last ? C : 1;
    step[1] = step[2] * size[2];
    step[0] = step[1] * size[1];
    channel = last ? 1 : step[0] * size[0];
    image = C * size[0] * size[1] * size[2];
  }
  // Of the element that lies at position i in memory.
  FC_DEVICE Place place(int64_t i) const {
    Place p;
    if (last) p.c = take_digit(i, C);
    for (int d = 2; d >= 0; d--) p.at[d] = take_digit(i, size[d]);
    if (!last) p.c = take_digit(i, C);
    p.n = i;
    return p;
  }
  FC_DEVICE int64_t plane(const Place& p) const { return p.n * image + p.c * channel; }
  FC_DEVICE int64_t offset(int64_t d, int64_t h, int64_t w) const { return d * step[0] + h * step[1] + w * step[2]; }
};

struct Range {
  int64_t low, high;
  FC_DEVICE int64_t length() const { return high - low; }
};
FC_DEVICE Range range(int64_t low, int64_t high) { return {low, high > low ? high : low}; }

struct Axis {
  int64_t in, out, kernel, stride, pad, dilation;

  FC_DEVICE int64_t origin(int64_t i) const { return i * stride - pad; }
  // The taps of window i that lie in the input.
  FC_DEVICE Range taps(int64_t i) const {
    const int64_t start = origin(i);
    const int64_t low = start < 0 ? divide_by_step(-start + dilation - 1, dilation) : 0;
    const int64_t fit = start >= in ? 0 : divide_by_step(in - 1 - start, dilation) + 1;
    return range(low, fit < kernel ? fit : kernel);
  }
  // The inputs of window i, without dilation.
  FC_DEVICE Range inputs(int64_t i) const {
    const int64_t start = origin(i), end = start + kernel;
    return range(start > 0 ? start : 0, end < in ? end : in);
  }
  // The windows whose span, dilation included, holds input x.
  FC_DEVICE Range windows(int64_t x) const {
    const int64_t end = x + pad, reach = (kernel - 1) * dilation + 1;
    const int64_t fit = divide_by_step(end, stride) + 1;
    return range(end < reach ? 0 : divide_by_step(end - reach, stride) + 1, fit < out ? fit : out);
  }
};

// Window i of an adaptive pooling holds the inputs floor(i in / out) up to ceil((i + 1) in / out).
struct AdaptiveAxis {
  int64_t in, out;
  FC_DEVICE Range inputs(int64_t i) const { return {divide(i * in, out), divide((i + 1) * in + out - 1, out)}; }
  FC_DEVICE Range windows(int64_t x) const { return {divide(x * out, in), divide((x + 1) * out + in - 1, in)}; }
};

// Both sides of a pooling.
template <class A> struct Pool {
  Volume in, out;
  A axis[3];
};
inline Pool<Axis> sliding(const PoolShape& s) {
  Pool<Axis> p{Volume(s.layout, s.C, s.in), Volume(s.layout, s.C, s.out), {}};
  for (int d = 0; d < 3; d++) p.axis[d] = {s.in[d], s.out[d], s.kernel[d], s.stride[d], s.pad[d], s.dilation[d]};
  return p;
}
inline Pool<AdaptiveAxis> adaptive(const PoolShape& s) {
  Pool<AdaptiveAxis> p{Volume(s.layout, s.C, s.in), Volume(s.layout, s.C, s.out), {}};
  for (int d = 0; d < 3; d++) p.axis[d] = {s.in[d], s.out[d]};
  return p;
}
inline int64_t inputs(const PoolShape& s) { return s.N * s.C * s.in_space(); }
inline int64_t outputs(const PoolShape& s) { return s.N * s.C * s.out_space(); }

}  // namespace
}  // namespace fastconv::cuda
