// The token to go on with, chosen from one row of logits in native memory: what generation/sampling.py does with numpy.
//
// The same steps in the same order, weights in double precision: a uniform number gives the reference's token unless it
// falls within a rounding error of the border between two. Nothing sorts the vocabulary: a list of the likeliest tokens
// is enough for nearly all logits, and for the others `likeliest.h` is.
#pragma once

#include <cstdint>

extern "C" {

// What SamplingParams, History and a grammar say, for one choice. Arrays that have no elements may be null.
struct Choice {
  double temperature;  // 0 takes the likeliest token, the lowest id on a tie
  double top_p, min_p;
  int64_t top_k;  // 0 keeps all
  float repetition, presence, frequency;
  const int64_t* seen;  // distinct tokens of prompt and completion
  int64_t seen_count;
  const int64_t* made;  // distinct tokens of the completion
  const float* counts;  // how often each of them occurred
  int64_t made_count;
  const int64_t* biased;
  const float* biases;
  int64_t biased_count;
  const uint8_t* allowed;  // a bit for each token, the lowest first; null allows all
  const int64_t* barred;   // tokens that may not be chosen
  int64_t barred_count;
};

// The chosen token; `uniform` lies in [0, 1) and counts unless greedy. -1 when memory runs out.
int64_t engine_pick(const float* logits, int64_t vocabulary, const Choice* choice, double uniform);

// The log-probability of `token`, and the `count` likeliest tokens, best first, with theirs.
float engine_describe(const float* logits, int64_t vocabulary, int64_t token, int64_t count, int64_t* ids, float* logprobs);

// 1 when every number is finite, else 0.
int32_t engine_finite(const float* numbers, int64_t count);
}
