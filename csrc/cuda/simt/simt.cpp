#include "simt.h"

#include "warpgroup.h"

#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fastconv::simt {

Counters counters{};
dim3 thread_index, block_index, block_size, grid_size;

// ---- switching stacks ----------------------------------------------------------------------------------------------

#if defined(__x86_64__)
// Saves the callee-saved registers on the old stack and takes them from the new one. swapcontext would also do a
// system call for the signal mask.
extern "C" void fastconv_simt_switch(void** save, void* load);
asm(R"(
.text
.globl fastconv_simt_switch
.hidden fastconv_simt_switch
.type fastconv_simt_switch, @function
fastconv_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastconv_simt_switch, .-fastconv_simt_switch
)");
using Stack = void*;
void switch_stacks(Stack& save, Stack& load) { fastconv_simt_switch(&save, load); }
void prepare(Stack& stack, char* memory, std::size_t bytes, void (*entry)()) {
  void** top = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(memory + bytes) & ~std::uintptr_t(15));
  *--top = nullptr;                               // keeps the alignment that a call would leave
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; i++) *--top = nullptr;   // the registers that the switch pops
  stack = top;
}
#else
using Stack = ucontext_t;
void switch_stacks(Stack& save, Stack& load) { swapcontext(&save, &load); }
void prepare(Stack& stack, char* memory, std::size_t bytes, void (*entry)()) {
  getcontext(&stack);
  stack.uc_stack.ss_sp = memory;
  stack.uc_stack.ss_size = bytes;
  stack.uc_link = nullptr;
  makecontext(&stack, entry, 0);
}
#endif

namespace {

constexpr std::size_t kStackBytes = 64 << 10;
constexpr std::size_t kSharedLimit = 227 << 10;  // what one block may use on sm_90
constexpr int kMaxThreads = 1024;

struct Copy {
  void* to;
  const void* from;
  int bytes;
  bool valid;
};

enum class State : std::uint8_t { fresh, ready, at_barrier, in_collective, done };

struct Fiber {
  Stack stack;
  char* memory = nullptr;  // only while it runs: a thread that meets no barrier leaves its stack to the next
  State state = State::fresh;
  int number = 0;
  std::vector<Copy> open;                 // copies not committed yet
  std::deque<std::vector<Copy>> groups;   // committed, not waited for
  bool unfenced = false;                  // has copies that warpgroups may not see yet
  std::vector<WarpgroupProduct> products;
  std::size_t committed = 0;              // of the products
};

struct Warp {
  const char* name = nullptr;
  int arrived = 0;
  Lane lanes[kWarp];
};

std::mutex launching;
bool recording = false;
std::vector<Launch> recorded;
Schedule order_of_threads = Schedule::up;
bool rotating = true;
std::mt19937 random_order(1);

// The launch that runs.
void (*kernel_body)(const void*);
const void* kernel_arguments;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<char*> free_stacks;
std::unique_ptr<char[], void (*)(char*)> shared(nullptr, [](char* p) { std::free(p); });
std::size_t shared_bytes = 0;
Fiber* current = nullptr;
Stack scheduler;
int at_barrier = 0, alive = 0;
bool unfenced = false;  // some thread met a barrier with copies that warpgroups may not see yet
std::string failure;

char* take_stack() {
  if (free_stacks.empty()) {
    void* p = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(p);
  }
  char* p = free_stacks.back();
  free_stacks.pop_back();
  return p;
}

void enter() {
  kernel_body(kernel_arguments);
  if (!current->open.empty() || !current->groups.empty()) fault("exit with asynchronous copies in flight");
  if (!current->products.empty()) fault("exit with products of a warpgroup in flight");
  current->state = State::done;
  switch_stacks(current->stack, scheduler);
  __builtin_unreachable();
}

void wait_as(State state) {
  Fiber* me = current;
  me->state = state;
  switch_stacks(me->stack, scheduler);
}

void resume(Fiber& f) {
  if (f.state == State::fresh) {
    f.memory = take_stack();
    prepare(f.stack, f.memory, kStackBytes, enter);
  }
  f.state = State::ready;
  current = &f;
  const unsigned n = unsigned(f.number);
  thread_index = {n % block_size.x, n / block_size.x % block_size.y, n / (block_size.x * block_size.y)};
  switch_stacks(scheduler, f.stack);
  if (f.state == State::done && failure.empty()) {
    free_stacks.push_back(f.memory);
    f.memory = nullptr;
    alive--;
  }
}

std::string stuck_threads() {
  std::string text = "divergent barrier or partial warp collective: ";
  for (const State state : {State::at_barrier, State::in_collective}) {
    int n = 0, first = -1;
    for (const Fiber& f : fibers)
      if (f.state == state && !n++) first = f.number;
    if (n)
      text += std::to_string(n) + " threads from " + std::to_string(first) + " on wait " +
              (state == State::at_barrier ? "at a barrier, " : "in a warp collective, ");
  }
  return text + std::to_string(int(fibers.size()) - alive) + " have returned";
}

void run_block(std::vector<int>& order) {
  std::memset(shared.get(), 0xff, shared_bytes);
  for (Fiber& f : fibers) {
    f.state = State::fresh;
    f.unfenced = false;
  }
  unfenced = false;
  for (Warp& w : warps) w.arrived = 0;
  at_barrier = 0;
  alive = int(fibers.size());
  while (alive) {
    bool moved = false;
    if (order_of_threads == Schedule::shuffled) std::shuffle(order.begin(), order.end(), random_order);
    for (const int i : order) {
      Fiber& f = fibers[std::size_t(i)];
      if (f.state != State::fresh && f.state != State::ready) continue;
      moved = true;
      resume(f);
      if (!failure.empty()) return;
    }
    if (alive && at_barrier == alive && alive == int(fibers.size())) {
      for (Fiber& f : fibers) {
        f.state = State::ready;
        unfenced = unfenced || f.unfenced;
      }
      at_barrier = 0;
      moved = true;
    }
    if (alive && !moved) {
      current = nullptr;
      failure = stuck_threads();
      return;
    }
  }
}

// Stacks of threads that a fault left behind are given back without being unwound: kernels own nothing.
void abandon() {
  for (Fiber& f : fibers) {
    if (f.memory) free_stacks.push_back(f.memory);
    f = Fiber();
  }
}

}  // namespace

