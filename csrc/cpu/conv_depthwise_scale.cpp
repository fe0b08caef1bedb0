// Depthwise 1x1 filters of stride 1, and their input gradient: every channel by a factor, and a shift. What batch
// normalisation with running statistics is, or the scaling of an image's channels.
//
// Bound by memory: no scratch, every value is read and written once. Arrays of 6 MB 41 to 65 GB/s, of 26 MB 15 to 22,
// where the generic kernel moved 8 to 12 (Zen 3, 2 threads, 22 GB/s copied).
#include "conv_depthwise.h"
#include "epilogue.h"
#include "parallel.h"
#include "unroll.h"

namespace fastconv::cpu::FC_ISA {
namespace {

using std::int64_t;

constexpr int64_t kTaskValues = 32 << 10;
constexpr int kPixels = 4;  // that share a load of factor and shift
// Up to so many bytes of a pixel: longer ones are streams a page holds only a few of, which the prefetchers do not follow
// (8 images on Zen 3, four pixels and one, ms: 64 channels at 56x56 0.33, 0.43; 160 1.7, 0.98; 256 at 28x28 0.52, 0.35).
constexpr int64_t kSharedBytes = 512;
constexpr int64_t kFewChannels = 32;

template <class T> struct Scale {
  typedef Accumulator<T> A;
  static constexpr int L = kLanes<A>;
  const T *source, *factor, *shift;  // shift: null for none
  T* result;
  Finish<T> finish;

  FC_INLINE Vec<A> at(int64_t i, int64_t n, Vec<A> w, Vec<A> b) const {
    // From zero and the bias last, as all depthwise kernels.
    Vec<A> v = multiply_add(w, load_up_to(source + i, n), Vec<A>{});
    if (shift) v += b;
    return finish.wanted ? finish(v, i, n) : v;
  }

  // Pixels [begin, begin + Count) of `channels` channels next to each other.
  template <int Count> FC_INLINE void pixels(int64_t begin, int64_t channels) const {
    const auto column = [&](int64_t c, int64_t n) __attribute__((always_inline)) {
      const Vec<A> w = load_up_to(factor + c, n), b = shift ? load_up_to(shift + c, n) : Vec<A>{};
      each<Count>([&](auto p) __attribute__((always_inline)) {
        const int64_t i = (begin + p) * channels + c;
        store_up_to(result + i, at(i, n, w, b), n);
      });
    };
    int64_t c = 0;
    for (; c + L <= channels; c += L) column(c, L);
    if (c < channels) column(c, channels - c);
  }

  void channels_last(int64_t space, int64_t channels, int threads) const {
    if (channels % L && channels < kFewChannels) return few_channels(space, channels, threads);
    const int64_t piece = round_up(max_of(1, kTaskValues / channels), kPixels);
    const bool share = channels * int64_t(sizeof(T)) <= kSharedBytes;
    parallel_for(threads, ceil_div(space, piece), [&](int64_t task, int) {
      const Scale s = *this;  // no store changes it
      int64_t p = task * piece;
      const int64_t end = min_of(p + piece, space);
      for (; share && p + kPixels <= end; p += kPixels) s.template pixels<kPixels>(p, channels);
      for (; p < end; p++) s.template pixels<1>(p, channels);
    });
  }

  // L pixels as one of L times the channels: whole registers, where most of each would be empty.
  void few_channels(int64_t space, int64_t channels, int threads) const {
    T factors[kFewChannels * L], shifts[kFewChannels * L];
    const int64_t wide = channels * L;
    for (int64_t i = 0; i < wide; i++) {
      factors[i] = factor[i % channels];
      if (shift) shifts[i] = shift[i % channels];
    }
    Scale s = *this;
    s.factor = factors;
    s.shift = shift ? shifts : nullptr;
    s.channels_last(space / L, wide, threads);
    const FlushDenormals scope;
    for (int64_t p = space / L * L; p < space; p++) pixels<1>(p, channels);
  }

  void channels_first(int64_t planes, int64_t channels, int64_t space, int threads) const {
    const int64_t pieces = ceil_div(space, kTaskValues), group = max_of(1, kTaskValues / space);
    parallel_for(threads, ceil_div(planes, group) * pieces, [&](int64_t task, int) {
      const Scale s = *this;
      const int64_t first = task / pieces * group, from = task % pieces * kTaskValues;
      for (int64_t plane = first; plane < min_of(first + group, planes); plane++) {
        const int64_t c = plane % channels;
        const Vec<A> w = broadcast<A>(to_accumulator(s.factor[c]));
        const Vec<A> b = broadcast<A>(s.shift ? to_accumulator(s.shift[c]) : A(0));
        const int64_t end = plane * space + min_of(from + kTaskValues, space);
        for (int64_t i = plane * space + from; i < end; i += L) store_up_to(s.result + i, s.at(i, end - i, w, b), end - i);
      }
    });
  }
};

}  // namespace

bool depthwise_scale_fits(const ConvShape& s) {
  bool fits = s.taps() == 1 && s.C == s.K;
  for (int d = 0; d < 3; d++) fits = fits && s.stride[d] == 1 && s.in[d] == s.out[d];
  return fits;
}

void depthwise_scale(const ConvShape& s, const void* source, const void* w, const void* b, const Epilogue& epilogue,
                     void* result, int threads) {
  with_type(s.dtype, [&](auto zero) {
    typedef decltype(zero) T;
    const Scale<T> scale{static_cast<const T*>(source), static_cast<const T*>(w), static_cast<const T*>(b),
                         static_cast<T*>(result), Finish<T>(epilogue)};
    if (s.layout == Layout::channels_last) scale.channels_last(s.N * s.in_space(), s.C, threads);
    else scale.channels_first(s.N * s.C, s.C, s.in_space(), threads);
  });
}

}  // namespace fastconv::cpu::FC_ISA
