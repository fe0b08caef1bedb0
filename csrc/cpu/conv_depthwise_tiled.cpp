// Depthwise 3x3 filters of stride 1 or 2 in channels-last float32 and their input gradients: most of what mobile networks
// do.
//
// A tile is two rows of neighbouring results of one register of channels, so that every source value is loaded once for
// up to six products and the filter stays in registers. The gradient of stride 1 is the forward pass over images read and
// written backwards, which keeps the order of its taps. That of stride 2 has four results for every source value, which
// see four, two, two taps and one of it and its neighbours above and before.
#include "conv_depthwise.h"
#include "epilogue.h"
#include "parallel.h"
#include "unroll.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

constexpr int kTaps = 3;                                 // a side of the filter
constexpr int kColumns = FC_VECTOR_BYTES == 64 ? 7 : 4;  // results of a tile's row: two rows and the filter fit
constexpr int64_t kTaskValues = 64 << 10;                // results a task
// A tile's channels come one register at a time, from pixels that far apart. From sources that no cache holds no
// hardware prefetcher fetches them in time, so a tile asks for those of a later one. Zen 3, 8 images, 1 and 2 threads:
// 144 channels at 56x56 1.3 times as fast, with stride 2 1.1 to 1.2, 96 at 112x112 with stride 2 1.1, 32 at 112x112 0.9
// to 1.05. With AVX-512 not measured.
constexpr int64_t kFarBytes = int64_t(8) << 20;
constexpr int kFarChannels = 64, kTilesAhead = 2;

constexpr int reach(int results, int step) { return (results - 1) * step + kTaps; }

// The sources of a tile: corner + i * row + j * pixel, or where some lie in the padding, a table of them all.
template <bool Edge> struct Window {
  const float* corner;
  int64_t row, pixel;
  FC_INLINE const float* operator()(int i, int j) const { return corner + i * row + j * pixel; }
};
template <> struct Window<true> {
  const float* at[reach(2, 2)][reach(kColumns, 2)];
  FC_INLINE const float* operator()(int i, int j) const { return at[i][j]; }
};

int64_t filter_values(int64_t channels) { return (kTaps * kTaps + 1) * round_up(channels, kLanes<float>); }

struct Filter {
  const float *taps, *bias;  // [9][pitch]; null: none
  int64_t pitch;
  Finish<float> finish;
  const float* origin;       // the results' first

  // memory: for filter_values(channels).
  Filter(int64_t channels, const float* weight, const float* given_bias, const Epilogue& epilogue, const float* result,
         float* memory)
      : taps(memory), bias(nullptr), pitch(round_up(channels, kLanes<float>)), finish(epilogue), origin(result) {
    for (int64_t t = 0; t < kTaps * kTaps; t++)
      for (int64_t c = 0; c < pitch; c++) memory[t * pitch + c] = c < channels ? weight[c * kTaps * kTaps + t] : 0;
    if (!given_bias) return;
    float* biases = memory + kTaps * kTaps * pitch;
    for (int64_t c = 0; c < pitch; c++) biases[c] = c < channels ? given_bias[c] : 0;
    bias = biases;
  }
};

