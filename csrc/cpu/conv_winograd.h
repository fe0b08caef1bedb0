// 3x3 and 5x5 convolution with stride 1 and its input gradient by Winograd's minimal filtering (winograd.h).
#pragma once
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

// Images of one call at most.
constexpr int kWinogradImages = 1024;

// `algorithm` is one of winograd_tile's. largest[n] becomes the bits of the largest |result| of image n before
// the bias is added; a NaN counts as larger than infinity. See winograd_holds.
void winograd(const ConvShape&, ConvOp, ConvAlgorithm, const void* x, const void* w, const void* b, const Epilogue&,
              void* y, std::uint32_t* largest, Context&);

// Whether the results of an image are in the rounding class of the algorithm. Not where one is not finite: sums and
// differences of a whole tile's inputs turn an infinity into NaN beside its own window, and overflow earlier than the
// direct sum does. Not where all are tiny: such sums may then have been flushed to zero although the results are not.
// (All zero holds: where flushed inputs or weights give zeros, they do so in every algorithm.)
inline bool winograd_holds(std::uint32_t largest) {
  constexpr std::uint32_t infinity = 0x7f800000u, tiny = (127u - 60u) << 23;  // 2 ** -60
  return largest < infinity && (largest == 0 || largest >= tiny);
}

std::size_t winograd_workspace(const ConvShape&, ConvOp, ConvAlgorithm, int threads);  // bytes, for explain()

}  // namespace fastconv::cpu::FC_ISA
