// Depthwise 3x3 filters of stride 1 or 2 in channels-last float32, and the input gradient of those of stride 1: most of
// what mobile networks do.
//
// A tile is two rows of neighbouring results of one register of channels, so that every source value is loaded once for
// up to six products and the filter stays in registers. The gradient is the forward pass over images read and written
// backwards, which keeps the order of its taps.
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

struct Filter {
  const float *taps, *bias;  // [9][pitch]; null: none
  int64_t pitch;
  Finish<float> finish;
  const float* origin;       // the results' first
};

// Rows x kColumns results of `channels` >= one register of channels. The last register overlaps the one before.
template <int Step, int Rows, bool Edge>
__attribute__((noinline)) void tile(const Window<Edge>& window, const Filter& filter, int64_t channels, float* out,
                                    int64_t out_row, int64_t out_pixel) {
  typedef float A;
  constexpr int L = kLanes<A>;
  const Window<Edge> from = window;
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

class Tiled {
  static constexpr int L = kLanes<float>;

 public:
  Tiled(const ConvShape& s, const Plane& plane, const float* source, const float* weight, const float* bias,
        const Epilogue& epilogue, float* result, float* memory)
      : plane_(plane), N_(s.N), D_(s.in[0]), C_(s.C), source_(source), result_(result) {
    const int64_t pitch = round_up(C_, L);
    for (int64_t t = 0; t < kTaps * kTaps; t++)
      for (int64_t c = 0; c < pitch; c++)
        memory[t * pitch + c] = c < C_ ? weight[c * kTaps * kTaps + t] : 0;
    float* biases = memory + kTaps * kTaps * pitch;
    for (int64_t c = 0; c < pitch; c++) biases[c] = bias && c < C_ ? bias[c] : 0;
    filter_ = Filter{memory, bias ? biases : nullptr, pitch, Finish<float>(epilogue), result};
    zeros_ = biases + pitch;
    for (int64_t c = 0; c < C_; c++) zeros_[c] = 0;
  }
  static int64_t filter_values(int64_t channels) { return (kTaps * kTaps + 1) * round_up(channels, L); }

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
                                out + q * pixel, a.Q * pixel, pixel);
        continue;
      }
      Window<true> window;
      for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) {
          const bool inside = y + i >= 0 && y + i < a.H && x + j >= 0 && x + j < a.W;
          window.at[i][j] = inside ? source + ((y + i) * a.W + x + j) * pixel : zeros_;
        }
      tile<Step, Rows, true>(window, filter_, C_, out + q * pixel, a.Q * pixel, pixel);
    }
  }

  const Plane plane_;
  int64_t N_, D_, C_;
  const float* source_;
  float* result_;
  Filter filter_;
  float* zeros_;
};

// Values of scratch; 0: not for these kernels.
std::size_t tiled_values(const ConvShape& s, bool gradient, Plane* plane) {
  const bool fit = s.layout == Layout::channels_last && s.dtype == DType::f32 && s.C >= kLanes<float>;
  return fit && plane_of(s, gradient, plane) ? std::size_t(Tiled::filter_values(s.C) + s.C) : 0;
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
  Tiled(s, plane, static_cast<const float*>(source), static_cast<const float*>(w), static_cast<const float*>(b),
        epilogue, static_cast<float*>(result), memory)
      .run(threads);
  return true;
}

}  // namespace fastconv::cpu::FC_ISA
