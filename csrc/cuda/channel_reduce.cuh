// Sums over groups of values in a fixed order: for bias gradients, normalisation and PReLU slopes.
//
// A group is an instance and a channel: batch_norm has one instance of N images, instance_norm N instances of one image.
// A group is cut into chunks by the shape alone. One block sums a chunk (channels-last: of 32 neighbouring channels, 16
// bytes of them a thread) in double, and who needs the group's sum adds its chunks in order: no atomics, the same bits
// every time.
#pragma once
#include "vectors.cuh"

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
  FC_EVERYWHERE int64_t groups() const { return I * C; }
  int64_t tiles() const { return last ? I * ceil_div(C, kLanes) : I * C; }  // of groups that one block serves
  // Of `sums` partial sums a chunk; never 0, so that a null workspace means that memory is short.
  std::size_t partial_bytes(int sums) const { return std::size_t(groups() * chunks * sums) * sizeof(double) + 16; }
};

// What a thread takes of a chunk: V groups from `group` on, `valid` of them (0: none), and of each the values first,
// first + step, ... below end.
template <int V> struct Share {
  static constexpr int kAcross = kLanes / V;  // threads for the channels of a block
  int64_t group, first, end, step;
  int valid;
  FC_DEVICE Share(const Groups& g, int64_t tile, int64_t chunk) {
    const int thread = int(threadIdx.x);
    const int64_t start = chunk * g.chunk;
    end = start + g.chunk < g.count ? start + g.chunk : g.count;
    if (V > 1 || g.last) {
      const int64_t wide = divide(g.C + kLanes - 1, kLanes), instance = divide(tile, wide);
      const int64_t c = (tile - instance * wide) * kLanes + thread % kAcross * V;
      valid = c >= g.C ? 0 : g.C - c < V ? int(g.C - c) : V;
      group = valid ? instance * g.C + c : 0;
      first = start + thread / kAcross;
      step = kThreads / kAcross;
      if (!valid) first = end;
    } else {
      group = tile;
      valid = 1;
      first = start + thread;
      step = kThreads;
    }
  }
};

// Where value i of a group lies. What a group's values share is found once, not in the loop over them.
struct Places {
  int64_t start, step, space, jump;
  FC_DEVICE Places(const Groups& g, int64_t group) : step(g.last ? g.C : 1), space(g.M), jump(0) {
    const int64_t instance = divide(group, g.C);
    start = g.last ? group + instance * (g.count - 1) * g.C : group * g.M;
    if (!g.last && g.M != g.count) jump = (g.C - 1) * g.M;  // over an image's other channels
  }
  FC_DEVICE int64_t operator()(int64_t i) const { return start + i * step + (jump ? divide(i, space) * jump : 0); }
};

// Adds up v over the threads that share a group, each of V groups; every one of them receives the sums. All threads.
template <int V> FC_DEVICE void block_sums(double (&v)[V], bool last) {
  double* shared = reinterpret_cast<double*>(prim::shared_memory());
  const int thread = int(threadIdx.x), lane = thread % kLanes;
  constexpr int across = kLanes / V, rows = kThreads / across;  // of kLanes sums each
  double* ends = shared + kThreads * V;
  __syncthreads();  // what an earlier sum left is still being read
#pragma unroll
  for (int j = 0; j < V; j++) shared[thread * V + j] = v[j];
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int row = thread / kLanes; row < rows; row += kRows) sum += shared[row * kLanes + lane];
  ends[thread] = sum;
  __syncthreads();
  if (thread < kLanes) {
    sum = ends[lane];
    for (int row = 1; row < kRows; row++) sum += ends[row * kLanes + lane];
    if (V == 1 && !last)
      for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += prim::shuffle_down(sum, distance);
    shared[lane] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < V; j++) v[j] = shared[V > 1 || last ? thread % across * V + j : 0];
}
template <int V> constexpr std::size_t kSumBytes = kThreads * (V + 1) * sizeof(double);

