// The CUDA runtime as Python sees it. Nothing here waits for the GPU, and only these functions start the runtime.
#pragma once
#include <cstdint>
#include <string>

namespace fastconv::cuda {

int device_count();           // 0 where there is no driver or no GPU
std::string runtime_version();
std::string driver_version();  // "none" where there is no driver

// Of this thread's next calls.
void set_stream(std::uintptr_t stream);
std::uintptr_t get_stream();

}  // namespace fastconv::cuda
