// Vectors of the machine the file is compiled for: x86-64-v4 with VNNI, x86-64-v3 (AVX2), or aarch64 with dotprod.
//
// Everything above this header is written in tiles of 16 lanes, so the packed weights are the same bytes on every
// instruction set; a tile is `kParts` hardware vectors. Knows nothing of layers or tensors.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
constexpr int kLanes = 16, kRegisters = 32;
#elif defined(__AVX2__)
#include <immintrin.h>
constexpr int kLanes = 8, kRegisters = 16;
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
constexpr int kLanes = 4, kRegisters = 32;
#else
#error "needs AVX-512 VNNI, AVX2 or the aarch64 dot product"
#endif

constexpr int kTile = 16;
constexpr int kParts = kTile / kLanes;

typedef float vfloat __attribute__((vector_size(kLanes * 4)));
typedef int32_t vint __attribute__((vector_size(kLanes * 4)));
typedef uint8_t vbytes __attribute__((vector_size(kLanes * 4)));

template <typename V>
inline V load(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename V>
inline void store(void* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// x - 0 is x, so this only broadcasts. 0 + x would have to be computed: it makes 0 of -0.
inline vfloat splat(float x) { return x - vfloat{}; }
inline vint splat(int32_t x) { return vint{} + x; }
inline vfloat to_float(vint v) { return __builtin_convertvector(v, vfloat); }
inline vfloat magnitude(vfloat v) { return (vfloat)((vint)v & 0x7FFFFFFF); }
inline vfloat vmax(vfloat a, vfloat b) { return a > b ? a : b; }
inline vfloat vmin(vfloat a, vfloat b) { return a < b ? a : b; }

// The largest of the lanes, and their sum; floats in pairs, pairs of pairs and so on.
#if defined(__AVX512VNNI__)
inline float largest(vfloat v) { return _mm512_reduce_max_ps((__m512)v); }
inline int32_t total(vint v) { return _mm512_reduce_add_epi32((__m512i)v); }
inline float total(vfloat v) { return _mm512_reduce_add_ps((__m512)v); }
#elif defined(__AVX2__)
inline float largest(vfloat v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
inline int32_t total(vint v) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  x = _mm_add_epi32(x, _mm_unpackhi_epi64(x, x));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 1)));
}
inline float total(vfloat v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
#else
inline float largest(vfloat v) { return vmaxvq_f32((float32x4_t)v); }
inline int32_t total(vint v) { return vaddvq_s32((int32x4_t)v); }
inline float total(vfloat v) { return vaddvq_f32((float32x4_t)v); }
#endif

// __builtin_convertvector would take the bytes apart one by one.
inline vfloat load_lanes(const int8_t* p) {
#if defined(__AVX512VNNI__)
  return (vfloat)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return (vfloat)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  int32_t four;
  std::memcpy(&four, p, 4);
  int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
  return (vfloat)vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
#endif
}

// Integers of 8 bits each, one vector after the other. __builtin_convertvector would put AVX2's together one by one.
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
inline __m256i to_bytes(const vint (&v)[4]) {
  __m256i lower = _mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]);
  __m256i upper = _mm256_packs_epi32((__m256i)v[2], (__m256i)v[3]);
  // Packing works within halves: fours of v[0] v[1] v[2] v[3], then their other fours.
  __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(lower, upper), order);
}
inline void store_bytes(int8_t* p, const vint (&v)[4]) { store(p, to_bytes(v)); }

// Signed bytes as 16 bits each: of every four, 0 and 2 in a lane of `even`, 1 and 3 in that lane of `odd`.
struct Pairs {
  __m256i even, odd;
  explicit Pairs(__m256i bytes)
      : even(_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8)), odd(_mm256_srai_epi16(bytes, 8)) {}
  vint products() const { return (vint)_mm256_madd_epi16(even, odd); }  // 0 times 1 plus 2 times 3
};
// Stores the Pairs of 32 integers of 8 bits each; returns the sum of their products.
inline int32_t store_pairs(int8_t* even, int8_t* odd, const vint (&v)[4]) {
  Pairs pairs(to_bytes(v));
  store(even, pairs.even);
  store(odd, pairs.odd);
  return total(pairs.products());
}

#else
template <int N>
inline void store_bytes(int8_t* p, const vint (&v)[N]) {
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    Bytes bytes = __builtin_convertvector(v[i], Bytes);
#if defined(__AVX512VNNI__)
    __asm__("" : "+v"(bytes));  // narrowing into memory is slow on Zen 4
#endif
    store(p + i * kLanes, bytes);
  }
}
template <int N>
inline int32_t store_pairs(int8_t*, int8_t*, const vint (&)[N]) {
  __builtin_unreachable();  // only pairs.h, for AVX2, takes them
}
#endif

