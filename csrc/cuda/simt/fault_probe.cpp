// One convolution on tensor cores in the simulator, held against plain loops: what tests/test_seeded_faults.py builds from
// sources with a mistake in them. Prints "exact", "wrong: ..." or the simulator's report, then the bank conflicts.
#include <cstdio>
#include <random>
#include <vector>

#include "../matrix_gemm.cuh"
#include "../slide_problem.cuh"

namespace fastconv {

Context::~Context() {}

namespace cuda {
namespace {

constexpr int64_t N = 1, H = 7, W = 6, C = 24, K = 40, R = 3;  // ragged against tiles of 64 x 32 x 32; padding 1

std::vector<BFloat16> integers(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<BFloat16> v(n + 4096, BFloat16{simt::float_to_bfloat16(3)});  // a margin of threes behind the array
  for (std::size_t i = 0; i < n; i++) v[i].bits = simt::float_to_bfloat16(float(int(random() % 3) - 1));
  return v;
}
float at(const std::vector<BFloat16>& v, int64_t i) { return simt::bfloat16_to_float(v[std::size_t(i)].bits); }

int probe() {
  const auto x = integers(N * H * W * C, 1), w = integers(K * R * R * C, 2);  // weights: k, tap, c
  std::vector<BFloat16> y(N * H * W * K, BFloat16{0x7fff});
  const int64_t size[3] = {1, H, W};
  SlideProblem<BFloat16, true> p{Image<BFloat16>(x.data(), Layout::channels_last, C, size),
                                 Image<BFloat16>(y.data(), Layout::channels_last, K, size),
                                 w.data(), nullptr, Finish<BFloat16>(), y.data(), N, 1, C, K, K * R * R * C, 1,
                                 R * R * C, C, false, {}, 0, 0};
  for (int d = 0; d < 3; d++) p.axis[d] = {d ? R : 1, 1, d ? 1 : 0, 1, 1, 1};
  using Tile = MatrixTile<64, 32, 3>;
  p.row_tiles = ceil_div(N * H * W, Tile::BM);
  p.column_tiles = ceil_div(K, Tile::BN);
  int64_t wrong = 0;
  for (const char* schedule : {"up", "down", "shuffled"}) {
    simt::set_schedule(schedule);
    Context ctx(1);
    run_matrix_gemm<Tile>(ctx, "probe", p, p.row_tiles * p.column_tiles);
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
