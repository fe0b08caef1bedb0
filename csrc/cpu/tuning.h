// The thresholds of conv_select.cpp, each with the measurement that chose it. They are about one image: a rule that knew
// the batch size or the number of threads would change bits with them. `python -m bench --sweep` measures all algorithms
// on the bench's layers and shows where the rule loses.
#pragma once
#include <cstdint>

namespace fastconv::cpu::FC_ISA {
namespace {

// Fewest pixels of an image for the 1x1 kernel of channels-first arrays, whose panels end at the image's edge: a 14x14
// image (196) fills its panels of 32 to 88 %, a 7x7 one (49) to 77 %.
constexpr std::int64_t kPointwisePixels = 192;
// Fewest channels on either side for it: with less, most of a tile of rows and of a chunk of channels is empty.
constexpr std::int64_t kPointwiseChannels = 8;

// The narrow kernel packs the source of at least one row of two registers; more than this much source does not fit the
// L2 cache, more weights not the workspace.
constexpr int kNarrowLanes = 16;
constexpr double kNarrowMostSource = 1 << 20, kNarrowMostWeights = 12 << 20;
// Where narrow is faster than direct and pointwise, 2 threads, AVX-512 (on AVX2 the borders lie at the same places);
// times of direct / narrow, in ps a flop.
// Channels-first, stride 1, 64 channels at 56x56, 3x3: 1 output channel 49 / 15, 3: 17 / 6.3, 8: 6.1 / 3.7, 12: 4.1 / 3.4,
// 14: 3.4 / 3.3, 16: 3.1 / 3.2, 17: 5.0 / 3.2, 24: 3.5 / 2.9; at 7x7 with 512: 3: 30 / 21, 8: 14 / 11, 12: 9 / 9.
constexpr std::int64_t kNarrowColumns = 12;
// Stride 2, 112x112, 3x3, 16 channels: 4: 16 / 14, 6: 12 / 9.5, 8: 8.0 / 8.0; with 64: 3: 23 / 24.
constexpr std::int64_t kNarrowColumnsStrided = 4;
// Up to these many source channels it packs less than it computes with: 3 channels at 224x224, 3x3: 64 outputs 6.6 / 5.8,
// stride 2, 32 outputs: 7.2 / 5.1, 7x7 stride 2, 64: 2.9 / 2.9; 1 channel at 28x28, 5x5: 33 outputs 10.9 / 7.7.
constexpr std::int64_t kNarrowFewChannels = 4;
// Channels-last, 3x3: 64 channels at 56x56: 3: 17 / 9.9, 8: 6.7 / 4.7, 12: 4.1 / 4.1; 6 channels, 5x5: 3: 36 / 31, 8: 13 / 14;
// 1x1: 64 -> 3: 19 / 32.
constexpr std::int64_t kNarrowColumnsLast = 8, kNarrowFewColumnsLast = 3, kNarrowManyLast = 16;
constexpr double kNarrowLastTaps = 4;
// Its weight gradient against the tap products', channels-first: 56x56, 64 channels: 1: 68 / 19, 4: 13 / 6.7, 8: 7.3 / 6.8,
// 10: 5.4 / 5.9; 28x28, 1 channel, 5x5: 6: 36 / 12, 12: 13 / 8.8, 16: 7.9 / 9.8; 14x14, 256 channels: 1: 60 / 23, 4: 14 / 12,
// 5: 11 / 14; 7x7, 512: 1: 71 / 57, 2: 36 / 48.
constexpr std::int64_t kNarrowWeightSmall = 196, kNarrowWeightLarge = 784;
constexpr std::int64_t kNarrowWeightColumns = 8, kNarrowWeightColumnsSmall = 4;

// Winograd (conv_winograd.cpp): most bytes of a block's transformed inputs, which every panel of output channels
// reads again, and the number of tiles at which more of them gain nothing. Of blocks of 384 to 1600 KB, the speed with
// 64 channels fell from 660 to 520 GFLOP/s, with 512 it rose from 440 to 530 (2 threads, F(2x2), 2 MB of L2); of F(4x4) it
// fell from 1020 to 930 with 64 channels and was level from 128 on.
constexpr std::int64_t kWinogradBlockBytes = std::int64_t(1300) << 10;
constexpr std::int64_t kWinogradBlockTiles[] = {56, 42, 35, 28};  // with 4 to 7 positions on each axis

// Channels whose products are added up before they are added to the sums of those before them: a quarter of all. Sums of 16
// take 1.13 of the time of sums of 64 with 128 channels, 1.0 with 64, those of 32 1.04; they keep the rounding errors of
// larger tiles at those of the direct kernel. The rms error as a multiple of that of a chain of float32 multiply-adds, F(3x3)
// and F(4x4), normal data (behind a ReLU):
//   32 channels: 0.95 (1.22), 1.57 (2.02)     64: 0.70 (0.85), 1.19 (1.41)     96: 0.59 (0.74), 0.99 (1.21)
//   128: 0.59 (0.75), 1.00 (1.22)             256: 0.53 (0.64), 0.92 (1.07)    512: 0.38 (0.48), 0.65 (0.82)
// Weight gradients, one image: F(3x3) at 14x14 1.25 (1.54), at 28x28 1.07 (1.23); F(4x4) at 28x28 1.42 (1.62), at 56x56 0.70
// (0.87); eight images of 28x28: 0.40 (0.47), 0.54 (0.61). F(2x2) is below 1 everywhere but in gradients of 14x14 images,
// 0.97 (1.24).
constexpr std::int64_t kWinogradLongSum = 64;
constexpr std::int64_t winograd_sum(std::int64_t channels) {
  return channels < 128 ? 16 : channels < 256 ? 32 : kWinogradLongSum;
}
constexpr std::int64_t kWinogradExactChannels[] = {32, 96};  // fewest for F(3x3), F(4x4) under precision "highest"
constexpr std::int64_t kWinogradExactPixels[] = {196, 784};  // the same of an image's pixels, for the weight gradient

// What an image must have for it; speeds are GFLOP/s of the direct kernel / F(2x2) / F(4x4), best layouts, 2 threads,
// AVX-512, 1 and 8 images. AVX2 is left the same borders although its slower products move them down (8 images of 7x7,
// 512 -> 512: 136/156/148).
struct WinogradLimits {
  std::int64_t channels, columns;    // fewest of a group, reduced over and computed
  std::int64_t tiles;                // fewest of an image
  std::int64_t weights_per_tile;     // most weights (channels x columns) to transform for each tile of an image
  std::int64_t fewer_tiles, fewer_channels;  // also images of so many tiles with so many channels on both sides
};
// F(2x2). 7x7 images (16 tiles): 192 -> 384 channels 159/117 and 314/286, 128 -> 32 113/74 and 271/300; 11x11 (36), 32 ->
// 64: 148/155 and 341/388. 14x14 (49), 128 -> 32: 195/193 and 357/500; 512 -> 512 (5350 weights a tile): 249/241 and
// 371/502. 56x56 images, the fastest other algorithm / F(2x2), 4 images: 12 -> 64: 319/351, 16 -> 16: 295/282, 64 -> 16:
// 314/339, 64 -> 20: 230/295, 8 -> 64: 313/270, 64 -> 12: 253/266, 64 -> 8: 254/172.
// Small images on Zen 4 (2 threads), F(2x2) as a multiple of direct's speed with 1, 8 and 32 images: 7x7, 512 -> 512: 1.25,
// 1.22, 1.29; 192 -> 384: 1.41, 1.13, 1.44; 64 -> 64: 1.13, 1.46, 1.49; 32 -> 32: 1.06, 1.32, 1.33; 16 -> 16: 1.02, 0.82,
// 0.96; 5x5 and 6x6 (9 tiles): 0.54 to 1.5. 14x14, with 1 and 8 images, 512 -> 1024 (10700 weights a tile): 1.24 and 1.42,
// 1024 -> 1024 (21400): 0.97 and 1.35. The Xeon above lost 25 % on one image of 7x7.
// F(3x3), F(4x4), Zen 4, 2 threads, F(2x2) / F(3x3) / F(4x4) with 1 image, then 8. 14x14: 48 -> 48: 212/221/229, 348/400/439;
// 128 -> 128: 267/319/335, 380/458/522; 512 -> 1024 (F(4x4): 32800 weights a tile): 238/241/253, 352/401/469. 7x7 (F(4x4): 4
// tiles): 64 -> 64: 153/135/149, 267/247/309; 192 -> 384: 174/143/161, 286/273/340; 512 -> 512 (65500): 145/124/127,
// 274/253/316, and with 32 images 267/302/461. 28x28: 16 -> 64: 255/276/333, 335/366/482; 512 -> 512, 8: 386/464/545. 56x56:
// 16 -> 16: 277/302/340, 285/326/395; 8 -> 32: 210/243/270, 220/257/308; 256 -> 256, 8: 414/460/607.
// F(4x4) at 56x56, 4 images, fewest channels, the fastest other algorithm / F(4x4): 8 -> 64: 313/371, 64 -> 12: 253/411,
// 64 -> 8: 254/270.
constexpr WinogradLimits kWinograd[] = {{16, 16, 36, 22000, 16, 32}, {16, 16, 9, 33000, 9, 16}, {8, 12, 4, 66000, 4, 8}};
// F(2x2) of 5x5 filters as a multiple of the direct kernel's speed, forward and input gradient, 2 threads, 1 image, then 8:
// 64 -> 192 at 27x27 1.47, 1.44; 1.64, 1.45. 16 -> 32 at 28x28 1.18, 1.28; 1.27, 1.27. 24 -> 64 at 14x14 1.10, 1.32; 1.28,
// 1.43. 48 -> 128 at 7x7 (16 tiles) 1.02, 1.08; 1.22, 1.19. Its weight gradient 1.04 to 1.47 and 1.32 to 1.48, at 7x7 0.92 and 1.06.
constexpr WinogradLimits kWinogradFive = {16, 16, 16, 22000, 16, 16};
// Most outputs computed for one that is kept: F(2x2) computes 9 / 4 times as fast as it goes.
constexpr double kWinogradWaste = 1.5;

// Its weight gradient (conv_winograd_weight.cpp): tiles of a block, and channels and output channels of a task. Zen 4,
// L2 of 1 MB, 13 layers, 1 and 2 threads: 64 tiles or 64 output channels lose 2 to 5 %, 192 tiles 3 to 5 %, 128
// channels 2 %.
// With 25 and 36 positions 64 tiles are as fast as 128, and leave room for twice as many threads.
constexpr std::int64_t kWinogradWeightTiles[] = {128, 64};  // with 16 positions; with more
constexpr std::int64_t kWinogradWeightChannels = 64, kWinogradWeightColumns = 128;
// Multiples of the speed of the tap products, both layouts, 1 and 2 threads, 8 images; then 1 image: 64 -> 64 at
// 56x56: 1.5 to 1.9; 1.5 to 1.8. 16 -> 16 at 28x28: 1.4 to 1.7; 1.4 to 1.7. 12 -> 48 at 14x14: 1.3 to 1.6; 1.1 to 1.5.
// 64 -> 64 at 7x7: 1.3; 0.9 to 1.2. 64 -> 64 at 6x6 (9 tiles): 1.4 to 1.6; 1.2 to 1.3. 3x3 (4 tiles, 16 pixels for 9):
// 0.8 to 1.3; 0.8. 8 -> 32 at 56x56: 1.2 to 1.5; 1.0 to 1.4. 8 -> 8: 0.7 (channels first) to 1.4. 3 -> 16: 0.8; 0.8.
// 512 -> 1024 at 7x7 (32800 weights a tile): 1.3; 0.9 to 1.05. 1024 -> 1024 (65500): 1.2 to 1.3; 0.9.
constexpr std::int64_t kWinogradWeightLeastTiles = 9, kWinogradWeightFewest = 8, kWinogradWeightLeastWeights = 128;
constexpr std::int64_t kWinogradWeightMostWeights = 33000;  // channels x output channels for each tile of an image
// F(2x2) / F(3x3) / F(4x4), GFLOP/s, Zen 4, 2 threads, 8 images: 64 -> 64 at 224x224 359/457/552, at 56x56 353/425/456; 128 ->
// 128 at 28x28 377/414/513; 256 -> 256 at 14x14 383/428/381; 512 -> 512 at 7x7 266/255/298 (with 1 image 111/99/82); 16 -> 16
// at 56x56 257/275/352, 8 -> 32 249/278/301; 12 -> 48 at 28x28 250/239/367; 24 -> 64 at 14x14 299/344/324.
constexpr std::int64_t kWinogradWeightPixels = 100;  // fewest for tiles larger than 2x2, or filters than 3x3
constexpr std::int64_t kWinogradWeightMostSums = std::int64_t(17) << 20;  // bytes, of one panel

#if defined(FC_AMX)
// AMX. Measured with 2 threads, 8 images, on an Intel processor with AMX and AVX-512 (FMA peak 375 GFLOP/s; AMX 5.5 TFLOP/s
// on values that are not zero); times in ms of AMX / the fastest other algorithm. "Exact" is three parts, six products.
// Channels-last 1x1, exact: 24 -> 144 at 56x56: 249 GFLOP/s against 217, 32 -> 192: 282 / 245, 256 -> 64: 258 / 228, but
// 192 -> 32: 214 / 264, 192 -> 16: 119 / 197; 16 -> 96 at 112x112 in three products: 3.3 ms / 2.3, in one 1.3 / 2.4.
constexpr std::int64_t kAmxPointwiseChannels = 24, kAmxHalfChannels = 8, kAmxPointwiseColumns = 48;
// Channels-first, where pixels are transposed while they are split, GFLOP/s: 256 -> 128 at 56x56 239 / 225, 512 -> 128 at
// 28x28 345 / 255, 1024 -> 128 at 14x14 333 / 267, but 256 -> 64 154 / 212 and 384 -> 96 197 / 277; at 7x7 160 -> 960
// 275 / 243, but 1024 -> 128 168 / 218.
constexpr std::int64_t kAmxTransposedColumns = 128, kAmxFewPixels = 196;
// Input gradient of the 7x7 stem (64 -> 3), exact: 25.9 / 24.5; in three products 15.4 / 22.3, in one 5.6 / 20.
constexpr std::int64_t kAmxLeastColumns = 16;
// Of the reduction, by filter row: the 7x7 stem (21 of 32), exact: 6.2 / 6.3, 11x11 with stride 4 (33 of 64) 4.8 / 4.1; in
// three products 4.0 / 6.4 and 3.0 / 4.0, in one 1.6 / 4.0. 5x5 on 16 channels (80 of 96), exact: 0.35 / 0.46.
constexpr double kAmxExactShare = 0.7, kAmxShare = 0.4;
// 3x3, exact, against Winograd F(2x2) on the FMA units: as fast or faster where reduction and columns are filled (64 -> 64
// at 7x7 0.101 / 0.113, 128 -> 128 at 28x28 2.7 / 3.2, 192 -> 384 at 7x7 1.17 / 2.12, 256 -> 256 at 14x14 3.1 / 3.8, 512 ->
// 512 at 14x14 13.3 / 17.4), not with 48 -> 48 (0.81 / 0.63), 16 -> 16 (0.72 / 0.44) or 128 -> 32 at 7x7 (0.172 / 0.121).
// Winograd's products on AMX were built and measured too: 0.9 to 1.1 times as fast as the direct products, as 16 / 9 of
// the weights in three parts come from the L3 cache for each block of tiles.
constexpr double kAmxBesideWinograd = 0.7;
// Prototypes on an Intel processor with AMX (peak 455 GFLOP/s of the FMA units), GFLOP/s of six products / F(4x4):
// 128 -> 128 at 28x28 750 / 1024, 256 -> 256 at 56x56 607 / 975, 512 -> 512 at 28x28 571 / 668; 256 -> 256 at 14x14
// 638 / 693. Not measured with the kernels here.
constexpr std::int64_t kAmxBesideWinograd4 = 784;
// Weight gradient, 3x3 with 16 -> 16 channels: 0.63 / 0.50 in three products, 64 -> 16: 1.27 / 1.67, the stem 12.9 / 8.6.
// 1x1, exact: 64 -> 256 at 56x56 3.0 / 3.6, 256 -> 64 3.1 / 3.8, but 32 -> 192 0.55 / 0.46 and 16 -> 96 2.9 / 2.7.
constexpr std::int64_t kAmxWeightChannels = 16, kAmxPointwiseWeightChannels = 64;
#if defined(FC_DOTS)
// Dot products of bfloat16 pairs, GFLOP/s / the fastest other algorithm, 8 images, 2 threads, Zen 4 (peak 470, FMA 235).
// Input gradients: 64 -> 3 channels, 7x7 with stride 2: 61 / 117; 11x11 with stride 4: 57 / 141. 3 -> 64 channels, 3x3
// (9 neighbours): 306 / 126, 1 -> 32 (3): 58 / 76, 1 -> 6, 5x5: 23 / 46. 3x3 with 128 -> 32 at 7x7: 180 / 241 by Winograd
// on the FMA units, elsewhere 0.93 to 1.1 times as fast as it. Its weight gradient: 291 / 398 to 384 / 403 and 375 / 355.
constexpr std::int64_t kDotLeastColumns = 8, kDotLeastRun = 8;
// Fewest pixels of an image for Winograd's larger tiles before them. bfloat16 arrays on Zen 5 (peak 1080, FMA 530), 8
// images, channels-last, 2 threads, as a multiple of their speed, forward and input gradient. F(4x4): 128 -> 128 at
// 28x28 1.30 and 1.62, 256 -> 256 at 56x56 1.49 and 1.77, at 14x14 1.08 and 1.24, 512 -> 512 at 28x28 1.30 and 1.46, at
// 14x14 1.17 and 1.02; at 7x7 512 -> 512 1.04 and 0.97, one image 0.87 and 0.86, 192 -> 384 1.04 and 0.92. F(3x3): 64
// -> 64 at 56x56 1.20 and 1.19, at 14x14 1.09 and 1.08, 48 -> 48 at 28x28 1.24 and 1.23, 32 -> 32 at 112x112 0.98 and
// 0.94, at 56x56 1.01 and 1.10. F(2x2): 0.7 to 1.05, of 5x5 filters 0.65 to 0.9 and 0.8 to 1.04.
constexpr std::int64_t kDotBesideWinograd = 196;
#endif
#endif

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