// Rows x kColumns results of `channels` >= one register of channels. The last register overlaps the one before.
template <int Step, int Rows, bool Edge>
__attribute__((noinline)) void tile(const Window<Edge>& window, const Filter& filter, int64_t channels, float* out,
                                    int64_t out_row, int64_t out_pixel, bool far) {
  typedef float A;
  constexpr int L = kLanes<A>, line = 64 / sizeof(A);
  const Window<Edge> from = window;
  for (int64_t next = 0; next < channels; next += L) {
    const int64_t c = min_of(next, channels - L);
    Vec<A> weight[kTaps * kTaps], sum[Rows][kColumns];
    each<kTaps * kTaps>([&](auto t) __attribute__((always_inline)) {
      weight[t] = load(filter.taps + t * filter.pitch + c);
    });
    each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) { sum[o / kColumns][o % kColumns] = Vec<A>{}; });
    if constexpr (!Edge && FC_VECTOR_BYTES == 32) {
      if (far && c % line < L) {
        // The rows above the window's last ones were read with the tiles of the results above.
        constexpr int rows = Rows * Step, columns = kColumns * Step, first = reach(Rows, Step) - rows;
        each<rows * columns>([&](auto i) __attribute__((always_inline)) {
          __builtin_prefetch(from(first + i / columns, kTilesAhead * columns + i % columns) + c);
        });
        each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) {
          __builtin_prefetch(out + o / kColumns * out_row + (kTilesAhead * kColumns + o % kColumns) * out_pixel + c, 1);
        });
      }
    }
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
    if (filter.finish.wanted) {
      const Finish<A> finish = filter.finish;
      const int64_t at = out + c - filter.origin;
      each<Rows * kColumns>([&](auto o) __attribute__((always_inline)) {
        Vec<A>& v = sum[o / kColumns][o % kColumns];
        v = finish(v, at + o / kColumns * out_row + o % kColumns * out_pixel, L);
      });
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

// 3x3 filters of stride 1 or 2, one a channel.
bool is_square(const ConvShape& s) {
  for (int d = 1; d < 3; d++)
    if (s.kernel[d] != kTaps || s.dilation[d] != 1 || s.stride[d] != s.stride[1]) return false;
  return s.kernel[0] == 1 && s.stride[0] == 1 && !s.pad[0] && s.in[0] == s.out[0] && s.C == s.K && s.stride[1] <= 2;
}

bool plane_of(const ConvShape& s, bool gradient, Plane* plane) {
  const int64_t* source = gradient ? s.out : s.in;
  const int64_t* results = gradient ? s.in : s.out;
  const auto pad = [&](int d) { return gradient ? s.pad[d] - source[d] + results[d] : s.pad[d]; };
  *plane = Plane{source[1], source[2], results[1], results[2], pad(1), pad(2), int(s.stride[1]), gradient};
  return plane->Q >= kColumns && plane->pad_h >= 0 && plane->pad_w >= 0;
}

class Tiled {
 public:
  Tiled(const ConvShape& s, const Plane& plane, const Filter& filter, const float* source, const float* zeros,
        float* result)
      : plane_(plane), N_(s.N), D_(s.in[0]), C_(s.C), source_(source), result_(result), filter_(filter), zeros_(zeros),
        far_(C_ >= kFarChannels && N_ * D_ * plane.H * plane.W * C_ * int64_t(sizeof(float)) > kFarBytes) {}

  void run(int threads) {
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

 private:
  template <int Step, int Rows> __attribute__((noinline)) void rows(int64_t image, int64_t p) const {
    const Plane& a = plane_;
    const int64_t sign = a.backwards ? -1 : 1, pixel = sign * C_;
    const float* source = source_ + (image * a.H * a.W + (a.backwards ? a.H * a.W - 1 : 0)) * C_;
    float* out = result_ + (image * a.P * a.Q + (a.backwards ? a.P * a.Q - 1 : 0)) * C_ + p * a.Q * pixel;
    constexpr int height = reach(Rows, Step), width = reach(kColumns, Step);
    const int64_t y = p * Step - a.pad_h;
    for (int64_t next = 0; next < a.Q; next += kColumns) {
      const int64_t q = min_of(next, a.Q - kColumns), x = q * Step - a.pad_w;
      if (y >= 0 && y + height <= a.H && x >= 0 && x + width <= a.W) {
        tile<Step, Rows, false>(Window<false>{source + (y * a.W + x) * pixel, a.W * pixel, pixel}, filter_, C_,
                                out + q * pixel, a.Q * pixel, pixel, far_);
        continue;
      }
      Window<true> window;
      for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) {
          const bool inside = y + i >= 0 && y + i < a.H && x + j >= 0 && x + j < a.W;
          window.at[i][j] = inside ? source + ((y + i) * a.W + x + j) * pixel : zeros_;
        }
      tile<Step, Rows, true>(window, filter_, C_, out + q * pixel, a.Q * pixel, pixel, false);
    }
  }

  const Plane plane_;
  int64_t N_, D_, C_;
  const float* source_;
  float* result_;
  Filter filter_;
  const float* zeros_;
  const bool far_;
};

// ---- input gradient of stride 2 --------------------------------------------------------------------------------------

constexpr int kSpread = 8;  // source columns of a tile: their results lie in L1 for the next register of channels

// Where a tile's source values and results lie: rows i of columns j, as a grid or a table.
template <bool Edge> struct Grid {
  const float* source;
  int64_t source_row;
  float* result;
  int64_t result_row, pixel;
  FC_INLINE const float* from(int i, int j) const { return source + i * source_row + j * pixel; }
  FC_INLINE float* to(int i, int j) const { return result + i * result_row + j * pixel; }
};
template <> struct Grid<true> {
  const float* sources[2][kSpread + 1];
  float* results[2][2 * kSpread];
  FC_INLINE const float* from(int i, int j) const { return sources[i][j]; }
  FC_INLINE float* to(int i, int j) const { return results[i][j]; }
};

// Two rows of 2 `columns` results from `columns` source values, those before the first and those of the row above.
template <bool Edge>
__attribute__((noinline)) void spread_tile(const Grid<Edge>& grid, const Filter& filter, int64_t channels, int columns) {
  typedef float A;
  constexpr int L = kLanes<A>;
  const Grid<Edge> at = grid;
  for (int64_t next = 0; next < channels; next += L) {
    const int64_t c = min_of(next, channels - L);
    Vec<A> w[kTaps * kTaps];
    each<kTaps * kTaps>([&](auto t) __attribute__((always_inline)) { w[t] = load(filter.taps + t * filter.pitch + c); });
    const Vec<A> bias = filter.bias ? load(filter.bias + c) : broadcast(-A(0)), zero{};
    Vec<A> above_before = load(at.from(0, 0) + c), before = load(at.from(1, 0) + c);
    for (int j = 0; j < columns; j++) {
      const Vec<A> above = load(at.from(0, j + 1) + c), here = load(at.from(1, j + 1) + c);
      Vec<A> sum = multiply_add(w[0], here, zero);
      sum = multiply_add(w[2], before, sum);
      sum = multiply_add(w[6], above, sum);
      sum = multiply_add(w[8], above_before, sum);
      store(at.to(0, 2 * j) + c, sum + bias);
      sum = multiply_add(w[1], here, zero);
      sum = multiply_add(w[7], above, sum);
      store(at.to(0, 2 * j + 1) + c, sum + bias);
      sum = multiply_add(w[3], here, zero);
      sum = multiply_add(w[5], before, sum);
      store(at.to(1, 2 * j) + c, sum + bias);
      store(at.to(1, 2 * j + 1) + c, multiply_add(w[4], here, zero) + bias);
      above_before = above;
      before = here;
    }
  }
}

class Spread {
 public:
  // zeros: one for each channel, then room for what lies beside the results, which nobody reads.
  Spread(const ConvShape& s, const Filter& filter, const float* source, float* zeros, float* result)
      : H_(s.out[1]), W_(s.out[2]), P_(s.in[1]), Q_(s.in[2]), pad_h_(s.pad[1]), pad_w_(s.pad[2]), images_(s.N * s.in[0]),
        C_(s.C), source_(source), result_(result), filter_(filter), zeros_(zeros), aside_(zeros + s.C) {}

  void run(int threads) {
    const int64_t first = pad_h_ / 2, pairs = (P_ - 1 + pad_h_) / 2 - first + 1, units = images_ * pairs;
    const int64_t units_task = max_of(1, kTaskValues / max_of(1, 2 * Q_ * C_));
    parallel_for(threads, ceil_div(units, units_task), [&](int64_t task, int) {
      for (int64_t u = task * units_task; u < min_of(units, (task + 1) * units_task); u++)
        rows(u / pairs, first + u % pairs);
    });
  }

 private:
  // Source row y, and the rows of results that it is the last to add to.
  void rows(int64_t image, int64_t y) const {
    const float* source = source_ + image * H_ * W_ * C_;
    float* result = result_ + image * P_ * Q_ * C_;
    const int64_t p = 2 * y - pad_h_, end = (Q_ - 1 + pad_w_) / 2 + 1;
    for (int64_t x = pad_w_ / 2; x < end; x += kSpread) {
      const int columns = int(min_of(kSpread, end - x));
      const int64_t q = 2 * x - pad_w_;
      if (y >= 1 && y < H_ && p >= 0 && p + 2 <= P_ && x >= 1 && x + columns <= W_ && q >= 0 && q + 2 * columns <= Q_) {
        spread_tile<false>({source + ((y - 1) * W_ + x - 1) * C_, W_ * C_, result + (p * Q_ + q) * C_, Q_ * C_, C_},
                           filter_, C_, columns);
        continue;
      }
      Grid<true> grid;
      for (int i = 0; i < 2; i++) {
        const int64_t row = y - 1 + i;
        for (int j = 0; j <= columns; j++) {
          const int64_t column = x - 1 + j;
          const bool inside = row >= 0 && row < H_ && column >= 0 && column < W_;
          grid.sources[i][j] = inside ? source + (row * W_ + column) * C_ : zeros_;
        }
        for (int j = 0; j < 2 * columns; j++) {
          const bool inside = p + i >= 0 && p + i < P_ && q + j >= 0 && q + j < Q_;
          grid.results[i][j] = inside ? result + ((p + i) * Q_ + q + j) * C_ : aside_;
        }
      }
      spread_tile<true>(grid, filter_, C_, columns);
    }
  }

  int64_t H_, W_, P_, Q_, pad_h_, pad_w_, images_, C_;  // source, results
  const float* source_;
  float* result_;
  Filter filter_;
  const float* zeros_;
  float* aside_;
};

// Values of scratch; 0: not for these kernels.
std::size_t tiled_values(const ConvShape& s, bool gradient, Plane* plane) {
  if (s.layout != Layout::channels_last || s.dtype != DType::f32 || s.C < kLanes<float> || !is_square(s)) return 0;
  const std::size_t filter = std::size_t(filter_values(s.C));
  if (gradient && s.stride[1] == 2) return filter + 2 * std::size_t(s.C);
  return plane_of(s, gradient, plane) ? filter + std::size_t(s.C) : 0;
}

}  // namespace

std::size_t depthwise_tiled_workspace(const ConvShape& s, bool gradient) {
  Plane plane;
  return tiled_values(s, gradient, &plane) * sizeof(float);
}

bool depthwise_tiled(const ConvShape& s, bool gradient, const void* source, const void* w, const void* b,
                     const Epilogue& epilogue, void* result, int threads, Context& ctx) {
  Plane plane;
  const std::size_t values = tiled_values(s, gradient, &plane);
  if (!values) return false;
  float* memory = static_cast<float*>(ctx.workspace(values * sizeof(float)));
  if (!memory) return true;
  const float* from = static_cast<const float*>(source);
  float* to = static_cast<float*>(result);
  const Filter filter(s.C, static_cast<const float*>(w), static_cast<const float*>(b), epilogue, to, memory);
  float* zeros = memory + filter_values(s.C);
  for (int64_t c = 0; c < s.C; c++) zeros[c] = 0;
  if (gradient && s.stride[1] == 2) Spread(s, filter, from, zeros, to).run(threads);
  else Tiled(s, plane, filter, from, zeros, to).run(threads);
  return true;
}

}  // namespace fastconv::cpu::FC_ISA
