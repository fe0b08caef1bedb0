// Convolution forward and input gradient: direct implicit GEMM over channels-last blocks (conv_taps.h), bound by the
// FMA units; nothing is ever unrolled into an im2col matrix. Channels-first arrays are transposed in registers while a
// block is loaded into scratch and while tiles are stored. See conv_pointwise.h for 1x1 on channels-first arrays.
#include "conv_depthwise.h"
#include "conv_narrow.h"
#include "conv_pack.h"
#include "conv_phases.h"
#include "conv_pointwise.h"
#include "conv_rows.h"
#include "conv_select.h"
#include "conv_taps.h"
#include "conv_winograd.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// Turns the offsets of lay_out into pointers.
template <class A> void place(Workspace<A>& w, void* block) {
  const auto move = [&](auto*& p) {
    p = reinterpret_cast<decltype(p + 0)>(static_cast<char*>(block) + reinterpret_cast<std::intptr_t>(p));
  };
  move(w.panels);
  move(w.bias);
  move(w.runs);
  move(w.chunks);
  move(w.slots);
  move(w.threads);
}

// All runs of the reduction, cut into chunks of at most kChunkSteps; returns the number of chunks. `fetch`: tiles that
// go to the output fetch one row a run, so the last chunk needs as many runs as there are rows.
int64_t build_runs(const TapProblem& p, const Blocking& b, bool fetch, Run* runs, int64_t* chunks) {
  const int64_t last = (p.depth() - 1) % kChunkSteps + 1, piece = fetch ? max_of(8, last / 8) : kChunkSteps;
  int64_t left = p.depth();
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  int64_t count = 0, chunk_count = 0, filled = kChunkSteps;
  const bool by_chunk = b.own_panels && b.own_steps < p.depth();  // panels then hold one chunk at a time
  const int64_t wide_runs = b.folded ? 1 : wide.taps;
  const int64_t length = b.folded ? wide.taps * p.channels : p.channels;
  for (int64_t t = 0; t < depth.taps; t++)
    for (int64_t r = 0; r < high.taps; r++)
      for (int64_t s = 0; s < wide_runs; s++) {
        int64_t source;
        if (b.gathered) source = t * b.slice_pitch + (r * wide.taps + s) * b.row_pitch;
        else if (b.in_place)
          source = (depth.first + t * depth.step) * b.slice_pitch + (high.first + r * high.step) * b.row_pitch +
                   (wide.first + s * wide.step) * b.pitch;
        else source = t * b.slice_pitch + r * high.step * b.row_pitch + s * wide.step * b.pitch;
        const int64_t weight = ((t * high.taps + r) * wide.taps + s) * p.channels;
        for (int64_t done = 0; done < length;) {
          if (filled == kChunkSteps) {
            chunks[chunk_count++] = count;
            filled = 0;
          }
          const int64_t most = left > last ? kChunkSteps - filled : min_of(piece, kChunkSteps - filled);
          const int64_t n = min_of(length - done, most);
          runs[count++] = Run{source + done, by_chunk ? filled : weight + done, n};
          done += n;
          filled += n;
          left -= n;
        }
      }
  chunks[chunk_count] = count;
  return chunk_count;
}

