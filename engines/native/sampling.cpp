#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <vector>

#include "likeliest.h"
#include "runtime.h"
#include "simd.h"
#include "weights.h"

namespace {

constexpr int64_t kShares[] = {1, 8, 26};  // 32nds of the blocks whose largest logits bound a list of tokens to look at

float maximum(const float* x, int64_t n) {
  float best = kNever;
  int64_t i = 0;
  if (n >= 2 * kLanes) {
    vfloat a = load<vfloat>(x), b = load<vfloat>(x + kLanes);
    for (i = 2 * kLanes; i + 2 * kLanes <= n; i += 2 * kLanes)
      a = vmax(a, load<vfloat>(x + i)), b = vmax(b, load<vfloat>(x + i + kLanes));
    a = vmax(a, b);
    for (int j = 0; j < kLanes; ++j) best = std::max(best, a[j]);
  }
  for (; i < n; ++i) best = std::max(best, x[i]);
  return best;
}

// The first place of `value`; the last of all where it is nowhere, which only logits that are no numbers bring about.
int64_t first_of(const float* x, int64_t n, float value) {
  int64_t begin = 0;
  for (; begin + kBlock <= n; begin += kBlock) {
    int32_t found = 0;
    for (int64_t j = 0; j < kBlock; ++j) found |= x[begin + j] == value;
    if (found) break;
  }
  return std::min<int64_t>(std::find(x + begin, x + n, value) - x, n - 1);
}

// A token of those that weigh at least `min_p`, in the order of their ids.
int64_t draw_in_order(const Weights& row, double min_p, double uniform) {
  std::vector<double> sums(row.blocks());
  double weights[kBlock], total = 0, before = 0;
  double least = min_p > 0 ? std::max(kCut, std::log(min_p) - 1e-6) : kCut;
  auto kept = [&](int64_t block) {
    double sum = row.weigh(block, weights);
    if (min_p <= 0) return sum;
    sum = 0;
    for (double& weight : weights) sum += weight = weight >= min_p ? weight : 0;
    return sum;
  };
  for (int64_t b = 0; b < row.blocks(); ++b)
    if (!row.below(b, least)) total += sums[b] = kept(b);
  double wanted = uniform * total;
  int64_t last = 0;  // where rounding reaches the sum: the last token that has any weight
  for (int64_t b = 0; b < row.blocks(); ++b) {
    if (sums[b] == 0) continue;
    last = b;
    if (before + sums[b] <= wanted) {
      before += sums[b];
      continue;
    }
    kept(b);
    for (int64_t j = 0; j < kBlock; ++j) {
      before += weights[j];
      if (before > wanted) return b * kBlock + j;
    }
  }
  kept(last);
  int64_t j = kBlock - 1;
  while (j > 0 && weights[j] == 0) --j;
  return last * kBlock + j;  // 0 where no token has any, of logits that are no numbers
}

// The tokens whose logits reach the largest one of each of the `blocks` likeliest blocks, in no order: at least so many.
// Those that are never drawn are left out. `known` has the weights of all tokens, where they are known.
std::vector<Token> beginning(const Weights& row, int64_t blocks, const double* known = nullptr) {
  std::vector<float> largest = row.largest_of_blocks();
  std::nth_element(largest.begin(), largest.begin() + blocks - 1, largest.end(), std::greater<float>());
  float least = largest[blocks - 1];
  std::vector<Token> found;
  for (int64_t b = 0; b < row.blocks(); ++b) {
    if (row.largest_of_blocks()[b] < least || row.below(b, kCut)) continue;
    double of_block[kBlock];
    float end[kBlock];
    const float* logits = row.row_of(b, end);
    if (!known) row.weigh(b, of_block);
    const double* weights = known ? known + b * kBlock : of_block;
    for (int64_t i = 0; i < kBlock; i += kLanes) {
      if (!any(load<vfloat>(logits + i) >= least)) continue;
      for (int64_t j = i; j < i + kLanes; ++j)
        if (logits[j] >= least && weights[j] > 0) found.push_back({weights[j], b * kBlock + j});
    }
  }
  return found;
}

double mass_of(const Token* first, const Token* last) {
  double mass = 0;
  for (; first < last; ++first) mass += first->weight;
  return mass;
}

// Puts the fewest likeliest tokens whose mass is enough(mass) in front, the least likely of them last, and returns their
// end; all of them where that is not enough. A quickselect by mass: no more than a few are ever sorted.
template <typename Enough>
Token* fewest(Token* first, Token* last, Enough&& enough) {
  constexpr int64_t kSorted = 32;
  double before = 0;
  while (last - first > kSorted) {
    Token a = *first, b = first[(last - first) / 2], c = last[-1];
    Token middle = std::max(std::min(a, b), std::min(std::max(a, b), c));
    Token* border = std::partition(first, last, [&](const Token& token) { return token < middle; });
    double mass = mass_of(first, border);
    if (enough(before + mass))
      last = border;
    else
      before += mass, first = border;
  }
  std::sort(first, last);
  for (; first < last; ++first)
    if (enough(before += first->weight)) return first + 1;
  return last;
}

// One of `tokens` that top-p and min-p leave; `mass` is that of the whole from which top-p takes its share.
int64_t draw_from(std::vector<Token>& tokens, double mass, const Choice& choice, double uniform) {
  if (tokens.empty()) return 0;  // of logits that are no numbers
  Token *first = tokens.data(), *last = first + tokens.size();
  if (choice.top_p < 1) last = fewest(first, last, [&](double kept) { return kept >= choice.top_p * mass; });
  if (choice.min_p > 0) last = std::partition(first, last, [&](const Token& t) { return t.weight >= choice.min_p; });
  double wanted = uniform * mass_of(first, last);
  return fewest(first, last, [&](double before) { return before > wanted; })[-1].id;
}

// One of the top-k or top-p tokens; `weights` has room for all blocks.
int64_t draw_by_likelihood(const Weights& row, const Choice& choice, double uniform, double* weights) {
  int64_t blocks = row.blocks(), n = row.tokens();
  bool cut = choice.top_k > 0 && choice.top_k < n;
  if (cut && choice.top_k <= blocks) {
    std::vector<Token> tokens = beginning(row, choice.top_k);
    if ((int64_t)tokens.size() > choice.top_k) {
      std::nth_element(tokens.begin(), tokens.begin() + choice.top_k, tokens.end());
      tokens.resize(choice.top_k);
    }
    return draw_from(tokens, mass_of(tokens.data(), tokens.data() + tokens.size()), choice, uniform);
  }
  double mass = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    if (row.below(b, kCut))
      std::fill(weights + b * kBlock, weights + (b + 1) * kBlock, 0.0);
    else
      mass += row.weigh(b, weights + b * kBlock);
  }
  for (int64_t share : kShares) {
    if (cut || blocks < 32) break;
    std::vector<Token> tokens = beginning(row, blocks * share / 32, weights);
    if (mass_of(tokens.data(), tokens.data() + tokens.size()) >= choice.top_p * mass)
      return draw_from(tokens, mass, choice, uniform);
  }
  Likeliest likeliest(row, weights, mass);
  Likeliest::Beginning kept = likeliest.all();
  if (cut) kept = likeliest.first(choice.top_k);
  if (choice.top_p < 1) kept = std::min(kept, likeliest.reaching(choice.top_p * kept.mass));
  if (choice.min_p > 0) kept = std::min(kept, likeliest.at_least(choice.min_p));
  return likeliest.draw(kept, uniform);
}

