// Causal attention over the request's KV cache: appends the new keys and values, then attends to all of them.
//
// One call per layer does both, because the graph compiler would otherwise copy the cache to keep it functional.
// The cache is one block of memory described by the `state` tensor, int64 [4]: address, capacity in tokens
// (a multiple of 16), tokens held before this call, bytes per element (4 or 2). Each layer owns
// kv_heads * capacity * (D16 + V16) elements of it from element `offset * capacity` on, D16 and V16 being the head
// sizes rounded up to 16: first the keys of all heads, in tiles of 16 tokens [T/16][D][16], so that 16 scores are
// one vector; then their values [T][V16].
#include <algorithm>
#include <cmath>

#include "gemm.h"
#include "runtime.h"
#include "team.h"

namespace {

constexpr int64_t kFewTokens = 4;  // up to this many, the cache is read from memory only once: nothing can be reused

struct Shape {
  int64_t tokens, past, heads, kv_heads, group, d, d16, dv, v16, capacity, window;
  float scale, softcap;
};

// A [1, heads, tokens, size] view as the graph hands it over.
struct Heads {
  const float* data;
  int64_t head, token, lane;
  explicit Heads(const Tensor* t) : data(t->floats()), head(t->strides[1]), token(t->strides[2]), lane(t->strides[3]) {}
  const float* at(int64_t h, int64_t s) const { return data + h * head + s * token; }
};

template <typename E>
E* keys_of(E* layer, const Shape& s, int64_t head) { return layer + head * s.capacity * s.d16; }
template <typename E>
E* values_of(E* layer, const Shape& s, int64_t head) {
  return layer + s.kv_heads * s.capacity * s.d16 + head * s.capacity * s.v16;
}

template <typename E>
void append(E* layer, const Shape& s, const Heads& k, const Heads& v, int64_t head, int64_t begin, int64_t end) {
  E *keys = keys_of(layer, s, head), *values = values_of(layer, s, head);
  for (int64_t i = begin; i < end; ++i) {
    int64_t t = s.past + i;
    const float *key = k.at(head, i), *value = v.at(head, i);
    E* column = keys + t / kTile * kTile * s.d16 + t % kTile;
    for (int64_t j = 0; j < s.d; ++j) store_scalar(column + j * kTile, key[j * k.lane]);
    E* row = values + t * s.v16;
    int64_t j = 0;
    if (v.lane == 1)
      for (; j + kLanes <= s.dv; j += kLanes) store_lanes(row + j, load<vfloat>(value + j));
    for (; j < s.dv; ++j) store_scalar(row + j, value[j * v.lane]);
    for (; j < s.v16; ++j) store_scalar(row + j, 0.0f);
  }
}

// What rows of queries have gathered over a range of tokens: out [rows, v16] not yet divided by `sum`.
struct Partial {
  float* out;
  float* top;
  float* sum;
};

// Rows are (token, query head) pairs that share a key-value head. Attends rows first..first+rows to the tokens
// [begin, end) that each may see. `scores` [kRows, scores_row], `queries` [kRows, d16].
template <typename E>
void attend(const E* layer, const Shape& s, const Heads& q, int64_t kv_head, int64_t first, int rows, int64_t begin,
            int64_t end, float* queries, float* scores, int64_t scores_row, const Partial& to) {
  begin = begin / kTile * kTile;
  int64_t tiles = (end - begin + kTile - 1) / kTile;
  for (int r = 0; r < rows; ++r) {
    int64_t token = (first + r) / s.group, head = kv_head * s.group + (first + r) % s.group;
    const float* query = q.at(head, token);
    for (int64_t j = 0; j < s.d; ++j) queries[r * s.d16 + j] = query[j * q.lane] * s.scale;
  }
  multiply_rows(rows, queries, s.d16, keys_of(layer, s, kv_head) + begin * s.d16, kTile, s.d16 * kTile, tiles, s.d,
                scores, scores_row, s.tokens <= kFewTokens);
  for (int r = 0; r < rows; ++r) {
    float* row = scores + r * scores_row;
    int64_t position = s.past + (first + r) / s.group;
    int64_t low = s.window > 0 ? std::max<int64_t>(0, position - s.window + 1) : 0;
    int64_t from = std::clamp<int64_t>(low - begin, 0, tiles * kTile);
    int64_t until = std::clamp<int64_t>(std::min(end, position + 1) - begin, from, tiles * kTile);
    if (s.softcap > 0)
      for (int64_t t = from; t < until; ++t) row[t] = s.softcap * std::tanh(row[t] / s.softcap);
    for (int64_t t = 0; t < from; ++t) row[t] = -INFINITY;
    for (int64_t t = until; t < tiles * kTile; ++t) row[t] = -INFINITY;
    vfloat tops = splat(-INFINITY);
    for (int64_t t = 0; t < tiles * kTile; t += kLanes) tops = vmax(tops, load<vfloat>(row + t));
    float top = -INFINITY;
    for (int i = 0; i < kLanes; ++i) top = std::max(top, tops[i]);
    if (top == -INFINITY) {
      std::memset(row, 0, tiles * kTile * sizeof(float));
      to.top[r] = top, to.sum[r] = 0;
      continue;
    }
    vfloat sums{};
    for (int64_t t = 0; t < tiles * kTile; t += kLanes) {
      vfloat x = load<vfloat>(row + t);
      vfloat e = x == -INFINITY ? vfloat{} : vexp(x - top);
      store(row + t, e);
      sums += e;
    }
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += sums[i];
    to.top[r] = top, to.sum[r] = sum;
  }
  multiply_rows(rows, scores, scores_row, values_of(layer, s, kv_head) + begin * s.v16, s.v16, (int64_t)kTile,
                s.v16 / kTile, end - begin, to.out, s.v16);
}

void write_row(const Shape& s, int64_t kv_head, int64_t row, const float* out, float sum, float* y) {
  int64_t token = row / s.group, head = kv_head * s.group + row % s.group;
  float* to = y + (token * s.heads + head) * s.dv;
  float inverse = sum > 0 ? 1.0f / sum : 0.0f;
  for (int64_t j = 0; j < s.dv; ++j) to[j] = out[j] * inverse;
}

// The first token that any of the rows sees, and the end of those that some row sees.
int64_t first_seen(const Shape& s, int64_t row) {
  return s.window > 0 ? std::max<int64_t>(0, s.past + row / s.group - s.window + 1) : 0;
}
int64_t end_seen(const Shape& s, int64_t last_row) { return s.past + last_row / s.group + 1; }

constexpr int64_t kSplitFrom = 128;  // tokens from which a single token's attention is worth a second thread

// Few rows (decode): the cached tokens are cut into parts, whose partial results are merged.
template <typename E>
bool attend_split(E* layer, const Shape& s, const Heads& q, const Heads& k, const Heads& v, float* y) {
  int64_t rows = s.tokens * s.group, length = s.past + s.tokens, base = first_seen(s, 0) / kTile * kTile;
  int64_t wanted = length - base < kSplitFrom ? 1 : members();
  int64_t per = round_up((length - base + wanted - 1) / wanted, kTile), parts = (length - base + per - 1) / per;
  int64_t scores = kRows * per, queries = kRows * s.d16, partial = s.kv_heads * rows * (s.v16 + 2);
  int64_t each = round_up(scores + queries + partial, 16);
  Scratch scratch(parts * each * sizeof(float));
  if (!scratch) return false;
  for (int64_t h = 0; h < s.kv_heads; ++h) append(layer, s, k, v, h, 0, s.tokens);
  // Results of rows [row, row + count) of key-value head h over part i.
  auto at = [&](int64_t i, int64_t h, int64_t row, int64_t count) {
    float* out = scratch.as<float>() + i * each + scores + queries + (h * rows + row) * (s.v16 + 2);
    return Partial{out, out + count * s.v16, out + count * (s.v16 + 1)};
  };
  parallel(parts, [&](Member member) {
    for (int64_t i; member.take(i);) {
      float* mine = scratch.as<float>() + i * each;
      int64_t begin = base + i * per, end = std::min(begin + per, length);
      for (int64_t h = 0; h < s.kv_heads; ++h)
        for (int64_t row = 0; row < rows; row += kRows) {
          int count = (int)std::min<int64_t>(kRows, rows - row);
          attend(layer, s, q, h, row, count, begin, end, mine + scores, mine, per, at(i, h, row, count));
        }
    }
  });
  for (int64_t h = 0; h < s.kv_heads; ++h)
    for (int64_t row = 0; row < rows; ++row) {
      int64_t block = row / kRows * kRows, r = row - block, count = std::min<int64_t>(kRows, rows - block);
      Partial merged = at(0, h, block, count);
      float top = merged.top[r], sum = 0, *out = merged.out + r * s.v16;
      for (int64_t i = 1; i < parts; ++i) top = std::max(top, at(i, h, block, count).top[r]);
      for (int64_t i = 0; i < parts; ++i) {
        Partial part = at(i, h, block, count);
        float weight = part.top[r] == -INFINITY ? 0.0f : std::exp(part.top[r] - top);
        sum += weight * part.sum[r];
        for (int64_t j = 0; j < s.dv; ++j) out[j] = (i ? out[j] : 0) + weight * part.out[r * s.v16 + j];
      }
      write_row(s, h, row, out, sum, y);
    }
  return true;
}

// Many rows (prefill): members share out blocks of rows.
template <typename E>
bool attend_blocks(E* layer, const Shape& s, const Heads& q, const Heads& k, const Heads& v, float* y) {
  int64_t rows = s.tokens * s.group, length = s.past + s.tokens, blocks = (rows + kRows - 1) / kRows;
  int64_t scores_row = round_up(length, kTile) + kTile;
  int64_t each = round_up(kRows * (scores_row + s.d16 + s.v16 + 2), 16);
  Scratch scratch(members() * each * sizeof(float));
  if (!scratch) return false;
  parallel(s.kv_heads * 8, [&](Member member) {
    for (int64_t i; member.take(i);)
      append(layer, s, k, v, i / 8, s.tokens * (i % 8) / 8, s.tokens * (i % 8 + 1) / 8);
  });
  parallel(blocks * s.kv_heads, [&](Member member) {
    float* scores = scratch.as<float>() + member.index * each;
    float *queries = scores + kRows * scores_row, *out = queries + kRows * s.d16;
    for (int64_t i; member.take(i);) {
      int64_t h = i % s.kv_heads, row = i / s.kv_heads * kRows;
      int count = (int)std::min<int64_t>(kRows, rows - row);
      Partial to{out, out + kRows * s.v16, out + kRows * (s.v16 + 1)};
      attend(layer, s, q, h, row, count, first_seen(s, row), end_seen(s, row + count - 1), queries, scores,
             scores_row, to);
      for (int r = 0; r < count; ++r) write_row(s, h, row + r, out + r * s.v16, to.sum[r], y);
    }
  });
  return true;
}

template <typename E>
bool run(const Tensor* state, const Shape& s, int64_t offset, const Heads& q, const Heads& k, const Heads& v, float* y) {
  E* layer = reinterpret_cast<E*>(state->ints()[0]) + offset * s.capacity;
  return s.tokens <= kFewTokens ? attend_split(layer, s, q, k, v, y) : attend_blocks(layer, s, q, k, v, y);
}

}  // namespace