// Scratch for a block whose first grid point is (g0, h0, w0) of image n0: `images` images of `rows` x `cols` points.
template <class T, class A>
void load_block(const TapProblem& p, const Blocking& b, const T* x, int64_t group, int64_t n0, int64_t images,
                int64_t g0, int64_t h0, int64_t rows, int64_t w0, int64_t cols, A* scratch) {
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  const int64_t plane = high.source * wide.source, all = p.groups * p.channels;
  const bool last = p.layout == Layout::channels_last;
  // Of the source's pixels every skip-th, beginning with one that the first pixel wanted is a number of skips away
  // from.
  const int64_t skip = wide.unit / b.wide_unit, phase = ((wide.first % skip) + skip) % skip;
  const int64_t width = ceil_div(max_of(0, wide.source - phase), skip);
  const auto load_row = [&](int64_t n, int64_t d, int64_t h, int64_t first, int64_t pixels, A* dst) {
    if (d < 0 || d >= depth.source || h < 0 || h >= high.source) {
      zero_fill(dst, pixels * b.pitch);
    } else if (last) {
      const T* row = x + (((n * depth.source + d) * high.source + h) * wide.source) * all + group * p.channels;
      const int64_t begin = (first - phase) / skip;
      pack_row_last<T, A>(row + phase * all, width, skip * all, begin, begin + pixels, p.channels, dst, b.pitch);
    } else {
      const T* row = x + ((n * all + group * p.channels) * depth.source + d) * plane + h * wide.source + phase;
      const int64_t begin = (first - phase) / skip, end = begin + pixels, step = depth.source * plane;
      if (skip == 2)
        pack_row_first<T, A, 2>(row, width, step, begin, end, p.channels, dst, b.pitch, wide.source - phase);
      else
        pack_row_first<T, A>(row, width, step, begin, end, p.channels, dst, b.pitch);
    }
  };
  for (int64_t i = 0; i < images; i++)
    for (int64_t t = 0; t < depth.taps; t++) {
      const int64_t d = g0 * depth.unit + depth.first + t * depth.step;
      A* slice = scratch + i * b.image_pitch + t * b.slice_pitch;
      if (b.gathered) {
        for (int64_t r = 0; r < high.taps; r++)
          for (int64_t s = 0; s < wide.taps; s++)
            load_row(n0 + i, d, h0 * high.unit + high.first + r * high.step, w0 * wide.unit + wide.first + s * wide.step,
                     (cols - 1) * b.wide_unit + 1, slice + (r * wide.taps + s) * b.row_pitch);
      } else {
        const int64_t lines = high.span(rows, b.high_unit);
        for (int64_t r = 0; r < lines; r++)
          load_row(n0 + i, d, h0 * high.unit + high.first + r * (high.unit / b.high_unit),
                   w0 * wide.unit + wide.first, wide.span(cols, b.wide_unit), slice + r * b.row_pitch);
      }
    }
}