bool adjusts(const Choice& c) {
  return c.repetition != 1 || c.presence != 0 || c.frequency != 0 || c.biased_count || c.allowed || c.barred_count;
}

// Masks mostly allow nearly all or nearly none of a stretch of the vocabulary.
void allow(float* scores, int64_t n, const uint8_t* allowed) {
  for (int64_t i = 0; i < n; i += 64) {
    uint64_t bits = 0;
    int64_t count = std::min<int64_t>(64, n - i);
    std::memcpy(&bits, allowed + i / 8, (count + 7) / 8);
    if (count == 64 && bits == ~uint64_t{0}) continue;
    if (bits == 0)
      std::fill(scores + i, scores + i + count, kNever);
    else
      for (int64_t j = 0; j < count; ++j)
        if (!(bits >> j & 1)) scores[i + j] = kNever;
  }
}

// In single precision and without fused operations, as numpy rounds.
void adjust(float* scores, int64_t n, const Choice& c) {
  if (c.repetition != 1)
    for (int64_t i = 0; i < c.seen_count; ++i) {
      float& score = scores[c.seen[i]];
      score = score < 0 ? score * c.repetition : score / c.repetition;
    }
  if (c.presence != 0 || c.frequency != 0)
    for (int64_t i = 0; i < c.made_count; ++i) {
      volatile float repeated = c.frequency * c.counts[i];
      volatile float penalty = c.presence + repeated;
      scores[c.made[i]] -= penalty;
    }
  for (int64_t i = 0; i < c.biased_count; ++i) scores[c.biased[i]] += c.biases[i];
  if (c.allowed) allow(scores, n, c.allowed);
  for (int64_t i = 0; i < c.barred_count; ++i) scores[c.barred[i]] = kNever;
}

}  // namespace

