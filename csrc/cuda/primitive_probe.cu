// Each primitive of prims.cuh alone, run by one warp, those of warpgroups by four: on a GPU its results are held against
// the simulator's.
//
// A probe reads kWords words and writes kWords words; what it makes of them is its own affair (tests/test_primitives.py
// says it again in NumPy). A new primitive needs a probe: that test looks for its name here.
#include "primitive_probe.h"

#include "launch.h"

namespace fastconv::cuda {
namespace {

constexpr int kLane = kProbeWords / 32;  // words of one lane

FC_DEVICE double as_double(const uint32_t* words) {
  union {
    uint32_t u[2];
    double d;
  } v{{words[0], words[1]}};
  return v.d;
}
FC_DEVICE void store_double(double value, uint32_t* words) {
  union {
    double d;
    uint32_t u[2];
  } v{value};
  words[0] = v.u[0];
  words[1] = v.u[1];
}

// ---- one value at a time -------------------------------------------------------------------------------------------

template <class F> FC_DEVICE void each(const uint32_t* in, uint32_t* out, F f) {
  for (int i = 0; i < kLane; i++) out[int(threadIdx.x) * kLane + i] = f(in[int(threadIdx.x) * kLane + i]);
}
template <class F> FC_DEVICE void each_double(const uint32_t* in, uint32_t* out, F f) {
  for (int i = 0; i < kLane; i += 2) {
    const int at = int(threadIdx.x) * kLane + i;
    store_double(f(as_double(in + at)), out + at);
  }
}
template <class T> struct Round {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) { return uint32_t(prim::from_accumulator<T>(prim::float_of(v)).bits); });
  }
};
template <class T> struct Widen {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) { return prim::bits_of(prim::to_accumulator(T{std::uint16_t(v)})); });
  }
};
// Half of each value: the product alone would be rounded, and may overflow.
struct MultiplyAdd {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) {
      return prim::bits_of(prim::multiply_add(prim::float_of(v), 1.5f, -prim::float_of(v)));
    });
  }
};
struct LargerMagnitude {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) { return prim::bits_of(prim::larger_magnitude(1.0f, prim::float_of(v))); });
  }
};
struct SquareRoot {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) { return prim::bits_of(prim::square_root(prim::float_of(v))); });
  }
};
struct SquareRootDouble {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each_double(in, out, [](double v) { return prim::square_root(v); });
  }
};
struct Power {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) { return prim::bits_of(prim::power(prim::float_of(v), -0.75f)); });
  }
};
struct PowerDouble {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each_double(in, out, [](double v) { return prim::power(v, -0.75); });
  }
};
struct IsFinite {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    each(in, out, [](uint32_t v) { return uint32_t(prim::is_finite(double(prim::float_of(v)))); });
  }
};

// ---- threads together ----------------------------------------------------------------------------------------------

// Word 0 and 1 of the output: the largest of all words as 64-bit integers.
struct AtomicMax {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    int64_t* most = reinterpret_cast<int64_t*>(prim::shared_memory());
    if (threadIdx.x == 0) *most = -1;
    __syncthreads();
    for (int i = 0; i < kLane; i++) prim::atomic_max(most, int64_t(in[int(threadIdx.x) * kLane + i]));
    __syncthreads();
    for (int i = 0; i < kLane; i++) out[int(threadIdx.x) * kLane + i] = uint32_t(*most);
  }
};
struct ShuffleDown {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    for (int i = 0; i < kLane; i += 2) {
      const int at = int(threadIdx.x) * kLane + i;
      store_double(prim::shuffle_down(as_double(in + at), 1 << (i / 2 % 5)), out + at);
    }
  }
};

// Chunks of 16 bytes in two groups, the second in flight while the first is waited for; every third one not valid. The
// thread reads its own chunks before the barrier and its neighbour's after it.
struct AsyncCopy {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    uint32_t* shared = reinterpret_cast<uint32_t*>(prim::shared_memory());
    const int lane = int(threadIdx.x), half = kProbeWords / 2;
    for (int group = 0; group < 2; group++) {
      for (int i = lane; i < half / 4; i += 32) {
        const int chunk = group * (half / 4) + i;
        prim::async_copy_16(shared + 4 * chunk, in + 4 * chunk, chunk % 3 != 0);
      }
      prim::async_commit();
    }
    prim::async_wait<1>();
    for (int i = lane; i < half / 4; i += 32)
      for (int v = 0; v < 4; v++) out[4 * i + v] = shared[4 * i + v];
    prim::async_wait<0>();
    __syncthreads();
    for (int i = (lane + 1) % 32; i < half / 4; i += 32)
      for (int v = 0; v < 4; v++) out[half + 4 * i + v] = shared[half + 4 * i + v];
  }
};

// Rows of 16 bytes, those of a lane in an order of their own.
template <bool transposed> struct LoadMatrices {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    uint32_t* shared = reinterpret_cast<uint32_t*>(prim::shared_memory());
    const int lane = int(threadIdx.x);
    for (int i = lane; i < kProbeWords; i += 32) shared[i] = in[i];
    __syncthreads();
    for (int part = 0; part < kProbeWords / 128; part++) {
      uint32_t r[4];
      const uint32_t* row = shared + 128 * part + 4 * (lane * 5 % 32);
      if (transposed) prim::load_matrices_transposed(r, row);
      else prim::load_matrices(r, row);
      for (int v = 0; v < 4; v++) out[128 * part + 4 * lane + v] = r[v];
    }
  }
};

