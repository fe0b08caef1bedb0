// Implicit matrix product on tensor cores, for 16-bit and float32 channels-last arrays.
//
// The problem is that of gather_gemm.cuh; here 8 or 4 neighbouring channels, 16 bytes, move at once: cp.async brings a
// tile's rows to shared memory while earlier ones are multiplied (`stages` tiles in flight), ldmatrix spreads them
// over a warp's registers, mma.sync multiplies 16 x 16 by 16 x 8. Chunks of a row are permuted so that the eight rows
// of a matrix lie in different banks.
//
// A float32 is the sum of `Parts` bfloat16 numbers, each but the last the upper bits of what the ones before it leave;
// three hold all 24 bits. Products of parts are exact, those of the lowest parts are left out:
//
//   Parts  products                         left out, at most      precision
//   1      a0 b0                            2^-8 of each operand   "medium"
//   2      a0 b0 + a0 b1 + a1 b0            2^-16                  "high"
//   3      all a_i b_j with i + j <= 2      2^-23                  "highest"
//
// Tensor cores round their sums towards zero, which adds up over a long reduction: the products of 16 steps are summed
// there, from zero, and these sums in float32 (Ootomo and Yokota, "Recovering Single Precision Accuracy from Tensor
// Cores While Exceeding the FP32 Theoretical Peak Performance", 2022).
//
// Parts of an infinity or of a number near the smallest are not what is wanted of them. A result that shows it, being
// not finite or itself small, is computed again on the ordinary cores. Where small values meet large ones it shows
// nothing: a tile with large values has its rows and columns searched for both, and what such a row and column give is
// computed again too. What remains: a sum of exactly zero may stand for products of values below 2^-102 and below 2^20.
#pragma once
#include "gather_gemm.cuh"

