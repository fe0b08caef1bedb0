// Depthwise filters of channels-first planes, read where they lie: vectors over the columns of a row, with the lanes in
// the padding masked to zero. 3x3 and 5x5 of stride 1 and 2, the input gradient of 5x5 of stride 1, and all gradients of
// 3x3: what mobile networks do.
//
// A tile is a few rows of one register of results, which share the loads of the source rows and the filter. The input
// gradient of stride 1 is the forward pass over planes read and written upwards with the columns of the taps reversed,
// which keeps the order of the taps; that of stride 2 makes two rows and two registers of columns at a time, as every
// second row and column see every second tap. AVX2, which has no masked registers, has padded rows and strips instead
// of the tiles of masked loads.
#include "conv_depthwise.h"
#include "depthwise_planes.h"
#include "epilogue.h"
#include "padded_rows.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int64_t kSumPixels = 2048;  // outputs whose products are summed before a lane's sum joins the others
constexpr int64_t kWeightTasks = 64;  // parts that a weight gradient is cut into, at least

// f(number of rows as a constant, first row) for rows [first, last): seven (where there are registers for them; images
// of 224 rows are all halved down to 7), four, two or one at a time.
template <class F> FC_INLINE void row_tiles(int64_t first, int64_t last, F&& f) {
  if constexpr (FC_VECTOR_BYTES == 64)
    for (; first + 7 <= last; first += 7) f(std::integral_constant<int, 7>(), first);
  for (; first + 4 <= last; first += 4) f(std::integral_constant<int, 4>(), first);
  if (first + 2 <= last) f(std::integral_constant<int, 2>(), first), first += 2;
  if (first < last) f(std::integral_constant<int, 1>(), first);
}

// Back: the input gradient of stride 1.
template <class T, int K, int Step, bool Back>
__attribute__((noinline)) void correlate_region(const Planes& planes, const T* source, const T* filter, const T* bias,
                                              const Finish<T>& finishing, T* result, const Region& region) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>;
  const Planes a = planes;  // copies: the compiler need not assume that a store changes them
  const Finish<T> finish = finishing;
  // Upwards, row i is the i-th from below; the source rows above the first tap's are then what lies below the last's.
  const int64_t down = Back ? -a.W : a.W, below = Back ? -a.Q : a.Q, pad = Back ? a.pad_h - a.H + a.P : a.pad_h;
  for (int64_t from = 0; from < a.Q; from += kBlocks * L) {
    Columns<A, K, Step> columns[kBlocks];
    const int64_t blocks = min_of(kBlocks, ceil_div(a.Q - from, L));
    for (int64_t k = 0; k < blocks; k++) {
      const int64_t q = from + k * L;
      columns[k] = Columns<A, K, Step>(Back ? q + a.pad_w : q * Step - a.pad_w, Back ? -1 : 1, a.W, L);
    }
    Channel at(a, region.plane);
    for (int64_t plane = region.plane; plane < region.plane_end; plane++, at.next(a)) {
      const T* const sources = source + plane * a.H * a.W + (Back ? (a.H - 1) * a.W : 0);
      T* const results = result + plane * a.P * a.Q + (Back ? (a.P - 1) * a.Q : 0) + from;
      const Filter<A, K * K> w(filter, bias, at.c);
      for (int64_t k = 0; k < blocks; k++) {
        const Columns<A, K, Step> column = columns[k];
        row_tiles(region.row, region.row_end, [&](auto rows, int64_t p) __attribute__((always_inline)) {
          constexpr int B = decltype(rows)::value;
          Vec<A> sum[B];
          each<B>([&](auto b) __attribute__((always_inline)) { sum[b] = Vec<A>{}; });
          int64_t y = p * Step - pad;
          const T* row = sources + y * down;
          each<(B - 1) * Step + K>([&](auto i) __attribute__((always_inline)) {
            Vec<A> value[K] = {};
            if (std::uint64_t(y) < std::uint64_t(a.H)) column.load(row, value);
            y++;
            row += down;
            each<B>([&](auto b) __attribute__((always_inline)) {
              constexpr int r = i - b * Step;
              if constexpr (r >= 0 && r < K)
                each<K>([&](auto t) __attribute__((always_inline)) {
                  sum[b] = multiply_add(w.tap[r * K + t], value[t], sum[b]);
                });
            });
          });
          T* to = results + p * below + k * L;
          each<B>([&](auto b) __attribute__((always_inline)) {
            Vec<A> v = bias ? sum[b] + w.bias : sum[b];
            if constexpr (!Back)
              if (finish.wanted) v = finish(v, to - result, a.Q - from - k * L);
            store_up_to(to, v, a.Q - from - k * L);
            to += below;
          });
        });
      }
    }
  }
}