// Words of one product: a (4 a lane), b (2), d before (4, float).
template <class T> struct Multiply {
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    const int lane = int(threadIdx.x);
    uint32_t a[4], b[2];
    float d[4];
    for (int v = 0; v < 4; v++) a[v] = in[4 * lane + v];
    for (int v = 0; v < 2; v++) b[v] = in[128 + 2 * lane + v];
    for (int v = 0; v < 4; v++) d[v] = prim::float_of(in[192 + 4 * lane + v]);
    prim::multiply_16816<T>(d, a, b);
    for (int v = 0; v < 4; v++) out[4 * lane + v] = prim::bits_of(d[v]);
  }
};

// d = a b + d for 64 places of a and 32 of b, 16 steps, which are 16-bit integers in the words, step after step; the sums
// as 16-bit integers, two a word. across: how the operands lie in shared memory.
template <class T, bool across> struct WarpgroupMultiply {
  static constexpr int kThreads = 128;
  FC_DEVICE static void run(const uint32_t* in, uint32_t* out) {
    std::uint16_t* left = reinterpret_cast<std::uint16_t*>(prim::shared_memory());
    std::uint16_t* right = left + 4096;
    const int thread = int(threadIdx.x);
    for (int i = thread; i < (64 + 32) * 16; i += kThreads) {
      const bool is_left = i < 64 * 16;
      const int place = (is_left ? i : i - 64 * 16) / 16, step = i % 16;
      const int row = across ? step : place, column = across ? place : step;
      std::uint16_t* const to = (is_left ? left : right) + row * 64 + (column / 8 ^ row % 8) * 8 + column % 8;
      *to = std::uint16_t(in[i / 2] >> i % 2 * 16);
    }
    float d[16];
    for (int i = 0; i < 16; i++) d[i] = float(thread % 7 + i);
    prim::fence_for_warpgroups();
    __syncthreads();
    prim::warpgroup_begin(d);
    prim::warpgroup_multiply<T, 32, across>(d, prim::warpgroup_operand(left, 0), prim::warpgroup_operand(right, 0), true);
    prim::warpgroup_commit();
    prim::warpgroup_wait(d);
    for (int i = 0; i < 16; i += 2)
      out[8 * thread + i / 2] = uint32_t(std::uint16_t(int(d[i]))) | uint32_t(std::uint16_t(int(d[i + 1]))) << 16;
  }
};

template <class Probe, class = void> constexpr int kProbeThreads = 32;
template <class Probe> constexpr int kProbeThreads<Probe, std::enable_if_t<(Probe::kThreads > 0)>> = Probe::kThreads;

template <class Probe> __global__ void primitive_kernel(const uint32_t* in, uint32_t* out) { Probe::run(in, out); }

template <class Probe> void start(Context& ctx, const char* name, const uint32_t* in, uint32_t* out) {
  const std::size_t bytes = 4 * kProbeWords * sizeof(uint32_t);
  launch(ctx, name, primitive_kernel<Probe>, 1, kProbeThreads<Probe>, bytes, in, out);
}

struct Entry {
  const char* name;
  void (*start)(Context& ctx, const char* name, const uint32_t* in, uint32_t* out);
};
constexpr Entry kProbes[] = {
    {"from_accumulator float16", start<Round<Float16>>},
    {"from_accumulator bfloat16", start<Round<BFloat16>>},
    {"to_accumulator float16", start<Widen<Float16>>},
    {"to_accumulator bfloat16", start<Widen<BFloat16>>},
    {"multiply_add", start<MultiplyAdd>},
    {"larger_magnitude", start<LargerMagnitude>},
    {"square_root float32", start<SquareRoot>},
    {"square_root float64", start<SquareRootDouble>},
    {"power float32", start<Power>},
    {"power float64", start<PowerDouble>},
    {"is_finite", start<IsFinite>},
    {"atomic_max", start<AtomicMax>},
    {"shuffle_down", start<ShuffleDown>},
    {"async_copy_16", start<AsyncCopy>},
    {"load_matrices", start<LoadMatrices<false>>},
    {"load_matrices_transposed", start<LoadMatrices<true>>},
    {"multiply_16816 float16", start<Multiply<Float16>>},
    {"multiply_16816 bfloat16", start<Multiply<BFloat16>>},
    {"warpgroup_multiply float16", start<WarpgroupMultiply<Float16, false>>},
    {"warpgroup_multiply bfloat16", start<WarpgroupMultiply<BFloat16, false>>},
    {"warpgroup_multiply across float16", start<WarpgroupMultiply<Float16, true>>},
    {"warpgroup_multiply across bfloat16", start<WarpgroupMultiply<BFloat16, true>>},
};

}  // namespace

const char* primitive_name(int i) {
  return i < int(sizeof kProbes / sizeof *kProbes) ? kProbes[i].name : nullptr;
}

bool run_primitive(const std::string& name, const uint32_t* in, uint32_t* out) {
  for (const Entry& entry : kProbes) {
    if (name != entry.name) continue;
    Context ctx(1);
    entry.start(ctx, entry.name, in, out);
    return true;
  }
  return false;
}

}  // namespace fastconv::cuda
