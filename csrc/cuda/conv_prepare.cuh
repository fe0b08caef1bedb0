// What the products of warpgroups read in place of arrays that they cannot read as they are: images whose channels are
// neighbours and come in eights, and weights in the order of the sum, cut into parts.
#pragma once
#include "warpgroup_gemm.cuh"

namespace fastconv::cuda {
namespace {

FC_EVERYWHERE int64_t padded(int64_t channels) { return (channels + kEight - 1) / kEight * kEight; }
constexpr int kSide = 64;  // of a square of positions by channels that is turned in shared memory

// The channels of every position of an image whose positions are neighbours, each group's padded with zeros to a
// multiple of eight.
template <class T>
__global__ void channels_last_kernel(Image<T> from, int64_t groups, int64_t channels, int64_t space,
                                     T* to) {
  T* square = reinterpret_cast<T*>(prim::shared_memory());
  constexpr int pitch = kSide + (sizeof(T) == 2 ? 2 : 1);
  const int64_t width = groups * padded(channels), place_squares = divide(space + kSide - 1, kSide);
  const int64_t channel_squares = divide(width + kSide - 1, kSide);
  int64_t image = int64_t(blockIdx.x);
  const int64_t channel0 = take_digit(image, channel_squares) * kSide, place0 = take_digit(image, place_squares) * kSide;
  const int at = int(threadIdx.x) % kSide;
  const T* source = from.data + image * from.image + place0 + at;
#pragma unroll 4
  for (int c = int(threadIdx.x) / kSide; c < kSide; c += kThreads / kSide) {
    const int64_t wide = channel0 + c, group = groups == 1 ? 0 : divide(wide, padded(channels));
    const int64_t channel = wide - group * padded(channels);
    const bool inside = place0 + at < space && wide < width && channel < channels;
    square[c * pitch + at] = inside ? source[(group * channels + channel) * from.channel] : T{};
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < kSide * kSide / kEight; i += kThreads) {
    const int c = i % (kSide / kEight) * kEight, at = i / (kSide / kEight);
    const int64_t place = place0 + at, wide = channel0 + c;
    if (place >= space || wide >= width) continue;
    Eight<T> out;
#pragma unroll
    for (int v = 0; v < kEight; v++) out.v[v] = square[(c + v) * pitch + at];
    *reinterpret_cast<Eight<T>*>(to + (image * space + place) * width + wide) = out;
  }
}

// The same, one thread for eight channels of a position: where little is gained by turning squares.
template <class T>
__global__ void channels_last_eights_kernel(Image<T> from, int64_t groups, int64_t channels, int64_t space, int64_t n,
                                            T* to) {
  const int64_t i = element();
  if (i >= n) return;
  const bool last = from.channel == 1;
  const int64_t eights = groups * padded(channels) / kEight;
  int64_t image = i, eight, place;
  if (last) {  // neighbouring threads read neighbours
    eight = take_digit(image, eights);
    place = take_digit(image, space);
  } else {
    place = take_digit(image, space);
    eight = take_digit(image, eights);
  }
  const int64_t group = groups == 1 ? 0 : divide(eight * kEight, padded(channels));
  const int64_t channel = eight * kEight - group * padded(channels);
  const T* source = from.data + image * from.image + (group * channels + channel) * from.channel +
                    place * (last ? from.step[2] : 1);
  Eight<T> out;
#pragma unroll
  for (int v = 0; v < kEight; v++) out.v[v] = channel + v < channels ? source[v * from.channel] : T{};
  *reinterpret_cast<Eight<T>*>(to + ((image * space + place) * eights + eight) * kEight) = out;
}

template <class T>
void channels_last(Context& ctx, const Image<T>& from, int64_t groups, int64_t channels, int64_t images, T* to) {
  const int64_t space = from.space(), width = groups * padded(channels);
  if (from.channel == 1 || width < kSide) {
    const int64_t n = images * space * width / kEight;
    return launch_elements(ctx, "channels_last", channels_last_eights_kernel<T>, n, from, groups, channels, space, n, to);
  }
  const std::size_t bytes = std::size_t(kSide) * (kSide + (sizeof(T) == 2 ? 2 : 1)) * sizeof(T);
  launch(ctx, "channels_last", channels_last_kernel<T>,
         images * ceil_div(space, kSide) * ceil_div(width, kSide), kThreads, bytes, from, groups, channels, space, to);
}

// One block a column of a group: its weights by tap and channel, in parts, and of float32 its extremes.
template <class T, int Parts>
__global__ void pack_parts_kernel(PlainWeights<T> w, int64_t columns, int64_t channels, int64_t wide, int64_t taps,
                                  int64_t plane, Half<T>* packed, uint32_t* extremes) {
  int64_t* found = reinterpret_cast<int64_t*>(prim::shared_memory());  // some small value, some large one
  const int64_t row = int64_t(blockIdx.x), group = divide(row, columns), column = row - group * columns;
  if (threadIdx.x < 2) found[threadIdx.x] = 0;
  __syncthreads();
  uint32_t seen = 0;
  for (int64_t i = threadIdx.x; i < taps * wide; i += kThreads) {
    const int64_t tap = divide(i, wide), c = i - tap * wide;
    T value{};
    if (c < channels) value = w.data[group * w.group + column * w.out + c * w.in + tap * w.tap];
    Half<T>* to = packed + row * taps * wide + i;
    if constexpr (Parts == 0) {
      *to = value;
    } else {
      uint32_t parts[Parts];
      float largest = 0;
      split_pair<Parts>(prim::bits_of(value), 0, parts, largest);
#pragma unroll
      for (int q = 0; q < Parts; q++) to[q * plane] = BFloat16{std::uint16_t(parts[q])};
      seen |= extremes_of(value);
    }
  }
  if (Parts == 0) return;
  if (seen & kHasSmall) prim::atomic_max(found, 1);
  if (seen & kHasLarge) prim::atomic_max(found + 1, 1);
  __syncthreads();
  if (threadIdx.x == 0) extremes[row] = (found[0] ? kHasSmall : 0) | (found[1] ? kHasLarge : 0);
}

}  // namespace
}  // namespace fastconv::cuda
