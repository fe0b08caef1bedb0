// What the convolution kernels share: who takes which problem, and how the weight gradient's sum is cut.
#pragma once
#include "launch.h"

namespace fastconv::cuda {

enum class TileChoice : std::uint8_t { by_shape, small, large };
void set_tile_choice(TileChoice choice);  // for tests and A/B measurements; by_shape is the default
TileChoice tile_choice();

// One thread a result: groups too thin for a matrix product, depthwise above all.
inline bool takes_direct(const ConvShape& s) { return s.G > 1 && s.group_in() < 8 && s.group_out() < 8; }
void direct_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue, void* y,
                    Context& ctx);
void direct_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx);
void direct_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx);
std::size_t direct_weight_workspace(const ConvShape& s);

// What the forward convolution makes of a sum and its bias (Epilogue in ops.h).
template <class T> struct Finish {
  using A = Accumulator<T>;
  const T* add = nullptr;
  A low = -A(INFINITY), high = A(INFINITY);

  Finish() = default;
  explicit Finish(const Epilogue& e) : add(static_cast<const T*>(e.add)), low(A(e.low)), high(A(e.high)) {}
  // `at`: the element of y. NaN stays NaN.
  FC_DEVICE A operator()(A v, int64_t at) const {
    if (add) v += prim::to_accumulator(add[at]);
    return v <= low ? low : v > high ? high : v;
  }
};

// An image batch N C D H W of either layout.
template <class T> struct Image {
  const T* data;
  int64_t size[3], step[3], image, channel;

  Image(const void* p, Layout layout, int64_t channels, const int64_t* sizes)
      : data(static_cast<const T*>(p)), size{sizes[0], sizes[1], sizes[2]} {
    const bool last = layout == Layout::channels_last;
    step[2] = last ? channels : 1;
    step[1] = step[2] * size[2];
    step[0] = step[1] * size[1];
    channel = last ? 1 : step[0] * size[0];
    image = channels * size[0] * size[1] * size[2];
  }
  FC_DEVICE int64_t space() const { return size[0] * size[1] * size[2]; }
};

}  // namespace fastconv::cuda
