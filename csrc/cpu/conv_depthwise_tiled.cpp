// Depthwise 3x3 filters of stride 1 or 2, and the input gradient of those of stride 1: most of what mobile networks do.
//
// A tile is two rows of neighbouring results of one register of channels, so that every source value is loaded once for
// up to six products and the filter stays in registers. Channels-last is read where it lies. Channels-first rows
// of as many planes as a register has lanes are transposed into scratch, with their zero margins, and back.
// The gradient is the forward pass over images read and written backwards, which keeps the order of its taps.
#include <utility>

#include "conv_depthwise.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

constexpr int kTaps = 3;                                 // a side of the filter
constexpr int kColumns = FC_VECTOR_BYTES == 64 ? 7 : 4;  // results of a tile's row: two rows and the filter fit
constexpr int64_t kTaskValues = 64 << 10;                // results a task
constexpr int64_t kBandPixels = 7 << 10;                 // transposed at once: sources and results, 448 KB of an L2
constexpr int64_t kMostBandValues = 512 << 10;

template <int... I, class F> FC_INLINE void each(std::integer_sequence<int, I...>, F&& f) {
  (f(std::integral_constant<int, I>()), ...);
}
template <int Count, class F> FC_INLINE void each(F&& f) {
  each(std::make_integer_sequence<int, Count>(), static_cast<F&&>(f));
}
constexpr int reach(int results, int step) { return (results - 1) * step + kTaps; }

// The sources of a tile: corner + i * row + j * pixel, or where some lie in the padding, a table of them all.
template <class T, bool Edge> struct Window {
  const T* corner;
  int64_t row, pixel;
  FC_INLINE const T* operator()(int i, int j) const { return corner + i * row + j * pixel; }
};
template <class T> struct Window<T, true> {
  const T* at[reach(2, 2)][reach(kColumns, 2)];
  FC_INLINE const T* operator()(int i, int j) const { return at[i][j]; }
};

template <class A> struct Filter {
  const A *taps, *bias;  // [9][pitch]; null: none
  int64_t pitch;
};

// Rows x kColumns results of `channels` >= one register of channels. The last register overlaps the one before.
template <class T, int Step, int Rows, bool Edge>
__attribute__((noinline)) void tile(const Window<T, Edge>& window, const Filter<Accumulator<T>>& filter,
                                    int64_t channels, T* out, int64_t out_row, int64_t out_pixel) {
  typedef Accumulator<T> A;
  constexpr int L = kLanes<A>;
  const Window<T, Edge> from = window;
  for (int64_t next = 0; next < channels; next += L) {
    const int64_t c = min_of(next, channels - L);
    Vec<A> weight[kTaps * kTaps], sum[Rows][kColumns];
    each<kTaps * kTaps>([&](auto t) __attribute__((always_inline)) {
      weight[t] = load(filter.taps + t * filter.pitch + c);
    });
    each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) { sum[o / kColumns][o % kColumns] = Vec<A>{}; });
    // Sources row by row, columns ascending: every result meets its taps in the order (r, s).
    each<reach(Rows, Step)>([&](auto i) __attribute__((always_inline)) {
      each<reach(kColumns, Step)>([&](auto j) __attribute__((always_inline)) {
        const Vec<A> value = load(from(i, j) + c);
        each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) {
          constexpr int p = o / kColumns, q = o % kColumns, r = i - p * Step, s = j - q * Step;
          if constexpr (r >= 0 && r < kTaps && s >= 0 && s < kTaps)
            sum[p][q] = multiply_add(weight[r * kTaps + s], value, sum[p][q]);
        });
      });
    });
    if (filter.bias) {
      const Vec<A> bias = load(filter.bias + c);
      each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) { sum[o / kColumns][o % kColumns] += bias; });
    }
    each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) {
      store(out + o / kColumns * out_row + o % kColumns * out_pixel + c, sum[o / kColumns][o % kColumns]);
    });
  }
}

struct Plane {
  int64_t H, W, P, Q, pad_h, pad_w;  // source, results, zeros before the source
  int step;
  bool backwards;                    // sources and results are numbered from the last
};

