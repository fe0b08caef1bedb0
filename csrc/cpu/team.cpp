// Helpers look for open jobs, spin for a while when there is none, and then sleep. A job is a slot of static memory that
// a caller takes, opens, closes and gives back. Static, because a helper may look at a slot at any time: what stands in
// it counts once the helper has entered, and a slot with somebody inside is not given back. Helpers never end. A forked
// child has none, and computes with one thread (threads.cpp).
//
// OpenMP's join waits for all threads, also for those that have yet to wake up. One image through MobileNetV2, Zen 4, two
// threads in a virtual machine, with libgomp spinning for as long (GOMP_SPINCOUNT=2000) and here: call after call 5.1 and
// 4.7 ms, after pauses of 10 ms 11.3 and 5.2, beside one busy process 11.1 and 8.3; GoogLeNet beside it 33 and 24.
#include "team.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>

namespace fastconv::cpu {
namespace {

// How long a helper looks for the next job before it sleeps; where it has its processor for itself, ten times as long. One
// image through MobileNetV2 on a slow virtual machine (Zen 3), 100, 300 and 1000: call after call 9.7, 9.3, 8.5 ms. But a
// helper that spins loses the system's favour beside a busy process: 12.7, 16.5, 18.3 ms (Zen 4, 40 and 100: 6.9, 8.7).
constexpr double kLookMicroseconds = 100, kLongLookMicroseconds = 1000;
// How long a caller does so before it sleeps, until helpers have finished what they do (50, 200, 1000: 8.9, 8.5, 9.0 ms;
// beside a busy process all the same).
constexpr double kJoinMicroseconds = 200;
// A helper shares its processor where it had to wait for one for more than this part of the last hundredth of a second.
// Alone it does so for 0.005 of the time, beside a busy process for 0.44. How often it is interrupted tells nothing, and
// the time that it did not run is what a host took from the whole machine, too.
constexpr double kShared = 0.1, kSharedMicroseconds = 10000;

using Word = std::atomic<std::uint32_t>;
static_assert(sizeof(Word) == 4 && Word::is_always_lock_free, "a futex is a plain word of 32 bits");

// Sleeps as any of `names` while the word has this value.
void sleep_while(Word& word, std::uint32_t value, std::uint32_t names) {
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, value, nullptr, nullptr, names);
}

void wake(Word& word, std::uint32_t names) {
  syscall(SYS_futex, &word, FUTEX_WAKE_BITSET_PRIVATE, 0x7fffffff, nullptr, nullptr, names);
}

double microseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) * 1e6 + double(t.tv_nsec) * 1e-3;
}

// How long this thread has been waiting for a processor since it began, a negative number where the system does not tell.
double waited_microseconds() {
  const int file = ::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  char text[64];
  const ssize_t length = read(file, text, sizeof text - 1);
  ::close(file);
  if (length <= 0) return -1;
  text[length] = 0;
  unsigned long long run, waited;
  return std::sscanf(text, "%llu %llu", &run, &waited) == 2 ? double(waited) * 1e-3 : -1;
}

// Whether a thread has its processor for itself.
class Company {
 public:
  bool none() {
    const double now = microseconds();
    if (now - since_ >= kSharedMicroseconds) {
      const double waited = waited_microseconds();
      alone_ = waited >= 0 && waited - waited_ <= kShared * (now - since_);
      since_ = now;
      waited_ = waited;
    }
    return alone_;
  }

 private:
  double since_ = microseconds(), waited_ = waited_microseconds();
  bool alone_ = waited_ >= 0;
};

// Whether the word changes from this value within the time.
bool changes(const Word& word, std::uint32_t value, double limit) {
  const double start = microseconds();
  do {
    for (int i = 0; i < 16; i++) {
      if (word.load(std::memory_order_acquire) != value) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      __asm__ __volatile__("yield");
#endif
    }
  } while (microseconds() - start < limit);
  return false;
}

struct alignas(64) Job {
  Word state{0};  // of the bits below
  int team = 0;
  void (*work)(void*, int) = nullptr;
  void* context = nullptr;
};
constexpr std::uint32_t kTaken = 1, kOpen = 2, kAwaited = 4, kInside = 8;  // kInside: times the helpers inside

constexpr int kJobs = 16;  // of as many callers at a time; more compute alone
Job jobs[kJobs];

struct Helper {
  std::atomic<pid_t> id{0};
  std::atomic<int> avoided{-1};  // a processor
};
constexpr int kMostHelpers = 255;
Helper helpers[kMostHelpers];
std::atomic<int> started{0};