// The same down strips of one register of columns: a source row adds to all results that see it, each of which is stored
// with its last row. The last strip of a row of several overlaps the one before it, so that only rows of less than a
// register are stored in parts, and those but where what spills over is written afterwards. For rows of no more than a
// register and for stride 2 on AVX2, where copying a short row with its zeros costs more than what it saves: Zen 3, 8
// images, against padded rows, 1 and 2 threads: 960 channels at 7x7 1.43 and 1.47 times as fast, 5x5 1.37, 576 at 14x14
// with stride 2 1.45, 144 at 56x56 with stride 2 1.55, 96 at 112x112 with stride 2 0.93 and 0.97; of stride 1 at 14x14
// 0.98, 5x5 1.13 and 1.22, at 28x28 0.85 and 0.93.
template <class T, int K, int Step, bool Back>
__attribute__((noinline)) void correlate_strips(const Planes& planes, const T* source, const T* filter, const T* bias,
                                                const Finish<T>& finishing, T* result, const Region& region) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>, live = (K - 1) / Step + 1;  // results that a row adds to, at most
  const Planes a = planes;
  const Finish<T> finish = finishing;
  const int64_t down = Back ? -a.W : a.W, below = Back ? -a.Q : a.Q, pad = Back ? a.pad_h - a.H + a.P : a.pad_h;
  const int64_t last = max_of(a.Q - L, 0);
  const bool spills = !Back && a.Q < L && !finish.add;  // the sum to add may be y itself
  const T* const end = result + ((region.plane_end - 1) * a.P + region.row_end) * a.Q;
  for (int64_t from = 0; from < a.Q; from += kBlocks * L) {
    Columns<A, K, Step> columns[kBlocks];
    const int64_t blocks = min_of(kBlocks, ceil_div(a.Q - from, L));
    for (int64_t k = 0; k < blocks; k++) {
      const int64_t q = min_of(from + k * L, last);
      columns[k] = Columns<A, K, Step>(Back ? q + a.pad_w : q * Step - a.pad_w, Back ? -1 : 1, a.W, L);
    }
    Channel at(a, region.plane);
    for (int64_t plane = region.plane; plane < region.plane_end; plane++, at.next(a)) {
      const T* const sources = source + plane * a.H * a.W + (Back ? (a.H - 1) * a.W : 0);
      const Filter<A, K * K> w(filter, bias, at.c);
      for (int64_t k = 0; k < blocks; k++) {
        const Columns<A, K, Step> column = columns[k];
        const int64_t q = min_of(from + k * L, last);
        Vec<A> sum[live] = {};
        int64_t p = region.row - (live - 1), y = p * Step - pad + K - Step;
        const T* row = sources + y * down;
        T* to = result + plane * a.P * a.Q + (Back ? (a.P - 1) * a.Q : 0) + p * below + q;
        for (; p < region.row_end; p++, to += below) {
          each<Step>([&](auto e) __attribute__((always_inline)) {
            Vec<A> value[K] = {};
            if (std::uint64_t(y) < std::uint64_t(a.H)) column.load(row, value);
            y++;
            row += down;
            each<live>([&](auto j) __attribute__((always_inline)) {
              constexpr int r = K - Step + e - Step * j;
              if constexpr (r >= 0) {
                if constexpr (r == 0) sum[j] = Vec<A>{};
                each<K>([&](auto t) __attribute__((always_inline)) {
                  sum[j] = multiply_add(w.tap[r * K + t], value[t], sum[j]);
                });
              }
            });
          });
          if (p >= region.row) {
            Vec<A> v = bias ? sum[0] + w.bias : sum[0];
            if constexpr (!Back)
              if (finish.wanted) v = finish(v, to - result, a.Q - q);
            store_up_to(to, v, spills ? end - to : a.Q - q);
          }
          each<live - 1>([&](auto j) __attribute__((always_inline)) { sum[j] = sum[j + 1]; });
        }
      }
    }
  }
}