template <class T>
void solve(ConvAlgorithm algorithm, TapProblem p, const T* x, const T* weights, const T* bias, const Finish<T>& finish,
           T* y, Context& ctx) {
  using A = Accumulator<T>;
  const double flops = 2.0 * double(p.N) * double(p.groups * p.columns) * double(p.depth()) *
                       double(p.axis[0].count * p.axis[1].count * p.axis[2].count);
  const int threads = ctx.threads_for(flops, flops / 4);
  if (algorithm == ConvAlgorithm::pointwise) return solve_pointwise_first<T>(p, x, weights, bias, finish, y, threads, ctx);
  if (algorithm == ConvAlgorithm::narrow) return solve_narrow<T>(p, x, weights, bias, finish, y, threads, ctx);
  flatten_pointwise(p);
  const TapAxis &depth = p.axis[0], &high = p.axis[1], &wide = p.axis[2];
  p.adds = finish.add;
  Blocking b = choose_blocking<A>(p, threads);
  const bool last = p.layout == Layout::channels_last;
  const bool direct_store = p.same_type && last;
  const int64_t panel_size = p.depth() * b.panel_columns, all_panels = p.groups * b.panels_per_group;
  bool packed = false;
  A* kept = packed_panels<T, A>(ConvAlgorithm::direct, p, b.panel_columns, 1, all_panels * panel_size, &packed, ctx);
  if (kept) {
    b.own_panels = false;
    b.kept_panels = true;
    b.panels_per_pass = all_panels;
  }
  Workspace<A> ws = lay_out<A>(p, b, direct_store);
  void* block = ctx.workspace(std::size_t(ws.total));
  if (!block) return;
  place(ws, block);
  if (kept) ws.panels = kept;
  const int64_t chunk_count = build_runs(p, b, direct_store && kFetchByRuns, ws.runs, ws.chunks);
  const int64_t out_channels = p.groups * p.columns;
  const int64_t out_plane = high.out * wide.out;
  const int64_t source_pixels = p.N * depth.source * high.source * wide.source;
  const bool far = b.in_place && p.taps() == 1 && p.channels * int64_t(sizeof(T)) >= kFarRow &&
                   source_pixels * p.groups * p.channels * int64_t(sizeof(T)) > kFarBytes;

  tap_slots(p, ws.slots);
  const WeightSource source{p.column_stride, p.channel_stride, p.kernel_taps(), p.channels, ws.slots};
  const int64_t group_weights = p.columns * p.channels * p.kernel_taps();
  if (bias)
    for (int64_t u = 0; u < all_panels; u++)
      for (int64_t j = 0; j < b.panel_columns; j++) {
        const int64_t k = u % b.panels_per_group * b.panel_columns + j;
        ws.bias[u * b.panel_columns + j] =
            k < p.columns ? A(to_accumulator(bias[u / b.panels_per_group * p.columns + k])) : A(0);
      }

  const auto panel_width = [&](int64_t columns) {
    return b.panel_columns == kTileColumns<A> && columns > kLanes<A> ? kTileColumns<A> : kLanes<A>;
  };
  // Weights of neighbouring output channels that are neighbours: several panels at a time.
  const bool by_rows = p.kernel_taps() == 1 && p.column_stride == 1;
  // `count` panels of a group, u and those behind it, from reduction step `step` on: all of it, or as many steps as a
  // task's own panels hold.
  const auto pack = [&](int64_t u, int64_t count, int64_t step, A* panels, int64_t panel_pitch) {
    const int64_t group = u / b.panels_per_group, k0 = u % b.panels_per_group * b.panel_columns;
    WeightSource part = source;
    if (b.own_panels && b.own_steps < p.depth()) part.channels = min_of(b.own_steps, p.depth() - step);
    const T* from = weights + group * group_weights + k0 * p.column_stride + step * p.channel_stride;
    if (by_rows)
      return pack_rows<T, A>(from, p.channel_stride, part.channels, min_of(count * b.panel_columns, p.columns - k0),
                             b.panel_columns, panels, panel_pitch);
    for (int64_t i = 0; i < count; i++) {
      const int64_t columns = min_of(b.panel_columns, p.columns - k0 - i * b.panel_columns);
      pack_panel<T, A>(from + i * b.panel_columns * p.column_stride, part, columns, panel_width(columns),
                       panels + i * panel_pitch);
    }
  };
  const int64_t blocks = b.image_blocks * depth.count * b.row_blocks * b.col_blocks;
  const auto compute = [&](int64_t task, int thread, int64_t u0, int64_t u1) {
    char* own = ws.threads + thread * ws.thread_bytes;
    A* scratch = reinterpret_cast<A*>(own + ws.group_bytes);
    A* tiles = reinterpret_cast<A*>(own + ws.group_bytes + ws.scratch_bytes);
    Group* groups = reinterpret_cast<Group*>(own);
    const int64_t part = b.by_panels ? task / blocks : task % b.parts;
    task = b.by_panels ? task % blocks : task / b.parts;
    const int64_t cb = task % b.col_blocks;
    task /= b.col_blocks;
    const int64_t rb = task % b.row_blocks;
    task /= b.row_blocks;
    const int64_t g0 = task % depth.count, n0 = task / depth.count * b.images;
    const int64_t images = min_of(b.images, p.N - n0);
    const int64_t h0 = rb * b.rows, rows = min_of(b.rows, high.count - h0);
    const int64_t w0 = cb * b.cols, cols = min_of(b.cols, wide.count - w0);

    int64_t group_count = 0;
    const int64_t lines = b.joined ? 1 : rows, line = b.joined ? images * rows * cols : cols;
    for (int64_t i = 0; i < (b.joined ? 1 : images); i++)
      for (int64_t r = 0; r < lines; r++)
        for (int64_t c = 0; c < line; c += b.group_rows) {
          Group& g = groups[group_count++];
          g.valid = int(min_of(b.group_rows, line - c));
          g.pixel = (i * rows + r) * cols + c;
          g.source = b.in_place ? (n0 + i) * b.image_pitch + g0 * depth.unit * b.slice_pitch +
                                      (h0 + r) * high.unit * b.row_pitch + (w0 + c) * wide.unit * b.pitch
                                : i * b.image_pitch + r * b.high_unit * b.row_pitch + c * b.wide_unit * b.pitch;
          g.out = (((n0 + i) * depth.out + depth.out_start + g0 * depth.out_step) * high.out + high.out_start +
                   (h0 + r) * high.out_step) * wide.out + wide.out_start + (w0 + c) * wide.out_step;
        }

    const int64_t first_panel = u0 + (u1 - u0) * part / b.parts;
    // The tiles of panel u over one chunk of the reduction.
    const auto run_chunk = [&](int64_t u, int64_t chunk, const A* base, const A* panel, A* tiles) {
      const int64_t group = u / b.panels_per_group, k0 = u % b.panels_per_group * b.panel_columns;
      const int64_t columns = min_of(b.panel_columns, p.columns - k0);
      const Run* runs = ws.runs + ws.chunks[chunk];
      const int64_t count = ws.chunks[chunk + 1] - ws.chunks[chunk];
      TileOutput<A> out{};
      out.accumulate = chunk > 0;
      out.bias = bias && chunk == chunk_count - 1 ? ws.bias + u * b.panel_columns : nullptr;
      out.columns = direct_store ? columns : b.panel_columns;
      out.stride = direct_store ? wide.out_step * out_channels : b.panel_columns;
      A* store_base = direct_store ? reinterpret_cast<A*>(y) + group * p.columns + k0 : tiles;
      if constexpr (sizeof(T) == sizeof(A))
        if (direct_store && finish.wanted && chunk == chunk_count - 1) {
          out.finish = &finish;
          out.origin = reinterpret_cast<const A*>(y);
        }
      // The stores at a tile's end are too many for the processor to hide: 64 -> 256 channels at 56x56, with a sum 1.2
      // to 1.3 times as fast, without one 1.25; as fast as before where the reduction is long.
      out.fetch = direct_store && chunk == chunk_count - 1;
      const bool ahead = far && u == first_panel;
      const TileColumn<A> column{groups, group_count, base, b.wide_unit * b.pitch, runs, count, panel, store_base,
                                 direct_store ? out_channels : b.panel_columns, direct_store, ahead, b.in_place};
      if (panel_width(columns) == kTileColumns<A>) tile_column<A, 2>(b.group_rows, column, out);
      else tile_column<A, 1>(b.group_rows, column, out);
    };
    const auto unpack = [&](int64_t u, const A* tiles) {
      const int64_t group = u / b.panels_per_group, k0 = u % b.panels_per_group * b.panel_columns;
      const int64_t columns = min_of(b.panel_columns, p.columns - k0);
      for (int64_t i = 0; i < images; i++) {
        const int64_t n = n0 + i, d = depth.out_start + g0 * depth.out_step;
        // Whole rows of a contiguous output are one run of pixels.
        const bool joined = cols == wide.out && wide.out_step == 1 && high.out_step == 1;
        for (int64_t r = 0; r < (joined ? 1 : rows); r++) {
          const A* tile = tiles + (i * rows + r) * cols * b.panel_columns;
          const int64_t pixels = joined ? rows * cols : cols;
          const int64_t at = (high.out_start + (h0 + r) * high.out_step) * wide.out + wide.out_start + w0 * wide.out_step;
          if (last) {
            const int64_t to = ((n * depth.out + d) * out_plane + at) * out_channels + group * p.columns + k0;
            unpack_last<T, A>(tile, b.panel_columns, pixels, columns, y + to, wide.out_step * out_channels,
                              finish.behind(to));
          } else {
            const int64_t to = ((n * out_channels + group * p.columns + k0) * depth.out + d) * out_plane + at;
            unpack_first<T, A>(tile, b.panel_columns, pixels, columns, y + to, depth.out * out_plane, wide.out_step,
                               finish.behind(to));
          }
        }
      }
    };

    int64_t loaded = -1;
    const int64_t first = first_panel, end = u0 + (u1 - u0) * (part + 1) / b.parts;
    const int64_t tile_size = ws.tile_bytes / int64_t(sizeof(A)), own_size = b.own_steps * b.panel_columns;
    A* const own_panels = tiles + (b.own_panels ? b.own_count : 1) * tile_size;
    for (int64_t u = first, panels; u < end; u += panels) {
      const int64_t group = u / b.panels_per_group;
      panels = b.own_panels ? min_of(min_of(b.own_count, end - u), (group + 1) * b.panels_per_group - u) : 1;
      if (group != loaded && !b.in_place)
        load_block<T, A>(p, b, x, group, n0, images, g0, h0, rows, w0, cols, scratch);
      loaded = group;
      const A* base = b.in_place ? reinterpret_cast<const A*>(x) + group * p.channels : scratch;
      for (int64_t chunk = 0; chunk < chunk_count; chunk++) {
        const int64_t step = chunk * b.own_steps;
        if (b.own_panels && step < p.depth()) pack(u, panels, step, own_panels, own_size);
        for (int64_t i = 0; i < panels; i++)
          run_chunk(u + i, chunk, base, b.own_panels ? own_panels + i * own_size : ws.panels + (u - u0) * panel_size,
                    tiles + i * tile_size);
      }
      if (!direct_store)
        for (int64_t i = 0; i < panels; i++) unpack(u + i, tiles + i * tile_size);
    }
  };

  const int64_t tasks = blocks * b.parts;
  for (int64_t u0 = 0; u0 < all_panels; u0 += b.panels_per_pass) {
    const int64_t u1 = min_of(u0 + b.panels_per_pass, all_panels);
    if (!b.own_panels && !packed) {
      const int64_t together = by_rows && p.groups == 1 ? kOwnPanels : 1;
      parallel_for(b.threads, ceil_div(u1 - u0, together), [&](int64_t i, int) {
        const int64_t u = u0 + i * together;
        pack(u, min_of(together, u1 - u), 0, ws.panels + i * together * panel_size, panel_size);
      });
    }
    if (kept) ctx.packed_filled();
    if constexpr (sizeof(T) == sizeof(A))
      if (const int64_t vectors = row_vectors<A>(p, b)) {
        alignas(64) A joined[kRowWeightBytes / sizeof(A)];
        join_panels(ws.panels, vectors, p.channels, joined);
        const PixelRows<A> rows{reinterpret_cast<const A*>(x), b.pitch, joined, p.channels, p.columns,
                                reinterpret_cast<A*>(y), bias ? ws.bias : nullptr, finish.wanted ? &finish : nullptr};
        parallel_for(b.threads, tasks, [&](int64_t task, int) {
          run_pixel_rows(vectors, rows, task * b.cols, min_of((task + 1) * b.cols, wide.count));
        });
        return;
      }
    parallel_for(b.threads, tasks, [&](int64_t task, int thread) { compute(task, thread, u0, u1); });
  }
}

