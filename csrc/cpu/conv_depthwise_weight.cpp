// Depthwise weight gradient: dw[k][tap] = sum over output pixels of dy[k][pixel] * x[channel of k][pixel moved by tap].
//
// The output rows of the batch are cut into bands of about kBandPixels; a band's sums start from zero. A partition is a
// run of bands with accumulators of its own, and the partitions are added up in order: bands and partitions follow from
// the shape, so the bits do not depend on the number of threads.
#include "conv_depthwise.h"
#include "depthwise_geometry.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int64_t kBandPixels = 1024;
constexpr int64_t kBandColumns = 1024;
constexpr int64_t kMostTaps = 1 << 12;            // filters of more taps are summed one value at a time
constexpr int64_t kSumBytes = 8 << 20;            // accumulators of all partitions
constexpr int64_t kMostRowValues = 64 << 10, kMostPackedValues = 256 << 10;
constexpr int64_t kPartitions = 16;

// Filter columns whose sums are kept in registers together.
template <int N> struct Columns {
  static constexpr int n = N;
};

struct Plan {
  int64_t rows, band_rows, band_cols, col_bands, bands;  // rows and columns of the output
  int64_t partitions;
  int64_t channels, channel_blocks;                      // of the output: padded, and tasks they are split over
  int64_t width, pitch, row_values, packed_rows;         // packed input rows (channels-first)
  bool joint_rows;                                       // whether they serve all filter rows
  std::size_t sum_bytes, thread_bytes;
  int team;
  bool fits;

  std::size_t bytes() const { return sum_bytes + std::size_t(team) * thread_bytes; }
};

Plan make_plan(const ConvShape& s, int threads) {
  Plan p{};
  const int64_t item = s.dtype == DType::f64 ? 8 : 4, lanes = FC_VECTOR_BYTES / item;
  const int64_t Q = s.out[2], window = (s.kernel[2] - 1) * s.dilation[2] + 1;
  p.rows = s.N * s.out[0] * s.out[1];
  p.band_cols = min_of(Q, kBandColumns);
  p.col_bands = ceil_div(Q, p.band_cols);
  p.band_rows = max_of(1, min_of(p.rows, kBandPixels / p.band_cols));
  p.channels = round_up(s.K, lanes);
  if (s.taps() > kMostTaps || s.stride[2] > kMostRowValues || window > kMostRowValues) return p;
  p.width = (p.band_cols - 1) * s.stride[2] + window;
  p.pitch = round_up(ceil_div(p.width, s.stride[2]) + lanes, lanes);
  p.row_values = p.pitch * s.stride[2];
  if (p.row_values > kMostPackedValues) return p;
  p.band_rows = min_of(p.band_rows, kMostPackedValues / p.row_values);
  p.bands = ceil_div(p.rows, p.band_rows) * p.col_bands;
  const int64_t sums = p.channels * s.taps() * item;
  p.fits = sums <= 2 * kSumBytes;
  if (!p.fits) return p;
  p.partitions = max_of(1, min_of(min_of(p.bands, kPartitions), kSumBytes / sums));
  p.channel_blocks = min_of(p.channels / lanes, ceil_div(kPartitions, p.partitions));
  p.sum_bytes = std::size_t(round_up(p.partitions * sums, 64));
  // One packed row serves all filter rows that read it, unless dilation spreads them too far.
  const int64_t window_rows = (s.kernel[1] - 1) * s.dilation[1] + 1;
  p.packed_rows = p.band_rows;
  if (s.kernel[1] > 1 && window_rows < kMostRowValues && s.stride[1] < kMostRowValues) {
    const int64_t images = min_of(p.band_rows, ceil_div(p.band_rows, s.out[1]) + 1);
    const int64_t rows = p.band_rows * s.stride[1] + images * window_rows;
    p.joint_rows = rows <= 2 * s.kernel[1] * p.band_rows && rows <= kMostPackedValues / p.row_values;
    if (p.joint_rows) p.packed_rows = rows;
  }
  const bool packs = s.layout == Layout::channels_first;
  const int64_t packed = packs ? round_up(p.packed_rows * p.row_values + lanes, 16) * item : 0;
  const int64_t tables = packs ? (2 * p.band_rows + p.packed_rows) * int64_t(sizeof(int64_t)) : 0;
  p.thread_bytes = std::size_t(round_up(packed + tables, 64));
  const int64_t left = (int64_t(30) << 20) - int64_t(p.sum_bytes);
  p.team = int(packed ? max_of(1, min_of(threads, left / int64_t(p.thread_bytes))) : threads);
  p.fits = p.bytes() <= std::size_t(32) << 20;
  return p;
}