// That of stride 1 from padded rows.
template <class T, int K, bool Back>
__attribute__((noinline)) void correlate_padded(const Planes& planes, const T* source, const T* filter, const T* bias,
                                                const Finish<T>& finishing, T* result, const Region& region) {
  constexpr int L = kLanes<T>;
  const Planes a = planes;
  const Finish<T> finish = finishing;
  const int64_t down = Back ? -a.W : a.W, below = Back ? -a.Q : a.Q;
  const int64_t above = Back ? a.pad_h - a.H + a.P : a.pad_h, left = Back ? K - 1 - a.pad_w : a.pad_w;
  alignas(64) T scratch[kPaddedValues + L];
  for (int64_t from = 0; from < a.Q; from += kPaddedColumns) {
    const int64_t columns = min_of(kPaddedColumns, a.Q - from);
    const PaddedRow<T, K, 1> padded(from - left, a.W, columns);
    const int64_t pitch = padded.pitch(), most = padded_rows<K, 1>(pitch);
    for (int64_t top = region.row; top < region.row_end; top += most) {
      const int64_t rows = min_of(most, region.row_end - top), y = top - above, lines = rows - 1 + K;
      clear_rows(a.H, y, lines, pitch, scratch);
      Channel at(a, region.plane);
      for (int64_t plane = region.plane; plane < region.plane_end; plane++, at.next(a)) {
        copy_rows(padded, source + plane * a.H * a.W + (Back ? (a.H - 1) * a.W : 0), down, a.H, y, lines, scratch);
        T* const results = result + plane * a.P * a.Q + (Back ? (a.P - 1) * a.Q : 0) + top * below + from;
        const Filter<T, K * K> w(filter, bias, at.c);
        // The last register of a row overlaps the one before it, so that only rows of less than one are stored in parts.
        for (int64_t k = 0; k < columns; k += L) {
          const int64_t q = min_of(k, max_of(columns - L, 0));
          row_tiles(0, rows, [&](auto tile, int64_t p) __attribute__((always_inline)) {
            constexpr int B = decltype(tile)::value;
            Vec<T> sum[B];
            each<B>([&](auto b) __attribute__((always_inline)) { sum[b] = Vec<T>{}; });
            const T* row = scratch + p * pitch + q;
            each<B - 1 + K>([&](auto i) __attribute__((always_inline)) {
              Vec<T> value[K];
              each<K>([&](auto t) __attribute__((always_inline)) {
                value[t] = load(row + padded.tap(Back ? K - 1 - t : t));
              });
              row += pitch;
              each<B>([&](auto b) __attribute__((always_inline)) {
                constexpr int r = i - b;
                if constexpr (r >= 0 && r < K)
                  each<K>([&](auto t) __attribute__((always_inline)) {
                    sum[b] = multiply_add(w.tap[r * K + t], value[t], sum[b]);
                  });
              });
            });
            T* to = results + p * below + q;
            each<B>([&](auto b) __attribute__((always_inline)) {
              Vec<T> v = bias ? sum[b] + w.bias : sum[b];
              if constexpr (!Back)
                if (finish.wanted) v = finish(v, to - result, columns - q);
              store_up_to(to, v, columns);
              to += below;
            });
          });
        }
      }
    }
  }
}

