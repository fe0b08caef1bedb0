// Which table of kernels runs: the first of the priority list whose CPU flags are present, or the forced one.
#pragma once
#include "../ops.h"

namespace fastconv::cpu {

const Ops& active();                                 // the table in use
bool select(const char* isa);                        // "" = best; false where unknown or unsupported here
int supported(const char** names, int capacity);     // names of the tables this machine can run, best first
const char* why();                                   // one sentence for show_config

}  // namespace fastconv::cpu
