// Convolutions of bfloat16 and float32 and a weight gradient of bfloat16 on tensor cores in the simulator, held against
// plain loops: what
// tests/test_seeded_faults.py builds from sources with a mistake in them. Prints "exact", "wrong: ..." or the
// simulator's report, then the bank conflicts.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "../matrix_weight.cuh"
#include "../slide_problem.cuh"
#include "../weight_problem.cuh"

namespace fastconv {

Context::~Context() {}

namespace cuda {
namespace {

constexpr int64_t N = 1, H = 7, W = 6, C = 24, K = 40, R = 3;  // ragged against tiles of 64 x 32 x 32; padding 1

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
  using Tile = MatrixTile<64, 32, 3>;
  p.row_tiles = ceil_div(N * H * W, Tile::BM);
  p.column_tiles = ceil_div(K, Tile::BN);
  int64_t wrong = 0;
  for (const char* schedule : {"up", "down", "shuffled"}) {
    simt::set_schedule(schedule);
    Context ctx(1);
    run_matrix_gemm<Tile, Parts>(ctx, "probe", p, p.row_tiles * p.column_tiles);
    for (int64_t h = 0; h < H; h++)
      for (int64_t q = 0; q < W; q++)
        for (int64_t k = 0; k < K; k++) {
          float sum = 0;
          for (int64_t r = 0; r < R; r++)
            for (int64_t s = 0; s < R; s++) {
              const int64_t i = h + r - 1, j = q + s - 1;
              if (i < 0 || j < 0 || i >= H || j >= W) continue;
              for (int64_t c = 0; c < C; c++)
                sum += at(x, (i * W + j) * C + c) * at(w, ((k * R + r) * R + s) * C + c);
            }
          wrong += !(at(y, (h * W + q) * K + k) == sum);
        }
  }
  return wrong;
}

int64_t wrong_weights() {
  using T = BFloat16;
  const auto x = integers<T>(N * H * W * C, false, 3), dy = integers<T>(N * H * W * K, false, 4);
  const auto at = [](const std::vector<T>& v, int64_t i) { return prim::to_accumulator(v[std::size_t(i)]); };
  const int64_t size[3] = {1, H, W}, rows = R * R * C, pixels = N * H * W, split = 37, splits = 2;
  std::vector<float> partials(std::size_t(splits * K * rows), HUGE_VALF);
  const Image<T> gradient(dy.data(), Layout::channels_last, K, size);
  WeightProblem<T, true> p{Image<T>(x.data(), Layout::channels_last, C, size), gradient, dy.data(), partials.data(), 1,
                           C, K, {1, R, R}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, rows, pixels, split, true, 0, 0};
  using Tile = MatrixTile<128, 64, 3>;
  p.row_tiles = ceil_div(rows, Tile::BM);
  p.column_tiles = ceil_div(K, Tile::BN);
  int64_t wrong = 0;
  for (const char* schedule : {"up", "down", "shuffled"}) {
    simt::set_schedule(schedule);
    Context ctx(1);
    run_matrix_weight<Tile>(ctx, "probe", p, p.row_tiles * p.column_tiles * splits);
    for (int64_t i = 0; i < splits * K * rows; i++) {
      const int64_t m = i % rows, k = i / rows % K, first = i / rows / K * split, c = m % C, r = m / C / R, s = m / C % R;
      float sum = 0;
      for (int64_t q = first; q < std::min(first + split, pixels); q++) {
        const int64_t h = q / W + r - 1, w = q % W + s - 1;
        if (h >= 0 && w >= 0 && h < H && w < W) sum += at(x, (h * W + w) * C + c) * at(dy, q * K + k);
      }
      wrong += !(partials[std::size_t(i)] == sum);
    }
  }
  return wrong;
}

int probe() {
  const int64_t wrong = wrong_results<BFloat16, 0>() + wrong_results<float, 3>() + wrong_weights();
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