bool plane_of(const ConvShape& s, bool gradient, Plane* plane) {
  for (int d = 1; d < 3; d++)
    if (s.kernel[d] != kTaps || s.dilation[d] != 1 || s.stride[d] != s.stride[1]) return false;
  if (s.kernel[0] != 1 || s.stride[0] != 1 || s.pad[0] || s.in[0] != s.out[0] || s.C != s.K) return false;
  if (s.stride[1] != 1 && (gradient || s.stride[1] != 2)) return false;
  const int64_t* source = gradient ? s.out : s.in;
  const int64_t* results = gradient ? s.in : s.out;
  const auto pad = [&](int d) { return gradient ? s.pad[d] - source[d] + results[d] : s.pad[d]; };
  *plane = Plane{source[1], source[2], results[1], results[2], pad(1), pad(2), int(s.stride[1]), gradient};
  return plane->Q >= kColumns && plane->pad_h >= 0 && plane->pad_w >= 0;
}

// Scratch of the channels-first path: a band of rows [pixel][lane], the sources with their zero margins.
struct Bands {
  int64_t width, rows, count, source_values, values;  // columns of sources, rows of results
  Bands(const Plane& plane, int64_t lanes) {
    width = max_of(plane.pad_w + plane.W, reach(1, 1) + (plane.Q - 1) * plane.step);
    const int64_t fit = kBandPixels / (width * plane.step + plane.Q) - kTaps;
    rows = min_of(plane.P, max_of(8, fit / 2 * 2));
    count = ceil_div(plane.P, rows);
    source_values = width * ((rows - 1) * plane.step + kTaps) * lanes;
    values = source_values + rows * plane.Q * lanes;
  }
};