// The input gradient of 3x3 and stride 2; the rows of the region are pairs. Results that see the taps 0 and 2, every
// second row and column, do so in two neighbouring sources; those between them see tap 1 in one of the two.
template <class T>
__attribute__((noinline)) void spread_region(const Planes& planes, const T* source, const T* filter, const T* bias,
                                           const Finish<T>&, T* result, const Region& region) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>;
  const Planes a = planes;
  const bool odd_h = a.pad_h & 1, odd_w = a.pad_w & 1;  // whether odd results see the taps 0 and 2
  for (int64_t from = 0; 2 * from < a.Q; from += kBlocks * L) {
    Span<A> spans[kBlocks][2];
    const int64_t blocks = min_of(kBlocks, ceil_div(a.Q - 2 * from, 2 * L));
    for (int64_t k = 0; k < blocks; k++)
      for (int j = 0; j < 2; j++) spans[k][j] = Span<A>(from + k * L + (a.pad_w + 1) / 2 - j, a.W);
    Channel at(a, region.plane);
    for (int64_t plane = region.plane; plane < region.plane_end; plane++, at.next(a)) {
      const T* const sources = source + plane * a.H * a.W;
      T* const results = result + plane * a.P * a.Q + 2 * from;
      const Filter<A, 9> w(filter, bias, at.c);
      for (int64_t k = 0; k < blocks; k++) {
        const Span<A> span[2] = {spans[k][0], spans[k][1]};
        const int64_t n = a.Q - 2 * (from + k * L);
        for (int64_t v = region.row; v < region.row_end; v++) {
          Vec<A> value[2][2] = {};  // [near, near - 1] rows x columns
          each<2>([&](auto i) __attribute__((always_inline)) {
            const int64_t y = v + (a.pad_h + 1) / 2 - i;
            if (std::uint64_t(y) < std::uint64_t(a.H))
              each<2>([&](auto j) __attribute__((always_inline)) {
                value[i][j] = load_span(sources + y * a.W, span[j]);
              });
          });
          each<2>([&](auto one) __attribute__((always_inline)) {  // rows of the taps 0 and 2, then of tap 1
            Vec<A> outer{}, inner{};
            each<3>([&](auto r) __attribute__((always_inline)) {
              if constexpr ((r == 1) == (one == 1)) {
                const int of = r == 1 ? int(odd_h) : r / 2;
                const Vec<A> first = of ? value[1][0] : value[0][0], second = of ? value[1][1] : value[0][1];
                outer = multiply_add(w.tap[3 * r], first, outer);
                outer = multiply_add(w.tap[3 * r + 2], second, outer);
                inner = multiply_add(w.tap[3 * r + 1], odd_w ? second : first, inner);
              }
            });
            if (bias) outer += w.bias, inner += w.bias;
            const Vec<A> even = odd_w ? inner : outer, odd = odd_w ? outer : inner;
            const int64_t p = 2 * v + (one == odd_h ? 0 : 1);
            T* const to = results + p * a.Q + 2 * k * L;
            if (p < a.P) {
              store_up_to(to, interleave_low<A>(even, odd), n);
              if (n > L) store_up_to(to + L, interleave_high<A>(even, odd), n - L);
            }
          });
        }
      }
    }
  }
}

// Masked loads are what makes these kernels fast; where there are none, packing rows is faster.
constexpr bool kMasked = FC_VECTOR_BYTES >= 32, kMasked16 = FC_VECTOR_BYTES >= 64;

// The kernel side of all filters: 0 where it is none of those above, of both strides alike.
int filter_side(const ConvShape& s) {
  const int64_t side = s.kernel[1];
  if (!(s.dtype == DType::f32 ? kMasked : kMasked16)) return 0;
  if (s.layout != Layout::channels_first || s.dtype == DType::f64 || s.C != s.K) return 0;
  if (s.kernel[0] != 1 || s.stride[0] != 1 || s.pad[0] || s.in[0] != s.out[0]) return 0;
  for (int d = 1; d < 3; d++)
    if (s.kernel[d] != side || s.dilation[d] != 1 || s.stride[d] != s.stride[1]) return 0;
  return s.stride[1] <= 2 && (side == 3 || (side == 5 && s.dtype == DType::f32)) ? int(side) : 0;
}

