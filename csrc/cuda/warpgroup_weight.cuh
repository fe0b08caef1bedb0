// The weight gradient (weight_problem.cuh) with the products of warpgroups.
//
// The sum runs over pixels, a row of shared memory holds 64 channels of one pixel: operands lie across (prims.cuh), so
// nothing is turned. Rows of the result are taps by channels of x, in eights; columns are channels of dy.
#pragma once
#include "warpgroup.cuh"
#include "weight_problem.cuh"

namespace fastconv::cuda {
namespace {

template <class Problem, class Tile, int Parts> struct WarpgroupWeightMemory {
  using H = Half<typename Problem::Value>;
  static constexpr int kBlock = Tile::steps * kRowValues;  // 64 channels of a tile's pixels
  static constexpr int kLeft = Tile::BM / kRowValues * kBlock;
  static constexpr int kRight = (Tile::BN + kRowValues - 1) / kRowValues * kBlock;
  struct Pixel {
    int64_t offset, plain;  // in x and in dy
    int32_t at[3], within;
  };
  struct Stages {
    alignas(1024) H left[Tile::stages][kPlanes<Parts>][kLeft];
    alignas(1024) H right[Tile::stages][kPlanes<Parts>][kRight];
  };
  union {
    Stages tiles;
    alignas(16) float results[Tile::BM * (Tile::BN + 1)];
  };
  Pixel pixels[2][Tile::steps];
  int64_t some_large, some_doubt;          // of a float32
  uint32_t extremes[Tile::BM + Tile::BN];  // of rows and columns: of a tile with some large value
  typename Problem::Part part;
  Extent extent;
  Cursor tile_digits;  // of the pixels of a tile
};

// f(x, dy) of one row and column for each pixel of the tile's sum, ascending; x is zero beyond its edges.
template <class Problem, class F>
FC_DEVICE void each_pixel(const Problem& p, const typename Problem::Part& q, const Extent& e, int64_t m, int64_t n,
                          const F& f) {
  const Row row = p.row(q, m);
  const int64_t column = p.column(q, n);
  Cursor cursor = cursor_at(p, q, e.first);
  for (int64_t k = e.first; k < e.end; k++, advance(p, q, cursor, 1)) {
    const Step s = p.step(q, cursor);
    f(meets_image(p, row, s) ? p.gathered.data[row.offset + s.offset] : 0.0f, p.plain[column + s.plain]);
  }
}

template <class Problem, class Tile, int Parts>
__global__ void __launch_bounds__(Tile::kThreads, Parts ? 1 : 2) warpgroup_weight_kernel(const Problem p) {
  using T = typename Problem::Value;
  using H = Half<T>;
  using Memory = WarpgroupWeightMemory<Problem, Tile, Parts>;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::steps, stages = Tile::stages, threads = Tile::kThreads;
  constexpr int left_eights = BM / kEight, right_eights = BN / kEight;
  constexpr int left_pixels = threads / left_eights, right_pixels = threads / right_eights;  // brought at once
  constexpr int lefts = BK / left_pixels, rights = BK / right_pixels;
  if (!prim::kHasWarpgroups) return;  // code for other targets, which nobody starts
  Memory& shared = *reinterpret_cast<Memory*>(prim::shared_memory());
  const int thread = int(threadIdx.x);
  if (thread == 0) shared.extent = p.template part<Tile>(int64_t(blockIdx.x), shared.part);
  __syncthreads();
  const Extent e = shared.extent;
  if (e.row0 >= e.rows || e.column0 >= e.columns) return;

  // This thread's eight rows and eight columns, of every pixel that it brings.
  const int left_eight = thread % left_eights, left_pixel = thread / left_eights;
  const int right_eight = thread % right_eights, right_pixel = thread / right_eights;
  const bool has_rows = e.row0 + left_eight * kEight < e.rows;
  const bool has_columns = e.column0 + right_eight * kEight < e.columns;
  const Row row = has_rows ? p.row(shared.part, e.row0 + left_eight * kEight) : Row{};
  const int32_t tap[3] = {int32_t(row.at[0]), int32_t(row.at[1]), int32_t(row.at[2])};
  const uint32_t size[3] = {uint32_t(p.gathered.size[0]), uint32_t(p.gathered.size[1]), uint32_t(p.gathered.size[2])};
  const T* const left_from = p.gathered.data + row.offset;
  const T* const right_from =
      p.plain + (has_columns ? p.column(shared.part, e.column0 + right_eight * kEight) : 0);
  // The pixels of the next tiles: threads below BK find one of each.
  Cursor cursor{};
  if (thread < BK) cursor = cursor_at(p, shared.part, e.first + thread);
  if (thread == BK) shared.tile_digits = cursor_at(p, shared.part, BK);
  __syncthreads();
  const auto find_pixels = [&](int tile) {
    if (thread >= BK) return;
    typename Memory::Pixel& pixel = shared.pixels[tile & 1][thread];
    const Step s = p.step(shared.part, cursor);
    pixel = {s.offset, s.plain, {int32_t(s.at[0]), int32_t(s.at[1]), int32_t(s.at[2])},
             e.first + int64_t(tile) * BK + thread < e.end};
    int64_t carry = 0;
#pragma unroll
    for (int d = 3; d > 0; d--) {
      const int64_t base = p.base(shared.part, d);
      cursor.digit[d] += shared.tile_digits.digit[d] + carry;
      carry = cursor.digit[d] >= base;
      if (carry) cursor.digit[d] -= base;
    }
    cursor.digit[0] += shared.tile_digits.digit[0] + carry;
  };
  const auto left_source = [&](int tile, int i, bool& inside) {
    const typename Memory::Pixel& pixel = shared.pixels[tile & 1][left_pixel + i * left_pixels];
    inside = (has_rows & pixel.within & (uint32_t(pixel.at[0] + tap[0]) < size[0]) &
              (uint32_t(pixel.at[1] + tap[1]) < size[1]) & (uint32_t(pixel.at[2] + tap[2]) < size[2])) != 0;
    return left_from + pixel.offset;
  };
  const auto right_source = [&](int tile, int i, bool& inside) {
    const typename Memory::Pixel& pixel = shared.pixels[tile & 1][right_pixel + i * right_pixels];
    inside = has_columns && pixel.within;
    return right_from + pixel.plain;
  };
  const auto left_to = [&](int stage, int i) {
    return &shared.tiles.left[stage][0][left_eight / 8 * Memory::kBlock +
                                        eight_at(left_pixel + i * left_pixels, left_eight % 8)];
  };
  const auto right_to = [&](int stage, int i) {
    return &shared.tiles.right[stage][0][right_eight / 8 * Memory::kBlock +
                                         eight_at(right_pixel + i * right_pixels, right_eight % 8)];
  };
  constexpr int left_plane = Memory::kLeft * 2, right_plane = Memory::kRight * 2, sixteen = 16 * kRowValues * 2;
  const prim::Operand left0 =
      prim::warpgroup_operand(&shared.tiles.left[0][0][thread / 128 * Memory::kBlock], Memory::kBlock * 2);
  const prim::Operand right0 = prim::warpgroup_operand(shared.tiles.right[0][0], Memory::kBlock * 2);

  float sums[BN / 2];
#pragma unroll
  for (int i = 0; i < BN / 2; i++) sums[i] = 0;
  float largest = 0;
  if (Parts > 0 && thread == 0) shared.some_large = shared.some_doubt = 0;
  const int tiles = int((e.end - e.first + BK - 1) / BK);
  find_pixels(0);
  __syncthreads();
  if constexpr (Parts == 0) {
    const auto load = [&](int tile, int stage) {
#pragma unroll
      for (int i = 0; i < lefts; i++) {
        bool inside;
        const T* from = left_source(tile, i, inside);
        prim::async_copy_16(left_to(stage, i), from, inside);
      }
#pragma unroll
      for (int i = 0; i < rights; i++) {
        bool inside;
        const T* from = right_source(tile, i, inside);
        prim::async_copy_16(right_to(stage, i), from, inside);
      }
    };
    for (int t = 0; t < stages - 1; t++) {
      if (t < tiles) load(t, t);
      prim::async_commit();
      find_pixels(t + 1);
      __syncthreads();
    }
    int stage = 0, next_stage = stages - 1;
    for (int t = 0; t < tiles; t++) {
      prim::async_wait<stages - 2>();
      prim::fence_for_warpgroups();
      prim::warpgroup_wait(sums);
      __syncthreads();  // tile t is there for all, and nobody reads the stage that is loaded next
      prim::warpgroup_begin(sums);
#pragma unroll
      for (int k = 0; k < BK / 16; k++)
        prim::warpgroup_multiply<H, BN, true>(sums, left0 + (stage * left_plane + k * sixteen),
                                              right0 + (stage * right_plane + k * sixteen), true);
      prim::warpgroup_commit();
      if (t + stages - 1 < tiles) load(t + stages - 1, next_stage);
      prim::async_commit();
      find_pixels(t + stages);
      stage = stage + 1 == stages ? 0 : stage + 1;
      next_stage = next_stage + 1 == stages ? 0 : next_stage + 1;
    }
    prim::async_wait<0>();
    prim::warpgroup_wait(sums);
  } else {
    constexpr int groups = BK / 16;
    static_assert(stages == 2);
    Eight<float> left[lefts], right[rights];
    const auto fetch_left = [&](int tile, int i) {
      bool inside;
      const T* from = left_source(tile, i, inside);
      if (inside) left[i] = *reinterpret_cast<const Eight<float>*>(from);
      else left[i] = Eight<float>{};
    };
    const auto fetch_right = [&](int tile, int i) {
      bool inside;
      const T* from = right_source(tile, i, inside);
      if (inside) right[i] = *reinterpret_cast<const Eight<float>*>(from);
      else right[i] = Eight<float>{};
    };
    const auto keep_left = [&](int stage, int i) {
      store_parts<Parts>(left[i], left_to(stage, i), Memory::kLeft, largest);
    };
    const auto keep_right = [&](int stage, int i) {
      store_parts<Parts>(right[i], right_to(stage, i), Memory::kRight, largest);
    };
#pragma unroll
    for (int i = 0; i < lefts; i++) fetch_left(0, i);
#pragma unroll
    for (int i = 0; i < rights; i++) fetch_right(0, i);
    find_pixels(1);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < lefts; i++) {
      keep_left(0, i);
      fetch_left(1, i);
    }
#pragma unroll
    for (int i = 0; i < rights; i++) {
      keep_right(0, i);
      fetch_right(1, i);
    }
    find_pixels(2);
    for (int t = 0; t < tiles; t++) {
      const int stage = t & 1, next = 1 - stage;
      prim::fence_for_warpgroups();
      __syncthreads();
#pragma unroll
      for (int k = 0; k < groups; k++) {
        float of_step[BN / 2];
        prim::warpgroup_begin(of_step);
        multiply_parts<H, Parts, BN, true>(of_step, left0 + (stage * Parts * left_plane + k * sixteen), left_plane,
                                           right0 + (stage * Parts * right_plane + k * sixteen), right_plane);
        prim::warpgroup_commit();
#pragma unroll
        for (int i = k * lefts / groups; i < (k + 1) * lefts / groups; i++) {
          keep_left(next, i);
          fetch_left(t + 2, i);
        }
#pragma unroll
        for (int i = k * rights / groups; i < (k + 1) * rights / groups; i++) {
          keep_right(next, i);
          fetch_right(t + 2, i);
        }
        prim::warpgroup_wait(of_step);
#pragma unroll
        for (int i = 0; i < BN / 2; i++) sums[i] += of_step[i];
      }
      find_pixels(t + 3);
    }
  }

