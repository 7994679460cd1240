// Attention of a few rows of queries to one block of a paged KV cache (cache.h), and how the results of blocks are joined.
//
// Context is cut into blocks at multiples of kBlockTokens, a block's sums run in the order of its tokens or are exact
// integers, and blocks are joined in their order. So a row's result depends on its own context alone: not on the rows
// computed beside it, on how a prompt was cut, or on how many threads there are.
//
// With a cache of words, queries and softmax's numerators are rounded to words as well, each row with a scale of its own.
#pragma once

#include <cmath>

#include "cache.h"

namespace {

constexpr int kAttendRows = 6;  // rows of queries that are computed together

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

// How numbers of a row, kStep at a time, are multiplied by those of a vector of lanes and added up; kTogether numbers of a
// lane lie together. kLanesIn, kSumIn: registers that lanes and their sum take.
template <typename E>
struct Product;

template <>
struct Product<float> {
  static constexpr int64_t kStep = 1, kTogether = 1;
  static constexpr int kLanesIn = 1, kSumIn = 1;
  using Lanes = vfloat;
  using Factor = vfloat;
  static Lanes lanes(const float* p, int64_t) { return load<vfloat>(p); }
  static Factor factor(const float* row) { return splat(*row); }
  struct Sum {
    vfloat value;
    void add(Lanes lanes, Factor factor) { value += factor * lanes; }
    vfloat total() const { return value; }
  };
};

template <>
struct Product<int16_t> {
  static constexpr int64_t kStep = kWordStep, kTogether = kPair;
  static constexpr int kLanesIn = sizeof(Words) / sizeof(vint), kSumIn = sizeof(WordSum) / sizeof(vint);
  using Lanes = Words;
  using Factor = WordFactor;
  static Lanes lanes(const int16_t* p, int64_t next) { return words_of(p, next); }
  static Factor factor(const int16_t* row) { return word_factor(row); }
  struct Sum : WordSum {
    vfloat total() const { return to_float(WordSum::total()); }
  };
};

// Vectors of lanes that R rows are multiplied by at a time, as many as the registers hold.
template <int R, typename E>
constexpr int vectors_at_once() {
  int vectors = 4 * kParts;
  auto registers = [&] { return R * vectors * Product<E>::kSumIn + (R > 1) * vectors * Product<E>::kLanesIn; };
  while (vectors > 1 && registers() > kRegisters - 2) vectors /= 2;
  return vectors;
}

// sums[r][v] += the products of kStep numbers of R rows, `row` apart, and of V vectors of lanes, whose steps are `next`
// apart.
template <int R, int V, typename E>
inline __attribute__((always_inline)) void add_products(const E* row, int64_t apart, const E* const* vectors, int64_t next,
                                                        typename Product<E>::Sum (&sums)[R][V]) {
  typename Product<E>::Lanes lanes[V];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) lanes[v] = Product<E>::lanes(vectors[v], next);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    typename Product<E>::Factor factor = Product<E>::factor(row + r * apart);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[r][v].add(lanes[v], factor);
  }
}

// The tokens [begin, end) of one block of a sequence's context, for one key-value head of a layer.
template <typename E>
struct Block {
  const Shape& shape;
  int64_t begin, end;
  E *keys[kBlockPages], *values[kBlockPages];  // of its pages

