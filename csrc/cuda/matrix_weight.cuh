// The weight gradient of 16-bit channels-last arrays as a matrix product on tensor cores.
//
// The sum runs over pixels, but channels are neighbours in memory: tiles are brought to shared memory as they are, a
// row for each pixel, and ldmatrix transposes matrices of 8 x 8 on their way to the registers. Otherwise as
// matrix_gemm.cuh.
#pragma once
#include "matrix_gemm.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kTilePixels = 32;

template <class Problem, class Tile> struct MatrixWeightMemory {
  using T = typename Problem::Value;
  alignas(1024) T left[Tile::stages][kTilePixels * Tile::BM];
  alignas(1024) T right[Tile::stages][kTilePixels * Tile::BN];
  Row rows[Tile::BM / 8];         // of 8 neighbouring channels each
  int64_t columns[Tile::BN / 8];
  typename Problem::Part part;
  Extent extent;
};

// Where chunk `chunk` of pixel `pixel` lies in a tile of `width` values a pixel: eight pixels in different banks.
template <int width> FC_DEVICE int pixel_offset(int pixel, int chunk) {
  return pixel * width + (chunk ^ (width >= 64 ? pixel & 7 : pixel >> 1 & 3)) * 8;
}

template <class Problem, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) matrix_weight_kernel(const Problem p) {
  using T = typename Problem::Value;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = kTilePixels, WM = Tile::WM, WN = Tile::WN;
  constexpr int stages = Tile::stages, threads = Tile::kThreads, pixel_threads = threads / BK;
  MatrixWeightMemory<Problem, Tile>& shared =
      *reinterpret_cast<MatrixWeightMemory<Problem, Tile>*>(prim::shared_memory());
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int wm = warp / 2 * WM, wn = warp % 2 * WN;
  if (thread == 0) shared.extent = p.template part<Tile>(int64_t(blockIdx.x), shared.part);
  __syncthreads();
  const Extent e = shared.extent;
  if (e.row0 >= e.rows || e.column0 >= e.columns) return;
  // Rows and columns come in eights; those beyond the end repeat the last ones and are not stored.
  for (int i = thread; i < BM / 8; i += threads) {
    const int64_t m = e.row0 + 8 * i;
    shared.rows[i] = p.row(shared.part, m < e.rows ? m : e.rows - 8);
  }
  for (int i = thread; i < BN / 8; i += threads) {
    const int64_t n = e.column0 + 8 * i;
    shared.columns[i] = p.column(shared.part, n < e.columns ? n : e.columns - 8);
  }
  __syncthreads();

  const int pixel = thread / pixel_threads, chunk0 = thread % pixel_threads;  // what this thread loads of every tile
  Cursor cursor = cursor_at(p, shared.part, e.first + pixel);
  const auto load = [&](int64_t tile, int stage) {  // of one tile after the other
    const int64_t k = e.first + tile * BK + pixel;
    const bool within = k < e.end;
    const Step s = p.step(shared.part, cursor);
    advance(p, shared.part, cursor, BK);
#pragma unroll
    for (int c = chunk0; c < BM / 8; c += pixel_threads) {
      const Row& r = shared.rows[c];
      const bool inside = within && meets_image(p, r, s);
      copy_chunk(&shared.left[stage][pixel_offset<BM>(pixel, c)], p.gathered.data + (inside ? r.offset + s.offset : 0),
                 inside, p.aligned);
    }
#pragma unroll
    for (int c = chunk0; c < BN / 8; c += pixel_threads)
      copy_chunk(&shared.right[stage][pixel_offset<BN>(pixel, c)], p.plain + (within ? shared.columns[c] + s.plain : 0),
                 within, p.aligned);
  };

  TileSums<Tile> sums;
  clear<Tile>(sums);
  const int64_t tiles = (e.end - e.first + BK - 1) / BK;
  const int matrix = lane / 8;
  each_tile<stages>(tiles, load, [&](int stage) {
    const T *left = shared.left[stage], *right = shared.right[stage];
#pragma unroll
    for (int k = 0; k < BK; k += 16)
      multiply_steps<T, Tile>(
          sums,
          [&](uint32_t (&r)[4], int i) {
            const int pixel_row = k + matrix / 2 * 8 + lane % 8;
            prim::load_matrices_transposed(r, left + pixel_offset<BM>(pixel_row, (wm + 16 * i) / 8 + matrix % 2));
          },
          [&](uint32_t (&r)[4], int j) {
            const int pixel_row = k + matrix % 2 * 8 + lane % 8;
            prim::load_matrices_transposed(r, right + pixel_offset<BN>(pixel_row, (wn + 16 * j) / 8 + matrix / 2));
          });
  });
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) {
        const int64_t m = e.row0 + wm + 16 * i + lane / 4 + v / 2 * 8;
        const int64_t n = e.column0 + wn + 8 * j + lane % 4 * 2 + v % 2;
        if (m < e.rows && n < e.columns) p.store(shared.part, m, n, sums[i][j][v]);
      }
}

template <class Tile, class Problem>
void run_matrix_weight(Context& ctx, const char* name, const Problem& p, int64_t blocks) {
  constexpr std::size_t bytes = sizeof(MatrixWeightMemory<Problem, Tile>);
  launch(ctx, name, matrix_weight_kernel<Problem, Tile>, blocks, Tile::kThreads, bytes, p);
}

}  // namespace
}  // namespace fastconv::cuda
