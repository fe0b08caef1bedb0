// Sums over groups of values in a fixed order: for bias gradients, normalisation and PReLU slopes.
//
// A group is an instance and a channel: batch_norm has one instance of N images, instance_norm N instances of one image.
// A group is cut into chunks by the shape alone. One block sums a chunk (channels-last: of 32 neighbouring channels) in
// double, and who needs the group's sum adds its chunks in order: no atomics, the same bits every time.
#pragma once
#include "launch.h"

namespace fastconv::cuda {
namespace {

constexpr int kLanes = 32, kRows = kThreads / kLanes;

struct Groups {
  int64_t I, C, M, count;  // instances, channels, positions of an image; values of a group
  bool last;               // channels innermost
  int64_t chunks, chunk;   // of a group; values of one

  Groups(const NormShape& s, bool instances)
      : I(instances ? s.N : 1), C(s.C), M(s.M), count(instances ? s.M : s.N * s.M),
        last((s.layout == Layout::channels_last || s.M == 1) && s.C > 1) {
    const int64_t least = last ? 32 * kRows : 8 * kThreads, most_chunks = 64;
    chunk = count > least * most_chunks ? ceil_div(count, most_chunks) : least;
    chunks = count ? ceil_div(count, chunk) : 1;
  }
  int64_t groups() const { return I * C; }
  int64_t tiles() const { return last ? I * ceil_div(C, kLanes) : I * C; }  // of groups that one block serves
  // Of `sums` partial sums a chunk; never 0, so that a null workspace means that memory is short.
  std::size_t partial_bytes(int sums) const { return std::size_t(groups() * chunks * sums) * sizeof(double) + 16; }
};

// Group of this thread (-1: none), and the values of the group that it takes: first, first + step, ... below end.
struct Share {
  int64_t group, first, end, step;
  FC_DEVICE Share(const Groups& g, int64_t tile, int64_t chunk) {
    const int thread = int(threadIdx.x);
    const int64_t start = chunk * g.chunk;
    end = start + g.chunk < g.count ? start + g.chunk : g.count;
    if (g.last) {
      const int64_t wide = (g.C + kLanes - 1) / kLanes, c = tile % wide * kLanes + thread % kLanes;
      group = c < g.C ? tile / wide * g.C + c : -1;
      first = start + thread / kLanes;
      step = kRows;
      if (group < 0) first = end;
    } else {
      group = tile;
      first = start + thread;
      step = kThreads;
    }
  }
};

// Where value i of a group lies. What a group's values share is found once, not in the loop over them.
struct Places {
  int64_t start, step, space, jump;
  FC_DEVICE Places(const Groups& g, int64_t group) : step(g.last ? g.C : 1), space(g.M), jump(0) {
    if (group < 0) group = 0;  // a thread without a group takes no values
    const int64_t instance = divide(group, g.C);
    start = g.last ? group + instance * (g.count - 1) * g.C : group * g.M;
    if (!g.last && g.M != g.count) jump = (g.C - 1) * g.M;  // over an image's other channels
  }
  FC_DEVICE int64_t operator()(int64_t i) const { return start + i * step + (jump ? divide(i, space) * jump : 0); }
};

// Adds up v over the threads that share a group; every one of them receives the sum. All threads of the block.
FC_DEVICE double block_sum(double v, bool last) {
  double* shared = reinterpret_cast<double*>(prim::shared_memory());
  const int thread = int(threadIdx.x), lane = thread % kLanes;
  __syncthreads();  // what an earlier sum left is still being read
  shared[thread] = v;
  __syncthreads();
  if (thread < kLanes) {
    double sum = shared[lane];
    for (int row = 1; row < kRows; row++) sum += shared[row * kLanes + lane];
    if (!last)
      for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += prim::shuffle_down(sum, distance);
    shared[lane] = sum;
  }
  __syncthreads();
  return shared[last ? lane : 0];
}
constexpr std::size_t kSumBytes = kThreads * sizeof(double);

// Partial sum number `sum` of a chunk.
FC_DEVICE int64_t partial_index(const Groups& g, int64_t group, int64_t chunk, int sum, int sums) {
  return (chunk * sums + sum) * g.I * g.C + group;
}
FC_DEVICE double group_total(const Groups& g, const double* partials, int64_t group, int sum, int sums) {
  double total = 0;
  for (int64_t t = 0; t < g.chunks; t++) total += partials[partial_index(g, group, t, sum, sums)];
  return total;
}

// `op.add(offset, group, sums)` for every value.
template <class Op> __global__ void __launch_bounds__(kThreads) reduce_kernel(Groups g, Op op, double* partials) {
  const int64_t chunk = int64_t(blockIdx.x) % g.chunks, tile = int64_t(blockIdx.x) / g.chunks;
  const Share share(g, tile, chunk);
  const Places places(g, share.group);
  double sums[Op::kSums] = {};
  for (int64_t i = share.first; i < share.end; i += share.step) op.add(places(i), share.group, sums);
  for (int s = 0; s < Op::kSums; s++) {
    const double total = block_sum(sums[s], g.last);
    if (share.group >= 0 && int(threadIdx.x) < (g.last ? kLanes : 1))
      partials[partial_index(g, share.group, chunk, s, Op::kSums)] = total;
  }
}

template <class Op> void reduce_groups(Context& ctx, const char* name, const Groups& g, const Op& op, double* partials) {
  launch(ctx, name, reduce_kernel<Op>, g.tiles() * g.chunks, kThreads, kSumBytes, g, op, partials);
}

template <class T> __global__ void store_sums_kernel(Groups g, const double* partials, T* sums) {
  const int64_t i = element();
  if (i < g.I * g.C) sums[i] = prim::from_accumulator<T>(Accumulator<T>(group_total(g, partials, i, 0, 1)));
}

template <class T> void store_sums(Context& ctx, const Groups& g, const double* partials, void* sums) {
  launch_elements(ctx, "store_sums", store_sums_kernel<T>, g.groups(), g, partials, static_cast<T*>(sums));
}

}  // namespace
}  // namespace fastconv::cuda
