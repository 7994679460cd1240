// Attention of a few rows of queries to one block of a paged KV cache, and how the results of blocks are joined.
//
// A page holds kPageTokens tokens of every layer. A layer begins `offset` * kPageTokens elements into it and gives each
// key-value head, one after the other, the keys [D16][16] of its tokens, so that 16 scores are one vector, and then
// their values [16][V16]; D16 and V16 are the head sizes rounded up to 16.
//
// Context is cut into blocks at multiples of kBlockTokens, a block's sums run in the order of its tokens, and blocks
// are joined in their order. So a row's result depends on its own context alone: not on the rows computed beside it, on
// how a prompt was cut, or on how many threads there are.
#pragma once

#include <algorithm>
#include <cmath>

#include "engine.h"
#include "runtime.h"
#include "simd.h"

static_assert(kPageTokens == kTile, "a page is one tile of keys");

namespace {

constexpr int64_t kBlockPages = 8;
constexpr int64_t kBlockTokens = kBlockPages * kPageTokens;
constexpr int kAttendRows = 6;  // rows of queries that are computed together

// One layer of a model: sizes of its heads and where it lies in a page.
struct Shape {
  int64_t heads, kv_heads, group, d, d16, dv, v16, offset, window;
  float scale, softcap;

  template <typename E>
  E* keys(char* page, int64_t kv_head) const {
    return reinterpret_cast<E*>(page) + (offset + kv_head * (d16 + v16)) * kPageTokens;
  }
  template <typename E>
  E* values(char* page, int64_t kv_head) const {
    return keys<E>(page, kv_head) + d16 * kPageTokens;
  }
  // The tokens that one at `position` sees begin here and end behind itself.
  int64_t first_seen(int64_t position) const { return window > 0 ? std::max<int64_t>(0, position - window + 1) : 0; }
};

// What rows have gathered from some of their context: out [rows, v16], not yet divided by `sum`.
struct Partial {
  float* out;
  float* top;
  float* sum;

  static int64_t floats(int64_t rows, int64_t v16) { return rows * (v16 + 2); }
  Partial(float* memory, int64_t rows, int64_t v16) : out(memory), top(out + rows * v16), sum(top + rows) {}
  Partial(float* out, float* top, float* sum) : out(out), top(top), sum(sum) {}
  Partial from_row(int64_t row, int64_t v16) const { return {out + row * v16, top + row, sum + row}; }
};

// Tiles of 16 columns that R rows are multiplied with at a time, as many as the registers hold.
template <int R>
constexpr int tiles_at_once() {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
  constexpr int kRegisters = 13;
#else
  constexpr int kRegisters = 28;
#endif
  return R * 4 * kParts <= kRegisters ? 4 : R * 2 * kParts <= kRegisters ? 2 : 1;
}

// acc[r][lane] += a[r] * b[lane] for R rows and the 16 lanes of one tile. Rows of `a` and of `acc` are that far apart.
template <int R, typename E>
inline __attribute__((always_inline)) void add_products(const float* a, int64_t a_row, const E* b, vfloat* acc,
                                                        int acc_row) {
  vfloat w[kParts];
#pragma GCC unroll 4
  for (int p = 0; p < kParts; ++p) w[p] = load_lanes(b + p * kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    vfloat x = splat(a[r * a_row]);
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) acc[r * acc_row + p] += x * w[p];
  }
}

// c[r][16 t + lane] = sum over k of a[r][k] * b[t][k][lane], for T tiles that each lie elsewhere.
template <int R, int T, typename E>
inline void multiply_scattered(const float* a, int64_t a_row, const E* const* b, int64_t depth, float* c, int64_t c_row) {
  vfloat acc[R][T * kParts] = {};
  for (int64_t k = 0; k < depth; ++k)
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t) add_products<R>(a + k, a_row, b[t] + k * kTile, &acc[0][t * kParts], T * kParts);
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T * kParts; ++t) store(c + r * c_row + t * kLanes, acc[r][t]);
}

// c[r][lane] = sum over tokens of a[r][token] * their values, for T tiles of 16 lanes from `lane` on.
template <int R, int T, typename E>
inline void weigh(const float* a, int64_t a_row, const E* const* pages, int64_t tokens, int64_t v16, int64_t lane,
                  float* c, int64_t c_row) {
  vfloat acc[R][T * kParts] = {};
  for (int64_t begin = 0; begin < tokens; begin += kPageTokens) {
    const E* values = pages[begin / kPageTokens] + lane;
    int64_t count = std::min(kPageTokens, tokens - begin);
    for (int64_t k = 0; k < count; ++k)
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
        add_products<R>(a + begin + k, a_row, values + k * v16 + t * kTile, &acc[0][t * kParts], T * kParts);
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T * kParts; ++t) store(c + r * c_row + lane + t * kLanes, acc[r][t]);
}

// Softmax's numerators of row[0 .. tokens), of which those outside [from, until) are not seen; their largest exponent
// and their sum. `tokens` is a multiple of 16.
inline void exponentiate(float* row, int64_t tokens, int64_t from, int64_t until, float softcap, float& top, float& sum) {
  if (softcap > 0)
    for (int64_t t = from; t < until; ++t) row[t] = softcap * std::tanh(row[t] / softcap);
  for (int64_t t = 0; t < from; ++t) row[t] = -INFINITY;
  for (int64_t t = until; t < tokens; ++t) row[t] = -INFINITY;
  vfloat tops = splat(-INFINITY);
  for (int64_t t = 0; t < tokens; t += kLanes) tops = vmax(tops, load<vfloat>(row + t));
  top = largest(tops);
  vfloat sums{};
  if (top == -INFINITY) {
    std::memset(row, 0, tokens * sizeof(float));
  } else {
    for (int64_t t = 0; t < tokens; t += kLanes) {
      vfloat x = load<vfloat>(row + t);
      vfloat e = x == -INFINITY ? vfloat{} : vexp(x - top);
      store(row + t, e);
      sums += e;
    }
  }
  sum = total(sums);
}

