// The loops of forward pooling, over vectors of neighbouring outputs (channels first) or of channels (channels last).
//
// An operation (maximum, average, ...) gives these loops a State: what is known of kLanes outputs after some taps.
// Channels first, a row's taps are combined first and the rows of a window after, so that the order is that of the
// window (depth, height, width), and rows that several windows share are done once.
#pragma once
#include "pool_windows.h"

namespace fastconv::cpu::FC_ISA {
namespace {

constexpr int64_t kRowBufferBytes = int64_t(24) << 10;  // combined rows of a block of windows: half of the L1 cache

// The kLanes values that tap k of the windows q, q + 1, ... has in this row; `fill` outside the row.
template <class T>
FC_INLINE Vec<Accumulator<T>> tap_values(const T* row, const Axis& width, int64_t q, int64_t k,
                                         Vec<Accumulator<T>> fill) {
  using A = Accumulator<T>;
  const int64_t w = q * width.stride - width.pad + k * width.dilation;
  if (width.stride == 1) return load_within(row, w, width.in, fill);
  if (width.stride == 2)
    return even_lanes<A>(load_within(row, w, width.in, fill), load_within(row, w + kLanes<A>, width.in, fill));
  A values[kLanes<A>];
  std::memcpy(values, &fill, sizeof fill);
  for (int64_t i = 0; i < min_of(kLanes<A>, width.out - q); i++) {
    const int64_t at = w + i * width.stride;
    if (at >= 0 && at < width.in) values[i] = to_accumulator(row[at]);
  }
  return load(values);
}

// The taps of the windows q, q + 1, ... in any row; what does not depend on the row is found once. each(row, fill, f)
// calls f(k, values) for k = 0, 1, ... The windows of the well-known networks have their own forms (dilation 1);
// stride 0 and taps 0 stand for what is known at run time only.
template <class A, int stride, int taps> struct RowTaps {
  static_assert(taps <= 3);
  int64_t next, in;  // stride 2: place of the one value that the third tap has and the first has not
  Span<A> spans[3];
  RowTaps() {}
  RowTaps(const Axis& width, int64_t q) : RowTaps(q * stride - width.pad, width.in) {}
  template <class T, class F> FC_INLINE void each(const T* row, Vec<A> fill, F&& f) const {
    if constexpr (stride == 1) {
#pragma GCC unroll 3
      for (int k = 0; k < taps; k++) f(k, load_span(row, spans[k], fill));
    } else {
      static_assert(stride == 2 && taps >= 2, "two taps share their loads, the third shifts the first");
      const Vec<A> a = load_span(row, spans[0], fill), b = load_span(row, spans[1], fill), first = even_lanes<A>(a, b);
      f(0, first);
      f(1, odd_lanes<A>(a, b));
      if constexpr (taps == 3) f(2, shift_in<A>(first, next < in ? to_accumulator(row[next]) : fill[0]));
    }
  }

 private:
  static constexpr int64_t kStep = stride == 1 ? 1 : kLanes<A>;
  RowTaps(int64_t w, int64_t in)
      : next(w + 2 * kLanes<A>), in(in), spans{Span<A>(w, in), Span<A>(w + kStep, in), Span<A>(w + 2 * kStep, in)} {}
};
template <class A> struct RowTaps<A, 0, 0> {
  Axis width;
  int64_t q;
  RowTaps(const Axis& width, int64_t q) : width(width), q(q) {}
  template <class T, class F> FC_INLINE void each(const T* row, Vec<A> fill, F&& f) const {
    for (int64_t k = 0; k < width.kernel; k++) f(k, tap_values(row, width, q, k, fill));
  }
};

template <int a, int b> struct Form {
  static constexpr int stride = a, taps = b;
};
template <class T, class F> FC_INLINE void with_form(const PoolShape& s, F&& f) {
  if constexpr (sizeof(T) < 8) {
    const int64_t k = s.dilation[2] == 1 ? s.kernel[2] : 0, stride = s.stride[2];
    if (stride == 2 && k == 2) return f(Form<2, 2>());
    if (stride == 2 && k == 3) return f(Form<2, 3>());
    if (stride == 1 && k == 3) return f(Form<1, 3>());
  }
  f(Form<0, 0>());
}

// What an operation is told of the row of outputs it finishes.
struct OutputRow {
  int64_t start;     // element number of its first output
  int64_t o, p;
  Range t, r;        // taps that lie in the input
  int64_t room = 0;  // channels first: outputs from `start` on that may be written, those of later rows included
};

// Channels first. Operation: State; Block, made of (operation, q): the taps of kLanes outputs from q on in any row;
// row(const T* row, Block) -> State; code(t, r): what merge is told of a row's depth and height tap, counted from the
// first in the input; merge(State& so far, const State& row, code); put(OutputRow, q, State); taps: those of a row where
// they are known, else 0; alike: whether nothing but q tells one row of outputs from another.
//
// The last block of a row of several overlaps the one before it; a row of less than a block is stored as a whole block
// where the rest is that of later rows, which follow. So nothing but the end of a task is stored in parts.
constexpr int64_t kRowsAtOnce = 8;   // rows walked side by side, so that a Block serves them all
// Eight short streams at once are not what hardware prefetches: from inputs of this size on, the next rows are asked
// for. Max 3x3 with stride 2 on 25 and 100 MB: 1.2 and 1.15 times as fast, 2x2 1.15 and 1.17 times (2 threads of Zen 4);
// on 3 and 4.5 MB 3x3 0.94 and 0.98 times.
constexpr int64_t kFarBytes = int64_t(8) << 20, kFarStride = 4;  // with larger strides much of a row is not needed
template <class T> FC_INLINE void ask_for(const T* p, int64_t items) {
  for (int64_t i = 0; i < items; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(p + i);
}
// Planes without padding whose rows of windows share no rows of inputs and leave none out make one high plane.
FC_INLINE PoolShape one_plane(PoolShape s) {
  const bool fit = s.in[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0 && s.pad[1] == 0 && s.dilation[1] == 1 &&
                   s.kernel[1] <= s.stride[1] && s.in[1] == s.stride[1] * s.out[1];
  if (!fit) return s;
  s.in[1] *= s.N * s.C;
  s.out[1] *= s.N * s.C;
  s.N = s.C = 1;
  return s;
}

template <class Operation, class T, class Block>
__attribute__((noinline)) typename Operation::State any_row(const Operation& op, const T* row, const Block& block) {
  return op.row(row, block);
}
// Windows that have no form of their own: one copy of the loop over their taps, as fast, and the two files of pooling
// forward take a quarter less time to compile.
template <class Operation, class T, class Block>
FC_INLINE typename Operation::State row_of(const Operation& op, const T* row, const Block& block) {
  if constexpr (Operation::taps == 0) return any_row(op, row, block);
  else return op.row(row, block);
}

// Square windows that have a form of their own, in planes (nothing along the depth): what the well-known networks have.
//
// A strip is one block of columns of neighbouring rows of outputs. It goes down the rows with what it knows of those
// that the next window shares, so that a row of a small plane costs its loads, its merges and a store. Zen 3, 8 images,
// 1 and 2 threads, against rows combined in a buffer: 3x3 of stride 1 at 7x7 2.1 times as fast, at 28x28 1.45, of
// stride 2 at 27x27 1.4, at 112x112 1.1, 2x2 at 14x14 and 28x28 1.75, at 224x224 1.2 to 1.6. Without asking for the
// next rows of inputs of 12 and 25 MB, 2x2 lost to the buffer (0.84 and 0.54).
constexpr int64_t kStripBytes = int64_t(8) << 10;  // of inputs, in L1 while their strips pass; 4 and 16 KB are as good
constexpr int64_t kStrips = 32;                    // whose blocks are made once for all rows

template <class Operation> FC_INLINE bool strips_fit(const PoolShape& s) {
  return s.kernel[0] == 1 && s.stride[0] == 1 && s.in[0] == s.out[0] && s.kernel[1] == Operation::taps &&
         s.stride[1] == Operation::stride && s.dilation[1] == 1;
}

template <class T, class Scope, class Operation>
FC_INLINE void pool_strips(const PoolShape& given, const T* x, const Operation& operation, Context& ctx) {
  using A = Accumulator<T>;
  using State = typename Operation::State;
  using Block = typename Operation::Block;
  constexpr int taps = Operation::taps, stride = Operation::stride, shared = taps - stride;
  constexpr int64_t lanes = kLanes<A>;
  const PoolShape shape = operation.alike() ? one_plane(given) : given;
  const bool far = shape.N * shape.C * shape.in[0] * shape.in[1] * shape.in[2] * int64_t(sizeof(T)) > kFarBytes;
  const double bytes = double(shape.in[2] * min_of(stride, shape.in[1]) + shape.out[2]) * sizeof(T);
  for_row_blocks<Scope>(
      ctx, shape.N * shape.C * shape.out[0] * shape.out[1], double(shape.out[2]) * 2 * taps, bytes,
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    // Copies: the compiler need not assume that a store changes them.
    const PoolShape s = shape;
    const Operation op = operation;
    const int64_t H = s.in[1], W = s.in[2], P = s.out[1], Q = s.out[2], end = max_of(Q - lanes, 0);
    const int64_t most = max_of(kStripBytes / (int64_t(sizeof(T)) * W * stride), 1), strips = ceil_div(Q, lanes);
    Block blocks[kStrips];
    int64_t made = -1, plane = first / P, p0 = first % P;
    for (int64_t row = first; row < last;) {
      const int64_t rows = min_of(most, min_of(last - row, P - p0));
      const T* const input = x + plane * H * W;
      for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t q = min_of(strip * lanes, end);
        if (const int64_t group = strip / kStrips; group != made) {
          for (int64_t b = 0; b < min_of(kStrips, strips - strip); b++)
            blocks[b] = Block(op, min_of((strip + b) * lanes, end));
          made = group;
        }
        const Block block = blocks[strip % kStrips];
        const auto row_at = [&](int64_t h) __attribute__((always_inline)) {
          return std::uint64_t(h) < std::uint64_t(H) ? op.row(input + h * W, block) : op.start();
        };
        int64_t h = p0 * stride - s.pad[1];
        State window[taps];
        for (int j = 0; j < shared; j++) window[j] = row_at(h + j);
        for (int64_t i = 0; i < rows; i++, h += stride) {
#pragma GCC unroll 3
          for (int j = shared; j < taps; j++) {
            window[j] = row_at(h + j);
            if (far) ask_for(input + (h + j + rows * stride) * W + q * stride, lanes * stride);
          }
          // Windows that share rows make many results of what they read: these are asked for, too.
          if (far && shared) __builtin_prefetch(op.y + (row + i + rows) * Q + q, 1);
          const int64_t above = max_of(-h, 0);
          State state = window[0];
#pragma GCC unroll 2
          for (int j = 1; j < taps; j++) {
            if (j <= above) state = window[j];
            else op.merge(state, window[j], op.code(0, j - above));
          }
          op.put(OutputRow{(row + i) * Q, plane % s.in[0], p0 + i, Range{0, 1}, Range{above, taps},
                           strips == 1 ? (last - row - i) * Q : Q}, q, state);
#pragma GCC unroll 2
          for (int j = 0; j < shared; j++) window[j] = window[j + stride];
        }
      }
      row += rows;
      p0 += rows;
      if (p0 == P) {
        p0 = 0;
        plane++;
      }
    }
  });
}

template <class T, class Scope, class Operation>
FC_INLINE void pool_channels_first(const PoolShape& given, const T* x, const Operation& operation, Context& ctx) {
  using A = Accumulator<T>;
  using State = typename Operation::State;
  using Block = typename Operation::Block;
  constexpr int64_t lanes = kLanes<A>;
  if constexpr (Operation::taps > 0)
    if (strips_fit<Operation>(given)) return pool_strips<T, Scope>(given, x, operation, ctx);
  const PoolShape shape = operation.alike() ? one_plane(given) : given;
  const Axis high = axis_of(shape, 1);
  const int64_t blocks = ceil_div(shape.out[2], lanes), extent = (high.kernel - 1) * high.dilation + 1;
  // Windows that share rows: a block of them, as many as the buffer holds combined rows.
  const int64_t row_bytes = shape.kernel[0] * blocks * int64_t(sizeof(State)), fitting = kRowBufferBytes / row_bytes;
  const bool buffered = high.stride < extent && fitting >= extent + 2 * high.stride;
  const int64_t block_rows = buffered ? min_of((fitting - extent) / high.stride + 1, high.out) : kRowsAtOnce;
  const int64_t buffer_rows = (block_rows - 1) * high.stride + extent;
  State* buffer = nullptr;
  if (buffered) {
    buffer = static_cast<State*>(ctx.workspace(std::size_t(ctx.threads()) * std::size_t(buffer_rows * row_bytes)));
    if (!buffer) return;
  }
  const bool far = shape.N * shape.C * shape.in_space() * int64_t(sizeof(T)) > kFarBytes &&
                   max_of(shape.stride[1], shape.stride[2]) <= kFarStride;
  const double inputs = double(shape.in[2]) * double(min_of(high.stride * shape.stride[0], shape.in[0] * shape.in[1]));
  const double bytes = (inputs + double(shape.out[2])) * sizeof(T);
  const double flops = double(shape.out[2]) * double(shape.kernel[2] + shape.kernel[1] * shape.kernel[0]);
  for_row_blocks<Scope>(
      ctx, shape.N * shape.C * shape.out[0] * shape.out[1], flops, bytes,
      [&](int64_t first, int64_t last, int thread) __attribute__((noinline)) {
    // Copies: the compiler need not assume that a store changes them.
    const PoolShape s = shape;
    const Operation op = operation;
    const Axis depth = axis_of(s, 0), height = axis_of(s, 1);
    const int64_t step = far ? lanes * s.stride[2] : 0;  // inputs from one block of a row to the next
    const int64_t end = max_of(s.out[2] - lanes, 0);     // first output of the last block
    const auto room = [&](int64_t row) { return (blocks == 1 ? last - row : 1) * s.out[2]; };
    State* const rows = buffer + thread * (buffer_rows * row_bytes / int64_t(sizeof(State)));
    for (int64_t row = first; row < last;) {
      const RowPosition at(row, s.C, s.out);
      const int64_t count = min_of(last - row, min_of(block_rows, s.out[1] - at.p));
      const Range t = depth.taps(at.o);
      // Row h of the plane of depth tap i is at plane + (i * plane_step) + h * in[2].
      const T* plane = x + ((at.n * s.C + at.c) * s.in[0] + depth.origin(at.o)) * s.in[1] * s.in[2];
      const int64_t plane_step = depth.dilation * s.in[1] * s.in[2];
      if (!buffered) {
        for (int64_t b = 0; b < blocks; b++) {
          const int64_t q = min_of(b * lanes, end);
          const Block block(op, q);
          for (int64_t p = at.p; p < at.p + count; p++) {
            const int64_t h0 = height.origin(p);
            if (far)
              for (int64_t j = 0; j < height.stride; j++)
                ask_for(plane + (h0 + j + kRowsAtOnce * height.stride) * s.in[2] + b * step, step);
            const Range r = height.taps(p);
            const OutputRow out{(row + p - at.p) * s.out[2], at.o, p, t, r, room(row + p - at.p)};
            State state = op.start();
            for (int64_t i = t.lo; i < t.hi; i++)
              for (int64_t j = r.lo; j < r.hi; j++) {
                const State next = row_of(op, plane + i * plane_step + (h0 + j * height.dilation) * s.in[2], block);
                if (i == t.lo && j == r.lo) state = next;
                else op.merge(state, next, op.code(i - t.lo, j - r.lo));
              }
            op.put(out, q, state);
          }
        }
        row += count;
        continue;
      }
      const int64_t h_lo = max_of(height.origin(at.p), 0);
      const int64_t h_hi = min_of(height.origin(at.p + count - 1) + extent, s.in[1]);
      State* to = rows;
      for (int64_t i = t.lo; i < t.hi; i++)
        for (int64_t h = h_lo; h < h_hi; h += kRowsAtOnce) {
          const int64_t side_by_side = min_of(kRowsAtOnce, h_hi - h);
          for (int64_t b = 0; b < blocks; b++) {
            const Block block(op, min_of(b * lanes, end));
            const T* line = plane + i * plane_step + h * s.in[2];
            for (int64_t k = 0; k < side_by_side; k++) {
              if (far) ask_for(line + (k + kRowsAtOnce) * s.in[2] + b * step, step);
              to[k * blocks + b] = row_of(op, line + k * s.in[2], block);
            }
          }
          to += side_by_side * blocks;
        }
      for (int64_t p = at.p; p < at.p + count; p++) {
        const Range r = height.taps(p);
        const OutputRow out{(row + p - at.p) * s.out[2], at.o, p, t, r, room(row + p - at.p)};
        const int64_t h0 = height.origin(p);
        const State* from[kMaxWindowRows];
        int64_t code[kMaxWindowRows];
        int sources = 0;
        for (int64_t i = t.lo; i < t.hi; i++)
          for (int64_t j = r.lo; j < r.hi; j++, sources++) {
            const int64_t h = h0 + j * height.dilation;
            from[sources] = rows + ((i - t.lo) * (h_hi - h_lo) + h - h_lo) * blocks;
            code[sources] = op.code(i - t.lo, j - r.lo);
          }
        for (int64_t b = 0; b < blocks; b++) {
          State state = from[0][b];
          for (int k = 1; k < sources; k++) op.merge(state, from[k][b], code[k]);
          op.put(out, min_of(b * lanes, end), state);
        }
      }
      row += count;
    }
  });
}

// Channels last. Operation: State; start(); add(State&, values of kLanes channels, number of the tap relative to the
// first in the input as depth, height, width); put(OutputRow, q, w taps, c, State).
template <class T, class Scope, class Operation>
FC_INLINE void pool_channels_last(const PoolShape& shape, const T* x, const Operation& operation, Context& ctx) {
  using A = Accumulator<T>;
  using State = typename Operation::State;
  constexpr int64_t lanes = kLanes<A>;
  constexpr int group = 4;  // vectors of channels at once: the loop over taps is paid once for them
  const double taps = double(shape.kernel[0] * shape.kernel[1] * shape.kernel[2]);
  const double values = double(shape.out[2]) * double(shape.C);
  const double new_rows = double(min_of(shape.stride[0], shape.in[0]) * min_of(shape.stride[1], shape.in[1]));
  const double inputs = new_rows * double(shape.in[2]) * double(shape.C);
  for_row_blocks<Scope>(
      ctx, shape.N * shape.out[0] * shape.out[1], values * taps, (values + inputs) * sizeof(T),
      [&](int64_t first, int64_t last, int) __attribute__((noinline)) {
    const PoolShape s = shape;
    const Operation op = operation;
    const Axis depth = axis_of(s, 0), height = axis_of(s, 1), width = axis_of(s, 2);
    for (int64_t row = first; row < last; row++) {
      const RowPosition at(row, 1, s.out);
      const T* image = x + at.n * s.in_space() * s.C;
      const Range t = depth.taps(at.o), r = height.taps(at.p);
      const OutputRow out{row * s.out[2] * s.C, at.o, at.p, t, r};
      const int64_t d0 = depth.origin(at.o), h0 = height.origin(at.p);
      for (int64_t q = 0; q < s.out[2]; q++) {
        const Range w = width.taps(q);
        const int64_t w0 = width.origin(q);
        const auto channels = [&](auto size, int64_t c) {
          constexpr int n = decltype(size)::taps;
          State state[n];
          for (int u = 0; u < n; u++) state[u] = op.start();
          for (int64_t i = t.lo; i < t.hi; i++)
            for (int64_t j = r.lo; j < r.hi; j++) {
              const int64_t line = ((d0 + i * depth.dilation) * s.in[1] + h0 + j * height.dilation) * s.in[2];
              for (int64_t k = w.lo; k < w.hi; k++) {
                const T* p = image + (line + w0 + k * width.dilation) * s.C + c;
#pragma GCC unroll 4
                for (int u = 0; u < n; u++)
                  op.add(state[u], n > 1 ? load(p + u * lanes) : load_up_to(p, s.C - c), i - t.lo, j - r.lo,
                                k - w.lo);
              }
            }
#pragma GCC unroll 4
          for (int u = 0; u < n; u++) op.put(out, q, w, c + u * lanes, state[u]);
        };
        int64_t c = 0;
        for (; c + group * lanes <= s.C; c += group * lanes) channels(Form<0, group>(), c);
        for (; c < s.C; c += lanes) channels(Form<0, 1>(), c);
      }
    }
  });
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