// Partial sum number `sum` of a chunk.
FC_DEVICE int64_t partial_index(const Groups& g, int64_t group, int64_t chunk, int sum, int sums) {
  return (chunk * sums + sum) * g.I * g.C + group;
}
// Sum number `sum` of a group, one of 32 neighbours that a block serves, in the order of chunk % kRows; all threads.
FC_DEVICE double group_total(const Groups& g, const double* partials, int64_t group, int sum, int sums) {
  double total[1] = {0};
  if (group < g.groups())
    for (int64_t t = int(threadIdx.x) / kLanes; t < g.chunks; t += kRows)
      total[0] += partials[partial_index(g, group, t, sum, sums)];
  block_sums<1>(total, true);
  return total[0];
}
FC_DEVICE int64_t group_of_lane() { return int64_t(blockIdx.x) * kLanes + int(threadIdx.x) % kLanes; }
FC_DEVICE bool first_of_group() { return int(threadIdx.x) < kLanes; }
// One block for 32 neighbouring groups.
template <class... Parameters, class... Arguments>
void launch_groups(Context& ctx, const char* name, void (*kernel)(Parameters...), int64_t groups,
                   const Arguments&... arguments) {
  launch(ctx, name, kernel, ceil_div(groups, kLanes), kThreads, kSumBytes<1>, arguments...);
}

// Stores a sum of this thread's groups where it is the first of those that share them.
template <int V>
FC_DEVICE void store_partials(const Groups& g, const Share<V>& share, int64_t chunk, int sum, int sums,
                              const double (&total)[V], double* partials) {
  if (int(threadIdx.x) >= (V > 1 || g.last ? kLanes / V : 1)) return;
#pragma unroll
  for (int j = 0; j < V; j++)
    if (j < share.valid) partials[partial_index(g, share.group + j, chunk, sum, sums)] = total[j];
}

// `op.add(offset, group, valid, whole, sums)` for every V values of neighbouring groups, kAtOnce of which are under way.
template <class Op, int V>
__global__ void __launch_bounds__(kThreads) reduce_kernel(Groups g, bool aligned, Op op, double* partials) {
  const int64_t tile = divide(int64_t(blockIdx.x), g.chunks), chunk = int64_t(blockIdx.x) - tile * g.chunks;
  const Share<V> share(g, tile, chunk);
  const Places places(g, share.group);
  double sums[Op::kSums][V] = {};
  const bool whole = aligned && share.valid == V;
#pragma unroll Op::kAtOnce
  for (int64_t i = share.first; i < share.end; i += share.step)
    op.template add<V>(places(i), share.group, share.valid, whole, sums);
#pragma unroll
  for (int s = 0; s < Op::kSums; s++) {
    block_sums<V>(sums[s], g.last);
    store_partials<V>(g, share, chunk, s, Op::kSums, sums[s], partials);
  }
}

// Calls f(V) with the number of values that a thread takes at once, as a type, and whether they can be moved at once.
template <class T, class F, class... P> void with_width(const Groups& g, const F& f, const P*... arrays) {
  constexpr int V = kVector<T>;
  if (g.last) f(std::integral_constant<int, V>(), g.C % V == 0 && all_aligned(arrays...));
  else f(std::integral_constant<int, 1>(), true);
}

template <class T, class Op, class... P>
void reduce_groups(Context& ctx, const char* name, const Groups& g, const Op& op, double* partials,
                   const P*... arrays) {
  with_width<T>(g, [&](auto width, bool aligned) {
    constexpr int V = decltype(width)::value;
    launch(ctx, name, reduce_kernel<Op, V>, g.tiles() * g.chunks, kThreads, kSumBytes<V>, g, aligned, op, partials);
  }, arrays...);
}

template <class T> __global__ void store_sums_kernel(Groups g, const double* partials, T* sums) {
  const int64_t i = group_of_lane();
  const double total = group_total(g, partials, i, 0, 1);
  if (first_of_group() && i < g.groups()) sums[i] = prim::from_accumulator<T>(Accumulator<T>(total));
}

template <class T> void store_sums(Context& ctx, const Groups& g, const double* partials, void* sums) {
  launch_groups(ctx, "store_sums", store_sums_kernel<T>, g.groups(), g, partials, static_cast<T*>(sums));
}

}  // namespace
}  // namespace fastconv::cuda
