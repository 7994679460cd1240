// The instructions that the kernels of x86-64-v4 name, and those of AMX, in plain C++: included before the kernels, it
// lets a CPU with AVX2 run them. Integers are the same as the instructions'; sums of floats over lanes may round otherwise.
#pragma once

#include <immintrin.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef __AVX512VNNI__
#error "for a compiler that is told of no AVX-512"
#endif
#define __AVX512VNNI__ 1  // what asks for the kernels of x86-64-v4

namespace emulated {

template <typename T, typename V>
T reduced(V v, T (*add)(T, T)) {
  T lanes[sizeof(V) / sizeof(T)];
  std::memcpy(lanes, &v, sizeof v);
  T all = lanes[0];
  for (unsigned i = 1; i < sizeof(V) / sizeof(T); ++i) all = add(all, lanes[i]);
  return all;
}

// A vector whose lane i is of(i).
template <typename V, typename T, typename Function>
V lanes(Function of) {
  T values[sizeof(V) / sizeof(T)];
  for (unsigned i = 0; i < sizeof(V) / sizeof(T); ++i) values[i] = of(i);
  V v;
  std::memcpy(&v, values, sizeof v);
  return v;
}

template <typename T, typename V>
T lane(V v, unsigned i) {
  T value;
  std::memcpy(&value, (const char*)&v + i * sizeof value, sizeof value);
  return value;
}

__attribute__((noinline)) inline __m512i bytes_to_integers(__m128i v) {
  return lanes<__m512i, int32_t>([&](unsigned i) { return lane<int8_t>(v, i); });
}
__attribute__((noinline)) inline __m512 integers_to_singles(__m512i v) {
  return lanes<__m512, float>([&](unsigned i) { return (float)lane<int32_t>(v, i); });
}
__attribute__((noinline)) inline __m512i splat(int32_t x) {
  return lanes<__m512i, int32_t>([&](unsigned) { return x; });
}

// vpdpbusd: to each lane, four products of unsigned by signed bytes.
__attribute__((noinline)) inline __m512i dot(__m512i sums, __m512i unsigned_bytes, __m512i signed_bytes) {
  return lanes<__m512i, int32_t>([&](unsigned i) {
    int32_t sum = lane<int32_t>(sums, i);
    for (unsigned j = 4 * i; j < 4 * i + 4; ++j) sum += lane<uint8_t>(unsigned_bytes, j) * lane<int8_t>(signed_bytes, j);
    return sum;
  });
}

// vpdpwssd: to each lane, two products of signed words.
__attribute__((noinline)) inline __m512i dot_words(__m512i sums, __m512i a, __m512i b) {
  return lanes<__m512i, int32_t>([&](unsigned i) {
    int32_t sum = lane<int32_t>(sums, i);
    for (unsigned j = 2 * i; j < 2 * i + 2; ++j) sum += lane<int16_t>(a, j) * lane<int16_t>(b, j);
    return sum;
  });
}

// The registers of AMX's unit, as one thread sees them. Using them before they are set up ends the process.
struct Unit {
  bool ready = false;
  alignas(64) int8_t bytes[8][16][64];

  int8_t (&of(int i))[16][64] {
    if (!ready) std::abort();
    return bytes[i];
  }
  void configure(const void* shapes) {
    const uint8_t* from = (const uint8_t*)shapes;
    uint16_t line_bytes[8];
    std::memcpy(line_bytes, from + 16, sizeof line_bytes);
    ready = from[0] == 1 && from[1] == 0;
    for (int i = 0; i < 8; ++i) ready = ready && line_bytes[i] == 64 && from[48 + i] == 16;
  }
  void zero(int to) { std::memset(of(to), 0, sizeof bytes[to]); }
  void load(int to, const void* from, int64_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(of(to)[i], (const char*)from + i * stride, 64);
  }
  void store(int from, void* to, int64_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy((char*)to + i * stride, of(from)[i], 64);
  }
  // tdpbssd: sums [16][16] += a [16][16][4] times b [16][16][4], over the first's second axis and the second's first.
  void multiply(int to, int a, int b) {
    int32_t sums[16][16];
    std::memcpy(sums, of(to), sizeof sums);
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 16; ++column)
        for (int k = 0; k < 64; ++k) sums[row][column] += of(a)[row][k] * of(b)[k / 4][column * 4 + k % 4];
    std::memcpy(of(to), sums, sizeof sums);
  }
};
inline thread_local Unit unit;

}  // namespace emulated

#define _mm512_reduce_max_ps(v) emulated::reduced<float>(v, +[](float a, float b) { return std::max(a, b); })
#define _mm512_reduce_add_ps(v) emulated::reduced<float>(v, +[](float a, float b) { return a + b; })
#define _mm512_reduce_add_epi32(v) emulated::reduced<int32_t>(v, +[](int32_t a, int32_t b) { return a + b; })
#define _mm512_cvtepi8_epi32(v) emulated::bytes_to_integers(v)
#define _mm512_cvtepi32_ps(v) emulated::integers_to_singles(v)
#define _mm512_set1_epi32(x) emulated::splat(x)
#define _mm512_dpbusd_epi32(sums, a, b) emulated::dot(sums, a, b)
#define _mm512_dpwssd_epi32(sums, a, b) emulated::dot_words(sums, a, b)

#define __builtin_cpu_supports(feature) true
#undef SYS_arch_prctl
#define SYS_arch_prctl SYS_sched_yield  // which takes what it is given and succeeds
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#define _tile_loadconfig(shapes) emulated::unit.configure(shapes)
#define _tile_release() emulated::unit.ready = false
#define _tile_zero(to) emulated::unit.zero(to)
#define _tile_loadd(to, from, stride) emulated::unit.load(to, from, stride)
#define _tile_stored(from, to, stride) emulated::unit.store(from, to, stride)
#define _tile_dpbssd(to, a, b) emulated::unit.multiply(to, a, b)
