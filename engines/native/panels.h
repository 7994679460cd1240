// Integer products: R tokens, quantised on the fly, times T tiles of packed int8, int4 or int6 weights.
//
// Activations get one scale per token and 64 inputs, so outliers in one group do not blur the others.
#pragma once

#include <algorithm>
#include <cmath>

#include "packed.h"

namespace {

constexpr int64_t kGroup = 64;     // inputs that share an activation scale
constexpr int64_t kFewFrom = 2;                       // tokens from which few_tiles is used, measured, as
constexpr int64_t kFewTo = 32, kFewSmallTo = kTile;   // those up to which it is, for int8 tiles and for int4 and int6
constexpr int64_t kAhead = 4096;   // bytes from the weights that are multiplied to those that are fetched; measured

constexpr int64_t kHalves = kGroup / kBlock;

// What a product takes of activations: their bytes; with the sums of each block's, for int4 and int6; with what kByteBias
// takes from a group's products, for int8; or Pairs with their products.
enum Form { kBytes, kSummed, kOffset, kPaired };
constexpr Form kInt8Form = kByteBias ? kOffset : kBytes;

// Quantised activations of tokens. `lanes` tokens lie together, group by group: 1, or kTile.
struct Activations {
  int64_t rows, k, groups, lanes;
  Form form;
  int8_t* bytes;   // [rows / lanes, groups, lanes, kGroup]; if kPaired, of each group first all even, then all odd
  float* scales;   // [rows / lanes, groups, lanes]
  int32_t* sums;   // [rows / lanes, groups, lanes, kHalves] if kSummed or, of products, kPaired; if kOffset the first one

  static int64_t group_bytes(Form form) { return form == kPaired ? 2 * kGroup : kGroup; }
  static size_t size(int64_t rows, int64_t k, int64_t lanes, Form form) {
    int64_t groups = (padded(k) + kGroup - 1) / kGroup;
    return round_up(rows, lanes) * groups * (group_bytes(form) + 4 + 4 * kHalves) + 192;
  }
  Activations(char* memory, int64_t rows, int64_t inputs, int64_t lanes, Form form)
      : rows(rows), k(padded(inputs)), groups((k + kGroup - 1) / kGroup), lanes(lanes), form(form) {
    int64_t places = round_up(rows, lanes) * groups;
    bytes = reinterpret_cast<int8_t*>(memory);
    scales = reinterpret_cast<float*>(memory + places * group_bytes(form));
    sums = reinterpret_cast<int32_t*>(scales + round_up(places, 16));
  }
  // Of a group's scale; its bytes are group_bytes times as far from the first.
  int64_t place(int64_t row, int64_t group) const {
    return lanes == 1 ? row * groups + group : (row / kTile * groups + group) * kTile + row % kTile;
  }
  // The bytes of a row of a single lane.
  const int8_t* row(int64_t row) const { return bytes + row * groups * kGroup; }
  void quantise(int64_t row, const float* x, int64_t inputs) const {
    for (int64_t g = 0; g < groups; ++g) {
      int64_t begin = g * kGroup, end = std::min(begin + kGroup, k);
      float padded_group[kGroup] = {};
      const float* values = x + begin;
      if (end > inputs) {
        std::copy(x + begin, x + std::max(begin, inputs), padded_group);
        values = padded_group;
      }
      vfloat tops{};
      for (int64_t i = 0; i < end - begin; i += kLanes) tops = vmax(tops, magnitude(load<vfloat>(values + i)));
      float top = largest(tops);
      float inverse = top > 0 ? 127.0f / top : 0.0f;
      scales[place(row, g)] = top / 127.0f;
      int8_t* to = bytes + place(row, g) * group_bytes(form);
      int32_t* halves = sums + place(row, g) * kHalves;
      if (form != kBytes && end - begin < kGroup) halves[kHalves - 1] = 0;
      if (form == kPaired && end - begin < kGroup) std::memset(to, 0, 2 * kGroup);
      vint sum{};
      for (int64_t b = begin; b < end; b += kBlock) {
        if (form == kSummed) sum = vint{};
        vint rounded[kBlock / kLanes];
#pragma GCC unroll 8
        for (int i = 0; i < kBlock / kLanes; ++i) {
          rounded[i] = (vint)(load<vfloat>(values + b - begin + i * kLanes) * inverse + kWhole) - kWholeBits;
          sum += rounded[i];
        }
        int32_t& half = halves[(b - begin) / kBlock];
        if (form == kPaired) {
          half = store_pairs(to + b - begin, to + kGroup + b - begin, rounded);
        } else {
          store_bytes(to + b - begin, rounded);
          if (form == kSummed) half = total(sum);
        }
      }
      if (form == kOffset) halves[0] = -kByteBias * total(sum);
    }
  }
};

// Where the results of one panel go: y[row * n + column]. A vector's columns may stick out past n.
struct Output {
  float* y;
  const float* bias;
  int64_t n;
  void put(int64_t row, int64_t first, vfloat v) const {
    if (first + kLanes <= n) {
      store(y + row * n + first, bias ? v + load<vfloat>(bias + first) : v);
    } else {
      for (int64_t i = first; i < n; ++i) y[row * n + i] = v[i - first] + (bias ? bias[i] : 0.0f);
    }
  }
  // Whether `vectors` vectors from a column on may be stored as they are.
  bool takes_all(int64_t column, int64_t vectors) const { return !bias && column + vectors * kLanes <= n; }
  // Fetches the lines that `rows` rows and `count` tiles will be put to, which a long prompt has far from the core.
  void fetch(int64_t row, int64_t rows, int64_t column, int64_t count) const {
    for (int64_t r = row; r < row + rows; ++r)
      for (int64_t t = 0; t < count; ++t) __builtin_prefetch(y + r * n + column + t * kTile, 1);
  }
};

// Tiles of one kind of packed weights that lie one behind the other, the first of which makes the outputs from `column`
// on.
struct Tiles {
  int kind;
  const char* data;
  int64_t stride, column;

