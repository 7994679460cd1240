// matrix.h for Arm's int8 matrix multiplication (i8mm: Graviton3 and 4): one instruction multiplies 2 tokens by 2 outputs
// over 8 inputs.
//
// Instruction: Arm's C Language Extensions, vmmlaq_s32. Its speed here is unknown: it has run under qemu alone.
#pragma once

#include <sys/auxv.h>

#include "panels.h"

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+fp16+dotprod+i8mm")

namespace {

constexpr int64_t kMatrixFrom = 16;  // a guess
constexpr int kOctet = 8;            // inputs of one instruction
constexpr int kMatrixRows = 4;       // whose sums, and the weights they meet, fill the registers

bool matrix_in_cpu() {
  constexpr unsigned long kI8mm = 1 << 13;  // HWCAP2_I8MM of Linux
  return getauxval(AT_HWCAP2) & kI8mm;
}

bool matrix_permitted() { return true; }

// Signed bytes, 8 inputs of an output together: [inputs / 8][16 outputs][8].
void matrix_prepare(const char* tile, int64_t k, char* to) {
  int64_t end = tile_bytes(k, kInt8);
  if (to != tile) std::memcpy(to, tile, kLine);
  for (int64_t i = kLine; i < end; i += 2 * kLine) {
    uint32x4_t first[4], second[4];
    for (int q = 0; q < 4; ++q) {
      first[q] = (uint32x4_t)(load<vbytes>(tile + i + q * 16) ^ 0x80);
      second[q] = (uint32x4_t)(load<vbytes>(tile + i + kLine + q * 16) ^ 0x80);
    }
    for (int q = 0; q < 4; ++q) {
      store(to + i + q * 32, vzip1q_u32(first[q], second[q]));
      store(to + i + q * 32 + 16, vzip2q_u32(first[q], second[q]));
    }
  }
  std::memset(to + end, 0, matrix_tile_bytes(k) - end);
}

// kMatrixRows tokens from `row` on, of which `rows` are wanted, times one tile.
void matrix_block(const Activations& a, int64_t row, int64_t rows, const Tiles& w, const Output& out) {
  vfloat totals[kMatrixRows][kParts] = {};
  for (int64_t g = 0; g < a.groups; ++g) {
    int32x4_t sums[kMatrixRows / 2][kTile / 2] = {};  // of 2 tokens and 2 outputs each
    const int8_t* tokens = a.bytes + a.place(row, g) * kGroup;
    const int8_t* weights = (const int8_t*)w.data + kLine + g * kGroup * kTile;
    for (int64_t j = 0; j < kGroup; j += kOctet) {
      int8x16_t pairs[kMatrixRows / 2];
#pragma GCC unroll 2
      for (int i = 0; i < kMatrixRows / 2; ++i)
        pairs[i] = vcombine_s8(vld1_s8(tokens + 2 * i * kGroup + j), vld1_s8(tokens + (2 * i + 1) * kGroup + j));
#pragma GCC unroll 8
      for (int p = 0; p < kTile / 2; ++p) {
        int8x16_t two = vld1q_s8(weights + j * kTile + p * 16);
#pragma GCC unroll 2
        for (int i = 0; i < kMatrixRows / 2; ++i) sums[i][p] = vmmlaq_s32(sums[i][p], pairs[i], two);
      }
    }
    const float* scales = a.scales + a.place(row, g);
#pragma GCC unroll 2
    for (int i = 0; i < kMatrixRows / 2; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) {
        int64x2_t left = (int64x2_t)sums[i][2 * v], right = (int64x2_t)sums[i][2 * v + 1];
        totals[2 * i][v] += to_float((vint)vzip1q_s64(left, right)) * splat(scales[2 * i]);
        totals[2 * i + 1][v] += to_float((vint)vzip2q_s64(left, right)) * splat(scales[2 * i + 1]);
      }
  }
  for (int64_t r = 0; r < std::min<int64_t>(kMatrixRows, rows); ++r)
    for (int v = 0; v < kParts; ++v)
      out.put(row + r, w.column + v * kLanes, totals[r][v] * load<vfloat>(w.data + v * kLanes * 4));
}

void matrix_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
  for (int64_t end = row + rows; row < end; row += kMatrixRows)
    for (int64_t t = 0; t < count; ++t) matrix_block(a, row, end - row, w.from_tile(t), out);
}

}  // namespace

#pragma GCC pop_options
