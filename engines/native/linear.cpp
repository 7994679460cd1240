// Linear layers and embeddings on packed weights (packed.h). A float32 bias [N] is added where there is one.
#include <algorithm>
#include <atomic>

#include "engine.h"
#include "gemm.h"
#include "many.h"
#include "matrix.h"
#include "runtime.h"
#include "team.h"

namespace {

constexpr int64_t kPanelTiles = 4;      // most tiles that a thread takes at a time
constexpr int64_t kWidenFrom = kSmallIsFaster ? INT64_MAX : 48;  // rows from which int4 and int6 are widened
constexpr int64_t kRowBlock = 256;      // rows whose activations stay in the second-level cache
constexpr int64_t kQuantiseRows = 16;   // rows of activations quantised at a time

// Whether this process uses matrix.h; see engine_use_matrix.
std::atomic<bool> use_matrix{false};

// Which of the functions multiplies the tiles: integer_tiles, few_tiles, many_tiles or matrix_tiles.
enum Way { kPlain, kFew, kMany, kMatrix };

// How the integer products of one linear are computed. None of it changes the sums of int8 tiles.
struct Plan {
  int64_t k, stride, tiles;
  int kind;
  bool widen;   // int4 and int6 tiles become int8
  bool shared;  // rows are quantised once for all members: else each does it for itself, which is cheaper than meeting
  Way way;

  Plan(int64_t n, int64_t m, int64_t k, int kind)
      : k(k), stride(tile_bytes(k, kind)), tiles((n + kTile - 1) / kTile), kind(kind),
        widen(kind != kInt8 && m >= kWidenFrom), shared(m > 4), way(way_of(m)) {}