extern "C" {

int64_t engine_pick(const float* logits, int64_t n, const Choice* choice, double uniform) {
  const Choice& c = *choice;
  int64_t padded = round_up(n, kBlock);
  bool by_likelihood = c.temperature != 0 && (c.top_p < 1 || (c.top_k > 0 && c.top_k < n));
  Scratch scratch(padded * (sizeof(double) * by_likelihood + sizeof(float) * adjusts(c)));
  if (!scratch) return -1;
  if (adjusts(c)) {
    float* scores = scratch.as<float>(padded * sizeof(double) * by_likelihood);
    std::memcpy(scores, logits, n * sizeof(float));
    adjust(scores, n, c);
    logits = scores;
  }
  if (c.temperature == 0) return first_of(logits, n, maximum(logits, n));
  try {
    Weights row(logits, n, c.temperature);
    return by_likelihood ? draw_by_likelihood(row, c, uniform, scratch.as<double>()) : draw_in_order(row, c.min_p, uniform);
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

float engine_describe(const float* logits, int64_t n, int64_t token, int64_t count, int64_t* ids, float* logprobs) {
  try {
    Weights row(logits, n, 1.0);
    double weights[kBlock], sum = 0;
    for (int64_t b = 0; b < row.blocks(); ++b)
      if (!row.below(b, kCut)) sum += row.weigh(b, weights);
    float highest = row.highest(), log_sum = (float)std::log(sum);
    int64_t found = 0;
    for (int64_t i = 0; i < n && count > 0; ++i) {
      if (found == count && logits[i] <= logprobs[found - 1]) continue;
      int64_t place = found < count ? found++ : found - 1;
      for (; place > 0 && logprobs[place - 1] < logits[i]; --place)
        logprobs[place] = logprobs[place - 1], ids[place] = ids[place - 1];
      logprobs[place] = logits[i], ids[place] = i;
    }
    for (int64_t i = 0; i < found; ++i) logprobs[i] = logprobs[i] - highest - log_sum;
    return logits[token] - highest - log_sum;
  } catch (const std::bad_alloc&) {
    return std::numeric_limits<float>::quiet_NaN();
  }
}

int32_t engine_finite(const float* numbers, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!std::isfinite(numbers[i])) return 0;
  return 1;
}
}