  int64_t tiles() const { return (end - begin + kTile - 1) / kTile; }
  const float* key_scales(int64_t i) const { return scales_of(values[i]); }
  const float* value_scales(int64_t i) const { return key_scales(i) + kPageTokens; }
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

// Rows that look at a block: their positions, their scaled queries [rows, d16] with what a unit of each is worth, and
// scratch: scores [rows, kBlockTokens] and the weights made of them, which may be the same memory where they are floats.
template <typename E>
struct Rows {
  const int64_t* positions;
  const E* queries;
  const float* units;
  float* scores;
  E* weights;
};

// The scores of R rows against the tokens of V vectors of keys, from the block's vector `first` on.
template <int R, int V, typename E>
inline void score(const Block<E>& block, const Rows<E>& rows, int64_t first) {
  const Shape& s = block.shape;
  typename Product<E>::Sum sums[R][V] = {};
  for (int64_t k = 0; k < s.d; k += Product<E>::kStep) {
    const E* at[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      at[v] = block.keys[(first + v) / kParts] + k * kTile + (first + v) % kParts * kLanes * Product<E>::kTogether;
      // The values of these tokens, which are read next and by nothing but this: their lines are as many as the keys'.
      if (k < s.v16) __builtin_prefetch(at[v] + (s.d16 + kScales<E>) * kPageTokens, 0, 2);
    }
    add_products<R, V>(rows.queries + k, s.d16, at, kTile * Product<E>::kTogether, sums);
  }
  for (int r = 0; r < R; ++r)
    for (int64_t v = first; v < first + V; ++v) {
      vfloat found = sums[r][v - first].total();
      if constexpr (kScales<E>)
        found = found * rows.units[r] * load<vfloat>(block.key_scales(v / kParts) + v % kParts * kLanes);
      store(rows.scores + r * kBlockTokens + v * kLanes, found);
    }
}

// The values of a block weighed for R rows, their vectors first .. first + V. `units`: what a unit of each row's weights
// is worth.
template <int R, int V, typename E>
inline void weigh(const Block<E>& block, const E* weights, const float* units, int64_t first, float* out) {
  const int64_t v16 = block.shape.v16;
  typename Product<E>::Sum sums[R][V] = {};
  for (int64_t begin = 0, tokens = block.end - block.begin; begin < tokens; begin += kPageTokens) {
    int64_t count = std::min(kPageTokens, tokens - begin);
    for (int64_t k = 0; k < count; k += Product<E>::kStep) {
      const E* at[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v)
        at[v] = block.values[begin / kPageTokens] + k * v16 + (first + v) * kLanes * Product<E>::kTogether;
      for (int v = 0; v < V; ++v) __builtin_prefetch(at[v] + v16 * kPageTokens, 0, 2);
      add_products<R, V>(weights + begin + k, kBlockTokens, at, v16 * Product<E>::kTogether, sums);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) {
      vfloat found = sums[r][v].total();
      if constexpr (kScales<E>) found *= units[r];
      store(out + r * v16 + (first + v) * kLanes, found);
    }
}

// Applies the softcap to a row of scores, hides those outside [from, until), and returns the largest.
template <typename E>
float largest_score(const Block<E>& block, float* row, int64_t from, int64_t until) {
  const int64_t tokens = block.tiles() * kTile;
  const float softcap = block.shape.softcap;
  if (softcap > 0)
    for (int64_t t = from; t < until; ++t) row[t] = softcap * std::tanh(row[t] / softcap);
  for (int64_t t = 0; t < from; ++t) row[t] = -INFINITY;
  for (int64_t t = until; t < tokens; ++t) row[t] = -INFINITY;
  vfloat tops = splat(-INFINITY);
  for (int64_t t = 0; t < tokens; t += kLanes) tops = vmax(tops, load<vfloat>(row + t));
  return largest(tops);
}

// Makes softmax's numerators of a row of scores and gives their sum; with scales, each is multiplied by its value's scale
// afterwards. Returns the largest.
template <typename E>
float exponentiate(const Block<E>& block, float* row, float top, float& sum) {
  const float shift = top == -INFINITY ? 0.0f : top;  // then all scores are: of no token that is seen
  vfloat sums{}, most{};
  for (int64_t t = 0; t < block.tiles() * kTile; t += kLanes) {
    vfloat x = load<vfloat>(row + t), numerator = vexp(x - shift), weight = x == -INFINITY ? vfloat{} : numerator;
    sums += weight;
    if constexpr (kScales<E>) {
      vfloat scale = load<vfloat>(block.value_scales(t / kTile) + t % kTile);
      weight = x == -INFINITY ? vfloat{} : numerator * scale;  // a token that is not seen may have anything for a scale
      most = vmax(most, weight);
    }
    store(row + t, weight);
  }
  sum = total(sums);
  return kScales<E> ? largest(most) : 0.0f;
}

template <int R, typename E>
void attend_rows(const Block<E>& block, const Rows<E>& rows, const Partial& to) {
  const Shape& s = block.shape;
  constexpr int V = vectors_at_once<R, E>();
  int64_t vectors = block.tiles() * kParts, v = 0;
  for (; v + V <= vectors; v += V) score<R, V>(block, rows, v);
  if constexpr (V > 1)
    for (; v < vectors; ++v) score<R, 1>(block, rows, v);
  // In steps over all rows, each of which waits for its own last one: what one row waits for, another computes.
  float units[R], most[R];
  for (int r = 0; r < R; ++r) {
    int64_t tokens = block.tiles() * kTile, position = rows.positions[r];
    int64_t from = std::clamp<int64_t>(s.first_seen(position) - block.begin, 0, tokens);
    int64_t until = std::clamp<int64_t>(std::min(block.end, position + 1) - block.begin, from, tokens);
    to.top[r] = largest_score(block, rows.scores + r * kBlockTokens, from, until);
  }
  for (int r = 0; r < R; ++r) most[r] = exponentiate(block, rows.scores + r * kBlockTokens, to.top[r], to.sum[r]);
  if constexpr (kScales<E>)
    for (int r = 0; r < R; ++r)
      units[r] = round_to_words<store_row>(rows.scores + r * kBlockTokens, block.tiles() * kTile, most[r], kMostOfWeights,
                                           rows.weights + r * kBlockTokens);
  for (v = 0, vectors = s.v16 / kLanes; v + V <= vectors; v += V) weigh<R, V>(block, rows.weights, units, v, to.out);
  if constexpr (V > 1)
    for (; v < vectors; ++v) weigh<R, 1>(block, rows.weights, units, v, to.out);
}

template <typename E>
void attend(int count, const Block<E>& block, const Rows<E>& rows, const Partial& to) {
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
