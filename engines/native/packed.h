// Packed weights: the byte layouts that compiler/pack.py writes, and how numbers come out of them.
//
// A weight [N, K] is tiles of 16 output rows, the same bytes on every instruction set:
//   float32     [N/16][K][16] floats
//   int8        [N/16]{ 16 float scales, [K/4][16][4] bytes, each weight + 128 }
//   int4, int6  [N/16]{ 16 float units, then for every 128 inputs { [4][16] int8 scales, [4] blocks } }
// with K rounded up to 32, the inputs of a block; the last 128 inputs may have fewer blocks. A block is
// [4][16][4] bytes with the lower 4 bits of 2 x 4 inputs, then for int6 [2][16][4] with the upper 2 of 4 x 4, of each
// weight + 8 or + 32. A weight is worth its block's scale times its row's unit. All this is one stream of whole lines.
#pragma once

#include "runtime.h"
#include "simd.h"

namespace {

// Written once, in compiler/ops.py and compiler/pack.py.
enum Kind { kFloat = PACKED_FLOAT32, kInt8 = PACKED_INT8, kInt4 = PACKED_INT4, kInt6 = PACKED_INT6 };
constexpr int64_t kBlock = PACKED_BLOCK;  // inputs that share an int4 or int6 scale; sums are kept at this grain
constexpr int64_t kLine = 64;   // bytes of the 16 floats before a quantised tile, and of the scales of 4 blocks

int64_t padded(int64_t k) { return round_up(k, kBlock); }

int64_t tile_bytes(int64_t k, int kind) {
  if (kind == kFloat) return k * kTile * 4;
  if (kind == kInt8) return kLine + padded(k) * kTile;
  int64_t blocks = padded(k) / kBlock, bits = kind == kInt4 ? 4 : 6;
  return kLine + (blocks + 3) / 4 * kLine + blocks * kLine * bits;
}

// The blocks of an int4 or int6 tile, one after the other.
template <int kBits>
struct Blocks {
  static constexpr int kBias = 1 << (kBits - 1);
  const char *scales, *bytes, *next;
  int64_t index = 0;

  explicit Blocks(const char* tile) : next(tile + kLine) {}
  void step() {
    bool first = index++ % 4 == 0;  // of the blocks that share a line of scales
    scales = first ? next : scales + kTile;
    bytes = first ? next + kLine : next;
    next = bytes + kBits * kLine;
  }
};

// The weights of inputs 4 j to 4 j + 3 of a block: `V` of those 64 bytes, from byte `at` on.
template <int kBits, typename V>
V block_weights(const char* block, int j, int64_t at) {
  V pair = load<V>(block + j / 2 * kLine + at);
  V lower = j % 2 ? pair >> 4 : pair & 15;
  if constexpr (kBits == 4) return lower;
  V four = load<V>(block + (4 + j / 4) * kLine + at);
  V upper = j % 4 == 0 ? four << 4 : j % 4 == 1 ? four << 2 : j % 4 == 2 ? four : four >> 2;
  return lower | (upper & 0x30);
}

// Rewrites an int4 or int6 tile as an int8 tile, whose scales are 8 or 32 units. For long prompts: the rounding is
// 12 to 16 (int6: 3 to 4) times finer than that of a row's coarsest scale, and the int8 product is twice as fast.
template <int kBits>
void widen_tile(const char* tile, int64_t k, char* out) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes * 2)));
  typedef uint16_t Words __attribute__((vector_size(kLanes * 4)));
  constexpr uint16_t kBias = Blocks<kBits>::kBias, kShift = kBits - 1;
  constexpr uint16_t kOffset = (128 << kShift) + (1 << kShift) / 2;
  for (int p = 0; p < kParts; ++p)
    store(out + p * kLanes * 4, load<vfloat>(tile + p * kLanes * 4) * (float)(1 << kShift));
  Blocks<kBits> blocks(tile);
  for (char* to = out + kLine; blocks.index < padded(k) / kBlock; to += 8 * kLine) {
    blocks.step();
    // A weight v - bias of scale s becomes that product, rounded, + 128 as int8 is stored: (v * s + offset) >> shift.
    uint64_t scales[kTile];  // each the scale of a row, four times
    for (int i = 0; i < kTile; ++i) scales[i] = (uint16_t)(int8_t)blocks.scales[i] * 0x0001000100010001u;
    for (int64_t x = 0; x < kLine; x += sizeof(Bytes)) {
      Words s = load<Words>(scales + x / 4), o = kOffset - s * kBias;
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        Words wide = __builtin_convertvector(block_weights<kBits, Bytes>(blocks.bytes, j, x), Words);
        store(to + j * kLine + x, __builtin_convertvector((wide * s + o) >> kShift, Bytes));
      }
    }
  }
}

}  // namespace