  if constexpr (Parts > 0) {
    bool doubt = false;
#pragma unroll
    for (int i = 0; i < BN / 2; i++) doubt |= in_doubt(sums[i]);
    if (doubt) prim::atomic_max(&shared.some_doubt, 1);
    if (largest >= kLarge) prim::atomic_max(&shared.some_large, 1);
    for (int i = thread; i < BM + BN; i += threads) shared.extremes[i] = 0;
  }
  __syncthreads();
  constexpr int pitch = BN + 1;
  spread<BN, pitch>(sums, shared.results);
  if constexpr (Parts > 0)
    if (shared.some_large)  // for all threads alike
      for (int i = thread; i < BM + BN; i += threads) {
        uint32_t found = 0;
        const bool left = i < BM;
        const int64_t at = left ? e.row0 + i : e.column0 + i - BM;
        if (at < (left ? e.rows : e.columns))
          each_pixel(p, shared.part, e, left ? at : e.row0, left ? e.column0 : at,
                     [&](float x, float dy) { found |= extremes_of(left ? x : dy); });
        shared.extremes[i] = found;
      }
  __syncthreads();
  const bool unsure = Parts > 0 && (shared.some_doubt || shared.some_large);
  float* const to =
      p.partials + ((shared.part.split * p.groups + shared.part.group) * p.out_channels + e.column0) * p.rows + e.row0;
  for (int i = thread; i < BM * BN; i += threads) {
    const int m = i % BM, n = i / BM;
    if (e.row0 + m >= e.rows || e.column0 + n >= e.columns) continue;
    float sum = shared.results[m * pitch + n];
    if constexpr (Parts > 0)
      if (unsure && (in_doubt(sum) || meet(shared.extremes[m], shared.extremes[BM + n]))) {
        sum = 0;
        each_pixel(p, shared.part, e, e.row0 + m, e.column0 + n,
                   [&](float x, float dy) { sum = prim::multiply_add(x, dy, sum); });
      }
    to[n * p.rows + m] = sum;
  }
}

}  // namespace
}  // namespace fastconv::cuda
