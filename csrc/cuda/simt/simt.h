// The simulator: the CUDA subset that the kernels use, on a CPU, with one fiber a CUDA thread.
//
// What a GPU leaves undefined is an error here or gives not-a-number: shared memory starts as NaN in every format,
// an asynchronous copy poisons its destination until it is waited for, barriers and warp collectives that not all
// threads reach are reported, and threads run in one of three orders. A report is a SimtFault (RuntimeError in Python)
// that names kernel, block and thread. Fibers keep the kernels' source unchanged: every thread has its own stack.
//
// One launch runs at a time (a mutex): the state of the running block is global, which is several times faster than
// thread-local.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
using cudaStream_t = void*;

namespace fastconv::simt {

struct SimtFault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Schedule : std::uint8_t { up, down, shuffled };

// Of the latest launches, until reset: what the census of a kernel is made of.
struct Counters {
  long launches, blocks, barriers, collectives, async_copies, matrix_loads, matrix_products, bank_conflicts;
};
extern Counters counters;

void set_schedule(Schedule schedule);
bool set_schedule(const char* name);    // "up", "down", "shuffled", or "rotate": each launch takes the next of the three
const char* schedule_name();

// ---- what a running kernel sees ------------------------------------------------------------------------------------

constexpr int kWarp = 32;
struct Lane {          // one lane's part in a warp collective
  const void* in;
  void* out;
};
using Collective = void (*)(Lane* lanes);

extern dim3 thread_index, block_index, block_size, grid_size;
char* shared_memory();
[[noreturn]] void fault(const std::string& message);
void barrier();
// All 32 lanes of a warp must meet in the same collective; the last one runs `op` for all.
void collective(const char* name, Collective op, const void* in, void* out);
void async_copy(void* to, const void* from, int bytes, bool valid);   // zeros where not valid
void async_commit();
void async_wait(int groups_in_flight);
void check_shared(const void* p, std::size_t bytes);                  // range and alignment
void count_bank_conflicts(const void* const* rows, int n);            // of 16-byte rows read in one phase

// ---- launching -----------------------------------------------------------------------------------------------------

// What a kernel was started with.
struct Launch {
  std::string kernel;
  long blocks;
  int threads;
  std::size_t shared_bytes;
};
// Keep launches in place of running them, until `stop_recording` gives them: what a layer of full size would start.
void start_recording();
std::vector<Launch> stop_recording();

void run(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(const void*),
         const void* arguments);

}  // namespace fastconv::simt
