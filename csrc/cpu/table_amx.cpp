// The table of processors with AMX: convolutions of its own, every other op is the AVX-512 table's.
#include "../ops.h"

namespace fastconv::cpu {

#define FC_DECLARE_OP(name, args) void name args;
namespace avx512 {
FC_OPS(FC_DECLARE_OP)
}

namespace FC_ISA {

void conv_forward(const ConvShape&, const void* x, const void* w, const void* b, const Epilogue&, void* y, Context&);
void conv_backward_input(const ConvShape&, const void* dy, const void* w, const void* b, void* dx, Context&);
void conv_backward_weight(const ConvShape&, const void* dy, const void* x, void* dw, Context&);
void conv_plan(const ConvShape&, ConvOp, int threads, ConvPlan*);

namespace {

constexpr Ops with_amx() {
#define FC_TABLE_ENTRY(name, args) avx512::name,
  Ops ops = {"", FC_OPS(FC_TABLE_ENTRY)};
#if defined(FC_AMX_EMULATED)
  ops.isa = "amx-emulated";
#else
  ops.isa = "amx";
#endif
  ops.conv_forward = conv_forward;
  ops.conv_backward_input = conv_backward_input;
  ops.conv_backward_weight = conv_backward_weight;
  ops.conv_plan = conv_plan;
  return ops;
}

}  // namespace

extern constexpr Ops table = with_amx();

}  // namespace FC_ISA
}  // namespace fastconv::cpu
