// Linear layers and embeddings on packed weights: float32, int8 and int4.
//
// Packed weights (see compiler/pack.py, which writes them) are tiles of 16 output rows:
//   float32  [N/16][K][16] floats
//   int8     [N/16]{ 16 float scales, [K/4][16][4] bytes, each weight + 128 }
//   int4     [N/16]{ 16 float row scales, [K/32]{ 16 half scales, [4][16][4] byte pairs, each weight + 8 } }
// with K rounded up to 32 (int8, int4). A float32 bias [N] is added where there is one. Activations are quantised
// to int8 on the fly, one scale per token and 64 inputs, so outliers in one group do not blur the others.
#include <algorithm>
#include <cmath>

#include "gemm.h"
#include "runtime.h"
#include "team.h"

namespace {

enum Kind { kFloat = 0, kInt8 = 1, kInt4 = 2 };
constexpr int64_t kGroup = 64;      // inputs that share an activation scale
constexpr int64_t kBlock = 32;      // inputs that share an int4 weight scale; sums are kept at this grain
constexpr int64_t kHeader = 64;     // bytes of the 16 float scales before a quantised tile
constexpr int64_t kInt4Block = 288;  // 16 half scales and 16 x 32 nibbles

int64_t padded(int64_t k) { return round_up(k, kBlock); }

int64_t tile_bytes(int64_t k, int kind) {
  if (kind == kFloat) return k * kTile * 4;
  if (kind == kInt8) return kHeader + padded(k) * kTile;
  return kHeader + padded(k) / kBlock * kInt4Block;
}

// Quantised activations of `rows` tokens.
struct Activations {
  int64_t k, groups, blocks;
  int8_t* bytes;   // [rows, k]
  float* scales;   // [rows, groups]
  int32_t* sums;   // [rows, blocks]

  static size_t size(int64_t rows, int64_t k) {
    return rows * (padded(k) + 4 * ((padded(k) + kGroup - 1) / kGroup) + 4 * (padded(k) / kBlock)) + 192;
  }
  Activations(char* memory, int64_t rows, int64_t inputs)
      : k(padded(inputs)), groups((k + kGroup - 1) / kGroup), blocks(k / kBlock) {
    bytes = reinterpret_cast<int8_t*>(memory);
    scales = reinterpret_cast<float*>(memory + round_up(rows * k, 64));
    sums = reinterpret_cast<int32_t*>(scales + round_up(rows * groups, 16));
  }
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
      float top = 0;
      for (int i = 0; i < kLanes; ++i) top = std::max(top, tops[i]);
      float inverse = top > 0 ? 127.0f / top : 0.0f;
      scales[row * groups + g] = top / 127.0f;
      for (int64_t b = begin; b < end; b += kBlock) {
        vint sum{};
        for (int64_t i = b; i < b + kBlock; i += kLanes) {
          // Adding 1.5 * 2^23 leaves the value, rounded to nearest, in the low bits.
          vint q = (vint)(load<vfloat>(values + i - begin) * inverse + 12582912.0f) - 0x4B400000;
          store(bytes + row * k + i, __builtin_convertvector(q, vsigned));
          sum += q;
        }
        int32_t total = 0;
        for (int i = 0; i < kLanes; ++i) total += sum[i];
        sums[row * blocks + b / kBlock] = total;
      }
    }
  }
};

// Where the results of one panel go: y[row * n + column], rows of tiles that may stick out past n.
struct Output {
  float* y;
  const float* bias;
  int64_t n;
  void put(int64_t row, int64_t column, int part, vfloat v) const {
    int64_t first = column + part * kLanes;
    if (first + kLanes <= n) {
      store(y + row * n + first, bias ? v + load<vfloat>(bias + first) : v);
    } else {
      for (int64_t i = first; i < n; ++i) y[row * n + i] = v[i - first] + (bias ? bias[i] : 0.0f);
    }
  }
};

