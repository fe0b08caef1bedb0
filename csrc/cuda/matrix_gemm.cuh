// Implicit matrix product on tensor cores, for 16-bit channels-last arrays.
//
// The problem is that of gather_gemm.cuh; here 8 neighbouring channels, 16 bytes, move at once: cp.async brings a tile's
// rows to shared memory while earlier ones are multiplied (`stages` tiles in flight), ldmatrix spreads them over a warp's
// registers, mma.sync multiplies 16 x 16 by 16 x 8. Chunks of a row are permuted so that the eight rows of a matrix lie in
// different banks.
#pragma once
#include "gather_gemm.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kChunk = 8;  // values of 16 bytes

template <int bm, int bn, int stages_> struct MatrixTile {
  static constexpr int BM = bm, BN = bn, BK = 32, stages = stages_, kThreads = 128;  // 2 x 2 warps
  static constexpr int WM = bm / 2, WN = bn / 2, kChunks = BK / kChunk;
  static_assert(WM % 16 == 0 && WN % 16 == 0 && stages >= 2);
};

template <class Problem, class Tile> struct MatrixMemory {
  using T = typename Problem::Value;
  alignas(1024) T left[Tile::stages][Tile::BM * Tile::BK];
  alignas(1024) T right[Tile::stages][Tile::BN * Tile::BK];
  Row rows[Tile::BM];
  int64_t columns[Tile::BN];
  typename Problem::Part part;
  Extent extent;
};

// Where chunk `chunk` of row `row` lies, in values.
FC_DEVICE int chunk_offset(int row, int chunk) { return row * 32 + ((chunk ^ (row >> 1 & 3)) * kChunk); }

template <class Problem, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) matrix_gemm_kernel(const Problem p) {
  using T = typename Problem::Value;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, WM = Tile::WM, WN = Tile::WN, stages = Tile::stages;
  constexpr int threads = Tile::kThreads;
  MatrixMemory<Problem, Tile>& shared = *reinterpret_cast<MatrixMemory<Problem, Tile>*>(prim::shared_memory());
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int wm = warp / 2 * WM, wn = warp % 2 * WN;
  if (thread == 0) shared.extent = p.template part<Tile>(int64_t(blockIdx.x), shared.part);
  __syncthreads();
  const Extent e = shared.extent;
  if (e.row0 >= e.rows || e.column0 >= e.columns) return;
  for (int i = thread; i < BM; i += threads) {
    const int64_t m = e.row0 + i;
    shared.rows[i] = p.row(shared.part, m < e.rows ? m : e.rows - 1);
  }
  for (int i = thread; i < BN; i += threads) {
    const int64_t n = e.column0 + i;
    shared.columns[i] = p.column(shared.part, n < e.columns ? n : e.columns - 1);
  }
  __syncthreads();

  const int chunk = thread % Tile::kChunks, row0 = thread / Tile::kChunks;  // what this thread loads of every tile
  const auto load = [&](int64_t tile, int stage) {
    const int64_t k = tile * BK + chunk * kChunk;
    const bool within = k < e.end;
    const Step s = p.step(shared.part, within ? k : 0);
#pragma unroll
    for (int i = row0; i < BM; i += threads / Tile::kChunks) {
      const Row& r = shared.rows[i];
      const bool inside = within && std::uint64_t(r.at[0] + s.at[0]) < std::uint64_t(p.gathered.size[0]) &&
                          std::uint64_t(r.at[1] + s.at[1]) < std::uint64_t(p.gathered.size[1]) &&
                          std::uint64_t(r.at[2] + s.at[2]) < std::uint64_t(p.gathered.size[2]);
      prim::async_copy_16(&shared.left[stage][chunk_offset(i, chunk)],
                          p.gathered.data + (inside ? r.offset + s.offset : 0), inside);
    }
#pragma unroll
    for (int i = row0; i < BN; i += threads / Tile::kChunks)
      prim::async_copy_16(&shared.right[stage][chunk_offset(i, chunk)],
                          p.plain + (within ? shared.columns[i] + s.plain : 0), within);
  };

  float sums[WM / 16][WN / 8][4];
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) sums[i][j][v] = 0;
  const int64_t tiles = (e.end + BK - 1) / BK;
  for (int t = 0; t < stages - 1; t++) {
    if (t < tiles) load(t, t);
    prim::async_commit();
  }
  for (int64_t t = 0; t < tiles; t++) {
    prim::async_wait<stages - 2>();
    __syncthreads();  // tile t is there for all, and nobody reads the stage that is loaded next
    const int64_t next = t + stages - 1;
    if (next < tiles) load(next, int(next % stages));
    prim::async_commit();
    const T *left = shared.left[t % stages], *right = shared.right[t % stages];
#pragma unroll
    for (int k = 0; k < BK / 16; k++) {
      uint32_t a[WM / 16][4], b[WN / 8][2];
#pragma unroll
      for (int i = 0; i < WM / 16; i++)
        prim::load_matrices(a[i], left + chunk_offset(wm + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int j = 0; j < WN / 16; j++) {
        uint32_t two[4];
        prim::load_matrices(two, right + chunk_offset(wn + 16 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
        b[2 * j][0] = two[0];
        b[2 * j][1] = two[1];
        b[2 * j + 1][0] = two[2];
        b[2 * j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++) prim::multiply_16816<T>(sums[i][j], a[i], b[j]);
    }
  }
  prim::async_wait<0>();
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) {
        const int m = wm + 16 * i + lane / 4 + v / 2 * 8;
        const int64_t n = e.column0 + wn + 8 * j + lane % 4 * 2 + v % 2;
        if (e.row0 + m < e.rows && n < e.columns) p.store(shared.part, shared.rows[m].out, n, sums[i][j][v]);
      }
}

template <class Tile, class Problem>
void run_matrix_gemm(Context& ctx, const char* name, const Problem& p, int64_t blocks) {
  launch(ctx, name, matrix_gemm_kernel<Problem, Tile>, blocks, Tile::kThreads, sizeof(MatrixMemory<Problem, Tile>), p);
}

}  // namespace
}  // namespace fastconv::cuda
