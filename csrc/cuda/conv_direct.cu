// Convolutions of few channels a group, depthwise above all: one thread a result, which reads what it needs through the
// caches. Neighbouring threads have neighbouring results in memory.
#include "channel_reduce.cuh"
#include "conv.h"

namespace fastconv::cuda {
namespace {

template <class T> struct Direct {
  Image<T> x, y;  // the convolution's input and output sides
  int64_t N, C, K, in_channels, out_channels, taps;
  int64_t kernel[3], stride[3], pad[3], dilation[3];
  bool last;

  Direct(const ConvShape& s, const void* x_data, const void* y_data)
      : x(x_data, s.layout, s.C, s.in), y(y_data, s.layout, s.K, s.out), N(s.N), C(s.C), K(s.K),
        in_channels(s.group_in()), out_channels(s.group_out()), taps(s.taps()),
        last(s.layout == Layout::channels_last) {
    for (int d = 0; d < 3; d++) {
      kernel[d] = s.kernel[d];
      stride[d] = s.stride[d];
      pad[d] = s.pad[d];
      dilation[d] = s.dilation[d];
    }
  }
  // Image, channel and position of the element at position i in memory.
  FC_DEVICE void place(int64_t i, const Image<T>& a, int64_t channels, int64_t& n, int64_t& c, int64_t (&at)[3]) const {
    if (last) c = take_digit(i, channels);
    for (int d = 2; d >= 0; d--) at[d] = take_digit(i, a.size[d]);
    if (!last) c = take_digit(i, channels);
    n = i;
  }
  // f(tap, offset in a plane of the other side) for the taps that meet it, in order.
  template <bool gradient, class F> FC_DEVICE void each_tap(const int64_t (&at)[3], F f) const {
    int64_t tap = 0;
    for (int64_t t = 0; t < kernel[0]; t++) {
      int64_t d = 0;
      const bool in_depth = meets<gradient>(0, at[0], t, d);
      for (int64_t r = 0; r < kernel[1]; r++) {
        int64_t h;
        const bool in_height = in_depth && meets<gradient>(1, at[1], r, h);
        if (!in_height) {
          tap += kernel[2];
          continue;
        }
        for (int64_t s = 0; s < kernel[2]; s++, tap++) {
          int64_t w = 0;
          if (!meets<gradient>(2, at[2], s, w)) continue;
          const Image<T>& other = gradient ? y : x;
          f(tap, d * other.step[0] + h * other.step[1] + w * other.step[2]);
        }
      }
    }
  }
  template <bool gradient> FC_DEVICE bool meets(int d, int64_t at, int64_t tap, int64_t& position) const {
    if (!gradient) {
      position = at * stride[d] - pad[d] + tap * dilation[d];
      return std::uint64_t(position) < std::uint64_t(x.size[d]);
    }
    const int64_t distance = at + pad[d] - tap * dilation[d];
    if (distance < 0) return false;
    position = divide_by_step(distance, stride[d]);
    return position * stride[d] == distance && position < y.size[d];
  }
};

template <class T>
__global__ void direct_forward_kernel(Direct<T> p, int64_t elements, const T* w, const T* bias, Finish<T> finish, T* out) {
  const int64_t i = element();
  if (i >= elements) return;
  int64_t n, k = 0, at[3];
  p.place(i, p.y, p.K, n, k, at);
  const int64_t c0 = divide(k, p.out_channels) * p.in_channels;
  const T* image = p.x.data + n * p.x.image + c0 * p.x.channel;
  const T* filter = w + k * p.in_channels * p.taps;
  Accumulator<T> sum = 0;
  for (int64_t c = 0; c < p.in_channels; c++)
    p.template each_tap<false>(at, [&](int64_t tap, int64_t offset) {
      sum += prim::to_accumulator(image[c * p.x.channel + offset]) * prim::to_accumulator(filter[c * p.taps + tap]);
    });
  if (bias) sum += prim::to_accumulator(bias[k]);
  out[i] = prim::from_accumulator<T>(finish(sum, i));
}

template <class T>
__global__ void direct_backward_input_kernel(Direct<T> p, int64_t elements, const T* w, const T* bias, T* out) {
  const int64_t i = element();
  if (i >= elements) return;
  int64_t n, c = 0, at[3];
  p.place(i, p.x, p.C, n, c, at);
  const int64_t group = divide(c, p.in_channels), k0 = group * p.out_channels, own = c - group * p.in_channels;
  const T* image = p.y.data + n * p.y.image + k0 * p.y.channel;
  Accumulator<T> sum = 0;
  for (int64_t k = 0; k < p.out_channels; k++)
    p.template each_tap<true>(at, [&](int64_t tap, int64_t offset) {
      sum += prim::to_accumulator(image[k * p.y.channel + offset]) *
             prim::to_accumulator(w[((k0 + k) * p.in_channels + own) * p.taps + tap]);
    });
  if (bias) sum += prim::to_accumulator(bias[c]);
  out[i] = prim::from_accumulator<T>(sum);
}

// The gradient of one tap: a sum over the positions of dy, grouped by dy's channel.
template <class T> __global__ void __launch_bounds__(kThreads) direct_weight_kernel(Direct<T> p, Groups g, double* partials) {
  int64_t block = int64_t(blockIdx.x);
  const int64_t chunk = take_digit(block, g.chunks), per_group = p.in_channels * p.taps;
  const int64_t number = take_digit(block, per_group), tile = block;
  int64_t own = number, t[3];
  for (int d = 2; d >= 0; d--) t[d] = take_digit(own, p.kernel[d]);
  const Share<1> share(g, tile, chunk);
  const Places places(g, share.group);
  const int64_t c = divide(share.group, p.out_channels) * p.in_channels + own;
  double sum[1] = {0};
  for (int64_t i = share.first; i < share.end; i += share.step) {
    int64_t rest = i, offset = 0;
    bool inside = true;
    for (int d = 2; d >= 0; d--) {
      int64_t position;
      inside &= p.template meets<false>(d, take_digit(rest, p.y.size[d]), t[d], position);
      offset += position * p.x.step[d];
    }
    if (!inside) continue;
    sum[0] += double(prim::to_accumulator(p.x.data[rest * p.x.image + c * p.x.channel + offset])) *
           double(prim::to_accumulator(p.y.data[places(i)]));
  }
  block_sums<1>(sum, g.last);
  if (share.valid && int(threadIdx.x) < (g.last ? kLanes : 1))
    partials[(chunk * p.K + share.group) * per_group + number] = sum[0];
}

template <class T> __global__ void direct_weight_sum_kernel(int64_t n, int64_t chunks, const double* partials, T* dw) {
  const int64_t i = element();
  if (i >= n) return;
  double sum = 0;
  for (int64_t t = 0; t < chunks; t++) sum += partials[t * n + i];
  dw[i] = prim::from_accumulator<T>(Accumulator<T>(sum));
}

Groups gradient_groups(const ConvShape& s) {
  return Groups(NormShape{s.N, s.K, s.out_space(), s.dtype, s.dtype, s.layout}, false);
}

}  // namespace

void direct_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue, void* y,
                    Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = s.N * s.K * s.out_space();
    launch_elements(ctx, "conv_direct_forward", direct_forward_kernel<T>, n, Direct<T>(s, x, y), n,
                    static_cast<const T*>(w), static_cast<const T*>(b), Finish<T>(epilogue), static_cast<T*>(y));
  });
}

void direct_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx) {
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t n = s.N * s.C * s.in_space();
    launch_elements(ctx, "conv_direct_backward_input", direct_backward_input_kernel<T>, n, Direct<T>(s, dx, dy), n,
                    static_cast<const T*>(w), static_cast<const T*>(b), static_cast<T*>(dx));
  });
}

void direct_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  const Groups g = gradient_groups(s);
  double* partials = static_cast<double*>(ctx.workspace(direct_weight_workspace(s)));
  if (!partials) return;
  with_type(s.dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t per_group = s.group_in() * s.taps(), n = s.K * per_group;
    launch(ctx, "conv_direct_backward_weight", direct_weight_kernel<T>, g.tiles() * per_group * g.chunks, kThreads,
           kSumBytes<1>, Direct<T>(s, x, dy), g, partials);
    launch_elements(ctx, "conv_direct_weight_sum", direct_weight_sum_kernel<T>, n, n, g.chunks, partials,
                    static_cast<T*>(dw));
  });
}

std::size_t direct_weight_workspace(const ConvShape& s) {
  return std::size_t(gradient_groups(s).chunks * s.K * s.group_in() * s.taps()) * sizeof(double);
}

}  // namespace fastconv::cuda
