// The simulator's table of kernels, and the choice that the bindings ask for: there is only this one.
#include <cstring>

#include "../../cpu/dispatch.h"

namespace fastconv {
namespace cuda {

#define FC_DECLARE_OP(name, args) void name args;
FC_OPS(FC_DECLARE_OP)

}  // namespace cuda

namespace cpu {
namespace {

#define FC_TABLE_ENTRY(name, args) cuda::name,
constexpr Ops table = {"simt", FC_OPS(FC_TABLE_ENTRY)};

}  // namespace

const Ops& active() { return table; }
bool select(const char* isa) { return !*isa || !std::strcmp(isa, table.isa); }
int supported(const char** names, int) {
  names[0] = table.isa;
  return 1;
}
const char* why() { return "the CUDA kernels' sources, run thread by thread on the processor"; }

}  // namespace cpu
}  // namespace fastconv
