// Host side of the kernels: choosing the storage type, counting blocks, and the one way to launch.
#pragma once
#include <stdexcept>
#include <string>
#include <tuple>

#include "../ops.h"
#include "prims.cuh"

namespace fastconv::cuda {

constexpr int kThreads = 256;  // of a block, where the kernel does not say otherwise

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls f(tag) with a value of the storage type.
template <class F> void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: f(float()); break;
    case DType::f64: f(double()); break;
    case DType::f16: f(Float16()); break;
    case DType::bf16: f(BFloat16()); break;
  }
}
// Where values only move, their size is all that matters.
template <class F> void with_item(DType dtype, F&& f) {
  switch (item_size(dtype)) {
    case 2: f(std::uint16_t()); break;
    case 4: f(std::uint32_t()); break;
    default: f(std::uint64_t()); break;
  }
}

#if defined(__CUDACC__)
cudaStream_t stream_of(const Context& ctx);  // CuPy's current stream
// Throws std::runtime_error that names the kernel and its launch.
void check_launch(cudaError_t error, cudaStream_t stream, const char* kernel, int64_t blocks, int threads,
                  std::size_t shared_bytes);
#endif

// Runs `kernel` on blocks x 1 x 1 blocks. Nothing is waited for.
template <class... Parameters, class... Arguments>
void launch(Context& ctx, const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads,
            std::size_t shared_bytes, const Arguments&... arguments) {
  if (blocks < 1) return;
  if (blocks > 0x7fffffff)
    throw std::runtime_error(std::string("kernel ") + name + " would need " + std::to_string(blocks) +
                             " blocks, CUDA launches at most 2^31 - 1");
#if defined(__CUDACC__)
  const cudaStream_t stream = stream_of(ctx);
  if (shared_bytes > (48u << 10))  // more than that a kernel may have where it asks for it, on each device
    check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), stream,
                 name, blocks, threads, shared_bytes);
  kernel<<<unsigned(blocks), unsigned(threads), shared_bytes, stream>>>(Parameters(arguments)...);
  check_launch(cudaGetLastError(), stream, name, blocks, threads, shared_bytes);
#else
  (void)ctx;
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  } call{kernel, {Parameters(arguments)...}};
  simt::run(name, dim3(unsigned(blocks)), dim3(unsigned(threads)), shared_bytes, [](const void* p) {
    const Call& c = *static_cast<const Call*>(p);
    std::apply(c.kernel, c.arguments);
  }, &call);
#endif
}

// One thread an element.
template <class... Parameters, class... Arguments>
void launch_elements(Context& ctx, const char* name, void (*kernel)(Parameters...), int64_t elements,
                     const Arguments&... arguments) {
  launch(ctx, name, kernel, ceil_div(elements, kThreads), kThreads, 0, arguments...);
}
FC_DEVICE int64_t element() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

// n / d for n >= 0, d > 0; a division in 64 bits takes a GPU several times as long.
FC_DEVICE int64_t divide(int64_t n, int64_t d) {
  return (n | d) >> 32 ? n / d : int64_t(uint32_t(n) / uint32_t(d));
}
// By a stride or a dilation, which mostly is 1.
FC_DEVICE int64_t divide_by_step(int64_t n, int64_t step) { return step == 1 ? n : divide(n, step); }
FC_DEVICE int64_t remainder_of(int64_t n, int64_t d) { return n - divide(n, d) * d; }
// The last digit of n in this base; n keeps those before it.
FC_DEVICE int64_t take_digit(int64_t& n, int64_t base) {
  const int64_t rest = divide(n, base), digit = n - rest * base;
  n = rest;
  return digit;
}

}  // namespace fastconv::cuda
