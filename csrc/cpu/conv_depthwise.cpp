// Depthwise forward and input gradient: both are correlations of each source channel with its own small filter.
//
// Channels-last: vectors over channels, read where they lie. Channels-first: vectors over columns; a band of rows is
// packed into scratch with its zero margins, columns sorted by their remainder modulo the stride, so that every tap is
// a plain shifted load. Padding takes part as zeros in both, so that both give the same bits.
#include "conv_depthwise.h"

#include "depthwise_geometry.h"
#include "finish_array.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int64_t kWeightBytes = 16 << 20;   // reordered weights; larger ones are read where they lie
constexpr int64_t kBandValues = 6 << 10;     // of packed rows: half of a 48 KB L1
constexpr int64_t kMostBandValues = 512 << 10;
constexpr int64_t kBandColumns = 512;
constexpr int64_t kTaskValues = 64 << 10;    // results a task

// Result channels a source channel (forward) or source channels a result channel (input gradient).
int64_t multiplier(const ConvShape& s) { return s.K / s.G; }

struct Band {
  int64_t rows, cols;            // results (of each column phase)
  int64_t source_rows, width;    // packed rows a depth tap, columns a row
  int64_t lowest_col;            // source column of result column 0 that the first packed column holds
  int64_t pitch;                 // of one remainder's columns
  int64_t results_pitch, values; // of a row of results of one phase; scratch of a thread in all
  bool fits;
  // Tables, filled by tabulate(): the taps of each column phase, and where a row holds the column that a tap adds.
  Taps* widths;
  int64_t* columns;
  std::size_t table_bytes;

  int64_t row_values(int64_t step) const { return pitch * step; }
  std::size_t bytes(int team, std::size_t item) const { return table_bytes + std::size_t(values * team) * item; }
  void tabulate(const Axis& w, char* memory) {
    widths = reinterpret_cast<Taps*>(memory);
    const int64_t phases = min_of(w.phases(), w.results);
    columns = reinterpret_cast<int64_t*>(widths + phases);
    for (int64_t a = 0; a < phases; a++) {
      const Taps& t = widths[a] = w.taps(a);
      for (int64_t u = 0; u < t.count; u++) {
        const int64_t column = t.offset + u * t.offset_step - lowest_col;
        columns[t.first + u * t.step] = column % w.step() * pitch + column / w.step();
      }
    }
  }
};

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

Band make_band(const ConvShape& s, bool gradient) {
  const Axes axes(s, gradient);
  const int64_t lanes = s.dtype == DType::f64 ? kLanes<double> : kLanes<float>;
  const Axis &h = axes.dim[1], &w = axes.dim[2];
  const int64_t phases = min_of(w.phases(), w.results), limit = kMostBandValues, terms = gradient ? multiplier(s) : 1;
  const int64_t row_window = (s.kernel[1] - 1) * s.dilation[1] + 1, col_window = (s.kernel[2] - 1) * s.dilation[2] + 1;
  Band b{};
  if (phases > kBandColumns || w.step() > limit || row_window > limit || col_window > limit || h.step() > limit ||
      s.kernel[0] > limit || terms > limit || s.kernel[0] * terms > limit)
    return b;
  int64_t highest = 0;
  bool any = false;
  for (int64_t a = 0; a < phases; a++) {
    const Taps t = w.taps(a);
    if (!t.count) continue;
    b.lowest_col = any ? min_of(b.lowest_col, t.lowest()) : t.lowest();
    highest = any ? max_of(highest, t.highest()) : t.highest();
    any = true;
  }
  b.cols = min_of(w.results_of(0), kBandColumns);
  b.width = (b.cols - 1) * w.step() + highest - b.lowest_col + 1;
  b.pitch = round_up(ceil_div(b.width, w.step()) + lanes, lanes);
  b.results_pitch = round_up(b.cols, lanes);
  // As many rows of results as leave the packed source rows in L1; four of them share each load of a weight.
  const int64_t depth = terms * s.kernel[0], row_values = b.row_values(w.step());
  const int64_t margin = gradient ? ceil_div(row_window - 1, h.stride) + 1 : row_window - h.stride;
  const int64_t row_step = gradient ? 1 : h.stride;
  b.rows = min_of(gradient ? ceil_div(h.results, h.stride) : h.results,
                  max_of(4, (kBandValues / depth / row_values - margin) / row_step));
  b.source_rows = b.rows * row_step + max_of(0, margin);
  if (gradient) b.rows *= h.stride;
  b.fits = row_values <= limit && b.source_rows * row_values <= limit && depth * b.source_rows * row_values <= limit;
  b.table_bytes = std::size_t(round_up(phases * int64_t(sizeof(Taps)) + s.kernel[2] * int64_t(sizeof(int64_t)), 64));
  b.values = round_up(depth * b.source_rows * row_values + (gradient ? 4 * phases * b.results_pitch : 0) + lanes, 16);
  return b;
}