  Tiles from_tile(int64_t t) const { return {kind, data + t * stride, stride, column + t * kTile}; }
  int64_t place(int v) const { return v / kParts * stride + v % kParts * kLanes * 4; }  // of a vector of numbers
};

// R tokens times V vectors of int8 weights. kTogether: kTile tokens lie together, so that their places are constants, and
// weights are fetched ahead. Rows past the last token are computed in vain.
template <int R, int V, bool kTogether = false>
void int8_panel(const Activations& a, int64_t row, const Tiles& w, const Output& out) {
  vfloat total[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) total[r][v] = vfloat{};
  const char* quants = w.data + kLine;
  const int64_t apart = kTogether ? 1 : a.groups, step = kTogether ? kTile : 1;  // places from row to row, and from group to group
  const int8_t* bytes = a.bytes + a.place(row, 0) * kGroup;
  const float* scales = a.scales + a.place(row, 0);
  const int32_t* offsets = a.sums + a.place(row, 0) * kHalves;
  for (int64_t begin = 0; begin < a.k; begin += kGroup) {
    int64_t end = std::min(begin + kGroup, a.k);
    vint acc[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vint start = kByteBias ? splat(offsets[r * apart * kHalves]) : vint{};
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = start;
    }
    for (int64_t k = begin; k < end; k += 4) {
      Operand o[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        o[v] = operand_byte(load<vbytes>(quants + w.place(v) + k * kTile));
        if (kTogether && v % kParts == 0) __builtin_prefetch(quants + w.place(v) + k * kTile + kAhead);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        int32_t x = four_bytes(bytes + r * apart * kGroup + k - begin);
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) acc[r][v] = dot_byte(acc[r][v], o[v], x);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vfloat scale = splat(scales[r * apart]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) total[r][v] += to_float(acc[r][v]) * scale;
    }
    bytes += step * kGroup, scales += step, offsets += step * kHalves;
  }
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) {
    vfloat scale = load<vfloat>(w.data + w.place(v));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) total[r][v] *= scale;
  }
  if (out.takes_all(w.column, V) && row + R <= a.rows) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) store(out.y + (row + r) * out.n + w.column + v * kLanes, total[r][v]);
    return;
  }
  vfloat result[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) result[r][v] = total[r][v];
  for (int r = 0; r < R && row + r < a.rows; ++r)
    for (int v = 0; v < V; ++v) out.put(row + r, w.column + v * kLanes, result[r][v]);
}

