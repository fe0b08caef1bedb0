// Weight gradient of convolution on AMX: see conv_amx_weight.h for the blocking, amx_split.h for the arithmetic.
//
// Huge and non-finite values of x and dy are zeros in scratch. Where there are any, the products that they take part in
// are added one by one, so that they change what they meet and no other bit. Where there are many, or where a gradient
// is so small that digits of it may have been lost to denormals, the AVX-512 kernel computes the call.
#include "conv_amx_weight.h"

#include "conv_select.h"

namespace fastconv::cpu {

namespace avx512 {
void conv_backward_weight(const ConvShape&, const void* dy, const void* x, void* dw, Context&);
}

namespace FC_ISA {
namespace {

// Both operands are activations here. 2^-50 * 2^-50 leaves 26 bits above the smallest normal number.
template <int Parts>
constexpr PlainRange kFactor = Parts == 1 ? kOnePart : PlainRange{float_bits_of_power(-50), float_bits_of_power(50)};
constexpr int64_t kMostHuge = 1024;   // values whose products are added one by one
constexpr int64_t kStoreValues = 2048;  // of an output channel's filter, one task

float float_of_bits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

template <class T, int Parts> class AmxWeightGradient {
 public:
  AmxWeightGradient(const AmxWeightPlan& plan, const T* dy, const T* x, T* dw)
      : p(plan), s(plan.s), dy_(dy), x_(x), dw_(dw), last_(plan.s.layout == Layout::channels_last) {}

  // False where the AVX-512 kernel has to compute it.
  bool run(char* workspace) {
    sums_ = reinterpret_cast<float*>(workspace);
    threads_ = workspace + p.sum_bytes;
    for (int i = 0; i < p.threads; i++) {
      const Scratch mine = scratch(i);
      mine.largest[0] = mine.largest[1] = 0;
    }
    int lost = 0;
    for (unit0_ = 0; unit0_ < p.units; unit0_ += p.units_per_pass) {
      units_ = min_of(p.units_per_pass, p.units - unit0_);
      parallel_for(p.threads, p.partitions * units_, [&](int64_t task, int thread) {
        accumulate(task / units_, task % units_, thread);
      });
      uint32_t largest[2] = {0, 0};
      for (int i = 0; i < p.threads; i++)
        for (int j = 0; j < 2; j++) largest[j] = max_of(largest[j], scratch(i).largest[j]);
      if ((largest[0] >= kFactor<Parts>.most || largest[1] >= kFactor<Parts>.most) && !add_huge()) return false;
      // What denormal parts and products lose of a sum is below 2^-124 of its terms times the larger factor.
      for (uint32_t& l : largest) l = min_of(l, kFactor<Parts>.most);
      const double terms = double(s.N) * double(s.out_space());
      const double factors = 1.0 + float_of_bits(largest[0]) + float_of_bits(largest[1]);
      const float least = Parts == 1 ? 0 : float(terms * factors * 0x1p-100);
      const int64_t values = p.chunk_c * s.taps(), stores = ceil_div(values, kStoreValues);
      parallel_for(p.threads, units_ * stores, [&](int64_t task, int) {
        if (!finish(task / stores, task % stores * kStoreValues, least)) __atomic_store_n(&lost, 1, __ATOMIC_RELAXED);
      });
      if (lost) return false;
    }
    return true;
  }

 private:
  struct Scratch {
    uint16_t *x, *dy;
    float* tiles;
    int64_t* offsets;
    uint32_t* largest;  // magnitude met so far, of x and of dy
  };
  Scratch scratch(int thread) const {
    char* at = threads_ + thread * p.thread_bytes;
    Scratch c;
    c.x = reinterpret_cast<uint16_t*>(at);
    c.dy = reinterpret_cast<uint16_t*>(at += round_up(p.x_bytes, 64));
    c.tiles = reinterpret_cast<float*>(at += round_up(p.dy_bytes, 64));
    c.largest = reinterpret_cast<uint32_t*>(at += 4096);
    c.offsets = reinterpret_cast<int64_t*>(at + 64);
    return c;
  }

  // Channels [c, c + cn) x [k, k + kn) of a group.
  struct Unit {
    int64_t group, c, cn, k, kn;
  };
  Unit unit_of(int64_t unit) const {
    const int64_t u = unit0_ + unit, c = u % p.c_chunks * p.chunk_c, k = u / p.c_chunks % p.k_chunks * p.chunk_k;
    return {u / p.c_chunks / p.k_chunks, c, min_of(p.chunk_c, p.C - c), k, min_of(p.chunk_k, p.K - k)};
  }
  // Planes [plane, plane + planes), rows [row, row + rows), columns [col, col + cols) of the output.
  struct Block {
    int64_t plane, planes, row, rows, col, cols;
  };
  float* sums(int64_t partition, int64_t unit, int64_t tap) const {
    return sums_ + (partition * units_ + unit) * p.unit_sums + tap * p.chunk_c * p.chunk_k;
  }

  static Vec<float> plain(Vec<float> v, Words& largest) {
    const Words magnitude = (Words)v & kMagnitude;
    largest = magnitude > largest ? magnitude : largest;
    return plain_or_zero(v, kFactor<Parts>);
  }
  static void note(const Words& largest, uint32_t* to) {
    for (int i = 0; i < 16; i++)
      if (largest[i] > *to) *to = largest[i];
  }

  __attribute__((noinline)) void accumulate(int64_t partition, int64_t unit, int thread) {
    const TileScope tiles;
    const Scratch mine = scratch(thread);
    const Unit u = unit_of(unit);
    const int64_t first = partition * p.blocks / p.partitions, end = (partition + 1) * p.blocks / p.partitions;
    for (int64_t i = first; i < end; i++) {
      Block b;
      b.col = i % p.col_blocks * p.block_cols;
      b.cols = min_of(p.block_cols, s.out[2] - b.col);
      b.row = i / p.col_blocks % p.row_blocks * p.block_rows;
      b.rows = min_of(p.block_rows, s.out[1] - b.row);
      b.plane = i / p.col_blocks / p.row_blocks * p.block_planes;
      b.planes = min_of(p.block_planes, p.planes - b.plane);
      load_x(b, u, mine);
      const int64_t plane_tiles = load_dy(b, u, mine);
      for (int64_t j = 0; j < b.planes * plane_tiles; j++)
        mine.offsets[j] = j / plane_tiles * p.plane_pitch + j % plane_tiles * kAmxDepth;
      for (int64_t tap = 0; tap < s.taps(); tap++)
        add_products(u, mine, tap, b.planes * plane_tiles, sums(partition, unit, tap), i == first);
    }
  }

  void add_products(const Unit& u, const Scratch& mine, int64_t tap, int64_t count, float* sums, bool first) const {
    const int64_t col = tap % s.kernel[2] * s.dilation[2], line = tap / s.kernel[2] % s.kernel[1] * s.dilation[1];
    const int64_t lines = s.stride[1] * p.phase_lines;
    const int64_t moved = tap / s.kernel[2] / s.kernel[1] * p.slice_pitch + col / s.stride[2] +
                          (col % s.stride[2] * lines + line % s.stride[1] * p.phase_lines + line / s.stride[1]) *
                              p.row_positions;
    const int64_t pair_pitch = p.dy_pitch() * 2;
    for (int64_t c = 0; c < u.cn; c += 2 * kAmxRows)
      for (int64_t k = 0; k < u.kn; k += 2 * kAmxRows) {
        const uint16_t* rows = mine.x + c * p.channel_pitch + moved;
        const TileRows a{{rows, rows + kAmxRows * p.channel_pitch}, mine.offsets, p.channel_pitch * 2,
                         p.chunk_c * p.channel_pitch};
        const TileColumns b{mine.dy + k * 2, kAmxRows * pair_pitch, p.block_planes * p.positions / 2 * pair_pitch,
                            2 * kAmxRows, pair_pitch * 2};
        tile_zero<0>();
        tile_zero<1>();
        const bool two = u.cn - c > kAmxRows;
        if (two) {
          tile_zero<2>();
          tile_zero<3>();
          accumulate_tiles<Parts, true>(a, b, count);
        } else {
          accumulate_tiles<Parts, false>(a, b, count);
        }
        float* to = sums + c * p.chunk_k + k;
        float* out = first ? to : mine.tiles;
        const int64_t pitch = first ? p.chunk_k : 2 * kAmxRows;
        tile_store<0>(out, pitch * 4);
        tile_store<1>(out + kAmxRows, pitch * 4);
        if (two) {
          tile_store<2>(out + kAmxRows * pitch, pitch * 4);
          tile_store<3>(out + kAmxRows * pitch + kAmxRows, pitch * 4);
        }
        if (first) continue;
        for (int64_t i = 0; i < (two ? 2 : 1) * kAmxRows; i++)
          for (int64_t j = 0; j < 2 * kAmxRows; j += 16)
            store(to + i * p.chunk_k + j, load(to + i * p.chunk_k + j) + load(out + i * pitch + j));
      }
  }

  // x of a block, channel by channel: [plane][depth tap][column modulo stride][line, sorted][column / stride].
  __attribute__((noinline)) void load_x(const Block& b, const Unit& u, const Scratch& mine) const {
    const int64_t lines = (b.rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
    const int64_t slots = s.stride[1] * p.phase_lines;
    Words largest{};
    for (int64_t i = 0; i < b.planes; i++) {
      const int64_t n = (b.plane + i) / s.out[0], o = (b.plane + i) % s.out[0];
      for (int64_t t = 0; t < s.kernel[0]; t++)
        for (int64_t phase = 0; phase < s.stride[2]; phase++)
          for (int64_t slot = 0; slot < slots; slot++) {
            const int64_t line = slot % p.phase_lines * s.stride[1] + slot / p.phase_lines;
            const int64_t d = o * s.stride[0] - s.pad[0] + t * s.dilation[0];
            const int64_t h = b.row * s.stride[1] - s.pad[1] + line;
            const int64_t at = i * p.plane_pitch + t * p.slice_pitch + (phase * slots + slot) * p.row_positions;
            if (line < lines && d >= 0 && d < s.in[0] && h >= 0 && h < s.in[1])
              split_line(u, n, d, h, b.col * s.stride[2] - s.pad[2] + phase, mine.x + at, largest);
            else
              zero_values(u, mine.x + at, p.row_positions);
          }
    }
    // The last tile reads behind the last plane, where dy is zero: x has to be finite there.
    zero_values(u, mine.x + b.planes * p.plane_pitch, p.behind());
    note(largest, mine.largest);
  }

  void zero_values(const Unit& u, uint16_t* to, int64_t n) const {
    for (int64_t q = 0; q < Parts; q++)
      for (int64_t c = 0; c < u.cn; c++)
        std::memset(to + (q * p.chunk_c + c) * p.channel_pitch, 0, std::size_t(n) * 2);
  }

  // Columns w0, w0 + stride, ... of a line. Stores run up to 15 values over, in ascending order of memory.
  __attribute__((noinline)) void split_line(const Unit& u, int64_t n, int64_t d, int64_t h, int64_t w0, uint16_t* to,
                                            Words& largest) const {
    const int64_t step = s.stride[2], part_pitch = p.chunk_c * p.channel_pitch, channel = u.group * p.C + u.c;
    if (last_) {
      const T* line = x_ + ((n * s.in[0] + d) * s.in[1] + h) * s.in[2] * s.C + channel;
      for (int64_t j = 0; j < p.row_positions; j += 16)
        for (int64_t c = 0; c < u.cn; c += 16) {
          Vec<float> r[16];
          for (int i = 0; i < 16; i++) {
            const int64_t w = w0 + (j + i) * step;
            r[i] = w >= 0 && w < s.in[2] ? load_up_to(line + w * s.C + c, u.cn - c) : Vec<float>{};
          }
          transpose<float>(r);
          for (int64_t i = 0; i < min_of(16, u.cn - c); i++)
            store_split<Parts>(plain(r[i], largest), to + (c + i) * p.channel_pitch + j, part_pitch);
        }
      return;
    }
    for (int64_t c = 0; c < u.cn; c++) {
      const T* line = x_ + (((n * s.C + channel + c) * s.in[0] + d) * s.in[1] + h) * s.in[2];
      for (int64_t j = 0; j < p.row_positions; j += 16) {
        Vec<float> v;
        if (step == 1) {
          v = load_within(line, w0 + j, s.in[2], Vec<float>{});
        } else {
          float lane[16];
          for (int i = 0; i < 16; i++) {
            const int64_t w = w0 + (j + i) * step;
            lane[i] = w >= 0 && w < s.in[2] ? float(to_accumulator(line[w])) : 0.0f;
          }
          v = load(lane);
        }
        store_split<Parts>(plain(v, largest), to + c * p.channel_pitch + j, part_pitch);
      }
    }
  }

  // dy of a block: [plane][pair of positions][output channel][2]. Returns the tiles of a plane.
  __attribute__((noinline)) int64_t load_dy(const Block& b, const Unit& u, const Scratch& mine) const {
    const int64_t pitch = p.dy_pitch() * 2, part_pitch = p.block_planes * p.positions / 2 * pitch;
    const int64_t positions = round_up(b.rows * p.row_positions, kAmxDepth), space = s.out_space();
    const int64_t channel = u.group * p.K + u.k;
    Words largest{};
    for (int64_t i = 0; i < b.planes; i++) {
      uint16_t* plane = mine.dy + i * positions / 2 * pitch;
      const int64_t n = (b.plane + i) / s.out[0], o = (b.plane + i) % s.out[0];
      for (int64_t r = 0; r < b.rows; r++) {
        uint16_t* row = plane + r * p.row_positions / 2 * pitch;
        const int64_t pixel = (o * s.out[1] + b.row + r) * s.out[2] + b.col;
        const T* from = last_ ? dy_ + (n * space + pixel) * s.K + channel : dy_ + (n * s.K + channel) * space + pixel;
        for (int64_t j = 0; j < p.row_positions; j += 16)
          for (int64_t k = 0; k < u.kn; k += 16) {
            const int64_t width = min_of(16, u.kn - k), pixels = min_of(16, b.cols - j);
            Vec<float> v[16];
            if (last_) {
              for (int m = 0; m < 16; m++)
                v[m] = m < pixels ? load_up_to(from + (j + m) * s.K + k, width) : Vec<float>{};
            } else {
              for (int m = 0; m < 16; m++)
                v[m] = m < width && pixels > 0 ? load_up_to(from + (k + m) * space + j, pixels) : Vec<float>{};
              transpose<float>(v);
            }
            for (int64_t m = 0; m < min_of(16, p.row_positions - j); m += 2) {
              Words pairs[Parts];
              split_pairs<Parts>(plain(v[m], largest), plain(v[m + 1], largest), pairs);
              for (int q = 0; q < Parts; q++) store_words(row + q * part_pitch + (j + m) / 2 * pitch + k * 2, pairs[q]);
            }
          }
      }
      for (int q = 0; q < Parts; q++)
        std::memset(plane + q * part_pitch + b.rows * p.row_positions / 2 * pitch, 0,
                    std::size_t((positions - b.rows * p.row_positions) / 2 * pitch) * 2);
    }
    note(largest, mine.largest + 1);
    return positions / kAmxDepth;
  }

  // Position of value (n, channel, d, h, w) of an array with these channels and sizes.
  int64_t index(int64_t channels, const int64_t* size, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) const {
    if (last_) return (((n * size[0] + d) * size[1] + h) * size[2] + w) * channels + c;
    return (((n * channels + c) * size[0] + d) * size[1] + h) * size[2] + w;
  }
  static bool huge(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return (bits & kMagnitude) >= kFactor<Parts>.most;
  }

  // Adds the products of huge and non-finite values to the sums of this pass; false where these are too many.
  __attribute__((noinline)) bool add_huge() const {
    int64_t found = 0;
    for (int64_t n = 0; n < s.N; n++) {
      if (!each_huge(x_, s.C, s.in, n, found,
                     [&](float v, int64_t c, const int64_t* at) { add_huge_x(v, n, c, at); }))
        return false;
      if (!each_huge(dy_, s.K, s.out, n, found,
                     [&](float v, int64_t k, const int64_t* at) { add_huge_dy(v, n, k, at); }))
        return false;
    }
    return true;
  }
  template <class F>
  bool each_huge(const T* array, int64_t channels, const int64_t* size, int64_t n, int64_t& found, F&& f) const {
    for (int64_t c = 0; c < channels; c++)
      for (int64_t d = 0; d < size[0]; d++)
        for (int64_t h = 0; h < size[1]; h++)
          for (int64_t w = 0; w < size[2]; w++) {
            const float v = to_accumulator(array[index(channels, size, n, c, d, h, w)]);
            if (!huge(v)) continue;
            if (++found > kMostHuge) return false;
            const int64_t at[3] = {d, h, w};
            f(v, c, at);
          }
    return true;
  }
  // f(tap, x position) for the taps through which output position `at` sees the input, borders included.
  template <class F> void each_tap(F&& f) const {
    for (int64_t t = 0; t < s.kernel[0]; t++)
      for (int64_t r = 0; r < s.kernel[1]; r++)
        for (int64_t q = 0; q < s.kernel[2]; q++) {
          const int64_t tap[3] = {t, r, q};
          f((t * s.kernel[1] + r) * s.kernel[2] + q, tap);
        }
  }
  void add_huge_x(float v, int64_t n, int64_t channel, const int64_t* at) const {
    each_tap([&](int64_t tap, const int64_t* k) {
      int64_t o[3];
      for (int d = 0; d < 3; d++) {
        const int64_t moved = at[d] + s.pad[d] - k[d] * s.dilation[d];
        o[d] = moved / s.stride[d];
        if (moved < 0 || moved % s.stride[d] || o[d] >= s.out[d]) return;
      }
      for (int64_t unit = 0; unit < units_; unit++) {
        const Unit u = unit_of(unit);
        const int64_t c = channel - u.group * p.C - u.c;
        if (c < 0 || c >= u.cn) continue;
        float* row = sums(0, unit, tap) + c * p.chunk_k;
        for (int64_t i = 0; i < u.kn; i++)
          row[i] += v * to_accumulator(dy_[index(s.K, s.out, n, u.group * p.K + u.k + i, o[0], o[1], o[2])]);
      }
    });
  }
  void add_huge_dy(float v, int64_t n, int64_t channel, const int64_t* at) const {
    each_tap([&](int64_t tap, const int64_t* k) {
      int64_t i[3];
      bool inside = true;
      for (int d = 0; d < 3; d++) {
        i[d] = at[d] * s.stride[d] - s.pad[d] + k[d] * s.dilation[d];
        inside = inside && i[d] >= 0 && i[d] < s.in[d];
      }
      for (int64_t unit = 0; unit < units_; unit++) {
        const Unit u = unit_of(unit);
        const int64_t column = channel - u.group * p.K - u.k;
        if (column < 0 || column >= u.kn) continue;
        float* rows = sums(0, unit, tap) + column;
        for (int64_t c = 0; c < u.cn; c++) {
          const float x =
              inside ? float(to_accumulator(x_[index(s.C, s.in, n, u.group * p.C + u.c + c, i[0], i[1], i[2])])) : 0.0f;
          if (!huge(x)) rows[c * p.chunk_k] += v * x;  // products of two huge values were added with x
        }
      }
    });
  }

  // Adds up the partitions and writes values [start, + kStoreValues) of the unit's filters, (channel, tap) by output
  // channel. False where a gradient is not zero but below `least`.
  __attribute__((noinline)) bool finish(int64_t unit, int64_t start, float least) const {
    const Unit u = unit_of(unit);
    const int64_t taps = s.taps(), end = min_of(start + kStoreValues, u.cn * taps), filter = p.C * taps;
    T* filters = dw_ + (u.group * p.K + u.k) * filter + u.c * taps;
    Words lost{};
    for (int64_t i = start; i < end; i += 16) {
      const int64_t n = min_of(16, end - i);
      for (int64_t k = 0; k < u.kn; k += 16) {
        Vec<float> v[16];
        for (int64_t l = 0; l < 16; l++) {
          v[l] = Vec<float>{};
          if (l >= n) continue;
          const int64_t at = (i + l) / taps * p.chunk_k + k;
          v[l] = load(sums(0, unit, (i + l) % taps) + at);
          for (int64_t part = 1; part < p.partitions; part++) v[l] += load(sums(part, unit, (i + l) % taps) + at);
        }
        transpose<float>(v);
        for (int64_t l = 0; l < min_of(16, u.kn - k); l++) {
          const Vec<float> magnitude = (Vec<float>)((Words)v[l] & kMagnitude);
          lost |= (Words)(magnitude > Vec<float>{}) & (Words)(magnitude < broadcast(least));
          store_up_to(filters + (k + l) * filter + i, v[l], n);
        }
      }
    }
    return !Extremes::any_lane(lost);
  }

  const AmxWeightPlan& p;
  const ConvShape& s;
  const T *dy_, *x_;
  T* dw_;
  bool last_;
  float* sums_ = nullptr;
  char* threads_ = nullptr;
  int64_t unit0_ = 0, units_ = 0;  // the pass at work
};

template <class T, int Parts>
bool backward_weight(const AmxWeightPlan& plan, const void* dy, const void* x, void* dw, char* scratch) {
  AmxWeightGradient<T, Parts> gradient(plan, static_cast<const T*>(dy), static_cast<const T*>(x), static_cast<T*>(dw));
  return gradient.run(scratch);
}

}  // namespace

void conv_backward_weight(const ConvShape& s, const void* dy, const void* x, void* dw, Context& ctx) {
  if (select_conv(s, ConvOp::backward_weight).algorithm != ConvAlgorithm::amx)
    return avx512::conv_backward_weight(s, dy, x, dw, ctx);
  const double bytes = double(item_size(s.dtype)) * double(s.N) * double(s.C) * double(s.in_space());
  const AmxWeightPlan plan = amx_weight_plan(s, amx_parts(s), ctx.threads_for(s.flops(), bytes));
  char* scratch = static_cast<char*>(ctx.workspace(plan.bytes()));
  if (!scratch) return;
  const auto compute = s.dtype == DType::bf16 ? backward_weight<bf16, 1>
                       : plan.parts == 1      ? backward_weight<float, 1>
                       : plan.parts == 2      ? backward_weight<float, 2>
                                              : backward_weight<float, 3>;
  if (!compute(plan, dy, x, dw, scratch)) avx512::conv_backward_weight(s, dy, x, dw, ctx);
}

}  // namespace FC_ISA
}  // namespace fastconv::cpu
