#include "pool.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>

#include "context.h"

namespace fastconv {
namespace {

// Stands before every block and keeps its alignment.
struct alignas(64) Header {
  std::size_t bytes;  // of the whole block with this header
};
static_assert(sizeof(Header) == 64, "the header keeps the 64-byte alignment");

struct Cache {
  std::mutex mutex;
  Header* blocks[kMaxCachedBlocks];
  int count = 0;
  std::size_t bytes = 0;
};

// Never destroyed: arrays may be freed while the interpreter shuts down.
Cache& cache() {
  static Cache* c = new Cache;
  return *c;
}

std::atomic<std::size_t> peak{0};
std::atomic<const PoolHooks*> hooks{nullptr};

// Four classes an octave: at most 25 % of a block is unused, and sizes that differ a little share a class.
std::size_t size_class(std::size_t bytes) {
  std::size_t step = 4096;
  while (bytes > step * 8) step *= 2;
  return (bytes + step - 1) / step * step;
}

constexpr std::size_t kHugePage = std::size_t(2) << 20;

Header* map_block(std::size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  if (bytes >= 2 * kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
  return static_cast<Header*>(p);
}

}  // namespace

void set_pool_hooks(const PoolHooks* h) { hooks.store(h); }

void* pool_acquire(std::size_t bytes) {
  if (const PoolHooks* h = hooks.load(std::memory_order_relaxed); h && h->in_use()) return h->acquire(bytes);
  if (bytes > (std::size_t(1) << 62)) return nullptr;
  const std::size_t total = bytes + sizeof(Header);
  if (total < kPooledBytes) {
    const std::size_t rounded = (total + 63) / 64 * 64;
    Header* h = static_cast<Header*>(std::aligned_alloc(64, rounded));
    if (!h) return nullptr;
    h->bytes = rounded;
    return h + 1;
  }
  const std::size_t wanted = size_class(total);
  {
    Cache& c = cache();
    std::lock_guard<std::mutex> lock(c.mutex);
    for (int i = c.count - 1; i >= 0; i--) {
      if (c.blocks[i]->bytes != wanted) continue;
      Header* h = c.blocks[i];
      for (int j = i; j + 1 < c.count; j++) c.blocks[j] = c.blocks[j + 1];
      c.count--;
      c.bytes -= wanted;
      return h + 1;
    }
  }
  Header* h = map_block(wanted);
  if (!h) {
    pool_trim();
    h = map_block(wanted);
    if (!h) return nullptr;
  }
  h->bytes = wanted;
  return h + 1;
}

void pool_release(void* block) noexcept {
  if (!block) return;
  if (const PoolHooks* other = hooks.load(std::memory_order_relaxed); other && other->release(block)) return;
  Header* h = static_cast<Header*>(block) - 1;
  if (h->bytes < kPooledBytes) {
    std::free(h);
    return;
  }
  Header* evicted[kMaxCachedBlocks + 1];
  int n = 0;
  if (h->bytes > kMaxCachedBytes) {
    evicted[n++] = h;
  } else {
    Cache& c = cache();
    std::lock_guard<std::mutex> lock(c.mutex);
    while (c.count == kMaxCachedBlocks || (c.count && c.bytes + h->bytes > kMaxCachedBytes)) {
      evicted[n++] = c.blocks[0];
      c.bytes -= c.blocks[0]->bytes;
      for (int j = 0; j + 1 < c.count; j++) c.blocks[j] = c.blocks[j + 1];
      c.count--;
    }
    c.blocks[c.count++] = h;
    c.bytes += h->bytes;
  }
  for (int i = 0; i < n; i++) munmap(evicted[i], evicted[i]->bytes);
}

void pool_trim() noexcept {
  Cache& c = cache();
  std::lock_guard<std::mutex> lock(c.mutex);
  for (int i = 0; i < c.count; i++) munmap(c.blocks[i], c.blocks[i]->bytes);
  c.count = 0;
  c.bytes = 0;
}

std::size_t workspace_peak() noexcept { return peak.load(); }
void reset_workspace_peak() noexcept { peak.store(0); }

void* Context::workspace(std::size_t bytes) {
  pool_release(block_);
  block_ = pool_acquire(bytes);
  failed_ = !block_;
  if (failed_) return nullptr;
  std::size_t seen = peak.load();
  while (seen < bytes && !peak.compare_exchange_weak(seen, bytes)) {
  }
  return block_;
}

Context::~Context() { pool_release(block_); }

}  // namespace fastconv
