// Memory for outputs and scratch: 64-byte aligned, recycled above kPooledBytes.
//
// A fresh mapping costs a page fault per 4 KB, which is more than a memory-bound op takes on the data itself; so blocks
// are kept and handed out again. What is kept is bounded: blocks in use and kept ones together take no more than
// kKeptBytes, or half as much again as was in use at once lately, whichever is larger. A training step so finds the memory
// of the last one, whose blocks had other sizes at other times. With an eighth in place of the half, steps of MobileNetV2
// (8 images) mapped 190 MB anew and took 1.17 times as long, ResNet-50's 1.04 times, in 0.9 of the memory; networks that
// had enough before take no more. Those that were kept longest go first.
#pragma once
#include <cstddef>

namespace fastconv {

constexpr std::size_t kPooledBytes = std::size_t(64) << 10;
constexpr std::size_t kKeptBytes = std::size_t(512) << 20;
constexpr int kLately = 16384;  // blocks handed out: more than a training step of the deepest networks needs

// Another source of memory (array_library.h): asked first while it is in use; whatever it gave goes back to it.
struct PoolHooks {
  bool (*in_use)();
  void* (*acquire)(std::size_t bytes);
  bool (*release)(void* block);  // false: not one of its own
};
void set_pool_hooks(const PoolHooks* hooks);

void* pool_acquire(std::size_t bytes);              // nullptr where memory is short; bytes may be 0
void pool_release(void* block) noexcept;
void pool_trim() noexcept;                          // gives all cached blocks back to the system
std::size_t workspace_peak() noexcept;              // largest scratch of one call since the last reset
void reset_workspace_peak() noexcept;

}  // namespace fastconv
