// The register-blocked product that single-precision linears are made of.
#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"

// c[r][16 * t + lane] = sum over k of a[r][k] * b[k * b_row + t * b_tile + lane], for R rows and T tiles of 16.
template <int R, int T, typename B>
inline void multiply(
    const float* a, int64_t a_row, const B* b, int64_t b_row, int64_t b_tile, int64_t depth, float* c, int64_t c_row) {
  vfloat acc[R][T * kParts] = {};
  for (int64_t k = 0; k < depth; ++k) {
    vfloat w[T * kParts];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) w[t * kParts + p] = load_lanes(b + k * b_row + t * b_tile + p * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vfloat x = splat(a[r * a_row + k]);
#pragma GCC unroll 16
      for (int t = 0; t < T * kParts; ++t) acc[r][t] += x * w[t];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T * kParts; ++t) store(c + r * c_row + t * kLanes, acc[r][t]);
}

// Rows and tiles that fill the register file: 32 vectors with AVX-512 and aarch64, 16 with AVX2.
#if defined(__AVX512VNNI__)
constexpr int kRows = 6, kTiles = 4;
#else
constexpr int kRows = 6, kTiles = 1;
#endif

template <int R, typename B>
inline void multiply_tiles(const float* a, int64_t a_row, const B* b, int64_t b_row, int64_t b_tile, int64_t tiles,
                           int64_t depth, float* c, int64_t c_row) {
  int64_t t = 0;
  for (; t + kTiles <= tiles; t += kTiles)
    multiply<R, kTiles>(a, a_row, b + t * b_tile, b_row, b_tile, depth, c + t * kTile, c_row);
  if constexpr (kTiles > 1)
    for (; t < tiles; ++t) multiply<R, 1>(a, a_row, b + t * b_tile, b_row, b_tile, depth, c + t * kTile, c_row);
}

// Any number of rows up to kRows.
template <typename B>
inline void multiply_rows(int rows, const float* a, int64_t a_row, const B* b, int64_t b_row, int64_t b_tile,
                          int64_t tiles, int64_t depth, float* c, int64_t c_row) {
  auto run = [&](auto count) {
    constexpr int R = decltype(count)::value;
    return multiply_tiles<R>(a, a_row, b, b_row, b_tile, tiles, depth, c, c_row);
  };
  switch (rows) {
    case 1: return run(std::integral_constant<int, 1>());
    case 2: return run(std::integral_constant<int, 2>());
    case 3: return run(std::integral_constant<int, 3>());
    case 4: return run(std::integral_constant<int, 4>());
    case 5: return run(std::integral_constant<int, 5>());
    default: return run(std::integral_constant<int, 6>());
  }
}
