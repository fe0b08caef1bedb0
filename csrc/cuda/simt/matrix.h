// ldmatrix and mma.sync by their fragment maps (PTX ISA, "Matrix Fragments for mma.m16n8k16").
#pragma once
#include "simt.h"

namespace fastconv::simt {

template <bool transposed> void load_any_matrices(const char* name, std::uint32_t (&r)[4], const void* row) {
  check_shared(row, 16);
  collective(name, [](Lane* lanes) {
    counters.matrix_loads++;
    for (int m = 0; m < 4; m++) {
      const void* rows[8];
      for (int i = 0; i < 8; i++) rows[i] = lanes[8 * m + i].in;
      count_bank_conflicts(rows, 8);
      for (int i = 0; i < kWarp; i++)
        for (int h = 0; h < 2; h++) {
          const int down = transposed ? 2 * (i % 4) + h : i / 4, across = transposed ? i / 4 : 2 * (i % 4) + h;
          std::memcpy(static_cast<char*>(lanes[i].out) + 4 * m + 2 * h,
                      static_cast<const char*>(rows[down]) + 2 * across, 2);
        }
    }
  }, row, r);
}

inline void load_matrices(std::uint32_t (&r)[4], const void* row) { load_any_matrices<false>("load_matrices", r, row); }
inline void load_matrices_transposed(std::uint32_t (&r)[4], const void* row) {
  load_any_matrices<true>("load_matrices_transposed", r, row);
}

struct Factors {
  const std::uint32_t *a, *b;
  float (*value)(std::uint16_t);
};

// The sum of d and 16 exact products as the least exact tensor core forms it: every addend is cut to the 24 bits of the
// largest one, their sum to a float; later ones keep a few bits more (Fasi, Higham, Mikaitis and Pranesh, "Numerical
// Behavior of NVIDIA Tensor Cores", 2021).
inline float truncated_sum(float d, const double (&products)[16]) {
  double largest = std::fabs(double(d)), sum = d;
  for (double p : products) {
    largest = std::fmax(largest, std::fabs(p));
    sum += p;
  }
  if (largest == 0 || !std::isfinite(sum)) return float(sum);
  const int unit = std::ilogb(largest) - 23;
  const double scale = std::ldexp(1.0, -unit);
  std::int64_t total = std::int64_t(d * scale);
  for (double p : products) total += std::int64_t(p * scale);
  const double cut = std::ldexp(double(total), unit);
  const float nearest = float(cut);
  const bool beyond = std::isfinite(nearest) && std::fabs(double(nearest)) > std::fabs(cut);
  return beyond ? std::nextafter(nearest, 0.0f) : nearest;
}

// d += a b.
inline void multiply_16816(const char* name, float (*value)(std::uint16_t), float (&d)[4],
                           const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  const Factors factors{a, b, value};
  collective(name, [](Lane* lanes) {
    counters.matrix_products++;
    float left[16][16], right[16][8];
    for (int i = 0; i < kWarp; i++) {
      const Factors& f = *static_cast<const Factors*>(lanes[i].in);
      const int group = i / 4, pair = 2 * (i % 4);
      for (int h = 0; h < 2; h++) {
        const auto half = [&](std::uint32_t v) { return f.value(std::uint16_t(v >> (16 * h))); };
        left[group][pair + h] = half(f.a[0]);
        left[group + 8][pair + h] = half(f.a[1]);
        left[group][pair + 8 + h] = half(f.a[2]);
        left[group + 8][pair + 8 + h] = half(f.a[3]);
        right[pair + h][group] = half(f.b[0]);
        right[pair + 8 + h][group] = half(f.b[1]);
      }
    }
    for (int i = 0; i < kWarp; i++)
      for (int e = 0; e < 4; e++) {
        const int row = i / 4 + e / 2 * 8, column = 2 * (i % 4) + e % 2;
        double products[16];
        for (int k = 0; k < 16; k++) products[k] = double(left[row][k]) * double(right[k][column]);
        float& sum = static_cast<float*>(lanes[i].out)[e];
        sum = truncated_sum(sum, products);
      }
  }, &factors, d);
}

}  // namespace fastconv::simt
