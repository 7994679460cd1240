// The int8 product on the matrix unit of newer x86-64 CPUs (AMX), for passes of many tokens: one instruction multiplies
// 16 tokens by 16 outputs over 64 inputs, which are one scale group of the activations.
//
// The integers are those of int8_panel, and they meet the same floats in the same order: results are the same bits.
// Instructions and limits: Intel's Software Developer's Manual, volume 1, chapter 18.
#pragma once

#include "panels.h"

#if defined(__AVX512VNNI__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

namespace {

bool amx_in_cpu() { return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8"); }

// Linux lets only a process use the unit that has asked for it (Documentation/arch/x86/xstate.rst).
bool amx_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

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

// The int8 tiles that amx_tiles takes: as packed.h describes them, but signed and with zeros up to whole groups.
int64_t amx_tile_bytes(int64_t k) { return kLine + round_up(k, kGroup) * kTile; }

// Makes one of those of an int8 tile, which may lie in the same place.
void amx_prepare(const char* tile, int64_t k, char* to) {
  int64_t end = tile_bytes(k, kInt8), i = kLine;
  if (to != tile) std::memcpy(to, tile, kLine);
  for (; i < end; i += kLine) store(to + i, load<vbytes>(tile + i) ^ 0x80);
  std::memset(to + end, 0, amx_tile_bytes(k) - end);
}

// Up to 2 x 16 tokens times 2 tiles: R x T registers of sums.
template <int R, int T>
__attribute__((target("amx-tile,amx-int8"))) void amx_block(
    const Activations& a, int64_t row, int64_t rows, const Tiles& w, const Output& out) {
  alignas(64) vint sums[kAmxGroups][R * T][kTile];
  alignas(64) vfloat totals[R * T][kTile];
  const int8_t *tokens = a.bytes + a.place(row, 0) * kGroup, *more_tokens = a.bytes + a.place(row + kTile, 0) * kGroup;
  const char *weights = w.data + kLine, *more_weights = weights + w.stride;
  for (int64_t begin = 0; begin < a.groups; begin += kAmxGroups) {
    int64_t groups = std::min<int64_t>(kAmxGroups, a.groups - begin);
    for (int64_t g = 0; g < groups; ++g) {
      int64_t at = (begin + g) * kAmxBytes;
      _tile_zero(0);
      _tile_loadd(4, tokens + at, kLine);
      _tile_loadd(6, weights + at, kLine);
      _tile_dpbssd(0, 4, 6);
      if constexpr (T == 2) {
        _tile_zero(1);
        _tile_loadd(7, more_weights + at, kLine);
        _tile_dpbssd(1, 4, 7);
      }
      if constexpr (R == 2) {
        _tile_zero(2);
        _tile_loadd(5, more_tokens + at, kLine);
        _tile_dpbssd(2, 5, 6);
      }
      if constexpr (R == 2 && T == 2) {
        _tile_zero(3);
        _tile_dpbssd(3, 5, 7);
      }
      _tile_stored(0, sums[g][0], kLine);
      if constexpr (T == 2) {
        _tile_stored(1, sums[g][1], kLine);
      }
      if constexpr (R == 2) {
        _tile_stored(2, sums[g][T], kLine);
      }
      if constexpr (R == 2 && T == 2) {
        _tile_stored(3, sums[g][3], kLine);
      }
    }
    asm volatile("" ::: "memory");
    for (int i = 0; i < R * T; ++i) {
      int64_t first = row + i / T * kTile;
      const float* scales = a.scales + a.place(first, begin);
      vfloat total[kTile];
#pragma GCC unroll 16
      for (int r = 0; r < kTile; ++r) total[r] = begin ? totals[i][r] : vfloat{};
      for (int64_t g = 0; g < groups; ++g)
#pragma GCC unroll 16
        for (int r = 0; r < kTile; ++r) total[r] += to_float(sums[g][i][r]) * splat(scales[g * kTile + r]);
      if (begin + groups < a.groups) {
#pragma GCC unroll 16
        for (int r = 0; r < kTile; ++r) totals[i][r] = total[r];
      } else {
        vfloat scale = load<vfloat>(w.data + i % T * w.stride);
#pragma GCC unroll 16
        for (int r = 0; r < kTile; ++r)
          if (first + r < row + rows) out.put(first + r, w.column + i % T * kTile, total[r] * scale);
      }
    }
  }
}

// `rows` tokens from `row` on times `count` tiles that amx_prepare has made. `a` has kTile lanes.
void amx_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
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
#else
namespace {
bool amx_in_cpu() { return false; }
bool amx_permitted() { return false; }
int64_t amx_tile_bytes(int64_t) { return 0; }
void amx_prepare(const char*, int64_t, char*) {}
void amx_tiles(const Activations&, int64_t, int64_t, const Tiles&, int64_t, const Output&) {}
}  // namespace
#endif
