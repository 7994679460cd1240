#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "runtime.h"
#include "simd.h"

namespace {

constexpr int kDoubles = kLanes / 2;
typedef double vdouble __attribute__((vector_size(kDoubles * 8)));
typedef int64_t vlong __attribute__((vector_size(kDoubles * 8)));
typedef float vhalf __attribute__((vector_size(kDoubles * 4)));

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr double kCut = -45;  // e^-45 of the likeliest token's weight: all below it together are never drawn

// Weights in (2^-65, 1] by range: kSteps of them for each power of two. Range 0 holds what is never drawn.
constexpr int kStepBits = 6;
constexpr int64_t kSteps = 1 << kStepBits;
constexpr int64_t kLowest = (1023 - 66) * kSteps;  // the exponent of a double begins at bit 52 and is 1023 for 1
constexpr int64_t kRanges = 1023 * kSteps - kLowest + 1;
constexpr double kTail = -13.862943611198906;  // ln 2^-20: of weights below it nearly always only the sum is needed
constexpr int64_t kTailRange = (1023 - 20) * kSteps - kLowest;


// e^x for kCut <= x <= 0, to a rounding error: Cody-Waite reduction and the Taylor series.
inline vdouble exp_double(vdouble x) {
  vdouble shifted = x * 1.4426950408889634 + 6755399441055744.0;  // rounds x / ln 2 to an integer in the low bits
  vdouble n = shifted - 6755399441055744.0;
  vdouble r = x - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  vdouble p = r * (1.0 / 6227020800) + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return (vdouble)((vlong)p + ((vlong)shifted << 52));
}

inline int64_t range_of(double weight) {
  int64_t bits;
  std::memcpy(&bits, &weight, 8);
  return std::max<int64_t>((bits >> (52 - kStepBits)) - kLowest, 0);
}

inline double lowest_in(int64_t range) {
  int64_t bits = (range + kLowest) << (52 - kStepBits);
  double weight;
  std::memcpy(&weight, &bits, 8);
  return weight;
}

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

constexpr int64_t kBlock = 64;  // tokens that are looked at together
constexpr int64_t kVectors = kBlock / kDoubles;

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

inline double sum_of(const vdouble* sums) {
  vdouble sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double total = 0;
  for (int j = 0; j < kDoubles; ++j) total += sum[j];
  return total;
}

// Fills `weights`, which has room for whole blocks, with e^((logit - highest) / temperature), 0 where that is below kCut,
// and calls body(first token, sum, largest) for each block.
template <typename Body>
void each_block(const float* logits, int64_t n, double temperature, double* weights, Body&& body) {
  float highest = maximum(logits, n);
  double scale = 1 / temperature;
  float end[kBlock];
  for (int64_t i = 0; i < n; i += kBlock) {
    const float* row = logits + i;
    if (i + kBlock > n) {
      std::fill(std::copy(row, logits + n, end), end + kBlock, kNever);
      row = end;
    }
    vfloat most = load<vfloat>(row);
    for (int64_t j = kLanes; j < kBlock; j += kLanes) most = vmax(most, load<vfloat>(row + j));
    float largest = most[0];
    for (int j = 1; j < kLanes; ++j) largest = std::max(largest, most[j]);
    double top = ((double)largest - highest) * scale;
    if (!(top >= kCut)) {
      std::fill(weights + i, weights + i + kBlock, 0.0);
      body(i, 0.0, 0.0);
      continue;
    }
    vdouble sums[4] = {};
    for (int64_t v = 0; v < kVectors; ++v) {
      vdouble x = (__builtin_convertvector(load<vhalf>(row + v * kDoubles), vdouble) - (double)highest) * scale;
      vlong counts = x >= kCut;
      vdouble w = (vdouble)((vlong)exp_double(x) & counts);
      store(weights + i + v * kDoubles, w);
      sums[v % 4] += w;
    }
    body(i, sum_of(sums), top);
  }
}

// A token of those that come in index order, when no order of likelihood is asked for.
int64_t draw_in_order(const float* logits, int64_t n, const Choice& choice, double uniform, double* weights) {
  std::vector<double> blocks(n / kBlock + 1);
  double total = 0, before = 0;
  each_block(logits, n, choice.temperature, weights, [&](int64_t i, double sum, double) {
    if (sum > 0 && choice.min_p > 0) {
      sum = 0;
      for (int64_t j = i; j < i + kBlock; ++j) sum += weights[j] = weights[j] >= choice.min_p ? weights[j] : 0;
    }
    blocks[i / kBlock] = sum;
    total += sum;
  });
  double wanted = uniform * total;
  int64_t last = 0;  // where rounding reaches the sum: the last token that has any weight
  for (int64_t b = 0; b < (int64_t)blocks.size(); ++b) {
    if (blocks[b] == 0) continue;
    last = b * kBlock;
    if (before + blocks[b] <= wanted) {
      before += blocks[b];
      continue;
    }
    for (int64_t i = b * kBlock; i < (b + 1) * kBlock; ++i) {
      before += weights[i];
      if (before > wanted) return i;
    }
  }
  int64_t i = last + kBlock - 1;
  while (i > 0 && weights[i] == 0) --i;  // 0 where no token has any, of logits that are no numbers
  return i;
}

// The likeliest tokens in their order, the lower id first on a tie, without a list of them.
class Likeliest {
 public:
  // All tokens in ranges above `range`, and the first `inside` of those in it. `mass` is the sum of their weights.
  struct Beginning {
    int64_t range = 0, inside = 0;
    double mass = 0;
    bool operator<(const Beginning& other) const {
      return range != other.range ? range > other.range : inside < other.inside;
    }
  };

