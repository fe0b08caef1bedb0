// One constant table per ISA; the linker names any op that is missing.
#include "../ops.h"

namespace fastconv::cpu::FC_ISA {

#define FC_DECLARE_OP(name, args) void name args;
FC_OPS(FC_DECLARE_OP)

#define FC_STRING(x) #x
#define FC_NAME(x) FC_STRING(x)
#define FC_TABLE_ENTRY(name, args) name,
extern constexpr Ops table = {FC_NAME(FC_ISA), FC_OPS(FC_TABLE_ENTRY)};

}  // namespace fastconv::cpu::FC_ISA