template <class F> FC_INLINE void with_type32(DType dtype, F&& f) {
  if constexpr (kMasked16) with_float_sums(dtype, f);
  else if constexpr (kMasked) f(float());
}

template <class T, int K>
void correlate_planes(const ConvShape& s, bool gradient, const T* source, const T* w, const T* b,
                      const Finish<T>& finish, T* result, int threads) {
  const Planes a(s, gradient);
  const auto run = [&](const Planes& rows, auto kernel) {
    for_regions(rows, threads, [&](const Region& region) { kernel(a, source, w, b, finish, result, region); });
  };
  if constexpr (kPadded) {
    const bool narrow = a.Q <= (K == 3 ? 1 : 2) * kLanes<T>;
    if (gradient && s.stride[1] == 1 && narrow) return run(a, correlate_strips<T, K, 1, true>);
    if (gradient && s.stride[1] == 1) return run(a, correlate_padded<T, K, true>);
    if (s.stride[1] == 1 && narrow) return run(a, correlate_strips<T, K, 1, false>);
    if (s.stride[1] == 1) return run(a, correlate_padded<T, K, false>);
    if (!gradient) return run(a, correlate_strips<T, K, 2, false>);
  } else {
    if (gradient && s.stride[1] == 1) return run(a, correlate_region<T, K, 1, true>);
    if (s.stride[1] == 1) return run(a, correlate_region<T, K, 1, false>);
    if (!gradient) return run(a, correlate_region<T, K, 2, false>);
  }
  if constexpr (K == 3) {
    Planes pairs = a;  // of rows
    pairs.P = ceil_div(a.P, 2);
    run(pairs, spread_region<T>);
  }
}

// ---- weight gradient -----------------------------------------------------------------------------------------------
// The pixels whose products a register's lanes sum up: bands of a large plane's rows, or several small planes. Runs of
// bands make a part, and the parts are added up in order: all of it follows from the shape.
struct Bands {
  int64_t images, rows, per_image, count, parts;
  explicit Bands(const ConvShape& s) {
    const int64_t P = s.out[1], Q = s.out[2];
    rows = min_of(P, round_up(max_of(1, kSumPixels / Q), 28));
    images = rows < P ? 1 : max_of(1, kSumPixels / (P * Q));
    per_image = ceil_div(P, rows);
    count = ceil_div(s.N * s.in[0], images) * per_image;
    parts = min_of(count, ceil_div(kWeightTasks, s.C));
  }
};

// sums[t] += sum of the lanes of products[t], t < 9, in the order of sum_lanes.
template <class A> FC_INLINE void add_lanes(const Vec<A>* products, double* sums) {
  constexpr int L = kLanes<A>;
  for (int first = 0; first < 9; first += L) {
    Vec<A> lane[L];
    for (int i = 0; i < L; i++) lane[i] = first + i < 9 ? products[first + i] : Vec<A>{};
    transpose<A>(lane);
    for (int half = L / 2; half; half /= 2)
      for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    for (int i = 0; i < L && first + i < 9; i++) sums[first + i] += double(lane[0][i]);
  }
}