int band_team(const Band& b, int threads, std::size_t item) {
  return int(max_of(1, min_of(threads, (int64_t(24) << 20) / (b.values * int64_t(item)))));
}

template <class T> class Correlation {
  typedef Accumulator<T> A;
  static constexpr int L = kLanes<A>;

 public:
  Correlation(const ConvShape& shape, bool gradient, const T* source, const T* weight, const T* bias, T* result)
      : s(shape), axes_(shape, gradient), gradient_(gradient), source_(source), weight_(weight), bias_(bias),
        result_(result) {
    multiplier_ = multiplier(s);
    taps_ = s.taps();
    source_channels_ = gradient ? s.K : s.C;
    channels_ = gradient ? s.C : s.K;
    const int64_t space = axes_.dim[0].source * axes_.dim[1].source * axes_.dim[2].source;
    source_end_ = source + s.N * source_channels_ * space;
    source_space_ = space;
    space_ = axes_.dim[0].results * axes_.dim[1].results * axes_.dim[2].results;
    terms_ = gradient ? multiplier_ : 1;
  }

  // packed: [term][tap][channels padded to whole registers], or null.
  void run_channels_last(A* packed, int threads) {
    packed_ = packed;
    packed_pitch_ = round_up(channels_, L);
    if (packed)
      for (int64_t j = 0; j < terms_; j++)
        for (int64_t c = 0; c < packed_pitch_; c++)
          for (int64_t tap = 0; tap < taps_; tap++)
            packed[(j * taps_ + tap) * packed_pitch_ + c] = c < channels_ ? weight_of(c, j, tap) : A(0);
    const int64_t rows = s.N * axes_.dim[0].results * axes_.dim[1].results;
    const int64_t rows_task = max_of(1, kTaskValues / (axes_.dim[2].results * channels_));
    parallel_for(threads, ceil_div(rows, rows_task), [&](int64_t task, int) {
      for (int64_t row = task * rows_task; row < min_of(rows, (task + 1) * rows_task); row++) row_channels_last(row);
    });
  }

  void run_channels_first(const Band& band, A* scratch, int threads) {
    const int64_t planes = s.N * channels_, O = axes_.dim[0].results, P = axes_.dim[1].results;
    const int64_t row_bands = ceil_div(P, band.rows), col_bands = ceil_div(axes_.dim[2].results_of(0), band.cols);
    const int64_t bands = O * row_bands * col_bands, units = planes * bands;
    const int64_t units_task = max_of(1, kTaskValues / (band.rows * band.cols));
    parallel_for(threads, ceil_div(units, units_task), [&](int64_t task, int thread) {
      for (int64_t u = task * units_task; u < min_of(units, (task + 1) * units_task); u++) {
        const int64_t b = u % bands;
        band_channels_first(band, u / bands, b / (row_bands * col_bands), b / col_bands % row_bands * band.rows,
                            b % col_bands * band.cols, scratch + thread * band.values);
      }
    });
  }

  // Any filter, any layout, one value at a time: for windows that no scratch could hold.
  void run_plain(int threads) {
    const bool last = s.layout == Layout::channels_last;
    parallel_for(threads, s.N * channels_, [&](int64_t plane, int) {
      const int64_t n = plane / channels_, c = plane % channels_;
      int64_t at[3], i = 0;
      for (at[0] = 0; at[0] < axes_.dim[0].results; at[0]++)
        for (at[1] = 0; at[1] < axes_.dim[1].results; at[1]++)
          for (at[2] = 0; at[2] < axes_.dim[2].results; at[2]++, i++)
            result_[last ? (n * space_ + i) * channels_ + c : plane * space_ + i] =
                from_accumulator<T>(plain_value(n, c, at, last));
    });
  }

 private:
  A weight_of(int64_t channel, int64_t term, int64_t tap) const {
    return to_accumulator(weight_[(channel * terms_ + term) * taps_ + tap]);
  }
  int64_t source_channel(int64_t channel, int64_t term) const {
    return gradient_ ? channel * multiplier_ + term : channel / multiplier_;
  }

  __attribute__((noinline)) A plain_value(int64_t n, int64_t channel, const int64_t* at, bool last) const {
    Taps taps[3];
    int64_t base[3];
    for (int d = 0; d < 3; d++) {
      const Axis& axis = axes_.dim[d];
      taps[d] = axis.taps(at[d] % axis.phases());
      base[d] = at[d] / axis.phases() * axis.step() + taps[d].offset;
    }
    A sum = 0;
    for (int64_t j = 0; j < terms_; j++) {
      const int64_t from = source_channel(channel, j);
      for (int64_t t = 0; t < taps[0].count; t++)
        for (int64_t r = 0; r < taps[1].count; r++)
          for (int64_t c = 0; c < taps[2].count; c++) {
            const int64_t z = base[0] + t * taps[0].offset_step, y = base[1] + r * taps[1].offset_step,
                          x = base[2] + c * taps[2].offset_step;
            A v = 0;
            if (within(z, axes_.dim[0].source) && within(y, axes_.dim[1].source) && within(x, axes_.dim[2].source)) {
              const int64_t i = (z * axes_.dim[1].source + y) * axes_.dim[2].source + x;
              v = to_accumulator(source_[last ? (n * source_space_ + i) * source_channels_ + from
                                              : (n * source_channels_ + from) * source_space_ + i]);
            }
            const int64_t tap = ((taps[0].first + t * taps[0].step) * s.kernel[1] + taps[1].first + r * taps[1].step) *
                                    s.kernel[2] + taps[2].first + c * taps[2].step;
            sum = multiply_add(weight_of(channel, j, tap), v, sum);
          }
    }
    return bias_ ? sum + to_accumulator(bias_[channel]) : sum;
  }

  // ---- channels-last ------------------------------------------------------------------------------------------------
  // Where the taps of one row of results read.
  struct Row {
    Taps depth, height, width;
    int64_t z, y;    // source position of the first depth and row tap
    const T* image;
    int64_t columns; // results
    T* out;          // the first of them
    int64_t out_pitch;
  };
  // The taps along a row as compile-time numbers (0 taps: read them from Row): Count taps, `step` between results.
  template <int Count, int Step, int Move> struct Along {
    static constexpr int count = Count, step = Step, move = Move;
  };

  __attribute__((noinline)) void row_channels_last(int64_t row) const {
    const Axis &d = axes_.dim[0], &h = axes_.dim[1], &w = axes_.dim[2];
    const int64_t p = row % h.results, o = row / h.results % d.results, n = row / h.results / d.results;
    Row at;
    at.depth = d.taps(o % d.phases());
    at.height = h.taps(p % h.phases());
    at.z = o / d.phases() * d.step() + at.depth.offset;
    at.y = p / h.phases() * h.step() + at.height.offset;
    at.image = source_ + n * source_space_ * source_channels_;
    at.out_pitch = w.phases() * channels_;
    for (int64_t phase = 0; phase < min_of(w.phases(), w.results); phase++) {
      at.width = w.taps(phase);
      at.columns = w.results_of(phase);
      at.out = result_ + (row * w.results + phase) * channels_;
      specialise(at);
    }
  }

  // The filters of well-known networks and the phases of their gradients get kernels of their own; float32 only, as
  // each costs a second of compile time.
  void specialise(const Row& at) const {
    if constexpr (sizeof(T) == 4) {
      const int64_t step = axes_.dim[2].step(), move = at.width.offset_step;
      switch (step == 1 && move == 1 ? at.width.count : step == 1 && move == -1 ? -at.width.count
              : step == 2 && move == 1 ? 10 * at.width.count : 0) {
        case 3: return columns_channels_last(at, Along<3, 1, 1>());
        case 5: return columns_channels_last(at, Along<5, 1, 1>());
        case -1: return columns_channels_last(at, Along<1, 1, -1>());
        case -2: return columns_channels_last(at, Along<2, 1, -1>());
        case -3: return columns_channels_last(at, Along<3, 1, -1>());
        case -5: return columns_channels_last(at, Along<5, 1, -1>());
        case 30: return columns_channels_last(at, Along<3, 2, 1>());
        case 50: return columns_channels_last(at, Along<5, 2, 1>());
      }
    }
    columns_channels_last(at, Along<0, 0, 0>());
  }

  template <class Taps> void columns_channels_last(const Row& at, Taps) const {
    const Axis& w = axes_.dim[2];
    // Results [inner, outer) read no padding to their left or right.
    int64_t inner = 0, outer = at.columns, q = 0;
    if (at.width.count) {
      const int64_t room = w.source - 1 - at.width.highest();
      if (at.width.lowest() < 0) inner = min_of(at.columns, ceil_div(-at.width.lowest(), w.step()));
      outer = room < 0 ? inner : max_of(inner, min_of(at.columns, room / w.step() + 1));
    }
    for (; q < inner; q++) pixels<Taps, 1, true>(at, q);
    for (; q + 4 <= outer; q += 4) pixels<Taps, 4, false>(at, q);
    for (; q < outer; q++) pixels<Taps, 1, false>(at, q);
    for (; q < at.columns; q++) pixels<Taps, 1, true>(at, q);
  }

  template <class Taps, int B, bool Edge> __attribute__((noinline)) void pixels(const Row& at, int64_t q) const {
    int64_t c = 0;
    if (multiplier_ == 1 && packed_)
      for (; c + L <= channels_; c += L) channels<Taps, B, Edge, true>(at, q, c, L);
    if (c < channels_)
      for (int i = 0; i < B; i++) channels_from(at, q + i, c);
  }

  // Channels from c on, of any multiplier, one result at a time.
  __attribute__((noinline)) void channels_from(const Row& at, int64_t q, int64_t c) const {
    for (; c < channels_; c += L) channels<Along<0, 0, 0>, 1, true, false>(at, q, c, min_of(L, channels_ - c));
  }

  // B neighbouring results of one register of channels. Whole: all lanes exist and the sources of neighbours are
  // neighbours.
  template <class Taps, int B, bool Edge, bool Whole>
  FC_INLINE void channels(const Row& at, int64_t q, int64_t c, int64_t n) const {
    const Axis& w = axes_.dim[2];
    const int64_t between = (Taps::count ? Taps::step : w.step()) * source_channels_;
    const int64_t move = Taps::count ? Taps::move : at.width.offset_step;
    const int64_t first = q * w.step() + at.width.offset;
    Vec<A> sum[B];
#pragma GCC unroll 4
    for (int i = 0; i < B; i++) sum[i] = Vec<A>{};
    for (int64_t j = 0; j < (Whole ? 1 : terms_); j++)
      for (int64_t t = 0; t < at.depth.count; t++)
        for (int64_t r = 0; r < at.height.count; r++) {
          const int64_t z = at.z + t * at.depth.offset_step, y = at.y + r * at.height.offset_step;
          const bool inside = within(z, axes_.dim[0].source) && within(y, axes_.dim[1].source);
          const T* row = at.image + ((z * axes_.dim[1].source + y) * w.source + first) * source_channels_;
          const int64_t tap = ((at.depth.first + t * at.depth.step) * s.kernel[1] + at.height.first +
                               r * at.height.step) * s.kernel[2] + at.width.first;
          const A* k = Whole ? packed_ + tap * packed_pitch_ + c : nullptr;
          const auto step = [&](int64_t u) {
            const Vec<A> weight = Whole ? load(k + u * at.width.step * packed_pitch_)
                                        : weights(c, n, j, tap + u * at.width.step);
            const bool read = inside && (!Edge || within(first + u * move, w.source));
            const T* from = row + u * move * source_channels_;
#pragma GCC unroll 4
            for (int i = 0; i < B; i++, from += between)
              sum[i] = multiply_add(weight, !read ? Vec<A>{} : Whole ? load(from + c) : sources(from, c, n, j), sum[i]);
          };
          if (Taps::count) {
#pragma GCC unroll 5
            for (int64_t u = 0; u < Taps::count; u++) step(u);
          } else {
            for (int64_t u = 0; u < at.width.count; u++) step(u);
          }
        }
#pragma GCC unroll 4
    for (int i = 0; i < B; i++) {
      if (bias_) sum[i] += load_up_to(bias_ + c, n);
      store_up_to(at.out + (q + i) * at.out_pitch + c, sum[i], Whole ? L : n);
    }
  }

  Vec<A> weights(int64_t c, int64_t n, int64_t term, int64_t tap) const {
    if (packed_) return load(packed_ + (term * taps_ + tap) * packed_pitch_ + c);
    A lane[L] = {};
    for (int64_t l = 0; l < n; l++) lane[l] = weight_of(c + l, term, tap);
    return load(lane);
  }
  Vec<A> sources(const T* pixel, int64_t c, int64_t n, int64_t term) const {
    if (multiplier_ == 1) return load_before(pixel + c, n, source_end_);
    A lane[L] = {};
    for (int64_t l = 0; l < n; l++) lane[l] = to_accumulator(pixel[source_channel(c + l, term)]);
    return load(lane);
  }

  // ---- channels-first -----------------------------------------------------------------------------------------------
  // One band of one plane while it is worked on.
  struct Packed {
    const A* rows;      // [term][depth tap][source_rows][row_values]
    int64_t lowest_row; // source row that the first packed one holds
    Taps depth;
    A* phases;          // results of the column phases, where there are several
  };

  // Result rows [row, + band.rows) x columns (of each phase) [col, + band.cols) of one plane at one depth.
  __attribute__((noinline)) void band_channels_first(const Band& band, int64_t plane, int64_t depth, int64_t row,
                                                     int64_t col, A* scratch) const {
    const Axis &d = axes_.dim[0], &h = axes_.dim[1], &w = axes_.dim[2];
    const int64_t n = plane / channels_, channel = plane % channels_, pitch = band.row_values(w.step());
    const int64_t rows = min_of(band.rows, h.results - row), last = row + rows - 1, reach = (h.kernel - 1) * h.dilation;
    Packed packed;
    packed.depth = d.taps(depth % d.phases());
    packed.rows = scratch;
    packed.phases = scratch + terms_ * s.kernel[0] * band.source_rows * pitch;
    packed.lowest_row = gradient_ ? floor_div(row + h.pad - reach, h.stride) : row * h.stride - h.pad;
    const int64_t highest_row = gradient_ ? floor_div(last + h.pad, h.stride) : last * h.stride - h.pad + reach;
    for (int64_t j = 0; j < terms_; j++) {
      const T* from = source_ + (n * source_channels_ + source_channel(channel, j)) * source_space_;
      for (int64_t t = 0; t < packed.depth.count; t++) {
        const int64_t z = depth / d.phases() * d.step() + packed.depth.offset + t * packed.depth.offset_step;
        A* to = scratch + (j * s.kernel[0] + t) * band.source_rows * pitch;
        for (int64_t y = packed.lowest_row; y <= highest_row; y++, to += pitch)
          pack_row(within(z, d.source) && within(y, h.source) ? from + (z * h.source + y) * w.source : nullptr,
                   w.source, source_end_, col * w.step() + band.lowest_col, band.width, w.step(), band.pitch, to);
      }
    }
    T* out = result_ + plane * space_ + depth * h.results * w.results;
    for (int64_t phase = 0; phase < min_of(h.phases(), rows); phase++) {
      const Taps height = h.taps((row + phase) % h.phases());
      int64_t p = row + phase;
      while (p <= last) {
        const int64_t left = (last - p) / h.phases() + 1;
        if (left >= 4) rows_of_phase<4>(band, packed, height, channel, p, col, out);
        else if (left == 3) rows_of_phase<3>(band, packed, height, channel, p, col, out);
        else if (left == 2) rows_of_phase<2>(band, packed, height, channel, p, col, out);
        else rows_of_phase<1>(band, packed, height, channel, p, col, out);
        p += min_of(4, left) * h.phases();
      }
    }
  }

  // B rows of results, p and every h.phases()-th from there.
  template <int B>
  __attribute__((noinline)) void rows_of_phase(const Band& band, const Packed& packed, const Taps& height,
                                               int64_t channel, int64_t p, int64_t col, T* plane) const {
    const Axis &h = axes_.dim[1], &w = axes_.dim[2];
    const int64_t first = p / h.phases() * h.step() + height.offset - packed.lowest_row;
    const int64_t phases = min_of(w.phases(), w.results), row_pitch = h.phases() * w.results;
    T* out = plane + p * w.results;
    const Vec<A> bias = broadcast(bias_ ? to_accumulator(bias_[channel]) : A(0));
    for (int64_t a = 0; a < phases; a++) {
      const Taps& width = band.widths[a];
      const int64_t cols = min_of(band.cols, w.results_of(a) - col);
      const auto all = [&](auto count) {
        for (int64_t q = 0; q < cols; q += L) {
          Vec<A> sum[B];
          columns<B, decltype(count)::count>(band, packed, channel, height, first, width, q, sum);
#pragma GCC unroll 4
          for (int i = 0; i < B; i++) {
            if (bias_) sum[i] += bias;
            if (w.phases() == 1)
              store_up_to(out + i * row_pitch + col + q, sum[i], cols - q);
            else
              store(packed.phases + (i * phases + a) * band.results_pitch + q, sum[i]);
          }
        }
      };
      const int64_t count = sizeof(T) == 4 ? width.count : 0;
      if (count == 3) all(Along<sizeof(T) == 4 ? 3 : 0, 0, 0>());
      else if (count == 5) all(Along<sizeof(T) == 4 ? 5 : 0, 0, 0>());
      else all(Along<0, 0, 0>());
    }
    if (w.phases() == 1) return;
    const int64_t to = min_of(w.results, (col + band.cols) * w.phases());
    for (int i = 0; i < B; i++)
      merge_phases(packed.phases + i * phases * band.results_pitch, band.results_pitch, phases,
                   out + i * row_pitch + col * w.phases(), to - col * w.phases());
  }

  // Count: the taps along a row, 0: width.count.
  template <int B, int Count>
  FC_INLINE void columns(const Band& band, const Packed& packed, int64_t channel, const Taps& height, int64_t first,
                         const Taps& width, int64_t q, Vec<A>* sum) const {
    const int64_t step = axes_.dim[2].step(), pitch = band.row_values(step), next = axes_.dim[1].step() * pitch;
    const int64_t* at = band.columns + width.first;
#pragma GCC unroll 4
    for (int i = 0; i < B; i++) sum[i] = Vec<A>{};
    for (int64_t j = 0; j < terms_; j++)
      for (int64_t t = 0; t < packed.depth.count; t++)
        for (int64_t r = 0; r < height.count; r++) {
          const A* row = packed.rows + q +
                         ((j * s.kernel[0] + t) * band.source_rows + first + r * height.offset_step) * pitch;
          const int64_t tap = ((packed.depth.first + t * packed.depth.step) * s.kernel[1] + height.first +
                               r * height.step) * s.kernel[2] + width.first;
          const T* k = weight_ + (channel * terms_ + j) * taps_ + tap;
          const auto add = [&](int64_t u) {
            const Vec<A> weight = broadcast(to_accumulator(k[u * width.step]));
            const A* from = row + at[u * width.step];
#pragma GCC unroll 4
            for (int i = 0; i < B; i++) sum[i] = multiply_add(weight, load(from + i * next), sum[i]);
          };
          if (Count) {
#pragma GCC unroll 5
            for (int64_t u = 0; u < Count; u++) add(u);
          } else {
            for (int64_t u = 0; u < width.count; u++) add(u);
          }
        }
  }

  // out[j * phases + a] = phase a's result j, `count` values in all.
  static void merge_phases(const A* from, int64_t pitch, int64_t phases, T* out, int64_t count) {
    if (phases == 2) {
      for (int64_t i = 0; i < count; i += 2 * L) {
        const Vec<A> a = load(from + i / 2), b = load(from + pitch + i / 2);
        store_up_to(out + i, interleave_low<A>(a, b), count - i);
        if (count - i > L) store_up_to(out + i + L, interleave_high<A>(a, b), count - i - L);
      }
      return;
    }
    for (int64_t i = 0; i < count; i++) out[i] = from_accumulator<T>(from[i % phases * pitch + i / phases]);
  }

  const ConvShape& s;
  Axes axes_;
  bool gradient_;
  const T *source_, *weight_, *bias_, *source_end_;
  T* result_;
  A* packed_ = nullptr;
  int64_t multiplier_, taps_, source_channels_, channels_, source_space_, space_, terms_, packed_pitch_ = 0;
};

