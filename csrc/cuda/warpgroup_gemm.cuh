// Forward convolution and its input gradient (slide_problem.cuh) with the products of warpgroups.
//
// Channels of the gathered image are neighbours and come in eights, from 16 bytes on. Where each row begins and which
// taps it meets is found once, and so is what each tap adds: the loop over tiles multiplies and divides nothing.
#pragma once
#include "warpgroup.cuh"

namespace fastconv::cuda {
namespace {

// The weights as they came, for results that are computed again.
template <class T> struct PlainWeights {
  const T* data;
  int64_t group, in, out, tap;
};

// Where a row begins in the gathered image and in the output, and which taps it meets: a bit for each tap of each axis.
struct FoundRow {
  int64_t from, out;
  uint32_t met;
};
// What a tap adds to a row's place and where its first channel stands in a packed column; its bits of the axes.
struct Tap {
  int64_t offset;
  int32_t plain;
  uint32_t need;
};

template <class Problem, class Tile, int Parts> struct WarpgroupMemory {
  using H = Half<typename Problem::Value>;
  static constexpr int kLeft = Tile::BM * kRowValues, kRight = Tile::BN * kRowValues;
  struct Stages {
    alignas(1024) H left[Tile::stages][kPlanes<Parts>][kLeft];
    alignas(1024) H right[Tile::stages][kPlanes<Parts>][kRight];
  };
  union {
    Stages tiles;
    alignas(16) float results[Tile::BM * (Tile::BN + 8)];
  };
  int64_t some_large, some_doubt;  // of a float32
  uint32_t extremes[Tile::BM];
  FoundRow rows[Tile::BM];
  Tap taps[kMostTapsInAll];
  typename Problem::Part part;
  Extent extent;
};

FC_DEVICE uint32_t tap_bit(int axis, int64_t digit) {
  return 1u << (digit + (axis > 0 ? 10 : 0) + (axis > 1 ? 11 : 0));
}
static_assert(kMostTaps[0] == 10 && kMostTaps[1] == 11 && kMostTaps[2] == 11, "tap_bit");

template <class Problem>
FC_DEVICE FoundRow find_row(const Problem& p, const typename Problem::Part& q, int64_t m) {
  const Row r = p.row(q, m);
  FoundRow found{r.offset, r.out, 0};
  for (int d = 0; d < 3; d++) {
    int64_t at = r.at[d];
    for (int j = 0; j < int(q.taps[d]); j++, at += q.phase[d].tap_move)
      if (std::uint64_t(at) < std::uint64_t(p.gathered.size[d])) found.met |= tap_bit(d, j);
  }
  return found;
}
template <class Problem> FC_DEVICE Tap find_tap(const Problem& p, const typename Problem::Part& q, int flat) {
  const Cursor c = cursor_at(p, q, flat * p.in_channels);
  const Step s = p.step(q, c);
  return {s.offset, int32_t(s.plain), tap_bit(0, c.digit[0]) | tap_bit(1, c.digit[1]) | tap_bit(2, c.digit[2])};
}

// One result in ascending order of the steps on the ordinary cores; columns' extremes come from packing.
template <class Problem>
FC_DEVICE float ordinary_sum(const Problem& p, const typename Problem::Part& q, const PlainWeights<float>& w,
                             int64_t channels, int64_t steps, int64_t m, int64_t n) {
  const Row r = p.row(q, m);
  float sum = 0;
  Cursor cursor{};
  for (int64_t k = 0; k < steps; k++, advance(p, q, cursor, 1)) {
    if (cursor.digit[3] >= channels) continue;  // padding
    const Step s = p.step(q, cursor);
    const float value = meets_image(p, r, s) ? p.gathered.data[r.offset + s.offset] : 0.0f;
    const int64_t tap = divide(s.plain, p.in_channels);
    sum = prim::multiply_add(value, w.data[q.group * w.group + n * w.out + cursor.digit[3] * w.in + tap * w.tap], sum);
  }
  return sum;
}

template <class Problem, class Tile, int Parts> struct WarpgroupArguments {
  using T = typename Problem::Value;
  Problem problem;                // `plain` and its distances are not used
  const Half<T>* packed;          // part, group, column, tap, channel: channels padded to eights
  const uint32_t* extremes;       // of the groups' columns: of float32
  PlainWeights<T> weights;
  int64_t channels, plane;        // channels that are no padding; values of one part
};

template <class Problem, class Tile, int Parts>
__global__ void __launch_bounds__(Tile::kThreads, Parts ? 1 : 2)
    warpgroup_gemm_kernel(const WarpgroupArguments<Problem, Tile, Parts> a) {
  using T = typename Problem::Value;
  using H = Half<T>;
  using Memory = WarpgroupMemory<Problem, Tile, Parts>;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::steps, stages = Tile::stages, threads = Tile::kThreads;
  constexpr int per_row = BK / kEight, rows_at_once = threads / per_row, own_rows = BM / rows_at_once;
  if (!prim::kHasWarpgroups) return;  // code for other targets, which nobody starts
  const Problem& p = a.problem;
  Memory& shared = *reinterpret_cast<Memory*>(prim::shared_memory());
  const int thread = int(threadIdx.x), chunk = thread % per_row, row0 = thread / per_row;
  if (thread == 0) {
    shared.extent = p.template part<Tile>(int64_t(blockIdx.x), shared.part);
    shared.some_large = shared.some_doubt = 0;
  }
  __syncthreads();
  const Extent e = shared.extent;
  if (e.row0 >= e.rows || e.column0 >= e.columns) return;
  const typename Problem::Part& part = shared.part;
  const int channels = int(p.in_channels), taps = int(part.taps[0] * part.taps[1] * part.taps[2]);
  if (thread < BM) {
    const bool row = e.row0 + thread < e.rows;
    shared.rows[thread] = row ? find_row(p, part, e.row0 + thread) : FoundRow{};
    shared.extremes[thread] = 0;
  } else {
    for (int i = thread - BM; i < taps; i += threads - BM) shared.taps[i] = find_tap(p, part, i);
  }
  __syncthreads();

  const char* from[own_rows];
  uint32_t lacks[own_rows];  // taps that the row does not meet
#pragma unroll
  for (int i = 0; i < own_rows; i++) {
    const FoundRow& row = shared.rows[row0 + i * rows_at_once];
    from[i] = reinterpret_cast<const char*>(p.gathered.data + row.from);
    lacks[i] = ~row.met;
  }
  // The tap and the channel of what this thread brings next, tile after tile.
  int tap = chunk * kEight / channels, channel = chunk * kEight - tap * channels;
  const int tile_taps = BK / channels, tile_channels = BK - tile_taps * channels;
  int64_t offset = 0;   // of both, in the image, in bytes
  int plain = 0;        // and in a packed column
  uint32_t need = 0;
  const auto find_place = [&] {
    if (tap >= taps) return;
    const Tap t = shared.taps[tap];
    offset = (t.offset + channel) * int(sizeof(T));
    plain = t.plain + channel;
    need = t.need;
  };
  find_place();
  const auto next_place = [&] {
    if (channel + BK < channels) {
      channel += BK;
      offset += BK * int(sizeof(T));
      plain += BK;
      return;
    }
    channel += tile_channels;
    tap += tile_taps;
    if (channel >= channels) {
      channel -= channels;
      tap++;
    }
    find_place();
  };
  const int tiles = int((e.end + BK - 1) / BK);
  const auto is_within = [&](int tile) { return tile * BK + chunk * kEight < int(e.end); };
  const int64_t first_column = part.group * p.out_channels + e.column0;
  const H* const packed = a.packed + (first_column + row0) * p.weight_out;
  const int64_t packed_step = rows_at_once * p.weight_out;
  const int columns = int(e.columns - e.column0 < BN ? e.columns - e.column0 : BN) - row0;
  static_assert(rows_at_once % 8 == 0);
  H* const left_to = &shared.tiles.left[0][0][eight_at(row0, chunk)];
  H* const right_to = &shared.tiles.right[0][0][eight_at(row0, chunk)];
  const auto load_right = [&](bool within, int at, int stage) {
    const H* source = packed + at;
#pragma unroll
    for (int i = 0; i < BN / rows_at_once; i++, source += packed_step)
#pragma unroll
      for (int q = 0; q < kPlanes<Parts>; q++)
        prim::async_copy_16(right_to + (stage * kPlanes<Parts> + q) * Memory::kRight + i * rows_at_once * kRowValues,
                            source + q * a.plane, within && i * rows_at_once < columns);
  };
  constexpr int left_plane = Memory::kLeft * 2, right_plane = Memory::kRight * 2;
  const prim::Operand left0 = prim::warpgroup_operand(&shared.tiles.left[0][0][thread / 128 * 64 * kRowValues], 0);
  const prim::Operand right0 = prim::warpgroup_operand(shared.tiles.right[0][0], 0);

  float sums[BN / 2];
#pragma unroll
  for (int i = 0; i < BN / 2; i++) sums[i] = 0;
  float largest = 0;
  if constexpr (Parts == 0) {
    const auto load = [&](int tile, int stage) {
      const bool within = is_within(tile);
#pragma unroll
      for (int i = 0; i < own_rows; i++)
        prim::async_copy_16(left_to + stage * Memory::kLeft + i * rows_at_once * kRowValues, from[i] + offset,
                            within && (lacks[i] & need) == 0);
      load_right(within, plain, stage);
      next_place();
    };
    for (int t = 0; t < stages - 1; t++) {
      if (t < tiles) load(t, t);
      prim::async_commit();
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
        prim::warpgroup_multiply<H, BN, false>(sums, left0 + (stage * left_plane + 32 * k),
                                               right0 + (stage * right_plane + 32 * k), true);
      prim::warpgroup_commit();
      if (t + stages - 1 < tiles) load(t + stages - 1, next_stage);
      prim::async_commit();
      stage = stage + 1 == stages ? 0 : stage + 1;
      next_stage = next_stage + 1 == stages ? 0 : next_stage + 1;
    }
    prim::async_wait<0>();
    prim::warpgroup_wait(sums);
  } else {
    static_assert(stages == 2 && own_rows == BK / 16, "each group of 16 steps covers one of the rows that come next");
    Eight<float> coming[own_rows];
    const auto fetch = [&](bool within, int i) {
      if (within && (lacks[i] & need) == 0) coming[i] = *reinterpret_cast<const Eight<float>*>(from[i] + offset);
      else coming[i] = Eight<float>{};
    };
    const auto keep = [&](int stage, int i) {
      store_parts<Parts>(coming[i], left_to + stage * Parts * Memory::kLeft + i * rows_at_once * kRowValues,
                         Memory::kLeft, largest);
    };
    int plain_next = 0;  // of the tile that `coming` holds
    if (tiles > 0) {
      const bool within = is_within(0), after = is_within(1);
      load_right(within, plain, 0);
#pragma unroll
      for (int i = 0; i < own_rows; i++) fetch(within, i);
      next_place();
      plain_next = plain;
#pragma unroll
      for (int i = 0; i < own_rows; i++) {
        keep(0, i);
        fetch(after, i);
      }
    }
    prim::async_commit();
    for (int t = 0; t < tiles; t++) {
      const int stage = t & 1, next = 1 - stage;
      prim::async_wait<0>();
      prim::fence_for_warpgroups();
      __syncthreads();
      const bool more = t + 1 < tiles, after = is_within(t + 2);
      if (more) load_right(is_within(t + 1), plain_next, next);
      prim::async_commit();
      next_place();
      plain_next = plain;
#pragma unroll
      for (int k = 0; k < BK / 16; k++) {
        float of_step[BN / 2];
        prim::warpgroup_begin(of_step);
        multiply_parts<H, Parts, BN, false>(of_step, left0 + (stage * Parts * left_plane + 32 * k), left_plane,
                                            right0 + (stage * Parts * right_plane + 32 * k), right_plane);
        prim::warpgroup_commit();
        if (more) {
          keep(next, k);
          fetch(after, k);
        }
        prim::warpgroup_wait(of_step);
#pragma unroll
        for (int i = 0; i < BN / 2; i++) sums[i] += of_step[i];
      }
    }
    prim::async_wait<0>();
    bool doubt = false;
#pragma unroll
    for (int i = 0; i < BN / 2; i++) doubt |= in_doubt(sums[i]);
    if (doubt) prim::atomic_max(&shared.some_doubt, 1);
    if (largest >= kLarge) prim::atomic_max(&shared.some_large, 1);
    for (int i = thread; i < BN; i += threads)
      if (e.column0 + i < e.columns && a.extremes[first_column + i] & kHasLarge)
        prim::atomic_max(&shared.some_large, 1);
    __syncthreads();
    if (shared.some_large)  // for all threads alike
      for (int i = thread; i < BM && e.row0 + i < e.rows; i += threads) {
        const Row r = p.row(part, e.row0 + i);
        uint32_t found = 0;
        Cursor c{};
        for (int64_t k = 0; k < e.end; k++, advance(p, part, c, 1)) {
          const Step s = p.step(part, c);
          if (meets_image(p, r, s)) found |= extremes_of(p.gathered.data[r.offset + s.offset]);
        }
        shared.extremes[i] = found;
      }
  }

  // Through shared memory, so that neighbours in the output leave together.
  __syncthreads();
  const bool last = p.output.channel == 1;
  // Few bank conflicts: rows eight banks apart for pairs of columns, or one apart for columns.
  constexpr int by_rows = BN + 8, by_columns = BN + 1;
  if (last) spread<BN, by_rows>(sums, shared.results);
  else spread<BN, by_columns>(sums, shared.results);
  __syncthreads();
  if constexpr (Parts > 0) {
    if (shared.some_doubt || shared.some_large) {  // for all threads alike
      const int pitch = last ? by_rows : by_columns;
      for (int i = thread; i < BM * BN; i += threads) {
        const int m = i / BN, n = i % BN;
        if (e.row0 + m >= e.rows || e.column0 + n >= e.columns) continue;
        float& sum = shared.results[m * pitch + n];
        if (in_doubt(sum) || meet(shared.extremes[m], a.extremes[first_column + n]))
          sum = ordinary_sum(p, part, a.weights, a.channels, e.end, e.row0 + m, e.column0 + n);
      }
      __syncthreads();
    }
  }
  if (last) {
    const int n = thread % (BN / kEight) * kEight;  // of this thread's eights
    const int64_t column = e.column0 + n;
    const bool eights = column + kEight <= e.columns && p.out_channels % kEight == 0 && p.aligned;
    Eight<float> bias{};
    if (eights && p.bias)
      for (int v = 0; v < kEight; v++)
        bias.v[v] = prim::to_accumulator(p.bias[part.group * p.out_channels + column + v]);
#pragma unroll 2
    for (int m = thread / (BN / kEight); m < BM; m += threads / (BN / kEight)) {
      if (e.row0 + m >= e.rows) break;
      Eight<float> y = *reinterpret_cast<const Eight<float>*>(&shared.results[m * by_rows + n]);
      const int64_t to = shared.rows[m].out + column;
      if (eights) {
#pragma unroll
        for (int v = 0; v < kEight; v++) y.v[v] += bias.v[v];  // zeros where there is none: a sum is never -0
        if (p.finish.add) {
          const Eight<T> add = *reinterpret_cast<const Eight<T>*>(p.finish.add + to);
#pragma unroll
          for (int v = 0; v < kEight; v++) y.v[v] += prim::to_accumulator(add.v[v]);
        }
        if (p.finish.clamps)
#pragma unroll
          for (int v = 0; v < kEight; v++) y.v[v] = p.finish.clamp(y.v[v]);
        Eight<T> out;
#pragma unroll
        for (int v = 0; v < kEight; v++) out.v[v] = prim::from_accumulator<T>(y.v[v]);
        *reinterpret_cast<Eight<T>*>(p.out + to) = out;
      } else {
        for (int v = 0; v < kEight && column + v < e.columns; v++)
          p.store(part, shared.rows[m].out, column + v, y.v[v]);
      }
    }
  } else {
    for (int i = thread; i < BM * BN; i += threads) {
      const int m = i % BM, n = i / BM;
      if (e.row0 + m < e.rows && e.column0 + n < e.columns)
        p.store(part, shared.rows[m].out, e.column0 + n, shared.results[m * by_columns + n]);
    }
  }
}

template <class Tile, int Parts, class Problem>
void run_warpgroup_gemm(Context& ctx, const char* name, const WarpgroupArguments<Problem, Tile, Parts>& a,
                        int64_t blocks) {
  constexpr std::size_t bytes = sizeof(WarpgroupMemory<Problem, Tile, Parts>);
  launch(ctx, name, warpgroup_gemm_kernel<Problem, Tile, Parts>, blocks, Tile::kThreads, bytes, a);
}

}  // namespace
}  // namespace fastconv::cuda
