// The table of CUDA kernels, and the choice that the bindings ask for: there is only this one.
#include <cstring>

#include "../cpu/dispatch.h"

namespace fastconv {
namespace cuda {

#define FC_DECLARE_OP(name, args) void name args;
FC_OPS(FC_DECLARE_OP)

}  // namespace cuda

namespace cpu {
namespace {

#define FC_TABLE_ENTRY(name, args) cuda::name,
#ifdef FC_SIMT
constexpr Ops table = {"simt", FC_OPS(FC_TABLE_ENTRY)};
#else
constexpr Ops table = {"cuda", FC_OPS(FC_TABLE_ENTRY)};
#endif

}  // namespace

const Ops& active() { return table; }
bool select(const char* isa) { return !*isa || !std::strcmp(isa, table.isa); }
int supported(const char** names, int) {
  names[0] = table.isa;
  return 1;
}
const char* why() { return "the only table of this module"; }

}  // namespace cpu
}  // namespace fastconv
