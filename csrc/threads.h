#pragma once
#include <string>

namespace fastconv {

struct ThreadInfo {
  int chosen, affinity, cgroup, omp_num_threads, fastconv_num_threads;  // 0: not set
  std::string why;
};

const ThreadInfo& thread_info();   // the default and where it comes from
int thread_count();                // threads of the next call
void set_thread_count(int n);
bool threads_were_set();
bool in_forked_child();

}  // namespace fastconv
