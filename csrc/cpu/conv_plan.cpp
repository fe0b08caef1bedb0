// What explain() tells of a convolution: its algorithm by conv_select.cpp, the variant that the blocking chose and the
// scratch it needs, from the same functions that the kernels decide by.
#include "conv_backward_weight.h"
#include "conv_depthwise.h"
#include "conv_narrow.h"
#include "conv_narrow_weight.h"
#include "conv_pointwise.h"
#include "conv_select.h"
#include "conv_taps.h"
#include "conv_winograd.h"
#include "conv_winograd_weight.h"

namespace fastconv::cpu::FC_ISA {
namespace {

template <class A> void plan_direct(TapProblem p, int threads, ConvPlan* plan) {
  flatten_pointwise(p);
  Blocking b = choose_blocking<A>(p, threads);
  if (b.in_place) {
    plan->kernel = "direct, in place";
    plan->why = "channels-last input without borders: tiles read the array itself";
  } else if (b.gathered) {
    plan->kernel = "direct, gathered";
    plan->why = "the kernel's span does not fit the cache: a segment of pixels per tap is copied to scratch";
  } else {
    plan->kernel = "direct";
    plan->why = p.layout == Layout::channels_last
                    ? "blocks of rows with their borders are copied to cache-sized scratch"
                    : "blocks of rows are transposed to channels-last scratch in registers, and back while storing";
  }
  plan->workspace = std::size_t(lay_out<A>(p, b, p.same_type && p.layout == Layout::channels_last).total);
}

template <class A> void plan_taps(TapProblem p, int threads, ConvPlan* plan) {
  if (plan->algorithm == ConvAlgorithm::pointwise) {
    plan->workspace = std::size_t(pointwise_blocking<A>(p, threads).total);
  } else if (plan->algorithm == ConvAlgorithm::narrow) {
    flatten_pointwise(p);
    plan->workspace = std::size_t(narrow_blocking<A>(p, threads).total);
  } else {
    plan_direct<A>(p, threads, plan);
  }
}

}  // namespace

void conv_plan(const ConvShape& s, ConvOp op, int threads, ConvPlan* plan) {
  const ConvChoice choice = select_conv(s, op);
  plan->algorithm = choice.algorithm;
  plan->kernel = kConvAlgorithmNames[int(choice.algorithm)];
  plan->why = choice.why;
  list_others(s, op, plan);
  if (choice.algorithm == ConvAlgorithm::depthwise) {
    plan->workspace = depthwise_workspace(s, op, threads);
    return;
  }
  if (op == ConvOp::backward_weight) {
    plan->workspace = choice.algorithm == ConvAlgorithm::narrow ? narrow_weight_workspace(s, threads)
                      : winograd_tile(choice.algorithm) ? winograd_weight_workspace(s, choice.algorithm, threads)
                                                        : backward_weight_workspace(s, threads);
    return;
  }
  if (winograd_tile(choice.algorithm)) {
    plan->workspace = winograd_workspace(s, op, choice.algorithm, threads);
    return;
  }
  const TapProblem p = op == ConvOp::forward ? forward_problem(s) : widest_phase(s);
  if (s.dtype == DType::f64) plan_taps<double>(p, threads, plan);
  else plan_taps<float>(p, threads, plan);
  if (choice.algorithm == s.algorithm) plan->why = choice.why;
}

}  // namespace fastconv::cpu::FC_ISA