template <class T> class WeightGradient {
  typedef Accumulator<T> A;
  static constexpr int L = kLanes<A>;

 public:
  WeightGradient(const ConvShape& shape, const Plan& plan, const T* dy, const T* x, T* dw)
      : s(shape), p(plan), dy_(dy), x_(x), dw_(dw), multiplier_(s.K / s.G), taps_(s.taps()) {
    dy_end_ = dy + s.N * s.K * s.out_space();
    x_end_ = x + s.N * s.C * s.in_space();
  }

  void run(char* workspace, int threads) {
    const bool last = s.layout == Layout::channels_last;
    sums_ = reinterpret_cast<A*>(workspace);
    const int64_t registers = p.channels / L;
    parallel_for(min_of(threads, p.team), p.partitions * p.channel_blocks, [&](int64_t task, int thread) {
      const int64_t part = task / p.channel_blocks, block = task % p.channel_blocks;
      const int64_t from = registers * block / p.channel_blocks * L;
      const int64_t to = registers * (block + 1) / p.channel_blocks * L;
      char* memory = workspace + p.sum_bytes + std::size_t(thread) * p.thread_bytes;
      if (last) partition_channels_last(part, from, min_of(s.K, to));
      else partition_channels_first(part, from, min_of(s.K, to), memory);
    });
    for (int64_t k = 0; k < s.K; k++)
      for (int64_t tap = 0; tap < taps_; tap++) {
        A sum = 0;
        for (int64_t part = 0; part < p.partitions; part++) sum += *sum_of(part, tap, k);
        dw_[k * taps_ + tap] = from_accumulator<T>(sum);
      }
  }

  // Any filter, one value at a time: for filters so large that their sums do not fit the workspace.
  void run_plain(int threads) {
    const bool last = s.layout == Layout::channels_last;
    parallel_for(threads, s.K * taps_, [&](int64_t value, int) {
      const int64_t k = value / taps_, tap = value % taps_, c = k / multiplier_;
      const int64_t t = tap / s.kernel[2] / s.kernel[1], r = tap / s.kernel[2] % s.kernel[1], q = tap % s.kernel[2];
      A total = 0;
      for (int64_t row = 0; row < p.rows; row++) {
        const int64_t n = row / (s.out[0] * s.out[1]);
        const int64_t z = row / s.out[1] % s.out[0] * s.stride[0] - s.pad[0] + t * s.dilation[0];
        const int64_t y = row % s.out[1] * s.stride[1] - s.pad[1] + r * s.dilation[1];
        A sum = 0;
        for (int64_t j = 0; j < s.out[2]; j++) {
          const int64_t x = j * s.stride[2] - s.pad[2] + q * s.dilation[2];
          const int64_t o = row % (s.out[0] * s.out[1]) * s.out[2] + j, i = (z * s.in[1] + y) * s.in[2] + x;
          const bool inside = within(z, s.in[0]) && within(y, s.in[1]) && within(x, s.in[2]);
          const A v = inside ? to_accumulator(x_[last ? (n * s.in_space() + i) * s.C + c
                                                      : (n * s.C + c) * s.in_space() + i]) : A(0);
          sum = multiply_add(to_accumulator(dy_[last ? (n * s.out_space() + o) * s.K + k
                                                     : (n * s.K + k) * s.out_space() + o]), v, sum);
        }
        total += sum;
      }
      dw_[value] = from_accumulator<T>(total);
    });
  }

 private:
  // Output rows [row, + rows) x columns [col, + cols).
  struct Band {
    int64_t row, rows, col, cols;
  };
  // Row of the output, and where tap (t, r) finds its first column; inside: whether the input has that row.
  struct Line {
    int64_t n, o, p, z, y;
    bool inside;
  };

  A* sum_of(int64_t part, int64_t tap, int64_t k) const { return sums_ + (part * taps_ + tap) * p.channels + k; }

  Band band_of(int64_t b) const {
    Band band;
    band.row = b / p.col_bands * p.band_rows;
    band.rows = min_of(p.band_rows, p.rows - band.row);
    band.col = b % p.col_bands * p.band_cols;
    band.cols = min_of(p.band_cols, s.out[2] - band.col);
    return band;
  }
  Line line_of(int64_t row, int64_t t, int64_t r) const {
    Line l;
    l.p = row % s.out[1];
    l.o = row / s.out[1] % s.out[0];
    l.n = row / s.out[1] / s.out[0];
    l.z = l.o * s.stride[0] - s.pad[0] + t * s.dilation[0];
    l.y = l.p * s.stride[1] - s.pad[1] + r * s.dilation[1];
    l.inside = within(l.z, s.in[0]) && within(l.y, s.in[1]);
    return l;
  }
  template <class F> void bands_of(int64_t part, F&& f) const {
    const int64_t first = part * p.bands / p.partitions, last = (part + 1) * p.bands / p.partitions;
    for (int64_t b = first; b < last; b++) f(band_of(b), b == first);
  }
  // f(columns as a compile-time number, first column) over groups of filter columns.
  template <class F> void column_groups(F&& f) const {
    for (int64_t u = 0; u < s.kernel[2];) {
      const int64_t left = s.kernel[2] - u;
      if (left >= 5) f(Columns<5>(), u), u += 5;
      else if (left == 4) f(Columns<4>(), u), u += 4;
      else if (left == 3) f(Columns<3>(), u), u += 3;
      else if (left == 2) f(Columns<2>(), u), u += 2;
      else f(Columns<1>(), u), u += 1;
    }
  }

  // ---- channels-last: vectors over channels -------------------------------------------------------------------------
  __attribute__((noinline)) void partition_channels_last(int64_t part, int64_t from, int64_t to) const {
    bands_of(part, [&](const Band& band, bool first) {
      for (int64_t t = 0; t < s.kernel[0]; t++)
        for (int64_t r = 0; r < s.kernel[1]; r++)
          column_groups([&](auto columns, int64_t u) {
            constexpr int S = decltype(columns)::n;
            int64_t k = from;
            if (multiplier_ == 1) {
              for (; k + 2 * L <= to; k += 2 * L) band_channels_last<S, 2, true>(band, t, r, u, k, L, part, first);
              for (; k + L <= to; k += L) band_channels_last<S, 1, true>(band, t, r, u, k, L, part, first);
            }
            for (; k < to; k += L)
              for (int64_t i = u; i < u + S; i++)
                band_channels_last<1, 1, false>(band, t, r, i, k, min_of(L, to - k), part, first);
          });
    });
  }

  // Taps (t, r, u .. u + S - 1) of B registers of channels. Whole: all lanes exist and neighbours have neighbouring x.
  template <int S, int B, bool Whole>
  __attribute__((noinline)) void band_channels_last(const Band& band, int64_t t, int64_t r, int64_t u, int64_t k,
                                                    int64_t n, int64_t part, bool first) const {
    Vec<A> sum[S][B];
#pragma GCC unroll 5
    for (int i = 0; i < S; i++)
#pragma GCC unroll 2
      for (int j = 0; j < B; j++) sum[i][j] = Vec<A>{};
    const int64_t step = s.stride[2], dilation = s.dilation[2];
    // Columns [inner, outer) read no padding with any of the taps.
    const int64_t lowest = u * dilation - s.pad[2], highest = lowest + (S - 1) * dilation, room = s.in[2] - 1 - highest;
    const int64_t end = band.col + band.cols;
    const int64_t inner = min_of(end, max_of(band.col, lowest < 0 ? ceil_div(-lowest, step) : 0));
    const int64_t outer = room < 0 ? inner : max_of(inner, min_of(end, room / step + 1));
    for (int64_t row = band.row; row < band.row + band.rows; row++) {
      const Line line = line_of(row, t, r);
      const T* dy = dy_ + row * s.out[2] * s.K + k;
      const T* x = x_ + (((line.n * s.in[0] + line.z) * s.in[1] + line.y) * s.in[2] + lowest) * s.C + k / multiplier_;
      const auto edge = [&](int64_t q) {
        for (int j = 0; j < B; j++) {
          const Vec<A> g = Whole ? load(dy + q * s.K + j * L) : load_before(dy + q * s.K, n, dy_end_);
          for (int i = 0; i < S; i++) {
            const bool inside = line.inside && within(q * step + lowest + i * dilation, s.in[2]);
            const Vec<A> value = inside ? input<Whole>(x, q * step + i * dilation, j, k, n) : Vec<A>{};
            sum[i][j] = multiply_add(g, value, sum[i][j]);
          }
        }
      };
      if (!line.inside) {
        for (int64_t q = band.col; q < end; q++) edge(q);
        continue;
      }
      for (int64_t q = band.col; q < inner; q++) edge(q);
      for (int64_t q = inner; q < outer; q++) {
#pragma GCC unroll 2
        for (int j = 0; j < B; j++) {
          const Vec<A> g = Whole ? load(dy + q * s.K + j * L) : load_before(dy + q * s.K, n, dy_end_);
#pragma GCC unroll 5
          for (int i = 0; i < S; i++)
            sum[i][j] = multiply_add(g, input<Whole>(x, q * step + i * dilation, j, k, n), sum[i][j]);
        }
      }
      for (int64_t q = outer; q < end; q++) edge(q);
    }
    for (int i = 0; i < S; i++)
      for (int j = 0; j < B; j++) {
        A* to = sum_of(part, (t * s.kernel[1] + r) * s.kernel[2] + u + i, k) + j * L;
        store(to, first ? sum[i][j] : load(to) + sum[i][j]);
      }
  }

  template <bool Whole> FC_INLINE Vec<A> input(const T* x, int64_t pixel, int j, int64_t k, int64_t n) const {
    const T* from = x + pixel * s.C;
    if (Whole) return load(from + j * L);
    if (multiplier_ == 1) return load_before(from, n, x_end_);
    A lane[L] = {};
    for (int64_t l = 0; l < n; l++) lane[l] = to_accumulator(from[(k + l) / multiplier_ - k / multiplier_]);
    return load(lane);
  }

  // ---- channels-first: vectors over columns -------------------------------------------------------------------------
  // The rows of a band: the same for all channels but for the offset of the plane.
  struct Rows {
    A* packed;        // input rows of one channel
    int64_t* dy;      // where each output row lies in its plane of dy, image included
    int64_t* start;   // where its input rows start in `packed`
    int64_t* source;  // where each packed row lies in its plane of x, image included; -1: outside, zeros
    int64_t count;    // of packed rows
  };

  Rows rows_at(char* memory) const {
    Rows rows{};
    rows.packed = reinterpret_cast<A*>(memory);
    rows.dy = reinterpret_cast<int64_t*>(rows.packed + round_up(p.packed_rows * p.row_values + L, 16));
    rows.start = rows.dy + p.band_rows;
    rows.source = rows.start + p.band_rows;
    return rows;
  }

  // For filter rows from (t, r) on.
  void find_rows(const Band& band, int64_t t, int64_t r, Rows& rows) const {
    rows.count = 0;
    for (int64_t i = 0; i < band.rows;) {
      const Line line = line_of(band.row + i, t, r);
      const int64_t lines = p.joint_rows ? min_of(band.rows - i, s.out[1] - line.p) : 1;
      const int64_t span = p.joint_rows ? (lines - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1 : 1;
      for (int64_t j = 0; j < lines; j++) {
        rows.dy[i + j] = line.n * s.K * s.out_space() + (line.o * s.out[1] + line.p + j) * s.out[2] + band.col;
        rows.start[i + j] = (rows.count + j * s.stride[1]) * p.row_values;
      }
      for (int64_t j = 0; j < span; j++) {
        const bool inside = within(line.z, s.in[0]) && within(line.y + j, s.in[1]);
        const int64_t row = line.n * s.C * s.in_space() + (line.z * s.in[1] + line.y + j) * s.in[2];
        rows.source[rows.count++] = inside ? row : -1;
      }
      i += lines;
    }
  }

  __attribute__((noinline)) void partition_channels_first(int64_t part, int64_t from, int64_t to, char* memory) const {
    Rows rows = rows_at(memory);
    bands_of(part, [&](const Band& band, bool first) {
      for (int64_t t = 0; t < s.kernel[0]; t++)
        for (int64_t r = 0; r < s.kernel[1]; r += p.joint_rows ? s.kernel[1] : 1) {
          find_rows(band, t, r, rows);
          for (int64_t k = from; k < to; k++) channel_channels_first(band, t, r, k, rows, part, first);
        }
    });
  }

  void channel_channels_first(const Band& band, int64_t t, int64_t r, int64_t k, const Rows& rows, int64_t part,
                              bool first) const {
    for (int64_t i = 0; i < rows.count; i++) {
      const int64_t row = rows.source[i];
      pack_row(row < 0 ? nullptr : x_ + row + k / multiplier_ * s.in_space(), s.in[2], x_end_,
               band.col * s.stride[2] - s.pad[2], p.width, s.stride[2], p.pitch, rows.packed + i * p.row_values);
    }
    const T* dy = dy_ + k * s.out_space();
    if (p.joint_rows && s.kernel[1] == 3 && s.kernel[2] == 3)
      return band_channels_first<3, 3>(band, t, 0, 0, 0, k, dy, rows, part, first);
    for (int64_t i = 0; i < (p.joint_rows ? s.kernel[1] : 1); i++)
      column_groups([&](auto columns, int64_t u) {
        const int64_t below = i * s.dilation[1] * p.row_values;
        band_channels_first<1, decltype(columns)::n>(band, t, r + i, u, below, k, dy, rows, part, first);
      });
  }

  // Taps (t, r .. r + R - 1, u .. u + S - 1); `below`: packed values between a row's start and that of tap row r.
  template <int R, int S>
  __attribute__((noinline)) void band_channels_first(const Band& band, int64_t t, int64_t r, int64_t u, int64_t below,
                                                     int64_t k, const T* dy, const Rows& rows, int64_t part,
                                                     bool first) const {
    Vec<A> sum[R][S];
    const A* x[S];
#pragma GCC unroll 3
    for (int i = 0; i < R; i++)
#pragma GCC unroll 5
      for (int j = 0; j < S; j++) sum[i][j] = Vec<A>{};
#pragma GCC unroll 5
    for (int j = 0; j < S; j++) {
      const int64_t column = (u + j) * s.dilation[2];
      x[j] = rows.packed + below + column % s.stride[2] * p.pitch + column / s.stride[2];
    }
    Mask<A> keep;  // lanes of the last register of a row: what x and dy hold behind them must not take part
    const int64_t whole = band.cols / L * L, next = s.dilation[1] * p.row_values;
    for (int l = 0; l < L; l++) keep[l] = l < band.cols - whole ? -1 : 0;
    for (int64_t row = 0; row < band.rows; row++) {
      const T* g_row = dy + rows.dy[row];
      const int64_t at = rows.start[row];
      for (int64_t q = 0; q < whole; q += L) {
        const Vec<A> g = load(g_row + q);
#pragma GCC unroll 3
        for (int i = 0; i < R; i++)
#pragma GCC unroll 5
          for (int j = 0; j < S; j++) sum[i][j] = multiply_add(g, load(x[j] + at + i * next + q), sum[i][j]);
      }
      if (whole == band.cols) continue;
      const Vec<A> g = select<A>(keep, load_before(g_row + whole, band.cols - whole, dy_end_), Vec<A>{});
#pragma GCC unroll 3
      for (int i = 0; i < R; i++)
#pragma GCC unroll 5
        for (int j = 0; j < S; j++)
          sum[i][j] = multiply_add(g, select<A>(keep, load(x[j] + at + i * next + whole), Vec<A>{}), sum[i][j]);
    }
#pragma GCC unroll 3
    for (int i = 0; i < R; i++)
#pragma GCC unroll 5
      for (int j = 0; j < S; j++) {
        A* to = sum_of(part, (t * s.kernel[1] + r + i) * s.kernel[2] + u + j, k);
        const A v = sum_lanes<A>(sum[i][j]);
        *to = first ? v : *to + v;
      }
  }

  const ConvShape& s;
  const Plan& p;
  const T *dy_, *x_, *dy_end_, *x_end_;
  T* dw_;
  A* sums_ = nullptr;
  int64_t multiplier_, taps_;
};

}  // namespace

std::size_t depthwise_weight_workspace(const ConvShape& s, int threads) {
  if (depthwise_planes_fit(s, ConvOp::backward_weight)) return depthwise_planes_weight_workspace(s);
  const Plan plan = make_plan(s, threads);
  return plan.fits ? plan.bytes() : 0;
}

void depthwise_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  if (s.N == 0) {
    std::memset(dw, 0, std::size_t(s.K * s.taps()) * item_size(s.dtype));
    return;
  }
  const double bytes = double(item_size(s.dtype)) * double(s.N) * double(s.K) * double(s.out_space());
  const int threads = ctx.threads_for(s.flops(), bytes);
  if (depthwise_planes_fit(s, ConvOp::backward_weight)) return depthwise_planes_weight(s, dy, x, dw, threads, ctx);
  const Plan plan = make_plan(s, threads);
  char* workspace = nullptr;
  if (plan.fits && !(workspace = static_cast<char*>(ctx.workspace(plan.bytes())))) return;
  with_type(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    WeightGradient<T> gradient(s, plan, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw));
    if (plan.fits) gradient.run(workspace, threads);
    else gradient.run_plain(threads);
  });
}

}  // namespace fastconv::cpu::FC_ISA