// Winograd, then the direct kernel for the images in which it would leave its rounding class.
template <class T>
void solve_winograd(const ConvShape& s, ConvOp op, ConvAlgorithm algorithm, const T* x, const T* w, const T* bias,
                    const Epilogue& epilogue, T* y, Context& ctx) {
  const int64_t in = s.C * s.in_space(), out = s.K * s.out_space();
  const int64_t source = op == ConvOp::forward ? in : out, result = op == ConvOp::forward ? out : in;
  std::uint32_t largest[kWinogradImages];
  for (int64_t n0 = 0; n0 < s.N; n0 += kWinogradImages) {
    ConvShape part = s;
    part.N = min_of(kWinogradImages, s.N - n0);
    Epilogue behind = epilogue;
    if (behind.add) behind.add = static_cast<const T*>(behind.add) + n0 * result;
    winograd(part, op, algorithm, x + n0 * source, w, bias, behind, y + n0 * result, largest, ctx);
    if (ctx.out_of_memory()) return;
    for (int64_t n = 0; n < part.N; n++) {
      if (winograd_holds(largest[n])) continue;
      TapProblem p = unit_stride_problem(s, op);
      p.N = 1;
      while (n + p.N < part.N && !winograd_holds(largest[n + p.N])) p.N++;
      solve<T>(ConvAlgorithm::direct, p, x + (n0 + n) * source, w, bias, Finish<T>(behind).behind(n * result),
               y + (n0 + n) * result, ctx);
      n += p.N;
    }
  }
}

}  // namespace

