// The input gradient as one problem for each phase, a position modulo the stride (conv_taps.h).
#pragma once
#include "conv_taps.h"
#include "parallel.h"

namespace fastconv::cpu::FC_ISA {
namespace {

// dx = bias (or zero) everywhere, for the positions that no tap reaches.
template <class T> void fill_channels(const ConvShape& s, const T* bias, T* dx, Context& ctx) {
  const bool last = s.layout == Layout::channels_last;
  const int64_t space = s.in_space(), rows = s.in[0] * s.in[1], width = s.in[2];
  const int64_t tasks = last ? s.N * rows : s.N * s.C, length = last ? width * s.C : space;
  parallel_for<KeepDenormals>(ctx.threads_for(0, double(tasks * length) * sizeof(T)), tasks, [&](int64_t i, int) {
    T* p = dx + i * length;
    if (!bias) {
      std::memset(p, 0, std::size_t(length) * sizeof(T));
    } else if (last) {
      for (int64_t w = 0; w < width; w++) std::memcpy(p + w * s.C, bias, std::size_t(s.C) * sizeof(T));
    } else {
      for (int64_t m = 0; m < space; m++) p[m] = bias[i % s.C];
    }
  });
}

// solve(problem) for every phase that a tap reaches; the others are filled.
template <class T, class Solve>
void each_phase(const ConvShape& s, const T* bias, T* dx, Context& ctx, Solve&& solve) {
  TapProblem p = backward_problem(s);
  int64_t phases[3];
  for (int d = 0; d < 3; d++) phases[d] = min_of(s.stride[d], s.in[d]);
  bool complete = true;
  for (int d = 0; d < 3; d++)
    for (int64_t i = 0; complete && i < phases[d]; i++) complete = phase_axis(s, d, i).taps > 0;
  if (!complete) fill_channels(s, bias, dx, ctx);
  for (int64_t i = 0; i < phases[0]; i++) {
    p.axis[0] = phase_axis(s, 0, i);
    if (!p.axis[0].taps) continue;
    for (int64_t j = 0; j < phases[1]; j++) {
      p.axis[1] = phase_axis(s, 1, j);
      if (!p.axis[1].taps) continue;
      for (int64_t k = 0; k < phases[2]; k++) {
        p.axis[2] = phase_axis(s, 2, k);
        if (p.axis[2].taps) solve(p);
      }
    }
  }
}

}  // namespace
}  // namespace fastconv::cpu::FC_ISA
