// matrix.h for the matrix unit of newer x86-64 CPUs (AMX): one instruction multiplies
// 16 tokens by 16 outputs over 64 inputs, which are one scale group of the activations.
//
// The integers are those of int8_panel, and they meet the same floats in the same order: results are the same bits.
// Instructions and limits: Intel's Software Developer's Manual, volume 1, chapter 18.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "panels.h"

namespace {

bool matrix_in_cpu() { return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8"); }

// Linux lets only a process use the unit that has asked for it (Documentation/arch/x86/xstate.rst).
bool matrix_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr int64_t kMatrixFrom = 32;            // measured: fewer tokens are as fast without
constexpr int64_t kAmxBytes = kTile * kGroup;  // of one register of the unit: 16 lines of 64 bytes
constexpr int kAmxGroups = 3;                  // whose sums are taken out together; as fast as any, measured

// The unit's registers are set up in the calling thread while one of these lives.
class AmxRegisters {
 public:
  __attribute__((target("amx-tile"))) AmxRegisters() {
    static constexpr struct alignas(64) {
      uint8_t palette = 1, start_row = 0, unused[14] = {};
      uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } kShapes;
    asm volatile("" ::"r"(&kShapes) : "memory");  // GCC's intrinsic declares only 8 of these bytes as read
    _tile_loadconfig(&kShapes);
  }
  __attribute__((target("amx-tile"))) ~AmxRegisters() { _tile_release(); }
  AmxRegisters(const AmxRegisters&) = delete;
  AmxRegisters& operator=(const AmxRegisters&) = delete;
};

// Signed bytes instead of biased ones, in the same order.
void matrix_prepare(const char* tile, int64_t k, char* to) {
  int64_t end = tile_bytes(k, kInt8), i = kLine;
  if (to != tile) std::memcpy(to, tile, kLine);
  for (; i < end; i += kLine) store(to + i, load<vbytes>(tile + i) ^ 0x80);
  std::memset(to + end, 0, matrix_tile_bytes(k) - end);
}

// The integer sums of `groups` groups, for R x 16 tokens and T tiles: sums [groups, R, T, 16 tokens, 16 outputs].
// A function of its own, since the compiler runs out of registers for addresses elsewhere.
template <int R, int T>
__attribute__((noinline, target("amx-tile,amx-int8"))) void amx_sums(
    const int8_t* tokens, const int8_t* more_tokens, const char* weights, const char* more_weights, int64_t groups,
    vint* sums) {
  for (; groups > 0; --groups, sums += R * T * kTile) {
    _tile_zero(0);
    _tile_loadd(4, tokens, kLine);
    _tile_loadd(6, weights, kLine);
    _tile_dpbssd(0, 4, 6);
    if constexpr (T == 2) {
      _tile_zero(1);
      _tile_loadd(7, more_weights, kLine);
      _tile_dpbssd(1, 4, 7);
    }
    if constexpr (R == 2) {
      _tile_zero(2);
      _tile_loadd(5, more_tokens, kLine);
      _tile_dpbssd(2, 5, 6);
    }
    if constexpr (R == 2 && T == 2) {
      _tile_zero(3);
      _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, sums, kLine);
    if constexpr (T == 2) {
      _tile_stored(1, sums + kTile, kLine);
    }
    if constexpr (R == 2) {
      _tile_stored(2, sums + T * kTile, kLine);
    }
    if constexpr (R == 2 && T == 2) {
      _tile_stored(3, sums + 3 * kTile, kLine);
    }
    tokens += kAmxBytes, more_tokens += kAmxBytes, weights += kAmxBytes, more_weights += kAmxBytes;
  }
}

// totals[16 tokens], of zeros if they are `fresh`, += the sums of `groups` groups, `step` vectors apart, times the tokens'
// scales [groups, 16].
__attribute__((noinline)) void scale_sums(
    const vint* sums, int step, int64_t groups, const float* scales, bool fresh, vfloat* totals) {
  vfloat total[kTile];
#pragma GCC unroll 16
  for (int r = 0; r < kTile; ++r) total[r] = fresh ? vfloat{} : totals[r];
  for (; groups > 0; --groups, sums += step, scales += kTile)
#pragma GCC unroll 16
    for (int r = 0; r < kTile; ++r) total[r] += to_float(sums[r]) * splat(scales[r]);
#pragma GCC unroll 16
  for (int r = 0; r < kTile; ++r) totals[r] = total[r];
}

// `rows`, up to R x 16, tokens from `row` on times T tiles.
template <int R, int T>
void amx_block(const Activations& a, int64_t row, int64_t rows, const Tiles& w, const Output& out) {
  alignas(64) vint sums[kAmxGroups * R * T * kTile];
  alignas(64) vfloat totals[R * T * kTile];
  const int8_t *tokens = a.bytes + a.place(row, 0) * kGroup, *more_tokens = tokens + a.groups * kAmxBytes;
  const char *weights = w.data + kLine, *more_weights = weights + w.stride;
  out.fetch(row, rows, w.column, T);
  for (int64_t begin = 0; begin < a.groups; begin += kAmxGroups) {
    int64_t groups = std::min<int64_t>(kAmxGroups, a.groups - begin), at = begin * kAmxBytes;
    amx_sums<R, T>(tokens + at, more_tokens + at, weights + at, more_weights + at, groups, sums);
    for (int i = 0; i < R * T; ++i)
      scale_sums(sums + i * kTile, R * T * kTile, groups, a.scales + a.place(row + i / T * kTile, begin), begin == 0,
                 totals + i * kTile);
  }
  for (int i = 0; i < R * T; ++i) {
    vfloat scale = load<vfloat>(w.data + i % T * w.stride);
    int64_t first = i / T * kTile, end = std::min<int64_t>(kTile, rows - first);
    for (int64_t r = 0; r < end; ++r) out.put(row + first + r, w.column + i % T * kTile, totals[i * kTile + r] * scale);
  }
}

void matrix_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
  AmxRegisters set_up;
  for (int64_t end = row + rows; row < end; row += 2 * kTile) {
    int64_t left = std::min<int64_t>(2 * kTile, end - row), t = 0;
    for (; t + 2 <= count; t += 2)
      left > kTile ? amx_block<2, 2>(a, row, left, w.from_tile(t), out) : amx_block<1, 2>(a, row, left, w.from_tile(t), out);
    if (t < count)
      left > kTile ? amx_block<2, 1>(a, row, left, w.from_tile(t), out) : amx_block<1, 1>(a, row, left, w.from_tile(t), out);
  }
}

}  // namespace
