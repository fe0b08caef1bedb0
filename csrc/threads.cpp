// How many threads a call may use, and why.
//
// Default: the smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS (FASTCONV_NUM_THREADS instead, where set).
// Threads do not survive fork(): a child computes with one, so that a program that forks one child a core keeps to its cores.
#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace fastconv {
namespace {

std::atomic<int> threads{0};
std::atomic<bool> forked{false};

int affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

// CPUs that the control group's quota allows, rounded up; 0 = no limit found. cgroup v2 first, then v1.
int cgroup_quota() {
  const auto quota_of = [](double quota, double period) { return quota > 0 && period > 0 ? int(std::ceil(quota / period)) : 0; };
  std::string line, path = "/sys/fs/cgroup";
  std::ifstream membership("/proc/self/cgroup");
  std::string own;
  while (std::getline(membership, line))
    if (line.rfind("0::", 0) == 0) own = line.substr(3);
  int least = 0;
  for (std::string folder = own;;) {
    std::ifstream f(path + folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (f >> quota >> period && quota != "max") {
      const int n = quota_of(std::atof(quota.c_str()), period);
      if (n > 0 && (least == 0 || n < least)) least = n;
    }
    if (folder.empty() || folder == "/") break;
    folder = folder.substr(0, folder.find_last_of('/'));
  }
  if (least) return least;
  double quota = 0, period = 0;
  std::ifstream q(path + "/cpu/cpu.cfs_quota_us"), p(path + "/cpu/cpu.cfs_period_us");
  if (q >> quota && p >> period) return quota_of(quota, period);
  return 0;
}

int environment(const char* name) {
  const char* text = std::getenv(name);
  if (!text || !*text) return 0;
  char* end;
  errno = 0;
  const long v = std::strtol(text, &end, 10);
  // OpenMP's variable may be a list, one number for each level of nesting.
  return errno == 0 && end != text && (!*end || *end == ',') && v > 0 && v < 4096 ? int(v) : 0;
}

ThreadInfo& info() {
  static ThreadInfo* i = [] {
    pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
    auto* t = new ThreadInfo;
    t->affinity = affinity();
    t->cgroup = cgroup_quota();
    t->omp_num_threads = environment("OMP_NUM_THREADS");
    t->fastconv_num_threads = environment("FASTCONV_NUM_THREADS");
    int n = t->affinity;
    t->why = "CPUs this process may run on (affinity)";
    if (t->cgroup && t->cgroup < n) {
      n = t->cgroup;
      t->why = "CPU quota of the control group";
    }
    if (t->fastconv_num_threads) {
      n = t->fastconv_num_threads;
      t->why = "FASTCONV_NUM_THREADS";
    } else if (t->omp_num_threads && t->omp_num_threads < n) {
      n = t->omp_num_threads;
      t->why = "OMP_NUM_THREADS";
    }
    t->chosen = n < 1 ? 1 : n;
    return t;
  }();
  return *i;
}

}  // namespace

const ThreadInfo& thread_info() { return info(); }

int thread_count() {
  if (forked.load(std::memory_order_relaxed)) return 1;
  const int n = threads.load(std::memory_order_relaxed);
  return n ? n : info().chosen;
}

bool in_forked_child() { return forked.load(); }
bool threads_were_set() { return threads.load() != 0; }

void set_thread_count(int n) {
  info();
  threads.store(n);
}

}  // namespace fastconv