void conv_forward(const ConvShape& s, const void* x, const void* w, const void* b, const Epilogue& epilogue, void* y,
                  Context& ctx) {
  const ConvAlgorithm algorithm = select_conv(s, ConvOp::forward).algorithm;
  if (algorithm == ConvAlgorithm::depthwise) return depthwise_forward(s, x, w, b, epilogue, y, ctx);
  with_type(s.dtype, [&](auto type) {
    using T = decltype(type);
    const auto *xs = static_cast<const T*>(x), *ws = static_cast<const T*>(w), *bs = static_cast<const T*>(b);
    if constexpr (sizeof(T) < sizeof(double))
      if (winograd_tile(algorithm))
        return solve_winograd<T>(s, ConvOp::forward, algorithm, xs, ws, bs, epilogue, static_cast<T*>(y), ctx);
    solve<T>(algorithm, forward_problem(s), xs, ws, bs, Finish<T>(epilogue), static_cast<T*>(y), ctx);
  });
}

void conv_backward_input(const ConvShape& s, const void* dy, const void* w, const void* b, void* dx, Context& ctx) {
  const ConvAlgorithm algorithm = select_conv(s, ConvOp::backward_input).algorithm;
  if (algorithm == ConvAlgorithm::depthwise) return depthwise_backward_input(s, dy, w, b, dx, ctx);
  with_type(s.dtype, [&](auto type) {
    using T = decltype(type);
    const auto *gs = static_cast<const T*>(dy), *ws = static_cast<const T*>(w), *bs = static_cast<const T*>(b);
    if constexpr (sizeof(T) < sizeof(double))
      if (winograd_tile(algorithm))
        return solve_winograd<T>(s, ConvOp::backward_input, algorithm, gs, ws, bs, Epilogue(), static_cast<T*>(dx), ctx);
    each_phase(s, bs, static_cast<T*>(dx), ctx,
               [&](const TapProblem& p) { solve<T>(algorithm, p, gs, ws, bs, Finish<T>(), static_cast<T*>(dx), ctx); });
  });
}

}  // namespace fastconv::cpu::FC_ISA
