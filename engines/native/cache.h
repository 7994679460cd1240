// What a page of the KV cache holds, and how a token's key and value get there.
//
// A page holds kPageTokens tokens of every layer. A layer begins `offset` * kPageTokens elements into it and gives each
// key-value head, one after the other, the keys of its tokens, so that 16 scores are one vector, and then their values:
//   float    keys [D16][16], values [16][V16]
//   int16_t  keys [D16/2][16][2], what a unit of each token's key and of its value is worth, two float [16], and values
//            [8][V16][2]
// D16 and V16 are the head sizes rounded up to 16.
#pragma once

#include <algorithm>
#include <type_traits>

#include "engine.h"
#include "runtime.h"
#include "simd.h"
#include "words.h"

static_assert(kPageTokens == kTile, "a page is one tile of keys");

namespace {

constexpr int64_t kBlockPages = 8;  // of context that is attended to at a time
constexpr int64_t kBlockTokens = kBlockPages * kPageTokens;

// The most of a value's words, and of the words that its tokens' weights are rounded to: kBlockTokens of their products
// add up within 32 bits. Small weights count more than a value's last bit, which the linear behind rounds away.
constexpr int32_t kMostOfValues = 2047, kMostOfWeights = 8191;
static_assert((int64_t)kMostOfValues * kMostOfWeights * kBlockTokens <= INT32_MAX);

// Elements that one token's two scales take.
template <typename E>
constexpr int64_t kScales = std::is_same_v<E, float> ? 0 : 2 * sizeof(float) / sizeof(E);

// One layer of a model: sizes of its heads and where it lies in a page.
struct Shape {
  int64_t heads, kv_heads, group, d, d16, dv, v16, offset, window;
  float scale, softcap;

  template <typename E>
  E* keys(char* page, int64_t kv_head) const {
    return reinterpret_cast<E*>(page) + (offset + kv_head * (d16 + v16 + kScales<E>)) * kPageTokens;
  }
  template <typename E>
  E* values(char* page, int64_t kv_head) const {
    return keys<E>(page, kv_head) + (d16 + kScales<E>) * kPageTokens;
  }
  // The tokens that one at `position` sees begin here and end behind itself.
  int64_t first_seen(int64_t position) const { return window > 0 ? std::max<int64_t>(0, position - window + 1) : 0; }
};

// The scales that lie before a page's values: [16] of its tokens' keys, then [16] of their values.
inline float* scales_of(int16_t* values) { return reinterpret_cast<float*>(values) - 2 * kPageTokens; }

// A [1, heads, tokens, size] view as the graph hands it over.
struct Heads {
  const float* data;
  int64_t head, token, lane;
  explicit Heads(const Tensor* t) : data(t->floats()), head(t->strides[1]), token(t->strides[2]), lane(t->strides[3]) {}
  // The `size` numbers of one token, times `scale`, with zeros behind them up to a multiple of 16.
  void gather(int64_t h, int64_t s, int64_t size, float scale, float* to) const {
    const float* from = data + h * head + s * token;
    int64_t j = 0;
    if (lane == 1)
      for (; j + kLanes <= size; j += kLanes) store(to + j, load<vfloat>(from + j) * scale);
    for (; j < size; ++j) to[j] = from[j * lane] * scale;
    for (; j % kTile; ++j) to[j] = 0;
  }
};

// A token's key [D16] and value [V16] of one head on their way into the cache.
struct Arrival {
  float *key, *value;
  int16_t* words;

  static int64_t bytes(const Shape& s) { return round_up((s.d16 + s.v16) * 4 + std::max(s.d16, s.v16) * 2, 64); }
  Arrival(char* memory, const Shape& s)
      : key(reinterpret_cast<float*>(memory)), value(key + s.d16), words(reinterpret_cast<int16_t*>(value + s.v16)) {}

  void put(const Shape& s, float* keys, float* values, int64_t slot) const {
    for (int64_t j = 0; j < s.d16; ++j) keys[j * kTile + slot] = key[j];
    std::copy(value, value + s.v16, values + slot * s.v16);
  }
  void put(const Shape& s, int16_t* keys, int16_t* values, int64_t slot) const {
    float* scales = scales_of(values);
    scales[slot] = to_words<store_words>(key, s.d16, most_of_products(s.d16), words);
    for (int64_t j = 0; j < s.d16; j += kPair) std::copy(words + j, words + j + kPair, keys + (j * kTile + slot * kPair));
    scales[kTile + slot] = to_words<store_words>(value, s.v16, kMostOfValues, words);
    int16_t* at = values + slot / kPair * kPair * s.v16 + slot % kPair;
    for (int64_t j = 0; j < s.v16; ++j) at[j * kPair] = words[j];
  }
};

}  // namespace