// Sums of one channel's 3x3 taps over a part.
template <class T, int Step>
__attribute__((noinline)) void weight_part(const Planes& planes, const Bands& bands, const T* dy, const T* x, int64_t c,
                                           int64_t part, double* sums) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>;
  const Planes a = planes;
  const int64_t images = a.count / a.channels, end = bands.count * (part + 1) / bands.parts;
  for (int64_t from = 0; from < a.Q; from += kBlocks * L) {
    Span<A> some[kBlocks];
    Columns<A, 3, Step> columns[kBlocks];
    const int64_t blocks = min_of(kBlocks, ceil_div(a.Q - from, L));
    for (int64_t k = 0; k < blocks; k++) {
      // What lies behind the row of gradients takes no part, whatever x has there.
      const int64_t q = from + k * L;
      some[k] = Span<A>(q, a.Q);
      columns[k] = Columns<A, 3, Step>(q * Step - a.pad_w, 1, a.W, min_of(L, a.Q - q));
    }
    for (int64_t band = bands.count * part / bands.parts; band < end; band++) {
      const int64_t first = band % bands.per_image * bands.rows, last = min_of(a.P, first + bands.rows);
      const int64_t image = band / bands.per_image * bands.images;
      Vec<A> sum[9] = {};
      for (int64_t i = image; i < min_of(images, image + bands.images); i++) {
        const int64_t plane = (i / a.depth * a.channels + c) * a.depth + i % a.depth;
        const T *gradients = dy + plane * a.P * a.Q, *sources = x + plane * a.H * a.W;
        for (int64_t k = 0; k < blocks; k++) {
          const Columns<A, 3, Step> column = columns[k];
          const Span<A> lanes = some[k];
          row_tiles(first, last, [&](auto rows, int64_t p) __attribute__((always_inline)) {
            constexpr int B = decltype(rows)::value;
            Vec<A> gradient[B];
            const T* from_dy = gradients + p * a.Q;
            each<B>([&](auto b) __attribute__((always_inline)) {
              gradient[b] = load_span(from_dy, lanes);
              from_dy += a.Q;
            });
            int64_t y = p * Step - a.pad_h;
            const T* row = sources + y * a.W;
            each<(B - 1) * Step + 3>([&](auto i) __attribute__((always_inline)) {
              Vec<A> value[3] = {};
              if (std::uint64_t(y) < std::uint64_t(a.H)) column.load(row, value);
              y++;
              row += a.W;
              each<B>([&](auto b) __attribute__((always_inline)) {
                constexpr int r = i - b * Step;
                if constexpr (r >= 0 && r < 3)
                  each<3>([&](auto t) __attribute__((always_inline)) {
                    sum[r * 3 + t] = multiply_add(gradient[b], value[t], sum[r * 3 + t]);
                  });
              });
            });
          });
        }
      }
      add_lanes<A>(sum, sums);
    }
  }
}

// The same from padded rows of x.
template <class T, int Step>
__attribute__((noinline)) void weight_part_padded(const Planes& planes, const Bands& bands, const T* dy, const T* x,
                                                  int64_t c, int64_t part, double* sums) {
  constexpr int L = kLanes<T>;
  const Planes a = planes;
  const int64_t images = a.count / a.channels, end = bands.count * (part + 1) / bands.parts;
  alignas(64) T scratch[kPaddedValues + L];
  for (int64_t from = 0; from < a.Q; from += kPaddedColumns) {
    const int64_t columns = min_of(kPaddedColumns, a.Q - from);
    const PaddedRow<T, 3, Step> padded(from * Step - a.pad_w, a.W, columns);
    const int64_t pitch = padded.pitch(), most = padded_rows<3, Step>(pitch);
    for (int64_t band = bands.count * part / bands.parts; band < end; band++) {
      const int64_t first = band % bands.per_image * bands.rows, last = min_of(a.P, first + bands.rows);
      const int64_t image = band / bands.per_image * bands.images;
      Vec<T> sum[9] = {};
      for (int64_t i = image; i < min_of(images, image + bands.images); i++) {
        const int64_t plane = (i / a.depth * a.channels + c) * a.depth + i % a.depth;
        for (int64_t top = first; top < last; top += most) {
          const int64_t rows = min_of(most, last - top), y = top * Step - a.pad_h, lines = (rows - 1) * Step + 3;
          clear_rows(a.H, y, lines, pitch, scratch);
          copy_rows(padded, x + plane * a.H * a.W, a.W, a.H, y, lines, scratch);
          const T* const gradients = dy + (plane * a.P + top) * a.Q + from;
          // What lies behind the row of gradients takes no part, whatever x has there.
          const auto add = [&](int64_t q, auto whole) __attribute__((always_inline)) {
            const Span<T> some(q, columns);
            row_tiles(0, rows, [&](auto tile, int64_t p) __attribute__((always_inline)) {
              constexpr int B = decltype(tile)::value;
              Vec<T> gradient[B];
              const T* from_dy = gradients + p * a.Q;
              each<B>([&](auto b) __attribute__((always_inline)) {
                gradient[b] = whole ? load(from_dy + q) : load_span(from_dy, some);
                from_dy += a.Q;
              });
              const T* row = scratch + p * Step * pitch + q;
              each<(B - 1) * Step + 3>([&](auto i) __attribute__((always_inline)) {
                Vec<T> value[3];
                each<3>([&](auto t) __attribute__((always_inline)) {
                  value[t] = load(row + padded.tap(t));
                  if (!whole) value[t] = keep<T>(value[t], Part{columns - q});
                });
                row += pitch;
                each<B>([&](auto b) __attribute__((always_inline)) {
                  constexpr int r = i - b * Step;
                  if constexpr (r >= 0 && r < 3)
                    each<3>([&](auto t) __attribute__((always_inline)) {
                      sum[r * 3 + t] = multiply_add(gradient[b], value[t], sum[r * 3 + t]);
                    });
                });
              });
            });
          };
          int64_t q = 0;
          for (; q + L <= columns; q += L) add(q, std::true_type());
          if (q < columns) add(q, std::false_type());
        }
      }
      add_lanes<T>(sum, sums);
    }
  }
}