// The same for int4 and int6, of tokens of a single lane. kFew: weights are fetched ahead.
template <int kBits, int R, int T, bool kFew>
void block_panel(const Activations& a, int64_t row, const Tiles& w, const Output& out) {
  vfloat total[R][T * kParts] = {};
  Blocks<kBits> blocks(w.data);
  for (int64_t b = 0; b < a.k / kBlock; ++b) {
    blocks.step();
    SmallSum<kBits> sums[R][T * kParts];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vint start = splat(-blocks.kBias * a.sums[(row + r) * a.groups * kHalves + b]);
#pragma GCC unroll 16
      for (int t = 0; t < T * kParts; ++t) sums[r][t].value = start;
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      Operand o[T * kParts];
      if (kFew && j % 2 == 0) __builtin_prefetch(blocks.bytes + j / 2 * kLine + kAhead);
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p)
          o[t * kParts + p] =
              operand_small(block_weights<kBits, vbytes>(blocks.bytes + t * w.stride, j, p * kLanes * 4));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        int32_t x = four_bytes(a.row(row + r) + b * kBlock + j * 4);
#pragma GCC unroll 16
        for (int t = 0; t < T * kParts; ++t) sums[r][t].add(j, o[t], x);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        vfloat scale = load_lanes((const int8_t*)blocks.scales + t * w.stride + p * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
          total[r][t * kParts + p] +=
              to_float(sums[r][t * kParts + p].value) * (scale * a.scales[(row + r) * a.groups + b * kBlock / kGroup]);
      }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < T * kParts; ++v)
      out.put(row + r, w.column + v * kLanes, total[r][v] * load<vfloat>(w.data + w.place(v)));
}

// Rows and tiles per register block, for long prompts and for single tokens.
#if defined(__AVX512VNNI__)
constexpr int kIntRows = 6, kIntTiles = 4;
#else
constexpr int kIntRows = 4, kIntTiles = 1;
#endif

template <int R, int T, bool kFew>
void panel(const Activations& a, int64_t row, const Tiles& w, const Output& out) {
  if (w.kind == kInt8) return int8_panel<R, T * kParts, kFew>(a, row, w, out);
  if (w.kind == kInt4) return block_panel<4, R, T, kFew>(a, row, w, out);
  return block_panel<6, R, T, kFew>(a, row, w, out);
}

template <int T, bool kFew = false>
void panel_rows(const Activations& a, int64_t row, int64_t rows, const Tiles& w, const Output& out) {
  for (; rows >= kIntRows; row += kIntRows, rows -= kIntRows) panel<kIntRows, T, kFew>(a, row, w, out);
  if constexpr (kIntRows > 4)
    if (rows >= 4) panel<4, T, kFew>(a, row, w, out), row += 4, rows -= 4;
  if (rows >= 2) panel<2, T, kFew>(a, row, w, out), row += 2, rows -= 2;
  if (rows >= 1) panel<1, T, kFew>(a, row, w, out);
}

// Up to kTile tokens of a pass of a few times one tile.
inline void few_rows(const Activations& a, int64_t row, int64_t rows, const Tiles& w, const Output& out) {
#if defined(__AVX512VNNI__)
  if (w.kind != kInt8) return panel_rows<1, true>(a, row, rows, w, out);
  constexpr decltype(&int8_panel<2, 1, true>) kPanels[] = {  // registers hold the sums of all rows beside one tile
      int8_panel<2, 1, true>,  int8_panel<4, 1, true>,  int8_panel<6, 1, true>,  int8_panel<8, 1, true>,
      int8_panel<10, 1, true>, int8_panel<12, 1, true>, int8_panel<14, 1, true>, int8_panel<16, 1, true>};
  kPanels[(rows - 1) / 2](a, row, w, out);
#else
  panel_rows<1, true>(a, row, rows, w, out);
#endif
}

// All tokens of a pass of a few times `count` tiles, each of which is read from memory once.
void few_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
  for (int64_t t = 0; t < count; ++t)
    for (int64_t i = 0; i < rows; i += kTile) few_rows(a, row + i, std::min<int64_t>(kTile, rows - i), w.from_tile(t), out);
}

// `rows` tokens from `row` on times `count` tiles.
void integer_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
  int64_t t = 0;
  // A single row is bound by memory, and one stream of weights is prefetched better than several.
  for (; rows > 1 && t + kIntTiles <= count; t += kIntTiles) panel_rows<kIntTiles>(a, row, rows, w.from_tile(t), out);
  for (; t < count; ++t) panel_rows<1>(a, row, rows, w.from_tile(t), out);
}

}  // namespace
