// What a kernel may use besides its arguments: threads and scratch memory.
#pragma once
#include <cstddef>
#include <cstdint>

namespace fastconv {

struct PackedForm;
class PackedWeight;

// Scratch of one call. The block comes from the pool (pool.h) and returns to it when the call ends. A kernel asks once;
// nullptr means that memory is short, and the kernel returns at once: the binding raises MemoryError.
class Context {
 public:
  // weight: the call's weight, where it is frozen (packed_weight.h).
  explicit Context(int threads, PackedWeight* weight = nullptr) : threads_(threads), weight_(weight) {}
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int threads() const { return threads_; }
  // Threads worth waking for this much work: below about 10 us of work on one core a fork costs more than it gains.
  int threads_for(double flops, double bytes) const {
    return flops < kSerialFlops && bytes < kSerialBytes ? 1 : threads_;
  }
  void* workspace(std::size_t bytes);
  bool out_of_memory() const { return failed_; }
  void fail() { failed_ = true; }  // memory was short for a part of the call that has a Context of its own
  // The memory of a packed form of a frozen weight, which outlives the call; null where the kernel must pack into its
  // workspace. Where it is not `filled` yet the kernel fills it, and says so; a form it does not finish is given back.
  void* packed_form(const PackedForm&, std::size_t bytes, bool* filled);
  void packed_filled();

  static constexpr double kSerialFlops = 0.5e6;   // a second thread gains 2 us at most below, and loses 4
  static constexpr double kSerialBytes = 256e3;   // about 10 us at one core's copy speed

 private:
  void abandon_form();

  int threads_;
  PackedWeight* weight_;
  void* block_ = nullptr;
  void* filling_ = nullptr;
  bool failed_ = false;
};

}  // namespace fastconv
