// Depthwise convolution (groups == channels): its own kernels, in both layouts.
//
// Each result element sums its taps in the order (t, r, s), starting from zero, and takes its bias last, in every path:
// the bits do not depend on layout, threads or batch.
#pragma once
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

void depthwise_forward(const ConvShape&, const void* x, const void* w, const void* b, const Epilogue&, void* y,
                       Context&);
void depthwise_backward_input(const ConvShape&, const void* dy, const void* w, const void* b, void* dx, Context&);
void depthwise_backward_weight(const ConvShape&, const void* dy, const void* x, void* dw, Context&);

// The kernels for channels-first planes and the filters of mobile networks; fit: whether they do this shape.
bool depthwise_planes_fit(const ConvShape&, ConvOp);
void depthwise_planes(const ConvShape&, bool gradient, const void* source, const void* w, const void* b,
                      const Epilogue&, void* result, int threads);
void depthwise_planes_weight(const ConvShape&, const void* dy, const void* x, void* dw, int threads, Context&);
std::size_t depthwise_planes_weight_workspace(const ConvShape&);  // bytes

// The same for channels-last arrays: false where they do not do this shape. They also return true, and
// have done nothing, where the scratch could not be had.
bool depthwise_tiled(const ConvShape&, bool gradient, const void* source, const void* w, const void* b, const Epilogue&,
                     void* result, int threads, Context&);
std::size_t depthwise_tiled_workspace(const ConvShape&, bool gradient);  // bytes, 0: not for them

// 1x1 filters of stride 1, in both layouts.
bool depthwise_scale_fits(const ConvShape&);
void depthwise_scale(const ConvShape&, const void* source, const void* w, const void* b, const Epilogue&, void* result,
                     int threads);

// Bytes of scratch that each takes, for explain().
std::size_t depthwise_workspace(const ConvShape&, ConvOp, int threads);
std::size_t depthwise_weight_workspace(const ConvShape&, int threads);

}  // namespace fastconv::cpu::FC_ISA