template <class T>
void weight_planes(const ConvShape& s, const Bands& bands, const T* dy, const T* x, T* dw, double* sums, int threads) {
  const Planes a(s, false);
  const int64_t units = bands.parts * s.C;
  const int64_t units_task = max_of(1, kTaskValues / max_of(1, s.N * s.out_space() / bands.parts));
  for (int64_t i = 0; i < units * 9; i++) sums[i] = 0;
  parallel_for(threads, ceil_div(units, units_task), [&](int64_t task, int) {
    for (int64_t u = task * units_task; u < min_of(units, (task + 1) * units_task); u++) {
      if constexpr (kPadded) {
        if (s.stride[1] == 1) weight_part_padded<T, 1>(a, bands, dy, x, u % s.C, u / s.C, sums + u * 9);
        else weight_part_padded<T, 2>(a, bands, dy, x, u % s.C, u / s.C, sums + u * 9);
      } else {
        if (s.stride[1] == 1) weight_part<T, 1>(a, bands, dy, x, u % s.C, u / s.C, sums + u * 9);
        else weight_part<T, 2>(a, bands, dy, x, u % s.C, u / s.C, sums + u * 9);
      }
    }
  });
  for (int64_t i = 0; i < s.C * 9; i++) {
    double sum = 0;
    for (int64_t part = 0; part < bands.parts; part++) sum += sums[part * s.C * 9 + i];
    dw[i] = from_accumulator<T>(Accumulator<T>(sum));
  }
}

}  // namespace

bool depthwise_planes_fit(const ConvShape& s, ConvOp op) {
  const int side = filter_side(s);
  if (op == ConvOp::forward) return side != 0;
  return side == 3 || (side == 5 && op == ConvOp::backward_input && s.stride[1] == 1);
}

void depthwise_planes(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
                      const Epilogue& epilogue, void* result, int threads) {
  with_type32(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    const auto run = [&](auto side) {
      correlate_planes<T, decltype(side)::value>(s, gradient, static_cast<const T*>(source), static_cast<const T*>(w),
                                                 static_cast<const T*>(b), Finish<T>(epilogue),
                                                 static_cast<T*>(result), threads);
    };
    if constexpr (sizeof(T) == 4) {
      if (s.kernel[1] == 5) return run(std::integral_constant<int, 5>());
    }
    run(std::integral_constant<int, 3>());
  });
}

std::size_t depthwise_planes_weight_workspace(const ConvShape& s) {
  return std::size_t(Bands(s).parts * s.C) * 9 * sizeof(double);
}

void depthwise_planes_weight(const ConvShape& s, const void* dy, const void* x, void* dw, int threads, Context& ctx) {
  double* sums = static_cast<double*>(ctx.workspace(depthwise_planes_weight_workspace(s)));
  if (!sums) return;
  with_type32(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    weight_planes<T>(s, Bands(s), static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw), sums,
                     threads);
  });
}

}  // namespace fastconv::cpu::FC_ISA
