// The register-blocked product that single-precision linears are made of. Each element is summed in the order of the
// inputs, whatever the block it is computed in.
#pragma once

#include "simd.h"

// Rows and tiles that fill the register file: 32 vectors with AVX-512 and aarch64, 16 with AVX2.
#if defined(__AVX512VNNI__)
constexpr int kRows = 6, kTiles = 4;
#else
constexpr int kRows = 6, kTiles = 1;
#endif

// c[r][16 * t + lane] = sum over k of a[r][k] * w[t][k][lane], for R rows and T tiles of [depth, 16] weights.
template <int R, int T>
inline void multiply_block(const float* a, const float* w, int64_t depth, float* c, int64_t c_row) {
  vfloat acc[R][T * kParts] = {};
  for (int64_t k = 0; k < depth; ++k) {
    vfloat columns[T * kParts];
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p)
        columns[t * kParts + p] = load<vfloat>(w + (t * depth + k) * kTile + p * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vfloat x = splat(a[r * depth + k]);
#pragma GCC unroll 16
      for (int t = 0; t < T * kParts; ++t) acc[r][t] += x * columns[t];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T * kParts; ++t) store(c + r * c_row + t * kLanes, acc[r][t]);
}

template <int R>
inline void multiply_tiles(const float* a, const float* w, int64_t tiles, int64_t depth, float* c, int64_t c_row) {
  int64_t t = 0;
  for (; t + kTiles <= tiles; t += kTiles)
    multiply_block<R, kTiles>(a, w + t * depth * kTile, depth, c + t * kTile, c_row);
  if constexpr (kTiles > 1)
    for (; t < tiles; ++t) multiply_block<R, 1>(a, w + t * depth * kTile, depth, c + t * kTile, c_row);
}

// rows <= kRows rows a[rows, depth] times w[tiles, depth, 16]: c[rows, 16 * tiles] with rows `c_row` apart.
inline void multiply(int rows, const float* a, const float* w, int64_t tiles, int64_t depth, float* c, int64_t c_row) {
  switch (rows) {
    case 1: return multiply_tiles<1>(a, w, tiles, depth, c, c_row);
    case 2: return multiply_tiles<2>(a, w, tiles, depth, c, c_row);
    case 3: return multiply_tiles<3>(a, w, tiles, depth, c, c_row);
    case 4: return multiply_tiles<4>(a, w, tiles, depth, c, c_row);
    case 5: return multiply_tiles<5>(a, w, tiles, depth, c, c_row);
    default: return multiply_tiles<6>(a, w, tiles, depth, c, c_row);
  }
}
