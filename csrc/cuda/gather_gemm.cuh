// Implicit matrix product: out(m, n) = sum over k of gathered(m, k) * plain(n, k).
//
// Forward convolution, its input gradient and its weight gradient are all of this form. One operand is gathered from an
// image, where row m and step k together give a place that may lie outside (then it counts as zero); the other is a
// plain array of two offsets. A Problem says where everything lies; tables of a tile's rows and of the next steps are kept
// in shared memory, so that the loop over k divides by nothing but there. A thread block computes BM x BN results,
// each thread TM x TN of them, summing over k in ascending order: the tile's size changes no bit.
#pragma once
#include "launch.h"

namespace fastconv::cuda {
namespace {

template <int bm, int bn, int bk, int tm, int tn> struct Tile {
  static constexpr int BM = bm, BN = bn, BK = bk, TM = tm, TN = tn, kThreads = bm / tm * (bn / tn);
  static_assert(tm % 4 == 0 && tn % 4 == 0 && kThreads % 32 == 0 && bk <= kThreads);
};
// Large tiles have 8 x 8 sums a thread, of double 4 x 4.
template <class A> struct Tiles {
  using Small = Tile<32, 32, 16, 4, 4>;
  using Large = Tile<128, 128, 8, 8, 8>;
};
template <> struct Tiles<double> {
  using Small = Tile<32, 32, 8, 4, 4>;
  using Large = Tile<64, 64, 8, 4, 4>;
};

inline bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

struct Row {
  int64_t offset, at[3];  // in the gathered image: its part of the place
  int64_t out;            // in the output
};
struct Step {
  int64_t offset, at[3];
  int64_t plain;          // in the plain operand
};
// The number of a step in the mixed base of a problem, Problem::base(part, digit): the last digit counts neighbours.
struct Cursor {
  int64_t digit[4];
};
// The tile's part of a problem: sizes, and steps first ... end of the sum.
struct Extent {
  int64_t rows, columns, first, end, row0, column0;
};

// Whether the place of row and step lies in the gathered image.
template <class Problem> FC_DEVICE bool meets_image(const Problem& p, const Row& r, const Step& s) {
  return std::uint64_t(r.at[0] + s.at[0]) < std::uint64_t(p.gathered.size[0]) &&
         std::uint64_t(r.at[1] + s.at[1]) < std::uint64_t(p.gathered.size[1]) &&
         std::uint64_t(r.at[2] + s.at[2]) < std::uint64_t(p.gathered.size[2]);
}

template <class A> struct alignas(16) Four {
  A v[4];
};

// The digits of n in a mixed base; what is left over.
FC_DEVICE int64_t digits(int64_t n, const int64_t (&base)[3], int64_t (&digit)[3]) {
  for (int d = 2; d >= 0; d--) digit[d] = base[d] == 1 ? 0 : take_digit(n, base[d]);
  return n;
}

template <class Problem> FC_DEVICE Cursor cursor_at(const Problem& p, const typename Problem::Part& q, int64_t k) {
  Cursor c;
  for (int d = 3; d > 0; d--) c.digit[d] = take_digit(k, p.base(q, d));
  c.digit[0] = k;
  return c;
}
// Moves on by a few steps without dividing.
template <class Problem>
FC_DEVICE void advance(const Problem& p, const typename Problem::Part& q, Cursor& c, int steps) {
  c.digit[3] += steps;
#pragma unroll
  for (int d = 3; d > 0; d--)
    for (const int64_t base = p.base(q, d); c.digit[d] >= base; c.digit[d] -= base) c.digit[d - 1]++;
}

constexpr int kSkew = 4;  // values between rows of a tile: stores by columns spread over the banks

template <class Problem, class Tile> struct GemmMemory {
  using A = Accumulator<typename Problem::Value>;
  A left[Tile::BK][Tile::BM + kSkew];
  A right[Tile::BK][Tile::BN + kSkew];
  Row rows[Tile::BM];
  int64_t columns[Tile::BN];
  Step steps[Tile::BK];
  typename Problem::Part part;
  Extent extent;
};

// Problem::kGatherAlongSteps, kPlainAlongSteps: neighbouring threads load neighbouring steps, else rows or columns:
// whichever are neighbours in memory.
template <class Problem, class Tile>
__global__ void __launch_bounds__(Tile::kThreads) gather_gemm_kernel(const Problem p) {
  using T = typename Problem::Value;
  using A = Accumulator<T>;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, TM = Tile::TM, TN = Tile::TN, threads = Tile::kThreads;
  GemmMemory<Problem, Tile>& shared = *reinterpret_cast<GemmMemory<Problem, Tile>*>(prim::shared_memory());
  const int thread = int(threadIdx.x);
  if (thread == 0) shared.extent = p.template part<Tile>(int64_t(blockIdx.x), shared.part);
  __syncthreads();
  const Extent e = shared.extent;
  if (e.row0 >= e.rows || e.column0 >= e.columns) return;
  // Rows and columns beyond the end repeat the last one; they are not stored.
  for (int i = thread; i < BM; i += threads) {
    const int64_t m = e.row0 + i;
    shared.rows[i] = p.row(shared.part, m < e.rows ? m : e.rows - 1);
  }
  for (int i = thread; i < BN; i += threads) {
    const int64_t n = e.column0 + i;
    shared.columns[i] = p.column(shared.part, n < e.columns ? n : e.columns - 1);
  }
  __syncthreads();  // the loop's own barriers may not come: a class of positions may meet no tap
  const int tm = Problem::kGatherAlongSteps ? thread / (BN / TN) : thread % (BM / TM);
  const int tn = Problem::kGatherAlongSteps ? thread % (BN / TN) : thread / (BM / TM);
  A sums[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; i++)
#pragma unroll
    for (int j = 0; j < TN; j++) sums[i][j] = 0;
  for (int64_t k0 = e.first; k0 < e.end; k0 += BK) {
    const int steps = e.end - k0 < BK ? int(e.end - k0) : BK;
    if (thread < steps) shared.steps[thread] = p.step(shared.part, cursor_at(p, shared.part, k0 + thread));
    __syncthreads();
#pragma unroll
    for (int i = thread; i < BM * BK; i += threads) {
      const int m = Problem::kGatherAlongSteps ? i / BK : i % BM, k = Problem::kGatherAlongSteps ? i % BK : i / BM;
      A value = 0;
      if (k < steps) {
        const Row& r = shared.rows[m];
        const Step& s = shared.steps[k];
        if (meets_image(p, r, s)) value = prim::to_accumulator(p.gathered.data[r.offset + s.offset]);
      }
      shared.left[k][m] = value;
    }
#pragma unroll
    for (int i = thread; i < BN * BK; i += threads) {
      const int n = Problem::kPlainAlongSteps ? i / BK : i % BN, k = Problem::kPlainAlongSteps ? i % BK : i / BN;
      A value = 0;
      if (k < steps) value = prim::to_accumulator(p.plain[shared.columns[n] + shared.steps[k].plain]);
      shared.right[k][n] = value;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < BK; k++) {
      A left[TM], right[TN];
#pragma unroll
      for (int g = 0; g < TM / 4; g++) {
        const Four<A> four = *reinterpret_cast<const Four<A>*>(&shared.left[k][g * (BM * 4 / TM) + tm * 4]);
#pragma unroll
        for (int i = 0; i < 4; i++) left[4 * g + i] = four.v[i];
      }
#pragma unroll
      for (int g = 0; g < TN / 4; g++) {
        const Four<A> four = *reinterpret_cast<const Four<A>*>(&shared.right[k][g * (BN * 4 / TN) + tn * 4]);
#pragma unroll
        for (int j = 0; j < 4; j++) right[4 * g + j] = four.v[j];
      }
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sums[i][j] += left[i] * right[j];
    }
  }
#pragma unroll
  for (int i = 0; i < TM; i++) {
    const int m = i / 4 * (BM * 4 / TM) + tm * 4 + i % 4;
    if (e.row0 + m >= e.rows) continue;
#pragma unroll
    for (int j = 0; j < TN; j++) {
      const int64_t n = e.column0 + j / 4 * (BN * 4 / TN) + tn * 4 + j % 4;
      if (n < e.columns) p.store(shared.part, shared.rows[m].out, n, sums[i][j]);
    }
  }
}

template <class Tile, class Problem>
void run_gather_gemm(Context& ctx, const char* name, const Problem& p, int64_t blocks) {
  launch(ctx, name, gather_gemm_kernel<Problem, Tile>, blocks, Tile::kThreads, sizeof(GemmMemory<Problem, Tile>), p);
}

}  // namespace
}  // namespace fastconv::cuda
