// The other memory layout: every image is a matrix of channels and positions that is transposed. Values move as bits.
#include "lanes.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr std::int64_t kLineBytes = 64;
// A task's block: up to 32 cache lines of columns, of as many rows as make 64 KB. To channels-last, Zen 3, one thread,
// 64 channels at 112x112 and 256 at 56x56, GB/s read and written: 8 lines 8.9 and 10, 32 lines 10 and 11.5; without
// the prefetches of turn_block 7.2 and 5.3. A block of 128 KB gains nothing.
constexpr std::int64_t kBlockLines = 32, kBlockBytes = 64 << 10;
constexpr std::int64_t kFew = 4;  // rows or columns that fill no square of registers

typedef std::uint16_t Eight __attribute__((vector_size(16)));

template <class U> constexpr int kSide = kLanes<U>;  // of a square that is transposed in registers
template <> constexpr int kSide<std::uint16_t> = 8;
template <> constexpr int kSide<std::uint8_t> = 1;

template <class A> FC_INLINE void turn_square(const A* x, std::int64_t x_step, A* y, std::int64_t y_step) {
  Vec<A> square[kLanes<A>];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<A>; i++) square[i] = load(x + i * x_step);
  transpose<A>(square);
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<A>; i++) store(y + i * y_step, square[i]);
}
FC_INLINE void turn_square(const std::uint16_t* x, std::int64_t x_step, std::uint16_t* y, std::int64_t y_step) {
  Eight square[8], turned[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) std::memcpy(&square[i], x + i * x_step, sizeof(Eight));
  for (int round = 0; round < 3; round++) {  // as in lanes.h
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      turned[2 * i] = __builtin_shuffle(square[i], square[i + 4], Eight{0, 8, 1, 9, 2, 10, 3, 11});
      turned[2 * i + 1] = __builtin_shuffle(square[i], square[i + 4], Eight{4, 12, 5, 13, 6, 14, 7, 15});
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) square[i] = turned[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) std::memcpy(y + i * y_step, &square[i], sizeof(Eight));
}
FC_INLINE void turn_square(const std::uint8_t* x, std::int64_t, std::uint8_t* y, std::int64_t) { *y = *x; }

template <class U>
void turn_values(const U* x, std::int64_t x_step, std::int64_t rows, std::int64_t columns, U* y, std::int64_t y_step) {
  for (std::int64_t c = 0; c < columns; c++)
    for (std::int64_t r = 0; r < rows; r++) y[c * y_step + r] = x[r * x_step + c];
}

// y[c][r] = x[r][c] for a block, cache lines by cache lines of both sides: read and written whole whatever the steps.
template <class U>
void turn_block(const U* x, std::int64_t x_step, std::int64_t rows, std::int64_t columns, U* y, std::int64_t y_step) {
  constexpr std::int64_t side = kSide<U>, line = kLineBytes / std::int64_t(sizeof(U));
  const std::int64_t whole_rows = rows / side * side, whole_columns = columns / side * side;
  for (std::int64_t r0 = 0; r0 < whole_rows; r0 += line)
    for (std::int64_t c0 = 0; c0 < whole_columns; c0 += line) {
      // The next lines of both sides: too many streams for a hardware prefetcher.
      for (std::int64_t i = 0; i < line; i++) {
        if (r0 + i < rows && c0 + line < columns) __builtin_prefetch(x + (r0 + i) * x_step + c0 + line);
        if (c0 + line + i < columns) __builtin_prefetch(y + (c0 + line + i) * y_step + r0, 1);
      }
      for (std::int64_t r = r0; r < min_of(r0 + line, whole_rows); r += side)
        for (std::int64_t c = c0; c < min_of(c0 + line, whole_columns); c += side)
          turn_square(x + r * x_step + c, x_step, y + c * y_step + r, y_step);
    }
  turn_values(x + whole_columns, x_step, whole_rows, columns - whole_columns, y + whole_columns * y_step, y_step);
  turn_values(x + whole_rows * x_step, x_step, rows - whole_rows, columns, y + whole_rows, y_step);
}

// The same where one side is a number known here: three colours, mostly.
template <int few, class U> void turn_few_rows(const U* x, std::int64_t columns, std::int64_t n, U* y) {
  for (std::int64_t c = 0; c < n; c++)
#pragma GCC unroll 4
    for (int r = 0; r < few; r++) y[c * few + r] = x[r * columns + c];
}
template <int few, class U> void turn_few_columns(const U* x, std::int64_t rows, std::int64_t n, U* y) {
  for (std::int64_t r = 0; r < n; r++)
#pragma GCC unroll 4
    for (int c = 0; c < few; c++) y[c * rows + r] = x[r * few + c];
}
template <class F> FC_INLINE void with_few(std::int64_t few, F&& f) {
  switch (few) {
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    default: f(std::integral_constant<int, kFew>());
  }
}

template <class U>
void turn(std::int64_t images, std::int64_t rows, std::int64_t columns, const U* x, U* y, Context& ctx) {
  const double elements = double(images) * double(rows) * double(columns);
  const int threads = ctx.threads_for(elements, 2 * elements * sizeof(U));
  const std::int64_t image = rows * columns;
  if (rows <= kFew || columns <= kFew) {
    const bool by_rows = rows <= kFew;
    const std::int64_t few = by_rows ? rows : columns, many = by_rows ? columns : rows;
    constexpr std::int64_t piece = kBlockBytes / std::int64_t(sizeof(U)) / kFew;
    const std::int64_t pieces = ceil_div(many, piece);
    return with_few(few, [&](auto number) {
      constexpr int count = decltype(number)::value;
      parallel_for<KeepDenormals>(threads, images * pieces, [&](std::int64_t task, int) {
        const std::int64_t at = task / pieces * image, first = task % pieces * piece, n = min_of(piece, many - first);
        if (by_rows) turn_few_rows<count>(x + at + first, columns, n, y + at + first * count);
        else turn_few_columns<count>(x + at + first * count, rows, n, y + at + first);
      });
    });
  }
  constexpr std::int64_t line = kLineBytes / std::int64_t(sizeof(U));
  const std::int64_t wide = min_of(round_up(columns, line), kBlockLines * line);
  const std::int64_t high = max_of(kBlockBytes / std::int64_t(sizeof(U)) / wide / line, 1) * line;
  const std::int64_t across = ceil_div(columns, wide), down = ceil_div(rows, high);
  parallel_for<KeepDenormals>(threads, images * across * down, [&](std::int64_t task, int) {
    const std::int64_t r = task % down * high, c = task / down % across * wide, at = task / down / across * image;
    turn_block(x + at + r * columns + c, columns, min_of(high, rows - r), min_of(wide, columns - c),
               y + at + c * rows + r, rows);
  });
}

}  // namespace

void change_layout(std::int64_t item, std::int64_t images, std::int64_t rows, std::int64_t columns, const void* x,
                   void* y, Context& ctx) {
  const auto with = [&](auto zero) {
    typedef decltype(zero) U;
    turn(images, rows, columns, static_cast<const U*>(x), static_cast<U*>(y), ctx);
  };
  switch (item) {
    case 1: return with(std::uint8_t());
    case 2: return with(std::uint16_t());
    case 4: return with(float());
    default: with(double());
  }
}

}  // namespace fastconv::cpu::FC_ISA