// R tokens times T tiles of int8 weights. `w` points at a tile's header.
template <int R, int T>
void int8_panel(const Activations& a, int64_t row, const char* w, int64_t tile_stride, int64_t column, const Output& out) {
  vfloat total[R][T * kParts] = {};
  const char* quants = w + kHeader;
  for (int64_t g = 0; g < a.groups; ++g) {
    int64_t begin = g * kGroup, end = std::min(begin + kGroup, a.k);
    vint acc[R][T * kParts];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const int32_t* sums = a.sums + (row + r) * a.blocks + begin / kBlock;
      vint start = splat(-kByteBias * (sums[0] + (end - begin > kBlock ? sums[1] : 0)));
#pragma GCC unroll 16
      for (int t = 0; t < T * kParts; ++t) acc[r][t] = start;
    }
    for (int64_t k = begin; k < end; k += 4) {
      Operand o[T * kParts];
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p)
          o[t * kParts + p] = operand_byte(load<vbytes>(quants + t * tile_stride + k * kTile + p * kLanes * 4));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        int32_t x = four_bytes(a.bytes + (row + r) * a.k + k);
#pragma GCC unroll 16
        for (int t = 0; t < T * kParts; ++t) acc[r][t] = dot_byte(acc[r][t], o[t], x);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vfloat scale = splat(a.scales[(row + r) * a.groups + g]);
#pragma GCC unroll 16
      for (int t = 0; t < T * kParts; ++t) total[r][t] += to_float(acc[r][t]) * scale;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t)
      for (int p = 0; p < kParts; ++p)
        out.put(row + r, column + t * kTile, p,
                total[r][t * kParts + p] * load<vfloat>(w + t * tile_stride + p * kLanes * 4));
}

// R tokens times T tiles of int4 weights.
template <int R, int T>
void int4_panel(const Activations& a, int64_t row, const char* w, int64_t tile_stride, int64_t column, const Output& out) {
  vfloat total[R][T * kParts] = {};
  for (int64_t b = 0; b < a.blocks; ++b) {
    const char* block = w + kHeader + b * kInt4Block;
    vint acc[R][T * kParts];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vint start = splat(-kNibbleBias * a.sums[(row + r) * a.blocks + b]);
#pragma GCC unroll 16
      for (int t = 0; t < T * kParts; ++t) acc[r][t] = start;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 16
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p) {
          vbytes pair = load<vbytes>(block + t * tile_stride + 32 + i * 64 + p * kLanes * 4);
          Operand low = operand_nibble(low_nibbles(pair)), high = operand_nibble(high_nibbles(pair));
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const int8_t* x = a.bytes + (row + r) * a.k + b * kBlock + i * 8;
            vint& sum = acc[r][t * kParts + p];
            sum = dot_nibble(dot_nibble(sum, low, four_bytes(x)), high, four_bytes(x + 4));
          }
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        vfloat scale = load_lanes((const half*)(block + t * tile_stride) + p * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
          total[r][t * kParts + p] +=
              to_float(acc[r][t * kParts + p]) * (scale * a.scales[(row + r) * a.groups + b * kBlock / kGroup]);
      }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t)
      for (int p = 0; p < kParts; ++p) out.put(row + r, column + t * kTile, p, total[r][t * kParts + p]);
}

// Rewrites one int4 tile as an int8 tile, its row scales being those in the int4 tile's header. For long prompts:
// the rounding is 16 times finer than int4's own, and the int8 product is twice as fast.
void widen_tile(const char* w, int64_t k, char* out) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes * 2)));
  typedef uint16_t Words __attribute__((vector_size(kLanes * 4)));
  constexpr int kLine = 64, kStep = sizeof(Bytes);
  std::memcpy(out, w, kHeader);
  for (int64_t b = 0; b < padded(k) / kBlock; ++b) {
    const char* block = w + kHeader + b * kInt4Block;
    // A weight v - 8 becomes (v - 8) * ratio, at most 127, computed in 1/256 and modulo 2^16; + 128 as int8 is stored.
    int32_t ratio[kTile];
    for (int p = 0; p < kParts; ++p) {
      vfloat row = load<vfloat>(w + p * kLanes * 4), scale = load_lanes((const half*)block + p * kLanes);
      store(ratio + p * kLanes, (vint)(scale / row * 256.0f + 12582912.0f) - 0x4B400000);
    }
    uint16_t factor[kLine], offset[kLine];
    for (int lane = 0; lane < kTile; ++lane)
      for (int j = 0; j < 4; ++j) {
        factor[lane * 4 + j] = (uint16_t)ratio[lane];
        offset[lane * 4 + j] = (uint16_t)(128 * 256 + 128 - kNibbleBias * ratio[lane]);
      }
    const char* pairs = block + 2 * kTile;
    char* to = out + kHeader + b * 8 * kLine;
    for (int x = 0; x < kLine; x += kStep) {
      Words f = load<Words>(factor + x), o = load<Words>(offset + x);
      auto widened = [&](Bytes v) {
        return __builtin_convertvector((__builtin_convertvector(v, Words) * f + o) >> 8, Bytes);
      };
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Bytes pair = load<Bytes>(pairs + i * kLine + x);
        store(to + 2 * i * kLine + x, widened(pair & 15));
        store(to + (2 * i + 1) * kLine + x, widened(pair >> 4));
      }
    }
  }
}

