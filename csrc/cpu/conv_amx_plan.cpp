// What explain() tells of a convolution on the AMX table: of its own kernels here, of the others by the AVX-512 table.
#include "conv_amx.h"
#include "conv_amx_weight.h"
#include "conv_select.h"

namespace fastconv::cpu {

namespace avx512 {
void conv_plan(const ConvShape&, ConvOp, int threads, ConvPlan*);
}

namespace FC_ISA {
namespace {

std::size_t workspace(const ConvShape& s, ConvOp op, int parts, int threads) {
  if (op == ConvOp::backward_weight) return amx_weight_plan(s, parts, threads).bytes();
  TapProblem p = op == ConvOp::forward ? forward_problem(s) : widest_phase(s);
  flatten_pointwise(p);
  AmxBlocking b = amx_blocking(p, parts, threads);
  return std::size_t(amx_lay_out(p, b, parts).total);
}

}  // namespace

void conv_plan(const ConvShape& s, ConvOp op, int threads, ConvPlan* plan) {
  const ConvChoice choice = select_conv(s, op);
  avx512::conv_plan(s, op, threads, plan);
  if (choice.algorithm == kTileAlgorithm) {
#if defined(FC_DOTS)
    constexpr const char* names[] = {"dot products of bfloat16 pairs"};
#else
    constexpr const char* names[] = {"amx, 1 product", "amx, 3 products of 2 parts", "amx, 6 products of 3 parts"};
#endif
    const int parts = amx_parts(s);
    plan->algorithm = choice.algorithm;
    plan->kernel = names[parts - 1];
    plan->why = choice.why;
    plan->workspace = workspace(s, op, parts, threads);
  }
  list_others(s, op, plan);
}

}  // namespace FC_ISA
}  // namespace fastconv::cpu