// q [1, heads, S, D], k [1, kv_heads, S, D], v [1, kv_heads, S, Dv] -> [1, S, heads, Dv]. window 0: all tokens.
extern "C" int32_t aoti_torch_cpu_cached_attention(
    Tensor* q, Tensor* k, Tensor* v, Tensor* state, int64_t offset, double scale, double softcap, int64_t window,
    Tensor** result) {
  Shape s;
  s.heads = q->sizes[1], s.tokens = q->sizes[2], s.d = q->sizes[3];
  s.kv_heads = k->sizes[1], s.dv = v->sizes[3], s.group = s.heads / s.kv_heads;
  s.d16 = round_up(s.d, kTile), s.v16 = round_up(s.dv, kTile);
  s.capacity = state->ints()[1], s.past = state->ints()[2];
  s.scale = (float)scale, s.softcap = (float)softcap, s.window = window;
  int64_t sizes[4] = {1, s.tokens, s.heads, s.dv};
  Tensor* y = new_tensor(4, sizes, kFloat32);
  if (!y) return 1;
  Heads query(q), key(k), value(v);
  bool done = state->ints()[3] == 4 ? run<float>(state, s, offset, query, key, value, y->floats())
                                    : run<half>(state, s, offset, query, key, value, y->floats());
  if (!done) {
    release(y);
    return 1;
  }
  *result = y;
  return 0;
}
