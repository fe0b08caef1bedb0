// The tiles of a block of images, transformed channel by channel.
#pragma once
#include "conv_pack.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Channels of a block that are copied before their tiles are transformed: runs of four cache lines. One register at a time,
// a line of each pixel, cost half of the weight gradient's time where pixels are a power of two apart (128 channels).
constexpr int64_t kBlockChannels = 64;

// Tiles of images [image, image + images), rows x cols in each, one behind the other. The first one's window begins at row
// `high`, column `wide` of an image, which may be outside.
struct TileBlock {
  int64_t image, images, high, rows, wide, cols;
};

// Between the pixels of the copied block: no power of two, which would share their L1 sets.
FC_INLINE int64_t block_pitch(int64_t channels) {
  return round_up(min_of(channels, kBlockChannels), kLanes<float>) + kLanes<float>;
}
// Values of the copied block.
FC_INLINE int64_t block_values(int64_t window, int64_t step, int64_t images, int64_t rows, int64_t cols, int64_t channels) {
  return images * ((rows - 1) * step + window) * ((cols - 1) * step + window) * block_pitch(channels);
}

// transform(window, row, pixel, target) for each tile and each register of the channels of `from`: `row` and `pixel` are the
// distances in the Window x Window pixels at `window`, zero outside the image. target(c) is that of the first tile and the
// register from channel c on, those of the next tiles are `pitch` behind.
template <int Window, int Step, class T, class Target, class Transform>
FC_INLINE void each_tile(ImageChannels<T> from, const TileBlock& b, float* block, const Target& target, int64_t pitch,
                         const Transform& transform) {
  constexpr int lanes = kLanes<float>;
  const int64_t lines = (b.rows - 1) * Step + Window, across = (b.cols - 1) * Step + Window;
  const int64_t pixel = block_pitch(from.count), row = across * pixel;
  for (int64_t done = 0, all = from.count; done < all; done += kBlockChannels) {
    from.count = min_of(kBlockChannels, all - done);
    pack_block<T, float>(from, b.image, b.images, b.high, lines, b.wide, across, block, pixel);
    for (int64_t c = 0; c < from.count; c += lanes) {
      float* to = target(done + c);
      for (int64_t n = 0; n < b.images; n++)
        for (int64_t r = 0; r < b.rows; r++)
          for (int64_t t = 0; t < b.cols; t++, to += pitch)
            transform(static_cast<const float*>(block) + (n * lines + r * Step) * row + t * Step * pixel + c, row, pixel, to);
    }
    from.channel += from.count;
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