// The tokens [begin, end) of one block of a sequence's context, for one key-value head of a layer.
template <typename E>
struct Block {
  const Shape& shape;
  int64_t begin, end;
  const E *keys[kBlockPages], *values[kBlockPages];  // of its pages

  int64_t tiles() const { return (end - begin + kTile - 1) / kTile; }
  // The block without its tokens from `end` on.
  Block until(int64_t end) const {
    Block shorter(*this);
    shorter.end = end;
    return shorter;
  }
};

template <typename E>
Block<E> block_of(const Shape& shape, char* const* pages, int64_t kv_head, int64_t begin, int64_t end) {
  Block<E> block{shape, begin, end, {}, {}};
  for (int64_t i = 0; i < block.tiles(); ++i) {
    char* page = pages[begin / kPageTokens + i];
    block.keys[i] = shape.keys<E>(page, kv_head), block.values[i] = shape.values<E>(page, kv_head);
  }
  return block;
}

// The same block in single precision, so that each number is converted once for many rows. `memory` holds
// kBlockTokens * (d16 + v16) floats.
inline Block<float> widened(const Block<half>& block, float* memory) {
  Block<float> wide{block.shape, block.begin, block.end, {}, {}};
  int64_t keys = block.shape.d16 * kPageTokens, both = keys + block.shape.v16 * kPageTokens;
  for (int64_t i = 0; i < block.tiles(); ++i, memory += both) {
    for (int64_t j = 0; j < both; j += kLanes) store(memory + j, load_lanes(block.keys[i] + j));
    wide.keys[i] = memory, wide.values[i] = memory + keys;
  }
  return wide;
}
inline const Block<float>& widened(const Block<float>& block, float*) { return block; }

// Rows that look at a block: their positions, their scaled queries [rows, d16] and scratch [rows, kBlockTokens].
struct Rows {
  const int64_t* positions;
  const float* queries;
  float* scores;
};

template <int R, typename E>
void attend_rows(const Block<E>& block, const Rows& rows, const Partial& to) {
  const auto& [s, begin, end, keys, values] = block;
  const auto& [positions, queries, scores] = rows;
  constexpr int T = tiles_at_once<R>();
  int64_t tiles = block.tiles(), t = 0;
  for (; t + T <= tiles; t += T)
    multiply_scattered<R, T>(queries, s.d16, keys + t, s.d, scores + t * kTile, kBlockTokens);
  if constexpr (T > 1)
    for (; t < tiles; ++t) multiply_scattered<R, 1>(queries, s.d16, keys + t, s.d, scores + t * kTile, kBlockTokens);
  for (int r = 0; r < R; ++r) {
    int64_t from = std::clamp<int64_t>(s.first_seen(positions[r]) - begin, 0, tiles * kTile);
    int64_t until = std::clamp<int64_t>(std::min(end, positions[r] + 1) - begin, from, tiles * kTile);
    exponentiate(scores + r * kBlockTokens, tiles * kTile, from, until, s.softcap, to.top[r], to.sum[r]);
  }
  int64_t lane = 0;
  for (; lane + T * kTile <= s.v16; lane += T * kTile)
    weigh<R, T>(scores, kBlockTokens, values, end - begin, s.v16, lane, to.out, s.v16);
  if constexpr (T > 1)
    for (; lane < s.v16; lane += kTile)
      weigh<R, 1>(scores, kBlockTokens, values, end - begin, s.v16, lane, to.out, s.v16);
}

template <typename E>
void attend(int count, const Block<E>& block, const Rows& rows, const Partial& to) {
  switch (count) {
    case 1: return attend_rows<1, E>(block, rows, to);
    case 2: return attend_rows<2, E>(block, rows, to);
    case 3: return attend_rows<3, E>(block, rows, to);
    case 4: return attend_rows<4, E>(block, rows, to);
    case 5: return attend_rows<5, E>(block, rows, to);
    default: return attend_rows<6, E>(block, rows, to);
  }
}

// Joins what a later block gave one row to what it has: the running softmax of FlashAttention (arXiv:2205.14135). One
// function for every way of sharing out the work, so that all of them round alike.
__attribute__((noinline)) void join(float* out, float& top, float& sum, const float* more, float more_top,
                                    float more_sum, int64_t v16) {
  if (more_top == -INFINITY) return;
  if (top == -INFINITY) {
    std::memcpy(out, more, v16 * sizeof(float));
    top = more_top, sum = more_sum;
    return;
  }
  float ours = 1, theirs = 1;
  if (more_top > top) {
    ours = std::exp(top - more_top);
    top = more_top;
  } else {
    theirs = std::exp(more_top - top);
  }
  sum = ours * sum + theirs * more_sum;
  for (int64_t j = 0; j < v16; j += kLanes)
    store(out + j, splat(ours) * load<vfloat>(out + j) + splat(theirs) * load<vfloat>(more + j));
}

}  // namespace