  Way way_of(int64_t m) const {
    bool int8 = kind == kInt8 || widen;
    if (int8 && use_matrix && m >= kMatrixFrom) return kMatrix;
    if (int8 && m >= kManyFrom) return kMany;
    return m >= kFewFrom && m <= (kind == kInt8 ? kFewTo : kFewSmallTo) ? kFew : kPlain;
  }
  Activations activations(char* memory, int64_t m) const { return {memory, m, k, lanes(), form()}; }
  size_t activation_bytes(int64_t m) const { return Activations::size(m, k, lanes(), form()); }
  Form form() const { return way == kMatrix ? kBytes : way == kMany ? kManyForm : kind == kInt8 || widen ? kInt8Form : kSummed; }
  int64_t lanes() const {
    return way == kMany ? kManyLanes : way == kMatrix || (way == kFew && kind == kInt8) ? kTile : 1;
  }
  // Tiles that a thread takes at a time: as many as leave none of `threads` waiting for the last one for long.
  int64_t panel_tiles(int64_t m, int threads) const {
    auto longest = [&](int64_t panel) { return round_up((tiles + panel - 1) / panel, threads) * panel; };
    return m == 1 ? 1 : longest(kPanelTiles / 2) < longest(kPanelTiles) ? kPanelTiles / 2 : kPanelTiles;
  }
  // Rows that a thread takes at a time.
  int64_t rows_each(int64_t m, int threads) const {
    if (way != kMany || made() || m < threads * 64) return m;
    return std::min(kRowBlock, round_up((m + threads - 1) / threads, kTile));
  }
  // Bytes of a tile that is made of a packed one; 0 if those are taken as they are.
  int64_t made() const {
    int64_t bytes = way == kMatrix ? matrix_tile_bytes(k) : way == kMany ? many_tile_bytes(k) : 0;
    return bytes ? bytes : widen ? tile_bytes(k, kInt8) : 0;
  }
  // Tiles first .. last, ready for their product; `panel` is where they are made.
  Tiles prepare(const char* w, int64_t first, int64_t last, char* panel) const {
    if (!made()) return {kind, w + first * stride, stride, first * kTile};
    for (int64_t t = first; t < last; ++t) {
      const char* tile = w + t * stride;
      char* to = panel + (t - first) * made();
      if (widen) (kind == kInt4 ? widen_tile<4> : widen_tile<6>)(tile, k, to);
      if (way == kMatrix) matrix_prepare(widen ? to : tile, k, to);
      if (way == kMany) many_prepare(tile, k, to);
    }
    return {kInt8, panel, made(), first * kTile};
  }
};

bool integer_linear(const float* x, const char* w, const Output& out, int64_t m, int64_t k, int kind) {
  Plan plan(out.n, m, k, kind);
  constexpr decltype(&integer_tiles) kMultiply[] = {integer_tiles, few_tiles, many_tiles, matrix_tiles};
  size_t each = round_up(plan.activation_bytes(m), 64);
  Scratch activations(plan.shared ? each : each * members()), panels(members() * kPanelTiles * plan.made() + 1);
  if (!activations || !panels) return false;
  auto quantised = [&](int member) {
    return plan.activations(activations.as<char>(plan.shared ? 0 : member * each), m);
  };
  if (plan.shared) {
    Activations a = quantised(0);
    parallel((m + kQuantiseRows - 1) / kQuantiseRows, [&](Member member) {
      for (int64_t i; member.take(i);)
        for (int64_t row = i * kQuantiseRows; row < std::min(m, (i + 1) * kQuantiseRows); ++row)
          a.quantise(row, x + row * k, k);
    });
  }
  int64_t panel_tiles = plan.panel_tiles(m, members()), panels_each = (plan.tiles + panel_tiles - 1) / panel_tiles;
  int64_t rows_each = plan.rows_each(m, members());
  parallel((m + rows_each - 1) / rows_each * panels_each, [&](Member member) {
    Activations a = quantised(member.index);
    if (!plan.shared)
      for (int64_t row = 0; row < m; ++row) a.quantise(row, x + row * k, k);
    char* panel = panels.as<char>(member.index * kPanelTiles * plan.made());
    for (int64_t i; member.take(i);) {
      int64_t first = i % panels_each * panel_tiles, last = std::min(first + panel_tiles, plan.tiles);
      int64_t begin = i / panels_each * rows_each, end = std::min(begin + rows_each, m);
      Tiles ready = plan.prepare(w, first, last, panel);
      for (int64_t row = begin; row < end; row += kRowBlock)
        kMultiply[plan.way](a, row, std::min(kRowBlock, end - row), ready, last - first, out);
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
        multiply(rows, x + row * k, w + first * k * kTile, count, k, c, kPanelTiles * kTile);
        for (int r = 0; r < rows; ++r)
          for (int64_t t = 0; t < count; ++t)
            for (int p = 0; p < kParts; ++p)
              out.put(row + r, (first + t) * kTile + p * kLanes,
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

// Rows of a packed float32, int8 or int6 weight: [..., k] for ids [...].
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
    } else if (kind == kInt8) {
      float scale = ((const float*)tile)[lane];
      const uint8_t* quants = (const uint8_t*)tile + kLine + lane * 4;
      for (int64_t j = 0; j < k; ++j) out[j] = (float)((int)quants[j / 4 * kLine + j % 4] - 128) * scale;
    } else {
      typedef uint8_t Four __attribute__((vector_size(4)));
      Blocks<6> blocks(tile);
      for (int64_t j = 0; j < k; ++j) {
        if (j % kBlock == 0) blocks.step();
        Four weights = block_weights<6, Four>(blocks.bytes, (int)(j % kBlock / 4), lane * 4);
        float scale = (float)(int8_t)blocks.scales[lane] * ((const float*)tile)[lane];
        out[j] = (float)((int)weights[j % 4] - blocks.kBias) * scale;
      }
    }
  }
  *result = y;
  return 0;
}

extern "C" int32_t engine_use_matrix(int32_t wanted) {
  use_matrix = false;
  if (!wanted || !matrix_in_cpu()) return kMatrixUnused;
  if (!matrix_permitted()) return kMatrixForbidden;
  use_matrix = true;
  return kMatrixUsed;
}