template <class T> class Tiled {
  typedef Accumulator<T> A;
  static constexpr int L = kLanes<A>;

 public:
  Tiled(const ConvShape& s, const Plane& plane, const T* source, const T* weight, const T* bias, T* result, A* memory)
      : plane_(plane), N_(s.N), D_(s.in[0]), C_(s.C), source_(source), result_(result) {
    const int64_t pitch = round_up(C_, L);
    for (int64_t t = 0; t < kTaps * kTaps; t++)
      for (int64_t c = 0; c < pitch; c++)
        memory[t * pitch + c] = c < C_ ? to_accumulator(weight[c * kTaps * kTaps + t]) : A(0);
    A* biases = memory + kTaps * kTaps * pitch;
    for (int64_t c = 0; c < pitch; c++) biases[c] = bias && c < C_ ? to_accumulator(bias[c]) : A(0);
    filter_ = Filter<A>{memory, bias ? biases : nullptr, pitch};
    scratch_ = biases + pitch;
  }
  static int64_t filter_values(int64_t channels) { return (kTaps * kTaps + 1) * round_up(channels, L); }

  void run_channels_last(int threads) {
    zeros_ = reinterpret_cast<T*>(scratch_);
    for (int64_t c = 0; c < C_; c++) scratch_[c] = 0;
    const int64_t pairs = ceil_div(plane_.P, 2), units = N_ * D_ * pairs;
    const int64_t units_task = max_of(1, kTaskValues / (2 * plane_.Q * C_));
    parallel_for(threads, ceil_div(units, units_task), [&](int64_t task, int) {
      for (int64_t u = task * units_task; u < min_of(units, (task + 1) * units_task); u++) {
        const int64_t p = u % pairs * 2;
        if (plane_.step == 1) p + 1 < plane_.P ? rows<1, 2>(u / pairs, p) : rows<1, 1>(u / pairs, p);
        else p + 1 < plane_.P ? rows<2, 2>(u / pairs, p) : rows<2, 1>(u / pairs, p);
      }
    });
  }

  void run_channels_first(int threads) {
    const Bands bands(plane_, L);
    for (int64_t i = 0; i < threads * bands.values; i++) scratch_[i] = 0;
    const int64_t blocks = ceil_div(C_, L), units = N_ * D_ * blocks * bands.count;
    const int64_t units_task = max_of(1, kTaskValues / (bands.rows * plane_.Q * L));
    parallel_for(threads, ceil_div(units, units_task), [&](int64_t task, int thread) {
      for (int64_t u = task * units_task; u < min_of(units, (task + 1) * units_task); u++) {
        const int64_t block = u / bands.count;
        band(bands, block / blocks / D_, block / blocks % D_, block % blocks * L, u % bands.count * bands.rows,
             scratch_ + thread * bands.values);
      }
    });
  }

 private:
  template <int Step, int Rows> __attribute__((noinline)) void rows(int64_t image, int64_t p) const {
    const Plane& a = plane_;
    const int64_t sign = a.backwards ? -1 : 1, pixel = sign * C_;
    const T* source = source_ + (image * a.H * a.W + (a.backwards ? a.H * a.W - 1 : 0)) * C_;
    T* out = result_ + (image * a.P * a.Q + (a.backwards ? a.P * a.Q - 1 : 0)) * C_ + p * a.Q * pixel;
    constexpr int height = reach(Rows, Step), width = reach(kColumns, Step);
    const int64_t y = p * Step - a.pad_h;
    for (int64_t next = 0; next < a.Q; next += kColumns) {
      const int64_t q = min_of(next, a.Q - kColumns), x = q * Step - a.pad_w;
      if (y >= 0 && y + height <= a.H && x >= 0 && x + width <= a.W) {
        tile<T, Step, Rows, false>(Window<T, false>{source + (y * a.W + x) * pixel, a.W * pixel, pixel}, filter_, C_,
                                   out + q * pixel, a.Q * pixel, pixel);
        continue;
      }
      Window<T, true> window;
      for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) {
          const bool inside = y + i >= 0 && y + i < a.H && x + j >= 0 && x + j < a.W;
          window.at[i][j] = inside ? source + ((y + i) * a.W + x + j) * pixel : zeros_;
        }
      tile<T, Step, Rows, true>(window, filter_, C_, out + q * pixel, a.Q * pixel, pixel);
    }
  }

  // Result rows [p, + bands.rows) of channels [c, + L) at one depth of one image.
  __attribute__((noinline)) void band(const Bands& bands, int64_t n, int64_t d, int64_t c, int64_t p,
                                      A* sources) const {
    const Plane& a = plane_;
    const int64_t count = min_of(L, C_ - c), rows = min_of(bands.rows, a.P - p), row_values = bands.width * L;
    // Source rows [top, top + height), of which [low, high) exist.
    const int64_t top = p * a.step - a.pad_h, height = (rows - 1) * a.step + kTaps;
    const int64_t low = min_of(a.H, max_of(0, top)), high = max_of(low, min_of(a.H, top + height));
    for (int64_t i = 0; i < min_of(low - top, height) * row_values; i++) sources[i] = 0;
    for (int64_t i = max_of(0, high - top) * row_values; i < height * row_values; i++) sources[i] = 0;
    const T* from = source_ + ((n * C_ + c) * D_ + d) * a.H * a.W + (a.backwards ? a.H - high : low) * a.W;
    A* first = sources + (a.backwards ? (high - 1 - top) * bands.width + a.pad_w + a.W - 1
                                      : (low - top) * bands.width + a.pad_w) * L;
    const int64_t plane = D_ * a.H * a.W, ahead = bands.count > 1 ? 0 : L * plane;
    gather(from, plane, count, (high - low) * a.W, ahead, first, bands.width);

    const int64_t size = rows * a.Q, out_plane = D_ * a.P * a.Q;
    T* to = result_ + ((n * C_ + c) * D_ + d) * a.P * a.Q + (a.backwards ? a.P - p - rows : p) * a.Q;
    // The lines that the results of small planes go to, while the arithmetic runs.
    for (int64_t l = 0; l < (bands.count > 1 ? 0 : count); l++)
      for (int64_t i = 0; i < size; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(to + l * out_plane + i);
    A* results = sources + bands.source_values;
    A* out = results + (a.backwards ? (size - 1) * L : 0);
    for (int64_t i = 0; i < rows; i += 2) {
      const bool pair = i + 1 < rows;
      const A* row = sources + i * a.step * row_values;
      if (a.step == 1) pair ? band_rows<1, 2>(row, row_values, c, i, out) : band_rows<1, 1>(row, row_values, c, i, out);
      else pair ? band_rows<2, 2>(row, row_values, c, i, out) : band_rows<2, 1>(row, row_values, c, i, out);
    }
    for (int64_t next = 0; next < size; next += L) {
      const int64_t i = max_of(0, min_of(next, size - L)), lanes = min_of(L, size);
      Vec<A> r[L];
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) r[l] = load(results + min_of(i + l, size - 1) * L);
      transpose<A>(r);
      if (count == L && lanes == L) {
#pragma GCC unroll 16
        for (int l = 0; l < L; l++) store(to + l * out_plane + i, r[l]);
      } else {
        for (int l = 0; l < count; l++) store_up_to(to + l * out_plane + i, r[l], lanes);
      }
    }
  }

  // `size` neighbouring pixels of `count` planes to [pixel][lane], rows of scratch being `width` pixels apart.
  FC_INLINE void gather(const T* from, int64_t plane, int64_t count, int64_t size, int64_t ahead, A* first,
                        int64_t width) const {
    const int64_t sign = plane_.backwards ? -1 : 1;
    for (int64_t next = 0, row = 0, col = 0; next < size; next += L) {
      const int64_t i = max_of(0, min_of(next, size - L)), lanes = min_of(L, size);
      if (i < next) row = i / plane_.W, col = i % plane_.W;
      Vec<A> r[L];
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) {
        const T* at = from + min_of(l, count - 1) * plane + i;
        r[l] = load_up_to(at, lanes);
        // Sixteen short runs are too many for the processor's own prefetching: fetch what comes next.
        __builtin_prefetch(at + ahead);
      }
      transpose<A>(r);
      for (int l = 0; l < L && l < lanes; l++) {
        store(first + sign * (row * width + col) * L, r[l]);
        if (++col == plane_.W) row++, col = 0;
      }
    }
  }

  // Rows i and on of a band's results, whose sources begin at `row`.
  template <int Step, int Rows>
  FC_INLINE void band_rows(const A* row, int64_t row_values, int64_t c, int64_t i, A* out) const {
    const int64_t pixel = plane_.backwards ? -L : L, out_row = plane_.Q * pixel;
    const Filter<A> filter{filter_.taps + c, filter_.bias ? filter_.bias + c : nullptr, filter_.pitch};
    for (int64_t next = 0; next < plane_.Q; next += kColumns) {
      const int64_t q = min_of(next, plane_.Q - kColumns);
      tile<A, Step, Rows, false>(Window<A, false>{row + q * Step * L, row_values, L}, filter, L,
                                 out + i * out_row + q * pixel, out_row, pixel);
    }
  }

  const Plane plane_;
  int64_t N_, D_, C_;
  const T* source_;
  T* result_;
  Filter<A> filter_;
  A* scratch_;
  const T* zeros_ = nullptr;
};

