// The likeliest tokens of one row in their order, the lower id first on a tie, without a list of them all.
//
// Weights are counted into narrow ranges of their logarithm, and only the ranges where a border falls are sorted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "weights.h"

// Weights in (2^-65, 1] by range: kSteps of them for each power of two. Range 0 holds what is never drawn.
constexpr int kStepBits = 6;
constexpr int64_t kSteps = 1 << kStepBits;
constexpr int64_t kLowest = (1023 - 66) * kSteps;  // the exponent of a double begins at bit 52 and is 1023 for 1
constexpr int64_t kRanges = 1023 * kSteps - kLowest + 1;
constexpr double kTail = -13.862943611198906;  // ln 2^-20: of weights below it nearly always only the sum is needed
constexpr int64_t kTailRange = (1023 - 20) * kSteps - kLowest;

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

  // `weights` holds those of all blocks of `row`, whose sum is `mass`.
  Likeliest(const Weights& row, const double* weights, double mass) : row_(row), weights_(weights) {
    all_.mass = mass;
    for (int64_t b = 0; b < row.blocks(); ++b)
      if (!row.below(b, kTail)) count(b, kTailRange, kRanges);
  }

  const Beginning& all() const { return all_; }

  Beginning first(double count) {
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
        mass += tokens[i].weight;
        last = tokens[i].id;
        if (mass > wanted) return last;
      }
    }
    return last;
  }

 private:
  struct alignas(16) Range {
    double mass, count;  // of its tokens, added to together
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
      for (const Token& token : sorted(r)) {
        if (over(token.weight, found.mass + token.weight)) return found;
        found.mass += token.weight;
        ++found.inside;
      }
      return found;
    }
    return found;
  }

  // Whatever lies below the tail's border is counted when it is first asked for: seldom.
  const Range& at(int64_t r) {
    if (r < kTailRange && !tail_counted_) {
      for (int64_t b = 0; b < row_.blocks(); ++b) count(b, 1, kTailRange);
      tail_counted_ = true;
    }
    return ranges_[r];
  }

  // Counts the weights of a block that lie in ranges from `low` to `high`.
  void count(int64_t block, int64_t low, int64_t high) {
    const double* weights = weights_ + block * kBlock;
    int64_t ranges[kBlock];
    for (int64_t j = 0; j < kBlock; j += kDoubles) {
      vlong range = (load<vlong>(weights + j) >> (52 - kStepBits)) - kLowest;
      store(ranges + j, range & (range >= low) & (range < high));  // range 0 is nobody's
    }
    for (int64_t j = 0; j < kBlock; ++j) {
      typedef double vpair __attribute__((vector_size(16)));
      Range* range = ranges_ + ranges[j];
      store(range, load<vpair>(range) + vpair{weights[j], 1});
    }
  }

  const std::vector<Token>& sorted(int64_t range) {
    if (range != sorted_range_) {
      double low = lowest_in(range), high = lowest_in(range + 1);
      sorted_.clear();
      double least = std::log(low) - 1e-6;
      for (int64_t b = 0; b < row_.blocks(); ++b) {
        if (row_.below(b, least)) continue;
        for (int64_t i = b * kBlock; i < (b + 1) * kBlock; i += kDoubles) {
          vdouble w = load<vdouble>(weights_ + i);
          if (!any((w >= low) & (w < high))) continue;
          for (int64_t j = i; j < i + kDoubles; ++j)
            if (weights_[j] >= low && weights_[j] < high) sorted_.push_back({weights_[j], j});
        }
      }
      std::sort(sorted_.begin(), sorted_.end());
      sorted_range_ = range;
    }
    return sorted_;
  }

  const Weights& row_;
  const double* weights_;
  Range ranges_[kRanges] = {};
  bool tail_counted_ = false;
  std::vector<Token> sorted_;
  int64_t sorted_range_ = -1;
  Beginning all_;
};