void set_schedule(Schedule schedule) {
  rotating = false;
  order_of_threads = schedule;
}

bool set_schedule(const char* name) {
  const std::string n = name;
  rotating = n == "rotate";
  if (n == "up") order_of_threads = Schedule::up;
  else if (n == "down") order_of_threads = Schedule::down;
  else if (n == "shuffled") order_of_threads = Schedule::shuffled;
  else return rotating;
  return true;
}

const char* schedule_name() {
  if (rotating) return "rotate";
  return order_of_threads == Schedule::up ? "up" : order_of_threads == Schedule::down ? "down" : "shuffled";
}

char* shared_memory() { return shared.get(); }

void fault(const std::string& message) {
  failure = message;
  if (!current) throw SimtFault(message);
  switch_stacks(current->stack, scheduler);
  __builtin_unreachable();
}

void barrier() {
  counters.barriers++;
  at_barrier++;
  wait_as(State::at_barrier);
}

void collective(const char* name, Collective op, const void* in, void* out) {
  Warp& w = warps[std::size_t(current->number / kWarp)];
  if (w.arrived == 0) w.name = name;
  else if (std::strcmp(w.name, name)) fault(std::string("lanes of one warp meet in ") + w.name + " and in " + name);
  w.lanes[current->number % kWarp] = {in, out};
  if (++w.arrived < kWarp) {
    wait_as(State::in_collective);
    return;
  }
  counters.collectives++;
  op(w.lanes);
  w.arrived = 0;
  const int first = current->number / kWarp * kWarp;
  for (int i = first; i < first + kWarp; i++)
    if (fibers[std::size_t(i)].state == State::in_collective) fibers[std::size_t(i)].state = State::ready;
}

void check_shared(const void* p, std::size_t bytes) {
  const char* at = static_cast<const char*>(p);
  if (at < shared.get() || at + bytes > shared.get() + shared_bytes) fault("shared memory accessed out of its range");
  if (reinterpret_cast<std::uintptr_t>(p) % bytes) fault("misaligned access to shared memory");
}

void async_copy(void* to, const void* from, int bytes, bool valid) {
  counters.async_copies++;
  check_shared(to, std::size_t(bytes));
  if (valid && reinterpret_cast<std::uintptr_t>(from) % std::uintptr_t(bytes))
    fault("misaligned source of an asynchronous copy");
  std::memset(to, 0xff, std::size_t(bytes));
  current->open.push_back({to, from, bytes, valid});
}

void async_commit() {
  current->groups.push_back(std::move(current->open));
  current->open.clear();
}

