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
  std::size_t bytes;           // of the whole block with this header
  Header *later, *earlier;     // of all kept blocks, in the order in which they came back
  Header *below, *above;       // of its class: a stack, the block that came back last on top
};
static_assert(sizeof(Header) == 64, "the header keeps the 64-byte alignment");

// Four classes an octave: at most 25 % of a block is unused, and sizes that differ a little share a class.
constexpr std::size_t kSmallestStep = 4096;
constexpr int kClasses = 4 * 64;
std::size_t size_class(std::size_t bytes, int* number) {
  std::size_t step = kSmallestStep;
  int octave = 0;
  while (bytes > step * 8) {
    step *= 2;
    octave++;
  }
  const std::size_t steps = (bytes + step - 1) / step;
  *number = octave * 4 + int(steps) - 1;  // pooled blocks have 5 to 8 steps, but for those of the smallest step
  return steps * step;
}
int class_of(const Header* h) {
  int number;
  size_class(h->bytes, &number);
  return number;
}

class Cache {
 public:
  std::mutex mutex;

  // A kept block of this class or, with up to half its size to spare, of the next two; nullptr: there is none.
  Header* take(int number) {
    for (int i = number; i <= number + 2 && i < kClasses; i++)
      if (Header* h = top_[i]) {
        unlink(h, i);
        use(h->bytes);
        return h;
      }
    return nullptr;
  }
  void unused(std::size_t bytes) { in_use_ -= bytes; }
  void use(std::size_t bytes) {
    in_use_ += bytes;
    if (++handed_out_ == kLately) {
      handed_out_ = 0;
      most_before_ = most_;
      most_ = 0;
    }
    if (in_use_ > most_) most_ = in_use_;
  }
  void put_back(Header* h) {
    in_use_ -= h->bytes;
    const int number = class_of(h);
    h->above = nullptr;
    h->below = top_[number];
    if (h->below) h->below->above = h;
    top_[number] = h;
    h->later = nullptr;
    h->earlier = latest_;
    (latest_ ? latest_->later : earliest_) = h;
    latest_ = h;
    kept_ += h->bytes;
  }
  // Takes out what is too much.
  Header* surplus() {
    const std::size_t most = most_ > most_before_ ? most_ : most_before_, bound = most + most / 2;
    const std::size_t limit = bound > kKeptBytes ? bound : kKeptBytes;
    return shed(limit > in_use_ ? limit - in_use_ : 0);
  }
  // Takes out the earliest blocks until no more than `bytes` are kept: a chain by `below`.
  Header* shed(std::size_t bytes) {
    Header* chain = nullptr;
    while (kept_ > bytes) {
      Header* h = earliest_;
      unlink(h, class_of(h));
      h->below = chain;
      chain = h;
    }
    return chain;
  }

 private:
  void unlink(Header* h, int number) {
    (h->above ? h->above->below : top_[number]) = h->below;
    if (h->below) h->below->above = h->above;
    (h->earlier ? h->earlier->later : earliest_) = h->later;
    (h->later ? h->later->earlier : latest_) = h->earlier;
    kept_ -= h->bytes;
  }

  Header *top_[kClasses] = {}, *earliest_ = nullptr, *latest_ = nullptr;
  std::size_t in_use_ = 0, kept_ = 0, most_ = 0, most_before_ = 0;  // most: in use at once, lately and before that
  int handed_out_ = 0;
};

// Never destroyed: arrays may be freed while the interpreter shuts down.
Cache& cache() {
  static Cache* c = new Cache;
  return *c;
}

void unmap(Header* chain) {
  while (chain) {
    Header* h = chain;
    chain = h->below;
    munmap(h, h->bytes);
  }
}

std::atomic<std::size_t> peak{0};
std::atomic<const PoolHooks*> hooks{nullptr};

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
  int number;
  const std::size_t wanted = size_class(total, &number);
  Cache& c = cache();
  Header* surplus;
  {
    std::lock_guard<std::mutex> lock(c.mutex);
    if (Header* h = c.take(number)) return h + 1;
    c.use(wanted);
    surplus = c.surplus();
  }
  unmap(surplus);
  Header* h = map_block(wanted);
  if (!h) {
    pool_trim();
    h = map_block(wanted);
    if (!h) {
      std::lock_guard<std::mutex> lock(c.mutex);
      c.unused(wanted);
      return nullptr;
    }
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
  Cache& c = cache();
  Header* surplus;
  {
    std::lock_guard<std::mutex> lock(c.mutex);
    c.put_back(h);
    surplus = c.surplus();
  }
  unmap(surplus);
}

void pool_trim() noexcept {
  Cache& c = cache();
  Header* chain;
  {
    std::lock_guard<std::mutex> lock(c.mutex);
    chain = c.shed(0);
  }
  unmap(chain);
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

Context::~Context() {
  abandon_form();
  pool_release(block_);
}

}  // namespace fastconv
