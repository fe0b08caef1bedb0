// Convolutions of bfloat16 and float32 and their weight gradients on tensor cores in the simulator (WARPGROUPS: 1 those of
// warpgroups), held against plain loops: what tests/test_seeded_faults.py builds from sources with a mistake in them.
// Prints "exact", "wrong: ..." or the simulator's report, then the bank conflicts.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../conv_prepare.cuh"
#include "../matrix_weight.cuh"
#include "../slide_problem.cuh"
#include "../warpgroup_weight.cuh"
#include "../weight_problem.cuh"

namespace fastconv {

Context::~Context() {}

namespace cuda {
namespace {

// Ragged against tiles of 64 x 32 x 32, and against several of warpgroups' 128 x 128 x 64; padding 1.
constexpr int64_t N = WARPGROUPS ? 4 : 1, H = 7, W = 6, C = 24, K = WARPGROUPS ? 72 : 40, R = 3;

template <class T> T stored(float v);
template <> BFloat16 stored<BFloat16>(float v) { return {simt::float_to_bfloat16(v)}; }
template <> float stored<float>(float v) { return v; }

// Integers whose sums are exact. Of float32, channels of 20 bits, which take three parts, meet few ones of the other
// array.
template <class T> std::vector<T> integers(int64_t n, bool weights, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> v(std::size_t(n) + 4096, stored<T>(HUGE_VALF));  // a margin of infinities behind it
  for (int64_t i = 0; i < n; i++) {
    const bool long_ones = sizeof(T) == 4 && (i % C < C / 2) == weights, few = sizeof(T) == 4 && !long_ones;
    const int one = few && random() % 16 ? 0 : int(random() % 3) - 1;
    v[std::size_t(i)] = stored<T>(long_ones ? float(int(random() % (1 << 20)) - (1 << 19)) : float(one));
  }
  return v;
}

// Runs the kernel of the weights `w`: k, tap, c.
template <class T, int Parts, class Tile>
void run(SlideProblem<T, true>& p, const std::vector<T>& w) {
  Context ctx(1);
  const int64_t blocks = p.row_tiles * p.column_tiles;
#if WARPGROUPS
  const int64_t plane = K * R * R * C;
  std::vector<Half<T>> packed(std::size_t(plane * kPlanes<Parts>));
  std::vector<uint32_t> extremes(K);
  const PlainWeights<T> weights{w.data(), 0, 1, R * R * C, C};
  launch(ctx, "pack", pack_parts_kernel<T, Parts>, K, kThreads, 16, weights, K, C, C, R * R, plane, packed.data(),
         extremes.data());
  const WarpgroupArguments<SlideProblem<T, true>, Tile, Parts> a{p, packed.data(), extremes.data(), weights, C, plane};
  run_warpgroup_gemm(ctx, "probe", a, blocks);
#else
  (void)w;
  run_matrix_gemm<Tile, Parts>(ctx, "probe", p, blocks);
#endif
}

template <class T, int Parts> int64_t wrong_results() {
  const auto x = integers<T>(N * H * W * C, false, 1), w = integers<T>(K * R * R * C, true, 2);  // weights: k, tap, c
  const auto at = [](const std::vector<T>& v, int64_t i) { return prim::to_accumulator(v[std::size_t(i)]); };
  std::vector<T> y(N * H * W * K, stored<T>(HUGE_VALF));
  const int64_t size[3] = {1, H, W};
  SlideProblem<T, true> p{Image<T>(x.data(), Layout::channels_last, C, size),
                          Image<T>(y.data(), Layout::channels_last, K, size),
                          w.data(), nullptr, Finish<T>(), y.data(), N, 1, C, K, K * R * R * C, 1,
                          R * R * C, C, false, true, {}, 0, 0};
  for (int d = 0; d < 3; d++) p.axis[d] = {d ? R : 1, 1, d ? 1 : 0, 1, 1, 1};
#if WARPGROUPS
  using Tile = WarpgroupTile<128, 64, Parts ? 2 : 3>;
#else
  using Tile = MatrixTile<64, 32, 3>;
#endif
  p.row_tiles = ceil_div(N * H * W, Tile::BM);
  p.column_tiles = ceil_div(K, Tile::BN);
  int64_t wrong = 0;
  for (const char* schedule : {"up", "down", "shuffled"}) {
    simt::set_schedule(schedule);
    run<T, Parts, Tile>(p, w);
    for (int64_t row = 0; row < N * H * W; row++)
      for (int64_t k = 0; k < K; k++) {
        const int64_t n = row / W / H, h = row / W % H, q = row % W;
        float sum = 0;
        for (int64_t r = 0; r < R; r++)
          for (int64_t s = 0; s < R; s++) {
            const int64_t i = h + r - 1, j = q + s - 1;
            if (i < 0 || j < 0 || i >= H || j >= W) continue;
            for (int64_t c = 0; c < C; c++)
              sum += at(x, ((n * H + i) * W + j) * C + c) * at(w, ((k * R + r) * R + s) * C + c);
          }
        wrong += !(at(y, row * K + k) == sum);
      }
  }
  return wrong;
}

template <class T, int Parts> int64_t wrong_weights() {
  const auto x = integers<T>(N * H * W * C, false, 3);
  auto dy = integers<T>(N * H * W * K, false, 4);
  if (sizeof(T) == 4)  // few ones, that meet 20 bits of x
    for (std::size_t i = 0; i < std::size_t(N * H * W * K); i++) dy[i] = stored<T>(float(i % 31 == 0) - float(i % 43 == 0));
  const auto at = [](const std::vector<T>& v, int64_t i) { return prim::to_accumulator(v[std::size_t(i)]); };
  const int64_t size[3] = {1, H, W}, rows = R * R * C, pixels = N * H * W;
  const int64_t split = pixels - 5, splits = 2;
  std::vector<float> partials(std::size_t(splits * K * rows), HUGE_VALF);
  const Image<T> gradient(dy.data(), Layout::channels_last, K, size);
  WeightProblem<T, true> p{Image<T>(x.data(), Layout::channels_last, C, size), gradient, dy.data(), partials.data(), 1,
                           C, K, {1, R, R}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, rows, pixels, split, true, 0, 0};
#if WARPGROUPS
  using Tile = WarpgroupTile<128, Parts ? 32 : 64, Parts ? 2 : 3>;
#else
  using Tile = MatrixTile<128, 64, 3>;
#endif
  p.row_tiles = ceil_div(rows, Tile::BM);
  p.column_tiles = ceil_div(K, Tile::BN);
  int64_t wrong = 0;
  for (const char* schedule : {"up", "down", "shuffled"}) {
    simt::set_schedule(schedule);
    Context ctx(1);
    const int64_t blocks = p.row_tiles * p.column_tiles * splits;
#if WARPGROUPS
    launch(ctx, "probe", warpgroup_weight_kernel<WeightProblem<T, true>, Tile, Parts>, blocks, Tile::kThreads,
           sizeof(WarpgroupWeightMemory<WeightProblem<T, true>, Tile, Parts>), p);
#else
    run_matrix_weight<Tile>(ctx, "probe", p, blocks);
#endif
    for (int64_t i = 0; i < splits * K * rows; i++) {
      const int64_t m = i % rows, k = i / rows % K, first = i / rows / K * split, c = m % C, r = m / C / R, s = m / C % R;
      float sum = 0;
      for (int64_t q = first; q < std::min(first + split, pixels); q++) {
        const int64_t n = q / W / H, h = q / W % H + r - 1, w = q % W + s - 1;
        if (h >= 0 && w >= 0 && h < H && w < W) sum += at(x, ((n * H + h) * W + w) * C + c) * at(dy, q * K + k);
      }
      wrong += !(partials[std::size_t(i)] == sum);
    }
  }
  return wrong;
}

int probe() {
  int64_t wrong = wrong_results<BFloat16, 0>() + wrong_results<float, 3>() + wrong_weights<BFloat16, 0>();
#if WARPGROUPS
  wrong += wrong_weights<float, 3>();
#endif
  if (wrong) std::printf("wrong: %ld results\n", long(wrong));
  else std::printf("exact\n");
  std::printf("bank conflicts: %ld\n", simt::counters.bank_conflicts);
  return 0;
}

}  // namespace
}  // namespace cuda
}  // namespace fastconv

int main() {
  try {
    return fastconv::cuda::probe();
  } catch (const std::exception& e) {
    std::printf("report: %s\n", e.what());
    return 0;
  }
}
