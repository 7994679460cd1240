// Integers of 16 bits ("words") and their products, which are exact in 32 bits.
//
// The words that lanes are multiplied by lie in memory as [steps][lanes][2]: the two of a step are a lane's next. A row of
// words is one factor for all lanes, made by store_row. A word's magnitude is at most 16,000.
//   kWordStep   words of each lane that WordSum::add multiplies and adds
//   Words       those of one vector of lanes, made ready for several rows; `next` is the distance to the next step's
//   WordFactor  those of a row, for all lanes
//   WordSum     lane i is the sum over j of w[i][j] * row[j]
#pragma once

#include <cmath>

#include "simd.h"

constexpr int64_t kPair = 2;

#if defined(__AVX512VNNI__)
constexpr int64_t kWordStep = 2;
inline void store_words(int16_t* p, vint v) {
  typedef int16_t Narrow __attribute__((vector_size(kLanes * 2)));
  Narrow words = __builtin_convertvector(v, Narrow);
  __asm__("" : "+v"(words));  // narrowing into memory is slow on Zen 4
  store(p, words);
}
inline void store_row(int16_t* p, vint v) { store_words(p, v); }
struct Words {
  __m512i pairs;
};
struct WordFactor {
  __m512i pair;
};
inline Words words_of(const int16_t* p, int64_t) { return {load<__m512i>(p)}; }
inline WordFactor word_factor(const int16_t* row) { return {_mm512_set1_epi32(load<int32_t>(row))}; }
struct WordSum {
  vint value;
  void add(const Words& w, const WordFactor& f) { value = (vint)_mm512_dpwssd_epi32((__m512i)value, w.pairs, f.pair); }
  vint total() const { return value; }
};

#elif defined(__AVX2__)
constexpr int64_t kWordStep = 2;
inline void store_words(int16_t* p, vint v) {
  __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  store(p, packed);
}
inline void store_row(int16_t* p, vint v) { store_words(p, v); }
struct Words {
  __m256i pairs;
};
struct WordFactor {
  __m256i pair;
};
inline Words words_of(const int16_t* p, int64_t) { return {load<__m256i>(p)}; }
inline WordFactor word_factor(const int16_t* row) { return {_mm256_set1_epi32(load<int32_t>(row))}; }
struct WordSum {
  vint value;
  void add(const Words& w, const WordFactor& f) { value += (vint)_mm256_madd_epi16(w.pairs, f.pair); }
  vint total() const { return value; }
};

#else
// The dot product takes bytes: a word is 128 times its upper one plus its lower one, both signed. Of a row's every four
// words all upper bytes come first.
constexpr int64_t kWordStep = 4;
inline void store_words(int16_t* p, vint v) { vst1_s16(p, vmovn_s32((int32x4_t)v)); }
inline void store_row(int16_t* p, vint v) {
  int16x4_t word = vmovn_s32((int32x4_t)v), upper = vrshr_n_s16(word, 7);
  vst1_s8((int8_t*)p, vmovn_s16(vcombine_s16(upper, vsub_s16(word, vshl_n_s16(upper, 7)))));
}
struct Words {
  int8x16_t upper, lower;
};
using WordFactor = Words;
inline Words words_of(const int16_t* p, int64_t next) {
  int32x4_t here = vreinterpretq_s32_s16(vld1q_s16(p)), there = vreinterpretq_s32_s16(vld1q_s16(p + next));
  int16x8_t first = vreinterpretq_s16_s32(vzip1q_s32(here, there)), last = vreinterpretq_s16_s32(vzip2q_s32(here, there));
  int16x8_t first_upper = vrshrq_n_s16(first, 7), last_upper = vrshrq_n_s16(last, 7);
  return {vcombine_s8(vmovn_s16(first_upper), vmovn_s16(last_upper)),
          vcombine_s8(vmovn_s16(vsubq_s16(first, vshlq_n_s16(first_upper, 7))),
                      vmovn_s16(vsubq_s16(last, vshlq_n_s16(last_upper, 7))))};
}
inline WordFactor word_factor(const int16_t* row) {
  return {vreinterpretq_s8_s32(vdupq_n_s32(load<int32_t>(row))), vreinterpretq_s8_s32(vdupq_n_s32(load<int32_t>(row + 2)))};
}
struct WordSum {
  int32x4_t upper, middle, lower;
  void add(const Words& w, const WordFactor& f) {
    upper = vdotq_s32(upper, w.upper, f.upper);
    middle = vdotq_s32(vdotq_s32(middle, w.upper, f.lower), w.lower, f.upper);
    lower = vdotq_s32(lower, w.lower, f.lower);
  }
  vint total() const { return (vint)vaddq_s32(vaddq_s32(vshlq_n_s32(upper, 14), vshlq_n_s32(middle, 7)), lower); }
};
#endif

// The most of words, of both factors, whose `count` products add up within 32 bits.
inline int32_t most_of_products(int64_t count) { return (int32_t)std::sqrt((double)INT32_MAX / (double)count); }

// Rounds x[count], no larger than `top`, to words of which `top` has the magnitude `most`, and stores them by kStore:
// store_words or store_row. `count` is a multiple of 16. Returns what one of their units is worth.
template <auto kStore>
inline float round_to_words(const float* x, int64_t count, float top, int32_t most, int16_t* words) {
  float inverse = top > 0 ? (float)most / top : 0.0f;
  for (int64_t i = 0; i < count; i += kLanes)
    kStore(words + i, (vint)(load<vfloat>(x + i) * inverse + kWhole) - kWholeBits);
  return top / (float)most;
}

// The same where the largest of x is not known yet.
template <auto kStore>
inline float to_words(const float* x, int64_t count, int32_t most, int16_t* words) {
  vfloat tops{};
  for (int64_t i = 0; i < count; i += kLanes) tops = vmax(tops, magnitude(load<vfloat>(x + i)));
  return round_to_words<kStore>(x, count, largest(tops), most, words);
}