namespace fastconv::cuda {
namespace {

template <class T> constexpr int kChunk = 16 / int(sizeof(T));  // values of 16 bytes
constexpr int kChunks = 4;                                      // of a row of a tile

template <int bm, int bn, int stages_> struct MatrixTile {
  static constexpr int BM = bm, BN = bn, stages = stages_, kThreads = 128;  // 2 x 2 warps
  static constexpr int WM = bm / 2, WN = bn / 2;
  static_assert(WM % 16 == 0 && WN % 16 == 0 && stages >= 2);
};

template <class Problem, class Tile> struct MatrixMemory {
  using T = typename Problem::Value;
  alignas(1024) T left[Tile::stages][Tile::BM * kChunks * kChunk<T>];
  alignas(1024) T right[Tile::stages][Tile::BN * kChunks * kChunk<T>];
  int64_t some_large;                         // of a float32
  uint32_t extremes[Tile::BM + Tile::BN];     // of rows and columns: of a tile with some large value
  Row rows[Tile::BM];
  int64_t columns[Tile::BN];
  typename Problem::Part part;
  Extent extent;
};

// Where chunk `chunk` of row `row` lies, in values.
template <class T> FC_DEVICE int chunk_offset(int row, int chunk) {
  return (row * kChunks + (chunk ^ (row >> 1 & 3))) * kChunk<T>;
}

// Copies 16 bytes of an array, zeros where not valid. An array that does not begin at 16 bytes is copied by values: the
// choice of a kernel, and with it the result's bits, follows from the shape alone.
template <class T> FC_DEVICE void copy_chunk(T* to, const T* from, bool valid, bool aligned) {
  if (aligned) return prim::async_copy_16(to, from, valid);
  for (int v = 0; v < kChunk<T>; v++) to[v] = valid ? from[v] : T();
}

// Bits whose upper half is the nearest bfloat16, of ties the even one; a NaN stays one.
FC_DEVICE uint32_t rounded(uint32_t x) { return (x & 0x7f800000u) == 0x7f800000u ? x : x + 0x7fffu + (x >> 16 & 1u); }

// The parts of x and y, each pair in one register, x in the lower half; `largest` grows to their magnitudes.
template <int Parts> FC_DEVICE void split_pair(uint32_t x, uint32_t y, uint32_t (&parts)[Parts], float& largest) {
  constexpr uint32_t upper = 0xffff0000u;
  largest = prim::larger_magnitude(largest, prim::float_of(x));
  largest = prim::larger_magnitude(largest, prim::float_of(y));
#pragma unroll
  for (int q = 0; q < Parts; q++) {
    if (q == Parts - 1 && Parts < 3) {  // the third part holds all that is left
      x = rounded(x);
      y = rounded(y);
    }
    parts[q] = x >> 16 | (y & upper);
    if (q < Parts - 1) {
      x = prim::bits_of(prim::float_of(x) - prim::float_of(x & upper));
      y = prim::bits_of(prim::float_of(y) - prim::float_of(y & upper));
    }
  }
}

// A value below 2^-102 may have parts below the smallest normal number. What it then lacks, at most 2^-126, cannot be
// seen in a result above 2^-60 unless it is multiplied by a large value: 2^-126 x 2^20 is 2^-46 of that result.
constexpr float kLarge = 1048576;
constexpr uint32_t kHasSmall = 1, kHasLarge = 2;
FC_DEVICE uint32_t extremes_of(float value) {
  constexpr uint32_t small = (127u - 102u) << 23, large = (127u + 20u) << 23;
  const uint32_t magnitude = prim::bits_of(value) & 0x7fffffffu;
  return magnitude >= large ? kHasLarge : magnitude != 0 && magnitude < small ? kHasSmall : 0;
}

// Whether one has small values and the other large ones.
FC_DEVICE bool meet(uint32_t a, uint32_t b) {
  return ((a & kHasSmall) && (b & kHasLarge)) || ((a & kHasLarge) && (b & kHasSmall));
}

// Sets shared.extremes from all that the tile's rows and columns multiply.
template <class Tile, class Problem, class Memory> FC_DEVICE void search_extremes(const Problem& p, Memory& shared) {
  for (int i = int(threadIdx.x); i < Tile::BM + Tile::BN; i += Tile::kThreads) {
    uint32_t found = 0;
    Cursor cursor{};
    for (int64_t k = 0; k < shared.extent.end; k++, advance(p, shared.part, cursor, 1)) {
      const Step s = p.step(shared.part, cursor);
      if (i >= Tile::BM) found |= extremes_of(p.plain[shared.columns[i - Tile::BM] + s.plain]);
      else if (meets_image(p, shared.rows[i], s))
        found |= extremes_of(p.gathered.data[shared.rows[i].offset + s.offset]);
    }
    shared.extremes[i] = found;
  }
}

// Whether a sum of parts may be far from the sum that is wanted: not finite, or so small that parts were flushed.
FC_DEVICE bool in_doubt(float sum) {
  constexpr uint32_t infinity = 0x7f800000u, small = (127u - 60u) << 23;  // 2 ** -60
  const uint32_t magnitude = prim::bits_of(sum) & 0x7fffffffu;
  return magnitude >= infinity || (magnitude != 0 && magnitude < small);
}

// One result in ascending order of the steps, as gather_gemm.cuh computes it.
template <class Problem, class Memory>
FC_DEVICE float ordinary_sum(const Problem& p, const Memory& shared, int m, int n) {
  const Row& r = shared.rows[m];
  float sum = 0;
  Cursor cursor{};
  for (int64_t k = 0; k < shared.extent.end; k++, advance(p, shared.part, cursor, 1)) {
    const Step s = p.step(shared.part, cursor);
    const float value = meets_image(p, r, s) ? p.gathered.data[r.offset + s.offset] : 0.0f;
    sum = prim::multiply_add(value, p.plain[shared.columns[n] + s.plain], sum);
  }
  return sum;
}

// The sums of a warp, 16 rows by 8 columns each.
template <class Tile> using TileSums = float[Tile::WM / 16][Tile::WN / 8][4];

template <class Tile> FC_DEVICE void clear(TileSums<Tile>& sums) {
#pragma unroll
  for (int i = 0; i < Tile::WM / 16; i++)
#pragma unroll
    for (int j = 0; j < Tile::WN / 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) sums[i][j][v] = 0;
}

// load(tile, stage) begins the copies of a tile, multiply(stage) uses them: `stages` - 1 tiles are under way meanwhile.
template <int stages, class Load, class Multiply>
FC_DEVICE void each_tile(int64_t tiles, const Load& load, const Multiply& multiply) {
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
    multiply(int(t % stages));
  }
  prim::async_wait<0>();
}

// Adds 16 steps of 16-bit values: left(r, i) and right(r, j) load 16 rows, and two matrices each of 16 columns.
template <class T, class Tile, class Left, class Right>
FC_DEVICE void multiply_steps(TileSums<Tile>& sums, const Left& left, const Right& right) {
  uint32_t a[Tile::WM / 16][4], b[Tile::WN / 8][2];
#pragma unroll
  for (int i = 0; i < Tile::WM / 16; i++) left(a[i], i);
#pragma unroll
  for (int j = 0; j < Tile::WN / 16; j++) {
    uint32_t two[4];
    right(two, j);
    b[2 * j][0] = two[0];
    b[2 * j][1] = two[1];
    b[2 * j + 1][0] = two[2];
    b[2 * j + 1][1] = two[3];
  }
#pragma unroll
  for (int i = 0; i < Tile::WM / 16; i++)
#pragma unroll
    for (int j = 0; j < Tile::WN / 8; j++) prim::multiply_16816<T>(sums[i][j], a[i], b[j]);
}

// Parts: of a float32; 0 for 16-bit types.
template <class Problem, class Tile, int Parts>
__global__ void __launch_bounds__(Tile::kThreads) matrix_gemm_kernel(const Problem p) {
  using T = typename Problem::Value;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = kChunks * kChunk<T>, WM = Tile::WM, WN = Tile::WN;
  constexpr int stages = Tile::stages, threads = Tile::kThreads;
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
  if constexpr (Parts > 0) {
    for (int i = thread; i < BM + BN; i += threads) shared.extremes[i] = 0;
    if (thread == 0) shared.some_large = 0;
  }
  __syncthreads();

  const int chunk = thread % kChunks, row0 = thread / kChunks;  // what this thread loads of every tile
  Cursor cursor{};
  if (e.end > 0) cursor = cursor_at(p, shared.part, chunk * kChunk<T>);  // a class of positions may meet no tap
  const auto load = [&](int64_t tile, int stage) {  // of one tile after the other
    const int64_t k = tile * BK + chunk * kChunk<T>;
    const bool within = k < e.end;
    const Step s = p.step(shared.part, cursor);
    advance(p, shared.part, cursor, BK);
#pragma unroll
    for (int i = row0; i < BM; i += threads / kChunks) {
      const Row& r = shared.rows[i];
      const bool inside = within && meets_image(p, r, s);
      copy_chunk(&shared.left[stage][chunk_offset<T>(i, chunk)],
                 p.gathered.data + (inside ? r.offset + s.offset : 0), inside, p.aligned);
    }
#pragma unroll
    for (int i = row0; i < BN; i += threads / kChunks)
      prim::async_copy_16(&shared.right[stage][chunk_offset<T>(i, chunk)],
                          p.plain + (within ? shared.columns[i] + s.plain : 0), within);
  };

  TileSums<Tile> sums;
  clear<Tile>(sums);
  float largest = 0;
  const int64_t tiles = (e.end + BK - 1) / BK;
  each_tile<stages>(tiles, load, [&](int stage) {
    const T *left = shared.left[stage], *right = shared.right[stage];
    // Rows of 16-byte chunks c and c + 1: of 16 rows of the left operand; of 16 columns of the right one, two matrices
    // each.
    const auto left_chunks = [&](uint32_t (&r)[4], int i, int c) {
      prim::load_matrices(r, left + chunk_offset<T>(wm + 16 * i + lane % 16, c + lane / 16));
    };
    const auto right_chunks = [&](uint32_t (&r)[4], int j, int c) {
      prim::load_matrices(r, right + chunk_offset<T>(wn + 16 * j + lane % 8 + lane / 16 * 8, c + lane / 8 % 2));
    };
    if constexpr (Parts == 0) {
#pragma unroll
      for (int k = 0; k < kChunks; k += 2)
        multiply_steps<T, Tile>(
            sums, [&](uint32_t (&r)[4], int i) { left_chunks(r, i, k); },
            [&](uint32_t (&r)[4], int j) { right_chunks(r, j, k); });
    } else {
      // Lane t of four has values t, 4 + t, 8 + t and 12 + t of a row, and takes them for 2t, 2t + 1, 2t + 8 and 2t +
      // 9: in both operands, so that what is multiplied belongs together.
      uint32_t b[WN / 8][2][Parts];
#pragma unroll
      for (int j = 0; j < WN / 16; j++) {
        uint32_t low[4], high[4];
        right_chunks(low, j, 0);
        right_chunks(high, j, 2);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          split_pair<Parts>(low[2 * h], low[2 * h + 1], b[2 * j + h][0], largest);
          split_pair<Parts>(high[2 * h], high[2 * h + 1], b[2 * j + h][1], largest);
        }
      }
#pragma unroll
      for (int i = 0; i < WM / 16; i++) {
        uint32_t low[4], high[4], a[4][Parts];
        left_chunks(low, i, 0);
        left_chunks(high, i, 2);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          split_pair<Parts>(low[h], low[h + 2], a[h], largest);
          split_pair<Parts>(high[h], high[h + 2], a[2 + h], largest);
        }
#pragma unroll
        for (int j = 0; j < WN / 8; j++) {
          if constexpr (Parts == 1) {  // more exact sums would gain nothing
            const uint32_t left_part[4] = {a[0][0], a[1][0], a[2][0], a[3][0]};
            const uint32_t right_part[2] = {b[j][0][0], b[j][1][0]};
            prim::multiply_16816<BFloat16>(sums[i][j], left_part, right_part);
            continue;
          }
          float of_step[4] = {0, 0, 0, 0};
          // The smallest products first.
#pragma unroll
          for (int both = Parts - 1; both >= 0; both--)
#pragma unroll
            for (int q = 0; q < Parts; q++)
              if (q <= both) {
                const uint32_t left_part[4] = {a[0][q], a[1][q], a[2][q], a[3][q]};
                const uint32_t right_part[2] = {b[j][0][both - q], b[j][1][both - q]};
                prim::multiply_16816<BFloat16>(of_step, left_part, right_part);
              }
#pragma unroll
          for (int v = 0; v < 4; v++) sums[i][j][v] += of_step[v];
        }
      }
    }
  });
  if constexpr (Parts > 0) {
    if (largest >= kLarge) prim::atomic_max(&shared.some_large, 1);
    __syncthreads();
    if (shared.some_large) {  // for all threads alike
      search_extremes<Tile>(p, shared);
      __syncthreads();
    }
  }
  // Row and column in the tile of this thread's result number r.
  const auto row_of = [&](int r) { return wm + r / (WN / 2) * 16 + lane / 4 + r % 4 / 2 * 8; };
  const auto column_of = [&](int r) { return wn + r % (WN / 2) / 4 * 8 + lane % 4 * 2 + r % 2; };
  std::uint64_t doubts = 0;
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) {
        const int r = (i * (WN / 8) + j) * 4 + v, m = row_of(r);
        const int64_t n = e.column0 + column_of(r);
        if (e.row0 + m >= e.rows || n >= e.columns) continue;
        p.store(shared.part, shared.rows[m].out, n, sums[i][j][v]);
        if constexpr (Parts > 0) {
          const bool lost = meet(shared.extremes[m], shared.extremes[BM + column_of(r)]);
          if (lost || in_doubt(sums[i][j][v])) doubts |= std::uint64_t(1) << r;
        }
      }
  if constexpr (Parts > 0)
    for (int r = 0; doubts; r++, doubts >>= 1)
      if (doubts & 1)
        p.store(shared.part, shared.rows[row_of(r)].out, e.column0 + column_of(r),
                ordinary_sum(p, shared, row_of(r), column_of(r)));
}

template <class Tile, int Parts, class Problem>
void run_matrix_gemm(Context& ctx, const char* name, const Problem& p, int64_t blocks) {
  constexpr std::size_t bytes = sizeof(MatrixMemory<Problem, Tile>);
  launch(ctx, name, matrix_gemm_kernel<Problem, Tile, Parts>, blocks, Tile::kThreads, bytes, p);
}

}  // namespace
}  // namespace fastconv::cuda
