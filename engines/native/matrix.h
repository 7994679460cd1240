// Int8 products of many tokens by instructions that multiply matrices, where the CPU has them: asked at run time, since
// they belong to no level of instruction sets.
//
// The integers are those of int8_panel, and they meet the same floats in the same order: results are the same bits.
//   kMatrixFrom                      tokens from which they are used
//   matrix_in_cpu, matrix_permitted  whether the CPU has them, and whether the system lets this process use them
//   matrix_prepare                   makes the tile that matrix_tiles takes of an int8 tile, which may lie in its place
//   matrix_tiles                     `rows` tokens from `row` on, of activations with kTile lanes, times `count` of those
#pragma once

#include "panels.h"

namespace {

// Of a tile that matrix_prepare makes: as packed.h has int8, its numbers in another order, zeros up to a whole group.
int64_t matrix_tile_bytes(int64_t k) { return kLine + round_up(k, kGroup) * kTile; }

}  // namespace

#if defined(__AVX512VNNI__) && defined(__linux__)
#include "amx.h"
#elif defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)
#include "i8mm.h"
#else
namespace {
constexpr int64_t kMatrixFrom = INT64_MAX;
bool matrix_in_cpu() { return false; }
bool matrix_permitted() { return false; }
void matrix_prepare(const char*, int64_t, char*) {}
void matrix_tiles(const Activations&, int64_t, int64_t, const Tiles&, int64_t, const Output&) {}
}  // namespace
#endif
