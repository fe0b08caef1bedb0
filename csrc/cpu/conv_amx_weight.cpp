// Weight gradient of convolution on AMX: see conv_amx_weight.h for the blocking, amx_split.h for the arithmetic.
//
// Huge and non-finite values of x and dy are zeros in scratch. Where there are any, the products that they take part in
// are added one by one, so that they change what they meet and no other bit. Where there are many, or where a gradient
// is so small that digits of it may have been lost to denormals, the AVX-512 kernel computes the call.
#include "conv_amx_weight.h"

#include "conv_pack.h"
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
constexpr int64_t kStoreChannels = 8;  // whose filters one task writes

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
      std::memset(mine.zeros, 0, sizeof(T) * std::size_t(max_of(p.chunk_c, p.chunk_k)));
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
      const int64_t stores = ceil_div(p.chunk_k, kStoreChannels);
      parallel_for(p.threads, units_ * stores, [&](int64_t task, int) {
        if (!finish(task / stores, task % stores * kStoreChannels, kStoreChannels, least))
          __atomic_store_n(&lost, 1, __ATOMIC_RELAXED);
      });
      if (lost) return false;
    }
    return true;
  }

 private:
  struct Scratch {
    uint16_t *x, *dy;
    float *strip, *tiles;
    int64_t *x_offsets, *dy_offsets;
    const void** pointers;  // of a block's positions
    T* zeros;               // of a pixel's channels
    uint32_t* largest;      // magnitude met so far, of x and of dy
  };
  Scratch scratch(int thread) const {
    char* at = threads_ + thread * p.thread_bytes;
    Scratch c;
    c.x = reinterpret_cast<uint16_t*>(at);
    c.dy = reinterpret_cast<uint16_t*>(at += p.x_bytes);
    c.strip = reinterpret_cast<float*>(at += p.dy_bytes);
    c.tiles = reinterpret_cast<float*>(at += p.strip_bytes);
    c.largest = reinterpret_cast<uint32_t*>(at += 4096);
    c.x_offsets = reinterpret_cast<int64_t*>(at + 64);
    c.dy_offsets = c.x_offsets + p.block_planes * p.positions / kAmxDepth;
    c.pointers = reinterpret_cast<const void**>(at += p.offset_bytes);
    c.zeros = reinterpret_cast<T*>(at + p.pointer_bytes());
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
      load_dy(b, u, mine);
      const int64_t plane_tiles = ceil_div(b.rows * p.row_positions, kAmxDepth);
      for (int64_t j = 0; j < b.planes * plane_tiles; j++) {
        const int64_t plane = j / plane_tiles, tile = j % plane_tiles;
        const int64_t position = plane * p.plane_pitch + tile * kAmxDepth;
        mine.x_offsets[j] = (p.one_tap() ? position / 2 : position) * 2 * kAmxRows;
        mine.dy_offsets[j] = (plane * p.positions / kAmxDepth + tile) * Parts * kAmxValues;
      }
      for (int64_t tap = 0; tap < s.taps(); tap++)
        add_products(u, mine, tap, b.planes * plane_tiles, sums(partition, unit, tap), i == first);
    }
  }

  void add_products(const Unit& u, const Scratch& mine, int64_t tap, int64_t count, float* sums, bool first) const {
    const int64_t col = tap % s.kernel[2] * s.dilation[2], line = tap / s.kernel[2] % s.kernel[1] * s.dilation[1];
    const int64_t slot = line % s.stride[1] * p.phase_lines + line / s.stride[1];
    const int64_t moved = tap / s.kernel[2] / s.kernel[1] * p.slice_pitch + col / s.stride[2] +
                          (col % s.stride[2] * p.line_phases * p.phase_lines + slot) * p.row_positions;
    const auto columns_of = [&](int64_t c) {
      return TileColumns{mine.x + c / kAmxRows * p.x_tile() + moved * 2 * kAmxRows, mine.x_offsets,
                         p.pairs * 2 * kAmxRows, p.x_tile(), 2 * kAmxDepth};
    };
    // Adds up what the tiles left in scratch.
    const auto add = [&](float* to, int64_t rows, int64_t columns) {
      for (int64_t i = 0; i < rows; i++, to += p.chunk_c)
        for (int64_t j = 0; j < columns; j += 16) store(to + j, load(to + j) + load(mine.tiles + i * columns + j));
    };
    int64_t c = 0;
    for (; u.cn - c > kAmxRows; c += 2 * kAmxRows)
      for (int64_t k = 0; k < u.kn; k += 2 * kAmxRows) {
        const uint16_t* rows = mine.dy + k / kAmxRows * p.dy_tile();
        const TileRows a{{rows, rows + p.dy_tile()}, mine.dy_offsets, 2 * kAmxDepth, kAmxValues, kAmxRows, 1,
                         kAmxDepth / 2};
        const bool two = u.kn - k > kAmxRows;
        float* to = sums + k * p.chunk_c + c;
        float* out = first ? to : mine.tiles;
        const int64_t pitch = first ? p.chunk_c : 2 * kAmxRows;
        float* const both[2] = {out, two ? out + kAmxRows * pitch : nullptr};
        wide_sums<Parts>(nullptr, a, columns_of(c), count, both, pitch);
        if (!first) add(to, (two ? 2 : 1) * kAmxRows, 2 * kAmxRows);
      }
    for (int64_t k = 0; c < u.cn && k < u.kn; k += 4 * kAmxRows) {
      const int64_t tiles = min_of(4, ceil_div(u.kn - k, kAmxRows));
      NarrowRows a{{}, mine.dy_offsets, 2 * kAmxDepth, kAmxValues, kAmxRows, 1, kAmxDepth / 2};
      for (int64_t i = 0; i < 4; i++) a.group[i] = mine.dy + (k / kAmxRows + min_of(i, tiles - 1)) * p.dy_tile();
      float* to = sums + k * p.chunk_c + c;
      const int64_t pitch = first ? p.chunk_c : kAmxRows;
      float* out[4];
      for (int64_t i = 0; i < 4; i++)
        out[i] = i < tiles ? (first ? to : mine.tiles) + i * kAmxRows * pitch : nullptr;
      narrow_sums<Parts>(nullptr, a, columns_of(c), count, out, pitch);
      if (!first) add(to, tiles * kAmxRows, kAmxRows);
    }
  }

  // Where the positions of a block have their channels: in the array itself if that has channels last, else in strips of
  // 16 channels, transposed. What lies outside the array is a pixel of zeros.
  struct Line {
    int64_t image, pixel, w0, step, width;  // pixel 0 of a line; positions are its pixels w0, w0 + step, ...
    bool inside;
  };
  void point_at(const Line& line, const T* array, int64_t channels, int64_t channel, int64_t space, const Scratch& mine,
                const T** to) const {
    const T* from = array + (line.image * space + line.pixel) * channels + channel;
    for (int64_t j = 0, w = line.w0; j < p.row_positions; j++, w += line.step)
      to[j] = line.inside && w >= 0 && w < line.width ? from + w * channels : mine.zeros;
  }
  static void transpose_line(const Line& line, const T* array, int64_t channels, int64_t channel, int64_t count,
                             int64_t space, int64_t positions, float* to) {
    const T* from = array + (line.image * channels + channel) * space + line.pixel;
    for (int64_t j = 0; j < positions; j += 16) {
      Vec<float> r[16] = {};
      for (int c = 0; c < 16; c++) {
        if (c >= count || !line.inside) continue;
        if (line.step == 1) {
          r[c] = load_within(from + c * space, line.w0 + j, line.width, Vec<float>{});
          continue;
        }
        float lane[16];
        for (int i = 0; i < 16; i++) {
          const int64_t w = line.w0 + (j + i) * line.step;
          lane[i] = w >= 0 && w < line.width ? float(to_accumulator(from[c * space + w])) : 0.0f;
        }
        r[c] = load(lane);
      }
      transpose<float>(r);
      for (int64_t i = 0; i < min_of(16, positions - j); i++) store(to + 16 * (j + i), r[i]);
    }
  }

  // f(line, position) for all lines of x in a block: [plane][depth tap][column modulo stride][line, sorted].
  template <class F> void each_line_of_x(const Block& b, F&& f) const {
    const int64_t lines = (b.rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
    for (int64_t i = 0; i < b.planes; i++) {
      const int64_t n = (b.plane + i) / s.out[0], o = (b.plane + i) % s.out[0];
      int64_t position = i * p.plane_pitch;
      for (int64_t t = 0; t < s.kernel[0]; t++)
        for (int64_t phase = 0; phase < p.col_phases; phase++)
          for (int64_t slot = 0; slot < p.line_phases * p.phase_lines; slot++, position += p.row_positions) {
            const int64_t line = slot % p.phase_lines * s.stride[1] + slot / p.phase_lines;
            const int64_t d = o * s.stride[0] - s.pad[0] + t * s.dilation[0];
            const int64_t h = b.row * s.stride[1] - s.pad[1] + line;
            f(Line{n, (d * s.in[1] + h) * s.in[2], b.col * s.stride[2] - s.pad[2] + phase, s.stride[2], s.in[2],
                   line < lines && d >= 0 && d < s.in[0] && h >= 0 && h < s.in[1]},
              position);
          }
    }
  }
  template <class F> void each_line_of_dy(const Block& b, F&& f) const {
    for (int64_t i = 0; i < b.planes; i++) {
      const int64_t n = (b.plane + i) / s.out[0], o = (b.plane + i) % s.out[0];
      for (int64_t r = 0; r < b.rows; r++)
        f(Line{n, (o * s.out[1] + b.row + r) * s.out[2] + b.col, 0, 1, b.cols, true},
          i * p.positions + r * p.row_positions);
    }
  }

  // Fills an operand of the block: `put` takes the pixels' pointers, a place for the first of their channels, and the
  // number of channels.
  template <class EachLine, class Put>
  FC_INLINE void fill(const T* array, int64_t channels, int64_t channel, int64_t count, int64_t space, int64_t end,
                      const Scratch& mine, EachLine&& each_line, Put&& put) const {
    if (last_) {
      const T** pointers = reinterpret_cast<const T**>(mine.pointers);
      for (int64_t q = 0; q < end + kAmxRows; q++) pointers[q] = mine.zeros;
      each_line([&](const Line& line, int64_t at) {
        point_at(line, array, channels, channel, space, mine, pointers + at);
      });
      put(pointers, 0, count);
      return;
    }
    const float** pointers = reinterpret_cast<const float**>(mine.pointers);
    for (int64_t q = 0; q < end + kAmxRows; q++) pointers[q] = mine.strip + 16 * q;
    for (int64_t c = 0; c < count; c += kAmxRows) {
      zero_fill(mine.strip, 16 * (end + kAmxRows));
      each_line([&](const Line& line, int64_t at) {
        transpose_line(line, array, channels, channel + c, count - c, space, p.row_positions, mine.strip + 16 * at);
      });
      put(pointers, c, min_of(kAmxRows, count - c));
    }
  }

  // The pairs of x, 16 channels at a time. Behind the last plane the last tile reads them, where dy is zero: they have to
  // be finite there.
  __attribute__((noinline)) void load_x(const Block& b, const Unit& u, const Scratch& mine) const {
    const int64_t end = b.planes * p.plane_pitch + p.behind();
    const int64_t part_pitch = p.pairs * 2 * kAmxRows, skip = p.one_tap() ? kAmxRows : 0;  // after each 16 pairs
    Words largest{};
    fill(x_, s.C, u.group * p.C + u.c, u.cn, s.in_space(), end, mine, [&](auto&& f) { each_line_of_x(b, f); },
         [&](auto* const* pixels, int64_t first, int64_t count) {
           uint16_t* to = mine.x + first / kAmxRows * p.x_tile();
           for (int64_t q = 0; q < end; q += kAmxRows + skip)
             for (int64_t i = q; i < min_of(q + kAmxRows, end); i++, to += 2 * kAmxRows)
               for (int64_t c = 0; c < count; c += kAmxRows) {
                 Words pair[Parts];
                 pair_up(load_up_to(pixels[i] + c, count - c), load_up_to(pixels[i + kAmxRows] + c, count - c), pair,
                         largest);
#pragma GCC unroll 3
                 for (int part = 0; part < Parts; part++)
                   store_words(to + c / kAmxRows * p.x_tile() + part * part_pitch, pair[part]);
               }
         });
    note(largest, mine.largest);
  }

  // The rows of dy's tiles: [plane][32 positions][part][output channel][pair].
  __attribute__((noinline)) void load_dy(const Block& b, const Unit& u, const Scratch& mine) const {
    const int64_t end = b.planes * p.positions;
    Words largest{};
    fill(dy_, s.K, u.group * p.K + u.k, u.kn, s.out_space(), end, mine, [&](auto&& f) { each_line_of_dy(b, f); },
         [&](auto* const* pixels, int64_t first, int64_t count) {
           for (int64_t q = 0; q < end; q += kAmxDepth)
             for (int64_t k = 0; k < count; k += kAmxRows)
               transpose_block(pixels + q, k, count - k, q + kAmxDepth < end,
                               mine.dy + (first + k) / kAmxRows * p.dy_tile() + q / kAmxDepth * Parts * kAmxValues,
                               largest);
         });
    note(largest, mine.largest + 1);
  }

  // 32 positions of 16 channels -> rows of a tile of every part. One cache line of each pixel: no hardware prefetcher sees
  // the next 32 coming.
  template <class S>
  static FC_INLINE void transpose_block(const S* const* pixels, int64_t k, int64_t count, bool more, uint16_t* to,
                                        Words& largest) {
    Words pair[16][Parts];
    for (int i = 0; i < 16; i++) {
      if (more) {
        __builtin_prefetch(pixels[kAmxDepth + i] + k);
        __builtin_prefetch(pixels[kAmxDepth + i + 16] + k);
      }
      pair_up(load_up_to(pixels[i] + k, count), load_up_to(pixels[i + 16] + k, count), pair[i], largest);
    }
#pragma GCC unroll 3
    for (int q = 0; q < Parts; q++) {
      Vec<float> r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) r[i] = (Vec<float>)pair[i][q];
      transpose<float>(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) store_words(to + q * kAmxValues + i * kAmxDepth, (Words)r[i]);
    }
  }

  static FC_INLINE void pair_up(Vec<float> first, Vec<float> second, Words* pair, Words& largest) {
    first = plain(first, largest);
    second = plain(second, largest);
    if constexpr (sizeof(T) == 2) pair[0] = ((Words)first >> 16) | (Words)second;  // bfloat16 as it is
    else split_pairs<Parts>(first, second, pair);
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
        float* column = sums(0, unit, tap) + c;
        for (int64_t i = 0; i < u.kn; i++)
          column[i * p.chunk_c] +=
              v * to_accumulator(dy_[index(s.K, s.out, n, u.group * p.K + u.k + i, o[0], o[1], o[2])]);
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
        float* row = sums(0, unit, tap) + column * p.chunk_c;
        for (int64_t c = 0; c < u.cn; c++) {
          const float x =
              inside ? float(to_accumulator(x_[index(s.C, s.in, n, u.group * p.C + u.c + c, i[0], i[1], i[2])])) : 0.0f;
          if (!huge(x)) row[c] += v * x;  // products of two huge values were added with x
        }
      }
    });
  }

  // Adds up the partitions and writes the filters of `count` output channels of a unit from k on. False where a gradient
  // is not zero but below `least`.
  __attribute__((noinline)) bool finish(int64_t unit, int64_t k, int64_t count, float least) const {
    const Unit u = unit_of(unit);
    const int64_t taps = s.taps(), filter = p.C * taps;
    T* filters = dw_ + (u.group * p.K + u.k) * filter + u.c * taps;
    Words lost{};
    const auto sum = [&](int64_t tap, int64_t at) {
      Vec<float> v = load(sums(0, unit, tap) + at);
      for (int64_t part = 1; part < p.partitions; part++) v += load(sums(part, unit, tap) + at);
      const Vec<float> magnitude = (Vec<float>)((Words)v & kMagnitude);
      lost |= (Words)(magnitude > Vec<float>{}) & (Words)(magnitude < broadcast(least));
      return v;
    };
    for (int64_t end = min_of(k + count, u.kn); k < end; k++)
      for (int64_t c = 0; c < u.cn; c += 16) {
        const int64_t at = k * p.chunk_c + c, channels = min_of(16, u.cn - c);
        T* to = filters + k * filter + c * taps;
        if (taps == 1) {
          store_up_to(to, sum(0, at), channels);
          continue;
        }
        for (int64_t tap = 0; tap < taps; tap += 16) {
          const int64_t n = min_of(16, taps - tap);
          Vec<float> v[16];
          for (int64_t i = 0; i < 16; i++) v[i] = i < n ? sum(tap + i, at) : Vec<float>{};
          transpose<float>(v);
          for (int64_t i = 0; i < channels; i++) store_up_to(to + i * taps + tap, v[i], n);
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
  if (select_conv(s, ConvOp::backward_weight).algorithm != kTileAlgorithm)
    return avx512::conv_backward_weight(s, dy, x, dw, ctx);
  const double bytes = double(item_size(s.dtype)) * double(s.N) * double(s.C) * double(s.in_space());
  const AmxWeightPlan plan = amx_weight_plan(s, amx_parts(s), ctx.threads_for(s.flops(), bytes));
  char* scratch = static_cast<char*>(ctx.workspace(plan.bytes()));
  if (!scratch) return;
  const bool done = with_parts(s, [&](auto type, auto parts) {
    return backward_weight<decltype(type), decltype(parts)::value>(plan, dy, x, dw, scratch);
  });
  if (!done) avx512::conv_backward_weight(s, dy, x, dw, ctx);
}

}  // namespace FC_ISA
}  // namespace fastconv::cpu