alignas(64) Word posted{0};  // counts jobs; helpers watch it, and sleep on it under their names
alignas(64) Word asleep{0};  // the names of those that do, or are about to

// The first 31 helpers have a bit of their own, all others share the last.
std::uint32_t name_of(int helper) { return 1u << std::min(helper, 31); }
std::uint32_t names_of_first(int count) { return count >= 32 ? ~0u : (1u << count) - 1; }

void look_into(Job& job, int thread) {
  std::uint32_t state = job.state.load(std::memory_order_relaxed);
  do {
    if (!(state & kOpen)) return;
  } while (!job.state.compare_exchange_weak(state, state + kInside, std::memory_order_acquire));
  if (thread < job.team) job.work(job.context, thread);
  state = job.state.fetch_sub(kInside, std::memory_order_release) - kInside;
  if (state < kInside && state & kAwaited) wake(job.state, ~0u);
}

void* help(void* number) {
  const int self = int(reinterpret_cast<std::intptr_t>(number));
  helpers[self].id.store(pid_t(syscall(SYS_gettid)), std::memory_order_relaxed);
  Company company;
  for (;;) {
    const std::uint32_t seen = posted.load(std::memory_order_acquire);
    for (Job& job : jobs) look_into(job, self + 1);
    if (changes(posted, seen, kLookMicroseconds)) continue;
    if (company.none() && changes(posted, seen, kLongLookMicroseconds - kLookMicroseconds)) continue;
    asleep.fetch_or(name_of(self));  // whoever wakes it up takes the name away
    sleep_while(posted, seen, name_of(self));
  }
  return nullptr;
}

void start(int count) {
  if (started.load(std::memory_order_relaxed) >= count) return;
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  sigset_t all, before;  // signals are for the threads of the program
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (std::intptr_t number = started.load(); number < count; number++) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, help, reinterpret_cast<void*>(number))) break;  // those that there are will do
    pthread_setname_np(thread, "fastconv");
    pthread_detach(thread);
    started.store(int(number) + 1);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Lets sleepers wake up on other processors than the caller's. The system wakes a thread where it ran last, if it finds no
// idle processor, and in a virtual machine it takes a halted one for busy: caller and helper then share one for
// milliseconds, side by side with an idle one.
void keep_clear_of(int processor, int count, std::uint32_t sleepers) {
  cpu_set_t others;
  CPU_ZERO(&others);
  for (int i = 0; i < count; i++) {
    const pid_t id = helpers[i].id.load(std::memory_order_relaxed);
    if (!(sleepers & name_of(i)) || !id) continue;
    if (helpers[i].avoided.exchange(processor, std::memory_order_relaxed) == processor) continue;
    if (CPU_COUNT(&others) == 0) {
      if (sched_getaffinity(0, sizeof others, &others)) return;
      CPU_CLR(processor, &others);
      if (CPU_COUNT(&others) == 0) return;  // the caller may run nowhere else, and helpers as they were told
    }
    sched_setaffinity(id, sizeof others, &others);
  }
}

Job* take_job() {
  for (Job& job : jobs) {
    std::uint32_t state = job.state.load(std::memory_order_relaxed);
    if (state == 0 && job.state.compare_exchange_strong(state, kTaken)) return &job;
  }
  return nullptr;
}

void open(Job& job) {
  job.state.store(kTaken | kOpen, std::memory_order_release);
  posted.fetch_add(1);
  const std::uint32_t names = names_of_first(job.team - 1);
  if (!(asleep.load() & names)) return;
  const std::uint32_t sleepers = asleep.fetch_and(~names) & names;
  if (!sleepers) return;
  keep_clear_of(sched_getcpu(), std::min(job.team - 1, started.load()), sleepers);
  wake(posted, sleepers);
}

// Closes the job, waits until nobody is inside, and gives the slot back.
void close(Job& job) {
  std::uint32_t state = job.state.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
  while (state >= kInside) {
    if (!changes(job.state, state, kJoinMicroseconds)) {
      state = job.state.fetch_or(kAwaited) | kAwaited;
      if (state >= kInside) sleep_while(job.state, state, ~0u);
    }
    state = job.state.load(std::memory_order_acquire);
  }
  job.state.store(0, std::memory_order_release);
}

}  // namespace

void run_in_team(int team, void (*work)(void*, int), void* context) {
  start(std::min(team - 1, kMostHelpers));
  Job* const job = take_job();
  if (!job) return work(context, 0);
  job->team = team;
  job->work = work;
  job->context = context;
  open(*job);
  work(context, 0);
  close(*job);
}

}  // namespace fastconv::cpu
