#include "device.h"

#include <cstdlib>

#include "conv.h"

namespace fastconv::cuda {
namespace {

thread_local cudaStream_t current_stream = nullptr;

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

int device_count() {
  int n = 0;
  if (cudaGetDeviceCount(&n) == cudaSuccess) return n;
  cudaGetLastError();  // no driver, or none that is new enough: not an error of a later launch
  return 0;
}

std::string runtime_version() { return version_text(CUDART_VERSION); }

std::string driver_version() {
  int v = 0;
  return cudaDriverGetVersion(&v) == cudaSuccess && v ? version_text(v) : "none";
}

bool has_warpgroups() {
#if defined(FC_WARPGROUPS)
  int device = 0, major = 0, minor = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
         minor == 0;
#else
  return false;
#endif
}

void set_stream(std::uintptr_t stream) { current_stream = reinterpret_cast<cudaStream_t>(stream); }
std::uintptr_t get_stream() { return reinterpret_cast<std::uintptr_t>(current_stream); }
cudaStream_t stream_of(const Context&) { return current_stream; }

void check_launch(cudaError_t error, cudaStream_t stream, const char* kernel, int64_t blocks, int threads,
                  std::size_t shared_bytes) {
  static const char* const wait = std::getenv("FASTCONV_SYNC");
  if (error == cudaSuccess && wait && *wait == '1') error = cudaStreamSynchronize(stream);
  if (error == cudaSuccess) return;
  std::string text = std::string("CUDA kernel ") + kernel + " (" + std::to_string(blocks) + " blocks of " +
                     std::to_string(threads) + " threads, " + std::to_string(shared_bytes) +
                     " bytes of shared memory): " + cudaGetErrorString(error);
  if (error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure || error == cudaErrorMisalignedAddress)
    text += "; the process must be restarted to use the GPU again";
  throw std::runtime_error(text);
}

}  // namespace fastconv::cuda
