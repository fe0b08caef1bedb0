// The only file of cpu/ that is compiled for the baseline alone: nothing here may need more than the oldest CPU has.
#include "dispatch.h"

#include <atomic>
#include <cstring>
#ifdef FC_HAVE_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastconv::cpu {

#define FC_DECLARE_TABLE(isa) \
  namespace isa {             \
  extern const Ops table;     \
  }
#ifdef FC_HAVE_AMX
FC_DECLARE_TABLE(amx)
#endif
#ifdef FC_HAVE_AMX_EMULATED
FC_DECLARE_TABLE(amx_emulated)
#endif
#ifdef FC_HAVE_AVX512_BF16
FC_DECLARE_TABLE(avx512_bf16)
#endif
#ifdef FC_HAVE_AVX512
FC_DECLARE_TABLE(avx512)
#endif
#ifdef FC_HAVE_AVX2
FC_DECLARE_TABLE(avx2)
#endif
FC_DECLARE_TABLE(generic)

namespace {

#if defined(FC_HAVE_AVX2) || defined(FC_HAVE_AVX512)
// __builtin_cpu_supports also asks the operating system (XCR0) whether it saves the wide registers.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#endif
#ifdef FC_HAVE_AVX512
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif
#ifdef FC_HAVE_AVX512_BF16
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif
#ifdef FC_HAVE_AMX
bool has_amx() {
  unsigned a = 7, b, c = 0, d;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  const bool flags = (d >> 24 & 1) && (d >> 22 & 1);  // amx-tile, amx-bf16
  if (!flags || !has_avx512() || !__builtin_cpu_supports("avx512bf16")) return false;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low >> 17 & 3) != 3) return false;  // the system does not save the tile registers
  // A process has to ask Linux for the 8 KB of tile data, once and for all its threads; refused, a tile instruction is
  // a SIGILL. ARCH_REQ_XCOMP_PERM of XFEATURE_XTILEDATA (linux/Documentation/arch/x86/xstate.rst).
  static const bool permitted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return permitted;
}
#endif
bool always() { return true; }

struct Candidate {
  const Ops* ops;
  bool (*supported)();
};
const Candidate kPriority[] = {
#ifdef FC_HAVE_AMX
    {&amx::table, has_amx},
#endif
#ifdef FC_HAVE_AVX512_BF16
    {&avx512_bf16::table, has_avx512_bf16},
#endif
#ifdef FC_HAVE_AVX512
    {&avx512::table, has_avx512},
#endif
#ifdef FC_HAVE_AVX2
    {&avx2::table, has_avx2},
#endif
    {&generic::table, always},
#ifdef FC_HAVE_AMX_EMULATED
    {&amx_emulated::table, has_avx512},  // last: for tests, never the best
#endif
};

std::atomic<const Ops*> selected{nullptr};
std::atomic<bool> forced{false};

const Ops* best() {
  for (const Candidate& c : kPriority)
    if (c.supported()) return c.ops;
  return &generic::table;
}

}  // namespace

const Ops& active() {
  const Ops* ops = selected.load(std::memory_order_relaxed);
  if (!ops) {
    ops = best();
    selected.store(ops);
  }
  return *ops;
}

bool select(const char* isa) {
  if (!*isa) {
    selected.store(best());
    forced.store(false);
    return true;
  }
  for (const Candidate& c : kPriority) {
    if (std::strcmp(c.ops->isa, isa) || !c.supported()) continue;
    selected.store(c.ops);
    forced.store(true);
    return true;
  }
  return false;
}

int supported(const char** names, int capacity) {
  int n = 0;
  for (const Candidate& c : kPriority)
    if (c.supported() && n < capacity) names[n++] = c.ops->isa;
  return n;
}

const char* why() {
  return forced.load() ? "forced by FASTCONV_ISA, set_isa or use_backend"
                       : "first of the priority list whose instructions this CPU and operating system offer";
}

}  // namespace fastconv::cpu