// Rows and tiles per register block of the integer kernels, for long prompts and for single tokens.
#if defined(__AVX512VNNI__)
constexpr int kIntRows = 6, kIntTiles = 4;
#elif defined(__AVX2__)
constexpr int kIntRows = 4, kIntTiles = 1;
#else
constexpr int kIntRows = 4, kIntTiles = 1;
#endif
constexpr int64_t kPanelTiles = 4;      // tiles a thread takes at a time
constexpr int64_t kWidenFrom = 48;      // rows from which int4 is widened
constexpr int64_t kRowBlock = 256;      // rows whose activations stay in the second-level cache
constexpr int64_t kQuantiseRows = 16;   // rows of activations quantised at a time

template <int R, int T>
void panel(int kind, const Activations& a, int64_t row, const char* w, int64_t stride, int64_t column, const Output& o) {
  if (kind == kInt8) return int8_panel<R, T>(a, row, w, stride, column, o);
  return int4_panel<R, T>(a, row, w, stride, column, o);
}

template <int T>
void panel_rows(int kind, const Activations& a, int64_t row, int64_t rows, const char* w, int64_t stride,
                int64_t column, const Output& o) {
  for (; rows >= kIntRows; row += kIntRows, rows -= kIntRows) panel<kIntRows, T>(kind, a, row, w, stride, column, o);
  if constexpr (kIntRows > 4)
    if (rows >= 4) panel<4, T>(kind, a, row, w, stride, column, o), row += 4, rows -= 4;
  if (rows >= 2) panel<2, T>(kind, a, row, w, stride, column, o), row += 2, rows -= 2;
  if (rows >= 1) panel<1, T>(kind, a, row, w, stride, column, o);
}

void integer_tiles(int kind, const Activations& a, int64_t row, int64_t rows, const char* w, int64_t stride,
                   int64_t first, int64_t last, const Output& o) {
  int64_t t = first;
  // A single row is bound by memory, and one stream of weights is prefetched better than several.
  for (; rows > 1 && t + kIntTiles <= last; t += kIntTiles)
    panel_rows<kIntTiles>(kind, a, row, rows, w + (t - first) * stride, stride, t * kTile, o);
  for (; t < last; ++t) panel_rows<1>(kind, a, row, rows, w + (t - first) * stride, stride, t * kTile, o);
}

bool integer_linear(const float* x, const char* w, const Output& out, int64_t m, int64_t k, int kind) {
  int64_t tiles = (out.n + kTile - 1) / kTile, stride = tile_bytes(k, kind), wide = tile_bytes(k, kInt8);
  bool widen = kind == kInt4 && m >= kWidenFrom;
  bool shared = m > 4;  // else every member quantises all rows for itself, which is cheaper than meeting
  size_t each = round_up(Activations::size(m, k), 64);
  Scratch activations(shared ? each : each * members()), panels(widen ? members() * kPanelTiles * wide : 1);
  if (!activations || !panels) return false;
  auto quantised = [&](int member) { return Activations(activations.as<char>(shared ? 0 : member * each), m, k); };
  if (shared) {
    Activations a = quantised(0);
    parallel((m + kQuantiseRows - 1) / kQuantiseRows, [&](Member member) {
      for (int64_t i; member.take(i);)
        for (int64_t row = i * kQuantiseRows; row < std::min(m, (i + 1) * kQuantiseRows); ++row)
          a.quantise(row, x + row * k, k);
    });
  }
  int64_t panel_tiles = m == 1 ? 1 : kPanelTiles;
  parallel((tiles + panel_tiles - 1) / panel_tiles, [&](Member member) {
    Activations a = quantised(member.index);
    if (!shared)
      for (int64_t row = 0; row < m; ++row) a.quantise(row, x + row * k, k);
    char* panel = panels.as<char>(widen ? member.index * kPanelTiles * wide : 0);
    for (int64_t i; member.take(i);) {
      int64_t first = i * panel_tiles, last = std::min(first + panel_tiles, tiles);
      if (widen)
        for (int64_t t = first; t < last; ++t) widen_tile(w + t * stride, k, panel + (t - first) * wide);
      for (int64_t row = 0; row < m; row += kRowBlock) {
        int64_t rows = std::min(kRowBlock, m - row);
        if (widen) {
          integer_tiles(kInt8, a, row, rows, panel, wide, first, last, out);
        } else {
          integer_tiles(kind, a, row, rows, w + first * stride, stride, first, last, out);
        }
      }
    }
  }, m == 1 ? read_after(w) : Span{});
  return true;
}