// Four products per lane: lane i of the result is acc[i] + sum over j of w[4i + j] * a[j].
//
// Weights are stored as unsigned bytes. `Operand` is a weight vector made ready for `dot`, once per use by several
// rows of activations. kBias is what the unsigned form adds to each weight on this machine; the caller takes
// kBias * sum(a) away again.
#if defined(__AVX512VNNI__)
struct Operand {
  vbytes w;
};
constexpr int kByteBias = 128;
inline Operand operand_byte(vbytes w) { return {w}; }
inline Operand operand_small(vbytes w) { return {w}; }
inline vint dot_byte(vint acc, Operand o, int32_t a) {
  return (vint)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)o.w, _mm512_set1_epi32(a));
}
#elif defined(__AVX2__)
// maddubs saturates at 16 bits on unsigned times signed bytes, so bytes are multiplied as |w| * (a with w's sign):
// 2 * 127 * 127 still fits.
struct Operand {
  __m256i magnitude, sign;
};
constexpr int kByteBias = 0;
inline Operand operand_byte(vbytes w) {
  __m256i s = _mm256_xor_si256((__m256i)w, _mm256_set1_epi8((char)0x80));
  return {_mm256_sign_epi8(s, s), s};
}
inline Operand operand_small(vbytes w) { return {(__m256i)w, (__m256i)w}; }
inline vint dot_byte(vint acc, Operand o, int32_t a) {
  __m256i p = _mm256_maddubs_epi16(o.magnitude, _mm256_sign_epi8(_mm256_set1_epi32(a), o.sign));
  return acc + (vint)_mm256_madd_epi16(p, _mm256_set1_epi16(1));
}
#else
struct Operand {
  int8x16_t w;
};
constexpr int kByteBias = 0;
inline Operand operand_byte(vbytes w) { return {vreinterpretq_s8_u8(veorq_u8((uint8x16_t)w, vdupq_n_u8(0x80)))}; }
inline Operand operand_small(vbytes w) { return {vreinterpretq_s8_u8((uint8x16_t)w)}; }
inline vint dot_byte(vint acc, Operand o, int32_t a) {
  return (vint)vdotq_s32((int32x4_t)acc, o.w, vreinterpretq_s8_s32(vdupq_n_s32(a)));
}
#endif

// The same for unsigned weights of 4 or 6 bits: `value`, and what steps 0 to 7 of a block add to it. With AVX2 16 bits
// hold several steps' products (8 * 2 * 15 * 127, 2 * 2 * 63 * 127), so these take fewer instructions than bytes.
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
constexpr bool kSmallIsFaster = true;
template <int kBits>
struct SmallSum {
  static constexpr int kSteps = kBits == 4 ? 8 : 2;
  vint value;
  __m256i few;
  void add(int step, Operand o, int32_t a) {
    __m256i p = _mm256_maddubs_epi16(o.magnitude, _mm256_set1_epi32(a));
    few = step % kSteps == 0 ? p : _mm256_add_epi16(few, p);
    // Else the compiler adds eight in another order, for which there are too few registers; two it adds well.
    if constexpr (kSteps == 8) __asm__("" : "+x"(few));
    if (step % kSteps == kSteps - 1) value += (vint)_mm256_madd_epi16(few, _mm256_set1_epi16(1));
  }
};
#else
constexpr bool kSmallIsFaster = false;
template <int kBits>
struct SmallSum {
  vint value;
  void add(int, Operand o, int32_t a) { value = dot_byte(value, o, a); }
};
#endif

inline int32_t four_bytes(const int8_t* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

// 1.5 * 2^23, around which floats are whole numbers, and as far apart as their bits read as integers: x + kWhole is x
// rounded to the nearest integer n, and has the bits kWholeBits + n, for |x| up to 2^22.
constexpr float kWhole = 12582912.0f;
constexpr int32_t kWholeBits = 0x4B400000;

// e^x for x <= 0 (softmax): Cody-Waite reduction and a degree-5 polynomial, relative error below 3e-7.
inline vfloat vexp(vfloat x) {
  x = vmax(x, splat(-87.0f));
  vfloat shifted = x * 1.44269504f + kWhole;  // x / ln 2, rounded
  vfloat n = shifted - kWhole;
  vfloat r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vfloat p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return (vfloat)((vint)p + ((vint)shifted << 23));
}
