#include "conv_select.h"

#include "tuning.h"

namespace fastconv::cpu::FC_ISA {
namespace {

bool one_by_one(const ConvShape& s) {
  for (int d = 0; d < 3; d++)
    if (s.kernel[d] != 1 || s.stride[d] != 1 || s.pad[d] != 0 || s.in[d] != s.out[d]) return false;
  return true;
}

bool float_sums(const ConvShape& s) { return s.dtype == DType::f32 || s.dtype == DType::f64; }

// One algorithm. `can` says whether it computes the problem at all, `against` why the rule would rather not (null: it
// would), `why` what it is good for.
struct Candidate {
  ConvAlgorithm algorithm;
  bool (*can)(const ConvShape&, ConvOp);
  const char* (*against)(const ConvShape&, ConvOp);
  const char* why;
};

const char* nothing(const ConvShape&, ConvOp) { return nullptr; }

// In the order of preference; the last of them that can compute a problem takes it in any case.
constexpr Candidate kCandidates[] = {
    {ConvAlgorithm::depthwise, [](const ConvShape& s, ConvOp) { return s.depthwise(); }, nothing,
     "one input channel a group: no reduction over channels, bound by memory"},
    {ConvAlgorithm::tap_products, [](const ConvShape& s, ConvOp op) { return op == ConvOp::backward_weight && !s.depthwise(); },
     nothing, "a matrix product per kernel tap, reduced over pixels in blocks of fixed order"},
    {ConvAlgorithm::pointwise,
     [](const ConvShape& s, ConvOp op) {
       return op != ConvOp::backward_weight && !s.depthwise() && one_by_one(s) && s.out_space() > 1 && float_sums(s) &&
              s.layout == Layout::channels_first;
     },
     [](const ConvShape& s, ConvOp) -> const char* {
       if (s.group_in() < kPointwiseChannels || s.group_out() < kPointwiseChannels) return "too few channels";
       if (s.out_space() < kPointwisePixels) return "too few pixels for whole panels";
       return nullptr;
     },
     "1x1 on channels-first planes: a matrix product with pixels as the vector dimension, nothing transposed"},
    {ConvAlgorithm::direct, [](const ConvShape& s, ConvOp op) { return op != ConvOp::backward_weight && !s.depthwise(); },
     nothing, "computes every shape"},
};

}  // namespace

ConvChoice select_conv(const ConvShape& s, ConvOp op) {
  ConvChoice choice{};
  for (const Candidate& c : kCandidates) {
    if (!c.can(s, op)) continue;
    if (c.algorithm == s.algorithm) return {c.algorithm, "asked for by FASTCONV_ALGO or set_conv_algorithm"};
    if (choice.algorithm == ConvAlgorithm::automatic && !c.against(s, op)) choice = {c.algorithm, c.why};
  }
  return choice;
}

void list_others(const ConvShape& s, ConvOp op, ConvPlan* plan) {
  plan->others = 0;
  for (const Candidate& c : kCandidates) {
    if (c.algorithm == plan->algorithm || !c.can(s, op)) continue;
    const char* against = c.against(s, op);
    plan->other[plan->others++] = {c.algorithm, against ? against : "comes later in the order of preference"};
  }
}

}  // namespace fastconv::cpu::FC_ISA