void async_wait(int groups_in_flight) {
  while (int(current->groups.size()) > groups_in_flight) {
    current->unfenced = true;
    for (const Copy& c : current->groups.front()) {
      if (c.valid) std::memcpy(c.to, c.from, std::size_t(c.bytes));
      else std::memset(c.to, 0, std::size_t(c.bytes));
    }
    current->groups.pop_front();
  }
}

void fence_for_warpgroups() { current->unfenced = false; }

void begin_product(const WarpgroupProduct& product) {
  if (unfenced) fault("a warpgroup multiplies what was copied without fence_for_warpgroups");
  check_shared(product.a, 16);
  check_shared(product.b, 16);
  current->products.push_back(product);
}

void warpgroup_commit() { current->committed = current->products.size(); }

void warpgroup_wait() {
  collective("warpgroup_wait", [](Lane* lanes) {
    const auto of = [&](int lane) -> const Fiber& { return *static_cast<const Fiber*>(lanes[lane].in); };
    float* sums[kWarp];
    for (std::size_t i = 0; i < of(0).committed; i++) {
      counters.matrix_products++;
      for (int lane = 0; lane < kWarp; lane++) {
        const Fiber& f = of(lane);
        if (f.committed != of(0).committed || f.products[i].a != of(0).products[i].a)
          fault("lanes of one warp have different products in flight");
        sums[lane] = f.products[i].d;
      }
      run_product(of(0).products[i], of(0).number / kWarp % 4, sums);
    }
  }, current, nullptr);
  current->products.erase(current->products.begin(), current->products.begin() + std::ptrdiff_t(current->committed));
  current->committed = 0;
}

void count_bank_conflicts(const void* const* rows, int n) {
  unsigned seen = 0;  // 32 banks of 4 bytes: a 16-byte row takes four of them
  for (int i = 0; i < n; i++) {
    const unsigned bit = 1u << (reinterpret_cast<std::uintptr_t>(rows[i]) / 16 % 8);
    if (seen & bit) counters.bank_conflicts++;
    seen |= bit;
  }
}

void start_recording() {
  const std::lock_guard<std::mutex> lock(launching);
  recording = true;
  recorded.clear();
}

std::vector<Launch> stop_recording() {
  const std::lock_guard<std::mutex> lock(launching);
  recording = false;
  return std::move(recorded);
}

void run(const char* kernel, dim3 grid, dim3 block, std::size_t bytes, void (*body)(const void*),
         const void* arguments) {
  const std::lock_guard<std::mutex> lock(launching);
  const int threads = int(block.x * block.y * block.z);
  const std::string where = std::string("cuda:simt: kernel ") + kernel;
  if (threads < 1 || threads > kMaxThreads || threads % kWarp)
    throw SimtFault(where + ": " + std::to_string(threads) + " threads a block, must be a multiple of 32 up to 1024");
  if (bytes > kSharedLimit)
    throw SimtFault(where + ": " + std::to_string(bytes) + " bytes of shared memory, a block has " +
                    std::to_string(kSharedLimit));
  if (recording) {
    recorded.push_back({kernel, long(grid.x) * long(grid.y) * long(grid.z), threads, bytes});
    return;
  }
  if (rotating) order_of_threads = Schedule(counters.launches % 3);
  counters.launches++;
  kernel_body = body;
  kernel_arguments = arguments;
  block_size = block;
  grid_size = grid;
  if (bytes > shared_bytes || !shared) {
    shared.reset(static_cast<char*>(std::aligned_alloc(1024, (bytes + 2047) / 1024 * 1024)));
    if (!shared) throw std::bad_alloc();
  }
  shared_bytes = bytes;
  fibers.resize(std::size_t(threads));
  for (int i = 0; i < threads; i++) fibers[std::size_t(i)].number = i;
  warps.resize(std::size_t(threads / kWarp));
  std::vector<int> order(std::size_t(threads), 0);
  for (int i = 0; i < threads; i++) order[std::size_t(i)] = order_of_threads == Schedule::down ? threads - 1 - i : i;
  failure.clear();
  for (unsigned z = 0; z < grid.z && failure.empty(); z++)
    for (unsigned y = 0; y < grid.y && failure.empty(); y++)
      for (unsigned x = 0; x < grid.x && failure.empty(); x++) {
        block_index = {x, y, z};
        counters.blocks++;
        run_block(order);
      }
  if (failure.empty()) {
    current = nullptr;
    return;
  }
  std::string text = where + ", block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) +
                     ", " + std::to_string(block_index.z) + ")";
  if (current) text += ", thread " + std::to_string(current->number);
  current = nullptr;
  abandon();
  throw SimtFault(text + ": " + failure);
}

}  // namespace fastconv::simt