  Likeliest(const float* logits, int64_t n, double temperature, double* weights) : n_(n), weights_(weights) {
    each_block(logits, n, temperature, weights, [&](int64_t i, double sum, double top) {
      all_.mass += sum;
      if (top >= kTail) count(i, i + kBlock, kTailRange, kRanges);
    });
  }

  const Beginning& all() const { return all_; }

  Beginning first(int64_t count) {
    return until([&](const Range& range) { return count > range.count ? count -= range.count, false : true; },
                 [&](double, double) { return count-- <= 0; });
  }

  // The fewest whose weights reach `target`.
  Beginning reaching(double target) {
    bool enough = false;
    double above = 0;
    return until([&](const Range& range) { return above + range.mass < target ? above += range.mass, false : true; },
                 [&](double, double mass) { return std::exchange(enough, mass >= target); });
  }

  Beginning at_least(double weight) {
    int64_t border = range_of(weight);
    return until([&](const Range& range) { return &range - ranges_ <= border; },
                 [&](double w, double) { return w < weight; });
  }

  int64_t draw(const Beginning& from, double uniform) {
    double wanted = uniform * from.mass, mass = 0;
    int64_t last = 0;
    for (int64_t r = kRanges - 1; r > 0 && r >= from.range; --r) {
      const Range& range = at(r);
      if (!range.count) continue;
      if (r > from.range && mass + range.mass <= wanted) {
        mass += range.mass;
        continue;
      }
      const auto& tokens = sorted(r);
      int64_t count = r > from.range ? (int64_t)tokens.size() : from.inside;
      for (int64_t i = 0; i < count; ++i) {
        mass += tokens[i].first;
        last = tokens[i].second;
        if (mass > wanted) return last;
      }
    }
    return last;
  }

 private:
  struct Range {
    double mass;
    int64_t count;
  };

  // The beginning that ends in the first range for which ends(range) holds, before the first of its tokens for which
  // over(weight, mass with it) does.
  template <typename Ends, typename Over>
  Beginning until(Ends&& ends, Over&& over) {
    Beginning found;
    for (int64_t r = kRanges - 1; r > 0; --r) {
      const Range& range = at(r);
      if (!range.count) continue;
      if (!ends(range)) {
        found.mass += range.mass;
        continue;
      }
      found.range = r;
      for (const auto& [weight, token] : sorted(r)) {
        if (over(weight, found.mass + weight)) return found;
        found.mass += weight;
        ++found.inside;
      }
      return found;
    }
    return found;
  }

