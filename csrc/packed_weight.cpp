#include "packed_weight.h"

#include <mutex>
#include <new>

#include "context.h"
#include "pool.h"

namespace fastconv {
namespace {

// One for all weights: it is held for a few instructions a call.
std::mutex& lock() {
  static std::mutex* m = new std::mutex;  // never destroyed: arrays may be freed while the interpreter shuts down
  return *m;
}

}  // namespace

struct PackedWeight::Entry {
  PackedForm form;
  void* memory;
  std::size_t bytes;
  bool filled;
  Entry* next;
};

PackedWeight::~PackedWeight() {
  while (Entry* e = entries_) {
    entries_ = e->next;
    pool_release(e->memory);
    delete e;
  }
  pool_release(block_);
}

void* PackedWeight::form(const PackedForm& form, std::size_t bytes, bool* filled) {
  *filled = false;
  const std::lock_guard<std::mutex> guard(lock());
  for (Entry* e = entries_; e; e = e->next)
    if (e->form == form) {
      *filled = e->filled;
      return e->filled ? e->memory : nullptr;
    }
  void* memory = pool_acquire(bytes);
  Entry* entry = memory ? new (std::nothrow) Entry{form, memory, bytes, false, entries_} : nullptr;
  if (!entry) {
    pool_release(memory);
    return nullptr;
  }
  entries_ = entry;
  return memory;
}

void PackedWeight::finish(void* form, bool filled) {
  const std::lock_guard<std::mutex> guard(lock());
  for (Entry** at = &entries_; *at; at = &(*at)->next)
    if (Entry* e = *at; e->memory == form) {
      e->filled = filled;
      if (filled) return;
      *at = e->next;
      pool_release(e->memory);
      delete e;
      return;
    }
}

std::size_t PackedWeight::bytes() const {
  const std::lock_guard<std::mutex> guard(lock());
  std::size_t sum = 0;
  for (const Entry* e = entries_; e; e = e->next) sum += e->filled ? e->bytes : 0;
  return sum;
}

void* Context::packed_form(const PackedForm& form, std::size_t bytes, bool* filled) {
  *filled = false;
  if (!weight_) return nullptr;
  abandon_form();
  void* memory = weight_->form(form, bytes, filled);
  filling_ = *filled ? nullptr : memory;
  return memory;
}

void Context::packed_filled() {
  if (filling_) weight_->finish(filling_, true);
  filling_ = nullptr;
}

void Context::abandon_form() {
  if (filling_) weight_->finish(filling_, false);
  filling_ = nullptr;
}

}  // namespace fastconv
