// The primitives of prims.cuh one by one, for the test that holds a GPU's against the simulator's.
#pragma once
#include <cstdint>
#include <string>

namespace fastconv::cuda {

constexpr int kProbeWords = 1024;

const char* primitive_name(int i);  // nullptr behind the last
// Reads and writes kProbeWords words; false where there is no such primitive.
bool run_primitive(const std::string& name, const std::uint32_t* in, std::uint32_t* out);

}  // namespace fastconv::cuda