  // Whatever lies below the tail's border is counted when it is first asked for: seldom.
  const Range& at(int64_t r) {
    if (r < kTailRange && !tail_counted_) {
      count(0, n_, 1, kTailRange);
      tail_counted_ = true;
    }
    return ranges_[r];
  }

  // Counts the weights from `begin` to `end` that lie in ranges from `low` to `high`.
  void count(int64_t begin, int64_t end, int64_t low, int64_t high) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t r = range_of(weights_[i]);
      Range& range = ranges_[r >= low && r < high ? r : 0];  // range 0 is nobody's
      range.mass += weights_[i], ++range.count;
    }
  }

  const std::vector<std::pair<double, int64_t>>& sorted(int64_t range) {
    if (range != sorted_range_) {
      double low = lowest_in(range), high = lowest_in(range + 1);
      sorted_.clear();
      for (int64_t i = 0; i < n_; ++i)
        if (weights_[i] >= low && weights_[i] < high) sorted_.emplace_back(weights_[i], i);
      std::sort(sorted_.begin(), sorted_.end(), [](const auto& a, const auto& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
      });
      sorted_range_ = range;
    }
    return sorted_;
  }

  int64_t n_;
  double* weights_;
  Range ranges_[kRanges] = {};
  bool tail_counted_ = false;
  std::vector<std::pair<double, int64_t>> sorted_;
  int64_t sorted_range_ = -1;
  Beginning all_;
};

int64_t draw_by_likelihood(Likeliest& likeliest, int64_t n, const Choice& choice, double uniform) {
  Likeliest::Beginning kept = likeliest.all();
  if (choice.top_k > 0 && choice.top_k < n) kept = likeliest.first(choice.top_k);
  if (choice.top_p < 1) kept = std::min(kept, likeliest.reaching(choice.top_p * kept.mass));
  if (choice.min_p > 0) kept = std::min(kept, likeliest.at_least(choice.min_p));
  return likeliest.draw(kept, uniform);
}

bool adjusts(const Choice& c) {
  return c.repetition != 1 || c.presence != 0 || c.frequency != 0 || c.biased_count || c.allowed || c.barred_count;
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
  if (c.allowed)
    for (int64_t i = 0; i < n; ++i)
      if (!(c.allowed[i >> 3] >> (i & 7) & 1)) scores[i] = kNever;
  for (int64_t i = 0; i < c.barred_count; ++i) scores[c.barred[i]] = kNever;
}

}  // namespace

extern "C" {

int64_t engine_pick(const float* logits, int64_t n, const Choice* choice, double uniform) {
  const Choice& c = *choice;
  int64_t padded = round_up(n, 64);
  bool changed = adjusts(c);
  Scratch scratch(padded * (sizeof(double) + sizeof(float)));
  if (!scratch) return -1;
  double* weights = scratch.as<double>();
  float* scores = scratch.as<float>(padded * sizeof(double));
  if (changed) {
    std::memcpy(scores, logits, n * sizeof(float));
    adjust(scores, n, c);
    logits = scores;
  }
  if (c.temperature == 0) return first_of(logits, n, maximum(logits, n));
  try {
    if (c.top_p >= 1 && !(c.top_k > 0 && c.top_k < n)) return draw_in_order(logits, n, c, uniform, weights);
    Likeliest likeliest(logits, n, c.temperature, weights);
    return draw_by_likelihood(likeliest, n, c, uniform);
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

float engine_describe(const float* logits, int64_t n, int64_t token, int64_t count, int64_t* ids, float* logprobs) {
  Scratch weights(round_up(n, kBlock) * sizeof(double));
  if (!weights) return std::numeric_limits<float>::quiet_NaN();
  double sum = 0;
  each_block(logits, n, 1.0, weights.as<double>(), [&](int64_t, double block, double) { sum += block; });
  float highest = maximum(logits, n), log_sum = (float)std::log(sum);
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
}

int32_t engine_finite(const float* numbers, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!std::isfinite(numbers[i])) return 0;
  return 1;
}
}
