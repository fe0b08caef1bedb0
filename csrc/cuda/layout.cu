// The other memory layout: every image is a matrix of channels and positions, transposed by way of shared memory.
#include "launch.h"

namespace fastconv::cuda {
namespace {

constexpr int kSide = 32, kPitch = kSide + 1;  // of a tile; one value more a row, so that a column's lie in 32 banks

// y[c][r] = x[r][c]. Neighbouring threads have neighbouring values of x, then of y, also where a side is short.
template <class U>
__global__ void __launch_bounds__(kThreads)
    layout_kernel(int64_t rows, int64_t columns, int64_t across, int64_t down, const U* x, U* y) {
  U* tile = reinterpret_cast<U*>(prim::shared_memory());
  int64_t block = int64_t(blockIdx.x);
  const int64_t c0 = take_digit(block, across) * kSide, r0 = take_digit(block, down) * kSide;
  const int high = int(rows - r0 < kSide ? rows - r0 : kSide), wide = int(columns - c0 < kSide ? columns - c0 : kSide);
  const U* from = x + block * rows * columns + r0 * columns + c0;
  U* to = y + block * rows * columns + c0 * rows + r0;
  for (int i = int(threadIdx.x); i < high * wide; i += kThreads)
    tile[i / wide * kPitch + i % wide] = from[i / wide * columns + i % wide];
  __syncthreads();
  for (int i = int(threadIdx.x); i < high * wide; i += kThreads)
    to[i / high * rows + i % high] = tile[i % high * kPitch + i / high];
}

template <class U>
void turn(int64_t images, int64_t rows, int64_t columns, const void* x, void* y, Context& ctx) {
  const int64_t across = ceil_div(columns, kSide), down = ceil_div(rows, kSide);
  launch(ctx, "layout", layout_kernel<U>, images * across * down, kThreads, kSide * kPitch * sizeof(U), rows, columns,
         across, down, static_cast<const U*>(x), static_cast<U*>(y));
}

}  // namespace

void change_layout(int64_t item, int64_t images, int64_t rows, int64_t columns, const void* x, void* y, Context& ctx) {
  switch (item) {
    case 1: return turn<std::uint8_t>(images, rows, columns, x, y, ctx);
    case 2: return turn<std::uint16_t>(images, rows, columns, x, y, ctx);
    case 4: return turn<std::uint32_t>(images, rows, columns, x, y, ctx);
    default: return turn<std::uint64_t>(images, rows, columns, x, y, ctx);
  }
}

}  // namespace fastconv::cuda