// Values of scratch; 0: not for these kernels. *team: the threads that it is for.
std::size_t tiled_values(const ConvShape& s, const Plane& plane, int* team) {
  constexpr int64_t L = kLanes<float>;
  const int64_t filter = Tiled<float>::filter_values(s.C);
  if (s.C < L) return 0;
  if (s.layout == Layout::channels_last) return s.dtype == DType::f32 ? std::size_t(filter + s.C) : 0;
  if (s.dtype == DType::f64 || plane.Q > kMostBandValues || plane.W > kMostBandValues || plane.pad_w > kMostBandValues)
    return 0;
  const Bands bands(plane, L);
  if (bands.values > kMostBandValues) return 0;
  *team = int(min_of(*team, s.N * s.in[0] * ceil_div(s.C, L) * bands.count));
  return std::size_t(filter + bands.values * *team);
}

}  // namespace

std::size_t depthwise_tiled_workspace(const ConvShape& s, bool gradient, int threads) {
  Plane plane;
  return plane_of(s, gradient, &plane) ? tiled_values(s, plane, &threads) * sizeof(float) : 0;
}

bool depthwise_tiled(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b, void* result,
                     int threads, Context& ctx) {
  Plane plane;
  if (!plane_of(s, gradient, &plane)) return false;
  const std::size_t values = tiled_values(s, plane, &threads);
  if (!values) return false;
  float* memory = static_cast<float*>(ctx.workspace(values * sizeof(float)));
  if (!memory) return true;
  const auto run = [&](auto zero) {
    typedef decltype(zero) T;
    Tiled<T> tiled(s, plane, static_cast<const T*>(source), static_cast<const T*>(w), static_cast<const T*>(b),
                   static_cast<T*>(result), memory);
    if constexpr (sizeof(T) == 4) {
      if (s.layout == Layout::channels_last) return tiled.run_channels_last(threads);
    }
    tiled.run_channels_first(threads);
  };
  if (s.dtype == DType::f32) run(float());
  else if (s.dtype == DType::f16) run(f16());
  else run(bf16());
  return true;
}

}  // namespace fastconv::cpu::FC_ISA
