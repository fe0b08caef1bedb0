// Convolutions in a row, the input of each the output of the one before.
#pragma once
#include "../ops.h"

namespace fastconv {

constexpr int kMostStages = 8;

struct ConvStage {
  ConvShape shape;
  const void *w, *b;
  Epilogue epilogue;     // `add`: of the last stage alone
  PackedWeight* weight;  // where it is frozen
};

namespace cpu {

// Computes all of them, a few rows at a time, without a whole array between two of them; the bits are those of one
// after the other. False: it cannot, and nothing was done.
bool chain_in_bands(const ConvStage* stages, int count, const void* x, void* y, Context& ctx);

}  // namespace cpu
}  // namespace fastconv
