// Convolution forward and input gradient on AMX: see conv_amx.h for the blocking, amx_split.h for the arithmetic.
#include "amx_source.h"
#include "conv_pack.h"
#include "conv_phases.h"
#include "conv_select.h"

namespace fastconv::cpu {

// What AMX does not compute, or not for these values, is the AVX-512 table's.
namespace avx512 {
void conv_forward(const ConvShape&, const void* x, const void* w, const void* b, const Epilogue&, void* y, Context&);
void conv_backward_input(const ConvShape&, const void* dy, const void* w, const void* b, void* dx, Context&);
}  // namespace avx512

namespace FC_ISA {
namespace {

// The sums of one output pixel by fused multiply-adds with the weights of a panel, put together again from their parts.
template <int Parts>
__attribute__((noinline)) void sums_of_window(const float* window, int64_t blocks, const uint16_t* panel,
                                              const float* bias, float* sums) {
  Vec<float> acc[2] = {load(bias), load(bias + 16)};
  for (int64_t j = 0; j < blocks; j++)
    for (int64_t k = 0; k < 16; k++) {
      const Vec<float> x0 = broadcast(window[j * kAmxDepth + 2 * k]), x1 = broadcast(window[j * kAmxDepth + 2 * k + 1]);
      for (int half = 0; half < 2; half++) {
        Vec<float> even{}, odd{};
        for (int q = Parts - 1; q >= 0; q--) {
          const uint16_t* pairs = panel + ((j * Parts + q) * 2 + half) * kAmxValues + k * 32;
          const Words w = *reinterpret_cast<const LooseWords*>(pairs);
          even += (Vec<float>)(w << 16);
          odd += (Vec<float>)(w & kUpperHalf);
        }
        acc[half] += x0 * even;
        acc[half] += x1 * odd;
      }
    }
  store(sums, acc[0]);
  store(sums + 16, acc[1]);
}

// The panel of 32 output channels of a 1x1 filter whose pairs lie next to each other already.
bool pack_pairs(const bf16* w, int64_t column_stride, int64_t channels, uint16_t* panel) {
  LargestHalf met;
  for (int64_t c = 0; c < channels; c += kAmxDepth)
    for (int half = 0; half < 2; half++, panel += kAmxValues) {
      Vec<float> r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) {
        const bf16* const row = w + (half * 16 + i) * column_stride + c;
        __builtin_prefetch(row + 4 * kAmxDepth);
        r[i] = (Vec<float>)met.see(load_halves(row, kAmxDepth));
      }
      transpose<float>(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) store_words(panel + i * kAmxDepth, (Words)r[i]);
    }
  return !met.huge(kOnePart);
}

// Panels of a 1x1 filter whose rows are reduction steps: `columns` output channels next to each other, rows `pitch` apart.
bool pack_row_pairs(const bf16* w, int64_t pitch, int64_t steps, int64_t columns, uint16_t* panels, int64_t panel_values) {
  constexpr int64_t kRowsAhead = 4;
  LargestHalf met;
  for (int64_t k = 0; k < round_up(steps, kAmxDepth); k += 2) {
    uint16_t* to = panels + k / kAmxDepth * 2 * kAmxValues + k % kAmxDepth / 2 * kAmxDepth;
    const bf16 *const one = w + k * pitch, *const two = one + pitch;
    for (int64_t c = 0; c < columns; c += kAmxColumns, to += panel_values) {
      __builtin_prefetch(one + kRowsAhead * pitch + c);
      __builtin_prefetch(two + kRowsAhead * pitch + c);
      const Halves a = met.see(k < steps ? load_halves(one + c, columns - c) : Halves{});
      const Halves b = met.see(k + 1 < steps ? load_halves(two + c, columns - c) : Halves{});
      store_words(to, low_pairs(a, b));
      store_words(to + kAmxValues, high_pairs(a, b));
    }
  }
  return !met.huge(kOnePart);
}

// Splits `columns` output channels from w on into a panel (several, where b.panels_together): [reduction block][part][two
// tiles]. False where a weight is not plain. `rows` holds the weights of some channels of all taps as floats, [reduction
// step][output channel].
template <class T, int Parts>
bool split_panel(const TapProblem& p, const AmxBlocking& b, const T* w, const std::int32_t* slots, int64_t columns,
                 float* rows, uint16_t* panel) {
  if constexpr (sizeof(T) == 2) {
    if (b.panels_together > 1) return pack_row_pairs(w, p.channel_stride, p.channels, columns, panel, b.panel_values);
    if (p.kernel_taps() == 1 && p.channel_stride == 1 && columns == kAmxColumns && p.channels % kAmxDepth == 0)
      return pack_pairs(w, p.column_stride, p.channels, panel);
  }
  const int64_t step = b.folded ? p.channels : kAmxDepth, run = run_length(p), run_blocks = ceil_div(run, kAmxDepth);
  const bool lane_pairs = sizeof(T) == 4 && !b.folded;
  Extremes met;
  for (int64_t c0 = 0; c0 < p.channels; c0 += step) {
    const int64_t channels = min_of(step, p.channels - c0), length = b.folded ? run : channels;
    pack_panel<T, float>(w + c0 * p.channel_stride,
                         WeightSource{p.column_stride, p.channel_stride, p.kernel_taps(), channels, slots}, columns,
                         kAmxColumns, rows);
    for (int64_t u = 0; u < run_count(p); u++) {
      const float* from = rows + u * length * kAmxColumns;
      uint16_t* to = panel + (u * run_blocks + c0 / kAmxDepth) * Parts * 2 * kAmxValues;
      for (int64_t k = 0; k < round_up(length, kAmxDepth); k += 2) {
        uint16_t* block = to + k / kAmxDepth * Parts * 2 * kAmxValues + k % kAmxDepth / 2 * 32;
        for (int half = 0; half < 2; half++) {
          const int64_t one = lane_pairs ? k - k % kAmxDepth / 2 : k, two = lane_pairs ? one + 16 : k + 1;
          const auto row = [&](int64_t i) {
            const Vec<float> v = i < length ? load(from + i * kAmxColumns + half * 16) : Vec<float>{};
            met.see<Parts>(v);
            return v;
          };
          store_pairs<Parts>(row(one), row(two), block + half * kAmxValues, 2 * kAmxValues);
        }
      }
    }
  }
  return met.plain(kWeight<Parts>);
}

// False where a weight is not plain; y is then not what it should be.
template <class T, int Parts>
bool solve_amx(TapProblem p, const T* x, const T* weights, const T* bias, const Finish<T>& finish, T* y, Context& ctx) {
  const double flops = 2.0 * double(p.N) * double(p.groups * p.columns) * double(p.depth()) *
                       double(p.axis[0].count * p.axis[1].count * p.axis[2].count);
  flatten_pointwise(p);
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  AmxBlocking b = amx_blocking(p, Parts, ctx.threads_for(flops, flops / 4));
  const int64_t all_panels = p.groups * b.panels_per_group, out_channels = p.groups * p.columns;
  bool packed;
  uint16_t* kept = packed_panels<T, uint16_t>(kTileAlgorithm, p, kAmxColumns, Parts, all_panels * b.panel_values,
                                              &packed, ctx);
  const AmxWorkspace ws = amx_lay_out(p, b, Parts, kept);
  char* base = static_cast<char*>(ctx.workspace(std::size_t(ws.total)));
  if (!base) return true;
  uint16_t* panels = kept ? kept : reinterpret_cast<uint16_t*>(base);
  if (kept) b.panels_per_pass = all_panels;
  float* shift = reinterpret_cast<float*>(base + ws.bias);
  int64_t* offsets = reinterpret_cast<int64_t*>(base + ws.offsets);
  int64_t* weight_offsets = offsets + b.blocks;
  for (int64_t j = 0; j < b.blocks; j++) weight_offsets[j] = j * Parts * 2 * kAmxValues;
  std::int32_t* slots = reinterpret_cast<std::int32_t*>(base + ws.slots);
  const int64_t out_plane = high.out * wide.out;
  const bool last = p.layout == Layout::channels_last;
  constexpr bool same_type = sizeof(T) == 4;

  const int64_t run_blocks = ceil_div(run_length(p), kAmxDepth);
  const int64_t last_steps = run_length(p) - (run_blocks - 1) * kAmxDepth;
  const int64_t last_pairs = same_type && !b.folded ? min_of(kAmxDepth / 2, last_steps) : ceil_div(last_steps, 2);
  tap_slots(p, slots);
  for (int64_t u = 0, at = 0; u < run_count(p); u++)
    for (int64_t k = 0; k < run_length(p); k += kAmxDepth) {
      const int64_t s = b.folded ? 0 : u % wide.taps, rest = b.folded ? u : u / wide.taps;
      offsets[at++] = rest / high.taps * b.slice_pitch + rest % high.taps * high.step * b.row_pitch +
                      s * wide.step * b.pitch + k;
    }
  for (int64_t u = 0; u < all_panels; u++)
    for (int64_t j = 0; j < kAmxColumns; j++) {
      const int64_t k = u % b.panels_per_group * kAmxColumns + j;
      shift[u * kAmxColumns + j] =
          bias && k < p.columns ? to_accumulator(bias[u / b.panels_per_group * p.columns + k]) : 0.0f;
    }

  int all_plain = 1;
  // `count` panels from u on.
  const auto pack = [&](int64_t u, int64_t count, float* rows, uint16_t* to) {
    const int64_t group = u / b.panels_per_group, k0 = u % b.panels_per_group * kAmxColumns;
    const T* const from = weights + group * p.columns * p.channels * p.kernel_taps() + k0 * p.column_stride;
    if (!split_panel<T, Parts>(p, b, from, slots, min_of(count * kAmxColumns, p.columns - k0), rows, to))
      __atomic_store_n(&all_plain, 0, __ATOMIC_RELAXED);
  };

  const auto compute = [&](int64_t task, int thread, int64_t u0, int64_t u1) {
    const TileScope tiles;
    char* own = base + ws.shared + thread * ws.thread_bytes;
    SourceBlock<T, Parts> source{p, b, x, reinterpret_cast<uint16_t*>(own),
                                 reinterpret_cast<std::uint8_t*>(own + ws.flags)};
    float* sums = reinterpret_cast<float*>(own + ws.sums);
    AmxGroup* groups = reinterpret_cast<AmxGroup*>(own + ws.groups);
    float* window = reinterpret_cast<float*>(own + ws.window);
    const int64_t share = task % b.shares;
    task /= b.shares;
    const int64_t w0 = task % b.col_blocks * b.cols, cols = min_of(b.cols, wide.count - w0);
    task /= b.col_blocks;
    const int64_t h0 = task % b.row_blocks * b.rows, rows = min_of(b.rows, high.count - h0);
    task /= b.row_blocks;
    const int64_t g0 = task % depth.count, n0 = task / depth.count * b.images, images = min_of(b.images, p.N - n0);
    const auto out_of = [&](int64_t i, int64_t r, int64_t c) {
      return (((n0 + i) * depth.out + depth.out_start + g0 * depth.out_step) * high.out + high.out_start +
              (h0 + r) * high.out_step) * wide.out + wide.out_start + (w0 + c) * wide.out_step;
    };

    // Sums of 32 output channels of neighbouring pixels, from y[at] on.
    const auto store_pixels = [&](const float* from, int64_t pixels, int64_t at) {
      const int64_t step = wide.out_step * out_channels;
      if constexpr (!same_type)
        if (!finish.wanted) return store_rounded(from, pixels, y + at, step);
      unpack_last<T, float>(from, kAmxColumns, pixels, kAmxColumns, y + at, step, finish.behind(at));
    };
    const int64_t tile_rows = kAnyTile ? min_of(b.tile_rows, cols) : b.tile_rows;
    int64_t group_count = 0;
    for (int64_t i = 0; i < images; i++) {
      const int64_t image = i * b.image_positions;
      if (b.flat)
        for (int64_t f = 0; f < (rows - 1) * b.row_pixels + cols; f += tile_rows)
          groups[group_count++] = AmxGroup{i * b.image_pitch + f * b.pitch, image + f, 0};
      else
        for (int64_t r = 0; r < rows; r++)
          for (int64_t at = 0; at < cols; at += tile_rows) {
            // The last tile of a row begins early rather than end behind the row.
            const int64_t c = max_of(0, min_of(at, cols - tile_rows));
            groups[group_count++] =
                AmxGroup{i * b.image_pitch + r * b.high_unit * b.row_pitch + c * b.wide_unit * b.pitch,
                         image + r * b.row_positions + c, out_of(i, r, c)};
          }
    }
    const bool whole_tiles = !b.flat && cols >= tile_rows;
    // The block's first pixel, where it is.
    const auto in_array = [&](int64_t group) {
      const int64_t d = n0 * depth.source + g0 * depth.unit + depth.first, h = h0 * high.unit + high.first;
      const int64_t pixel = (d * high.source + h) * wide.source + w0 * wide.unit + wide.first;
      return reinterpret_cast<const uint16_t*>(x + pixel * b.pitch + group * p.channels);
    };

    int64_t loaded = -1;
    const int64_t first = u0 + (u1 - u0) * share / b.shares, end = u0 + (u1 - u0) * (share + 1) / b.shares;
    for (int64_t u = first; u < end; u++) {
      const int64_t group = u / b.panels_per_group, k0 = u % b.panels_per_group * kAmxColumns;
      const int64_t columns = min_of(kAmxColumns, p.columns - k0);
      if (group != loaded && !b.in_place) source.fill(group, n0, images, g0, h0, rows, w0, cols);
      loaded = group;
      uint16_t* const panel =
          b.own_panels ? reinterpret_cast<uint16_t*>(own + ws.own) : panels + (u - u0) * b.panel_values;
      if (b.own_panels) pack(u, 1, reinterpret_cast<float*>(own + ws.packing), panel);
      const float* bias_row = shift + u * kAmxColumns;
      // Whole tiles go to y as they are, or tile by tile, from L1, where something is left to do with them.
      const bool whole = last && columns == kAmxColumns && !source.flagged, by_tile = whole && whole_tiles;
      const bool direct = by_tile && (same_type || kAnyTile) && !finish.wanted, staged = by_tile && !direct;
      const uint16_t* const pixels = b.in_place ? in_array(group) : source.scratch;
      TileRows a{{}, offsets, b.wide_unit * b.pitch * 2, b.part_pitch, tile_rows, run_blocks, last_pairs};
      const TileColumns columns_of{panel, weight_offsets, 2 * kAmxValues, kAmxValues, 64};
      for (int64_t g = 0; columns <= kAmxRows && g < group_count; g += 4) {
        NarrowRows four{{}, offsets, a.stride_bytes, a.part_pitch, tile_rows, run_blocks, last_pairs};
        float* out[4];
        for (int i = 0; i < 4; i++) {
          const AmxGroup& it = groups[min_of(g + i, group_count - 1)];
          four.group[i] = pixels + it.source;
          out[i] = g + i < group_count ? sums + it.position * kAmxColumns : nullptr;
        }
        narrow_sums<Parts>(bias_row, four, columns_of, b.blocks, out, kAmxColumns);
      }
      const auto wide_tiles = [&](auto* to, int64_t unit, int64_t stride) {
        for (int64_t g = 0; g < group_count; g += 2) {
          const int64_t count = min_of(2, group_count - g);
          decltype(to) out[2] = {};
          for (int64_t i = 0; i < count; i++) {
            a.group[i] = pixels + groups[g + i].source;
            out[i] = to + (direct ? groups[g + i].out : staged ? i * tile_rows : groups[g + i].position) * unit;
          }
          wide_sums<Parts>(bias_row, a, columns_of, b.blocks, out, stride);
          for (int64_t i = 0; staged && i < count; i++)
            store_pixels(sums + i * tile_rows * kAmxColumns, tile_rows,
                         groups[g + i].out * out_channels + group * p.columns + k0);
        }
      };
      if (columns > kAmxRows && !direct) wide_tiles(sums, kAmxColumns, kAmxColumns);
      if constexpr (same_type || kAnyTile)
        if (direct) wide_tiles(y + group * p.columns + k0, out_channels, wide.out_step * out_channels);
      if (by_tile) continue;
      // An output below this may have lost digits to denormal parts and products; see amx_split.h.
      const float least = Parts > 1 ? float(p.depth()) * 0x1p-56f : 0.0f;
      for (int64_t i = 0; i < images; i++)
        for (int64_t r = 0; r < rows; r++) {
          float* row = sums + (i * b.image_positions + r * b.row_positions) * kAmxColumns;
          for (int64_t c = 0; source.flagged && c < cols; c++) {
            const int flags = source.window_flags(i, r, c);
            bool again = flags & kHuge;
            for (int64_t k = 0; flags && !again && k < columns; k++) {
              const float magnitude = __builtin_fabsf(row[c * kAmxColumns + k]);
              again = magnitude > 0 && magnitude < least;
            }
            if (!again) continue;
            source.gather(group, n0 + i, g0, h0 + r, w0 + c, window);
            sums_of_window<Parts>(window, b.blocks, panel, bias_row, row + c * kAmxColumns);
          }
          const int64_t at = out_of(i, r, 0);
          const int64_t to = at * out_channels + group * p.columns + k0;
          if (whole) {
            store_pixels(row, cols, to);
          } else if (last) {
            unpack_last<T, float>(row, kAmxColumns, cols, columns, y + to, wide.out_step * out_channels,
                                  finish.behind(to));
          } else {
            const int64_t n = n0 + i, in_image = at - n * depth.out * out_plane;
            const int64_t plane = (n * out_channels + group * p.columns + k0) * depth.out * out_plane + in_image;
            unpack_first<T, float>(row, kAmxColumns, cols, columns, y + plane, depth.out * out_plane, wide.out_step,
                                   finish.behind(plane));
          }
        }
    }
  };

  const int64_t tasks = b.image_blocks * depth.count * b.row_blocks * b.col_blocks * b.shares;
  for (int64_t u0 = 0; u0 < all_panels; u0 += b.panels_per_pass) {
    const int64_t u1 = min_of(u0 + b.panels_per_pass, all_panels), together = b.panels_together;
    parallel_for(b.threads, packed || b.own_panels ? 0 : ceil_div(u1 - u0, together), [&](int64_t i, int thread) {
      float* rows = reinterpret_cast<float*>(base + ws.shared + thread * ws.thread_bytes);
      const int64_t u = u0 + i * together;
      pack(u, min_of(together, u1 - u), rows, panels + i * together * b.panel_values);
    });
    if (!all_plain) return false;
    if (kept) ctx.packed_filled();
    parallel_for(b.threads, tasks, [&](int64_t task, int thread) { compute(task, thread, u0, u1); });
  }
  return all_plain;
}

template <class T, int Parts>
bool backward_amx(const ConvShape& s, const void* dy, const void* w, const void* bias, void* dx, Context& ctx) {
  bool done = true;
  each_phase(s, static_cast<const T*>(bias), static_cast<T*>(dx), ctx, [&](const TapProblem& p) {
    done = done && solve_amx<T, Parts>(p, static_cast<const T*>(dy), static_cast<const T*>(w),
                                       static_cast<const T*>(bias), Finish<T>(), static_cast<T*>(dx), ctx);
  });
  return done;
}

template <class T, int Parts>
bool forward_amx(const ConvShape& s, const void* x, const void* w, const void* bias, const Epilogue& epilogue, void* y,
                 Context& ctx) {
  return solve_amx<T, Parts>(forward_problem(s), static_cast<const T*>(x), static_cast<const T*>(w),
                             static_cast<const T*>(bias), Finish<T>(epilogue), static_cast<T*>(y), ctx);
}

}  // namespace

void conv_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue, void* y,
                  Context& ctx) {
  if (select_conv(s, ConvOp::forward).algorithm == kTileAlgorithm) {
    const bool done = with_parts(s, [&](auto type, auto parts) {
      return forward_amx<decltype(type), decltype(parts)::value>(s, x, w, b, epilogue, y, ctx);
    });
    if (done) return;
  }
  avx512::conv_forward(s, x, w, b, epilogue, y, ctx);
}

void conv_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx) {
  if (select_conv(s, ConvOp::backward_input).algorithm == kTileAlgorithm) {
    const bool done = with_parts(s, [&](auto type, auto parts) {
      return backward_amx<decltype(type), decltype(parts)::value>(s, dy, w, b, dx, ctx);
    });
    if (done) return;
  }
  avx512::conv_backward_input(s, dy, w, b, dx, ctx);
}

}  // namespace FC_ISA
}  // namespace fastconv::cpu
