// Int8 products of many tokens without matrix instructions, as each level does them best; the sums are int8_panel's.
//   kManyFrom               tokens from which they are used, measured
//   kManyForm, kManyLanes   the activations that they take
//   many_tile_bytes         of a tile that many_prepare makes of an int8 tile; 0 where tiles are taken as they are
//   many_tiles              `rows` tokens from `row` on times `count` tiles
#pragma once

#include "panels.h"

#if defined(__AVX2__) && !defined(__AVX512VNNI__)
#include "pairs.h"
#else
namespace {

int64_t many_tile_bytes(int64_t) { return 0; }
void many_prepare(const char*, int64_t, char*) {}

#if defined(__AVX512VNNI__)
constexpr int64_t kManyFrom = kFewTo + 1;
constexpr Form kManyForm = kInt8Form;
constexpr int64_t kManyLanes = kTile;
constexpr int kManyRows = 8, kManyTiles = 2;  // whose sums, of integers and of floats, fill AVX-512's registers; measured

void many_tiles(const Activations& a, int64_t row, int64_t rows, const Tiles& w, int64_t count, const Output& out) {
  const int64_t whole = rows / kTile * kTile;
  int64_t t = 0;
  for (; t + kManyTiles <= count; t += kManyTiles) {
    Tiles some = w.from_tile(t);
    for (int64_t r = row; r < row + whole; r += kManyRows) {
      out.fetch(r, kManyRows, some.column, kManyTiles);
      int8_panel<kManyRows, kManyTiles, true>(a, r, some, out);
    }
    if (whole < rows) few_tiles(a, row + whole, rows - whole, some, kManyTiles, out);
  }
  few_tiles(a, row, rows, w.from_tile(t), count - t, out);
}
#else
constexpr int64_t kManyFrom = INT64_MAX;
constexpr Form kManyForm = kInt8Form;
constexpr int64_t kManyLanes = 1;
constexpr auto many_tiles = integer_tiles;
#endif

}  // namespace
#endif