bool float_linear(const float* x, const float* w, const Output& out, int64_t m, int64_t k) {
  int64_t tiles = (out.n + kTile - 1) / kTile, groups = (tiles + kPanelTiles - 1) / kPanelTiles;
  parallel(groups, [&](Member member) {
    for (int64_t g; member.take(g);) {
      int64_t first = g * kPanelTiles, count = std::min(kPanelTiles, tiles - first);
      float c[kRows * kPanelTiles * kTile];
      for (int64_t row = 0; row < m; row += kRows) {
        int rows = (int)std::min<int64_t>(kRows, m - row);
        multiply_rows(rows, x + row * k, k, w + first * k * kTile, kTile, k * kTile, count, k, c, kPanelTiles * kTile);
        for (int r = 0; r < rows; ++r)
          for (int64_t t = 0; t < count; ++t)
            for (int p = 0; p < kParts; ++p)
              out.put(row + r, (first + t) * kTile, p,
                      load<vfloat>(c + r * kPanelTiles * kTile + t * kTile + p * kLanes));
      }
    }
  });
  return true;
}

}  // namespace

// y [..., n] = x [..., k] times the packed weight of n rows, plus bias.
extern "C" int32_t aoti_torch_cpu_packed_linear(
    Tensor* x, Tensor* weight, Tensor** bias, int64_t n, int64_t kind, Tensor** result) {
  int64_t sizes[kMaxDims];
  for (int64_t i = 0; i < x->ndim; ++i) sizes[i] = x->sizes[i];
  int64_t k = sizes[x->ndim - 1], m = k ? x->numel() / k : 0;
  sizes[x->ndim - 1] = n;
  Tensor* y = new_tensor(x->ndim, sizes, kFloat32);
  if (!y) return 1;
  Output out{y->floats(), bias ? (*bias)->floats() : nullptr, n};
  bool done = kind == kFloat ? float_linear(x->floats(), weight->floats(), out, m, k)
                             : integer_linear(x->floats(), weight->data, out, m, k, (int)kind);
  if (!done) {
    release(y);
    return 1;
  }
  *result = y;
  return 0;
}

// Rows of a packed float32 or int8 weight: [..., k] for ids [...].
extern "C" int32_t aoti_torch_cpu_packed_embedding(
    Tensor* ids, Tensor* weight, int64_t k, int64_t kind, Tensor** result) {
  int64_t sizes[kMaxDims];
  for (int64_t i = 0; i < ids->ndim; ++i) sizes[i] = ids->sizes[i];
  sizes[ids->ndim] = k;
  Tensor* y = new_tensor(ids->ndim + 1, sizes, kFloat32);
  if (!y) return 1;
  int64_t stride = tile_bytes(k, (int)kind);
  for (int64_t i = 0; i < ids->numel(); ++i) {
    int64_t id = ids->ints()[i], lane = id % kTile;
    const char* tile = weight->data + id / kTile * stride;
    float* out = y->floats() + i * k;
    if (kind == kFloat) {
      for (int64_t j = 0; j < k; ++j) out[j] = ((const float*)tile)[j * kTile + lane];
    } else {
      float scale = ((const float*)tile)[lane];
      const uint8_t* quants = (const uint8_t*)tile + kHeader + lane * 4;
      for (int64_t j = 0; j < k; ++j) out[j] = (float)((int)quants[j / 4 * 64 + j % 4] - 128) * scale;
    }
  }
  *result = y;
  return 0;
}
