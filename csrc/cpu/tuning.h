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

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