std::size_t weight_bytes(const ConvShape& s) {
  const int64_t lanes = s.dtype == DType::f64 ? kLanes<double> : kLanes<float>;
  const int64_t values = (s.K + multiplier(s) * lanes) * s.taps();
  return std::size_t(values) * (s.dtype == DType::f64 ? 8 : 4);
}

void correlate(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
               const Epilogue& epilogue, void* result, Context& ctx) {
  const int64_t space = gradient ? s.in_space() : s.out_space();
  if (s.N == 0) return;
  const double bytes = double(item_size(s.dtype)) * double(s.N) * double(s.K) * double(space);
  const int threads = ctx.threads_for(s.flops(), bytes);
  if (depthwise_scale_fits(s)) return depthwise_scale(s, source, w, b, epilogue, result, threads);
  if (depthwise_planes_fit(s, gradient ? ConvOp::backward_input : ConvOp::forward))
    return depthwise_planes(s, gradient, source, w, b, epilogue, result, threads);
  if (depthwise_tiled(s, gradient, source, w, b, epilogue, result, threads, ctx)) return;
  with_type(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    typedef Accumulator<T> A;
    Correlation<T> c(s, gradient, static_cast<const T*>(source), static_cast<const T*>(w), static_cast<const T*>(b),
                     static_cast<T*>(result));
    if (s.layout == Layout::channels_last) {
      A* packed = nullptr;
      if (weight_bytes(s) <= std::size_t(kWeightBytes)) {
        packed = static_cast<A*>(ctx.workspace(weight_bytes(s)));
        if (!packed) return;
      }
      c.run_channels_last(packed, threads);
    } else if (Band band = make_band(s, gradient); !band.fits) {
      c.run_plain(threads);
    } else {
      const int team = band_team(band, threads, sizeof(A));
      char* memory = static_cast<char*>(ctx.workspace(band.bytes(team, sizeof(A))));
      if (!memory) return;
      band.tabulate(Axes(s, gradient).dim[2], memory);
      c.run_channels_first(band, reinterpret_cast<A*>(memory + band.table_bytes), team);
    }
    if (epilogue) finish_array(Finish<T>(epilogue), s.N * s.K * space, static_cast<T*>(result), threads);
  });
}

}  // namespace

std::size_t depthwise_workspace(const ConvShape& s, ConvOp op, int threads) {
  const std::size_t item = s.dtype == DType::f64 ? 8 : 4;
  if (op == ConvOp::backward_weight) return depthwise_weight_workspace(s, threads);
  if (depthwise_scale_fits(s) || depthwise_planes_fit(s, op)) return 0;
  const std::size_t tiled = depthwise_tiled_workspace(s, op == ConvOp::backward_input);
  if (tiled) return tiled;
  if (s.layout == Layout::channels_last) return weight_bytes(s) <= std::size_t(kWeightBytes) ? weight_bytes(s) : 0;
  const Band band = make_band(s, op == ConvOp::backward_input);
  return band.fits ? band.bytes(band_team(band, threads, item), item) : 0;
}

void depthwise_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue,
                       void* y, Context& ctx) {
  correlate(s, false, x, w, b, epilogue, y, ctx);
}

void depthwise_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx,
                              Context& ctx) {
  correlate(s, true, dy, w, b, Epilogue(), dx, ctx);
}

}  // namespace fastconv::cpu::FC_ISA
