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

#if defined(FC_SIMT)
inline bool has_warpgroups() { return true; }
#else
bool has_warpgroups();  // whether the current device runs the code for sm_90a (device.cu)
#endif

// Depthwise, channels-last, 16 bytes of channels a thread.
bool takes_depthwise(const ConvShape& s);
void depthwise_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue,
                       void* y, Context& ctx);
void depthwise_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx);
void depthwise_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx);
std::size_t depthwise_workspace(const ConvShape& s);
std::size_t depthwise_weight_workspace(const ConvShape& s);

// Tensor cores by warpgroups (warpgroup.cuh): all but float64, on devices of compute capability 9.0.
constexpr int kMostTaps[3] = {10, 11, 11};  // along each axis: what 32 bits hold of them
constexpr int kMostTapsInAll = 128;         // what a table in shared memory holds
bool takes_warpgroups(const ConvShape& s, ConvOp op);
bool warpgroups_copy_little(const ConvShape& s, bool gradient);  // of one image
void warpgroup_slide(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
                     const Epilogue& epilogue, void* y, Context& ctx);
std::size_t warpgroup_slide_workspace(const ConvShape& s, bool gradient);
void warpgroup_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx);
std::size_t warpgroup_weight_workspace(const ConvShape& s);
constexpr int64_t kProcessors = 132;  // of an H200; sizes follow from the shape alone, never from the device at hand

// Parts that tensor cores take of a float32.
inline int parts_of_float(const ConvShape& s) {
  return s.precision == Precision::highest ? 3 : s.precision == Precision::high ? 2 : 1;
}

// What the forward convolution makes of a sum and its bias (Epilogue in ops.h).
template <class T> struct Finish {
  using A = Accumulator<T>;
  const T* add = nullptr;
  A low = -A(INFINITY), high = A(INFINITY);
  bool clamps = false;

  Finish() = default;
  explicit Finish(const Epilogue& e)
      : add(static_cast<const T*>(e.add)), low(A(e.low)), high(A(e.high)),
        clamps(low > -A(INFINITY) || high < A(INFINITY)) {}
  // `at`: the element of y. NaN stays NaN.
  FC_DEVICE A operator()(A v, int64_t at) const {
    if (add) v += prim::to_accumulator(add[at]);
    return clamp(v);
  }
  FC_DEVICE A clamp(A v) const { return v <= low ? low : v > high ? high : v; }
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
  FC_EVERYWHERE int64_t space() const { return size[0] * size[1] * size[2]; }
};

}  // namespace fastconv::cuda
