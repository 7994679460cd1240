// many.h for AVX2: two products by one multiplication, after S. Winograd, "A New Algorithm for Inner Product", IEEE
// Transactions on Computers C-17 (1968):
//   x0 w0 + x1 w1 = (x0 + w1) (x1 + w0) - x0 x1 - w0 w1
// The last two terms are of a token alone and of the weights alone: computed once, not for each token with each weight.
// A sum of two bytes takes 16 bits, of which one instruction multiplies 16 pairs and adds the products two by two. So
// 32 products take three additions and one multiplication; as bytes (simd.h) they take two multiplications, a sign and
// an addition, and most CPUs with AVX2 alone multiply at half or a third of the rate at which they add.
#pragma once

#include "panels.h"

namespace {

constexpr int64_t kManyFrom = 16;
constexpr Form kManyForm = kPaired;
constexpr int64_t kManyLanes = 1;
constexpr int kPairRows = 2, kPairTiles = 2;  // whose integer sums leave registers for what a product needs on its way
constexpr int64_t kPairLine = 2 * kLine;      // bytes of the Pairs of 4 inputs, vector by vector, even before odd
constexpr int64_t kPairGroup = kLine + kGroup / 4 * kPairLine;  // bytes of a group: [16] int32 starts, and Pairs

// The scales of an int8 tile, then its groups, the last one filled up with zeros. A group's integer sums start from
// kWholeBits, so that they are floats as they are: 64 products come to at most 64 * 127^2, their pairs' to half of that.
int64_t many_tile_bytes(int64_t k) { return kLine + round_up(k, kGroup) / kGroup * kPairGroup; }

void many_prepare(const char* tile, int64_t k, char* to) {
  std::memcpy(to, tile, kLine);
  const char *from = tile + kLine, *end = tile + tile_bytes(k, kInt8);
  for (to += kLine; from < end; to += kPairGroup) {
    vint products[kParts] = {};
    char* line = to + kLine;
    for (int j = 0; j < kGroup; j += 4, from += kLine)
      for (int p = 0; p < kParts; ++p, line += kPairLine / kParts) {
        Pairs pairs(from < end ? (__m256i)(load<vbytes>(from + p * kLanes * 4) ^ 0x80) : _mm256_setzero_si256());
        store(line, pairs.even);
        store(line + kLanes * 4, pairs.odd);
        products[p] += pairs.products();
      }
    for (int p = 0; p < kParts; ++p) store(to + p * kLanes * 4, kWholeBits - products[p]);
  }
}

// R tokens times T tiles that many_prepare made.
template <int R, int T>
void pair_panel(const Activations& a, int64_t row, const Tiles& w, const Output& out) {
  constexpr int V = T * kParts;
  vfloat total[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) total[r][v] = vfloat{};
  const int8_t* inputs = a.bytes + a.place(row, 0) * 2 * kGroup;
  const float* scales = a.scales + a.place(row, 0);
  const int32_t* products = a.sums + a.place(row, 0) * kHalves;
  const char* weights = w.data + kLine;
  for (int64_t g = 0; g < a.groups; ++g, inputs += 2 * kGroup, ++scales, products += kHalves) {
    vint acc[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = load<vint>(weights + w.place(v));
    weights += kLine;
    for (int64_t j = 0; j < kGroup; j += 4, weights += kPairLine) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const int8_t* four = inputs + r * a.groups * 2 * kGroup + j;
        __m256i even = _mm256_set1_epi32(four_bytes(four)), odd = _mm256_set1_epi32(four_bytes(four + kGroup));
        const char* from = weights;
        __asm__ volatile("" : "+r"(from));  // else the compiler keeps weights for the next row, but has no registers left
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) {
          const char* at = from + v / kParts * w.stride + v % kParts * (kPairLine / kParts);
          __m256i left = _mm256_add_epi16(even, load<__m256i>(at + kLanes * 4));
          __m256i right = _mm256_add_epi16(odd, load<__m256i>(at));
          acc[r][v] += (vint)_mm256_madd_epi16(left, right);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const int32_t* halves = products + r * a.groups * kHalves;
      vfloat zero = (vfloat)splat(kWholeBits + halves[0] + halves[1]), scale = splat(scales[r * a.groups]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) total[r][v] += ((vfloat)acc[r][v] - zero) * scale;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) out.put(row + r, w.column + v * kLanes, total[r][v] * load<vfloat>(w.data + w.place(v)));
}

template <int R>
void pair_rows(const Activations& a, int64_t row, const Tiles& w, int64_t count, const Output& out) {
  int64_t t = 0;
  for (; t + kPairTiles <= count; t += kPairTiles) pair_panel<R, kPairTiles>(a, row, w.from_tile(t), out);
  for (; t < count; ++t) pair_panel<R, 1>(a, row, w.from_tile(t), out);
}

void many_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
  for (; rows >= kPairRows; row += kPairRows, rows -= kPairRows) pair_rows<kPairRows>(a, row, w, count, out);
  for (; rows > 0; ++row, --rows) pair_rows<1>(a, row, w, count, out);
}

}  // namespace
