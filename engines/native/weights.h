// What the tokens of one row of logits weigh, e^((logit - highest) / temperature) in double precision, a block at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "simd.h"

constexpr int kDoubles = kLanes / 2;
typedef double vdouble __attribute__((vector_size(kDoubles * 8)));
typedef int64_t vlong __attribute__((vector_size(kDoubles * 8)));
typedef float vhalf __attribute__((vector_size(kDoubles * 4)));

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr double kCut = -45;  // e^-45 of the likeliest token's weight: all below it together are never drawn
constexpr int64_t kBlock = 64;  // tokens that are looked at together
constexpr int64_t kVectors = kBlock / kDoubles;

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

template <typename V>
inline bool any(V lanes) {
  V none = {};
  return std::memcmp(&lanes, &none, sizeof lanes) != 0;
}

// A token with its weight; the likelier one comes first, the lower id on a tie.
struct Token {
  double weight;
  int64_t id;
  bool operator<(const Token& other) const { return weight != other.weight ? weight > other.weight : id < other.id; }
};

class Weights {
 public:
  // Finds the largest logit of each block, the first of which begins at token 0 and the last of which may be short.
  Weights(const float* logits, int64_t n, double temperature)
      : logits_(logits), n_(n), scale_(1 / temperature), largest_((n + kBlock - 1) / kBlock) {
    for (int64_t b = 0; b < blocks(); ++b) {
      float end[kBlock];
      const float* row = row_of(b, end);
      vfloat most = load<vfloat>(row);
      for (int64_t j = kLanes; j < kBlock; j += kLanes) most = vmax(load<vfloat>(row + j), most);
      float found = largest(most);
      largest_[b] = found > kNever ? found : kNever;  // which it is not where it is no number
      highest_ = std::max(highest_, largest_[b]);
    }
  }

  int64_t tokens() const { return n_; }
  int64_t blocks() const { return (int64_t)largest_.size(); }
  float highest() const { return highest_; }
  const std::vector<float>& largest_of_blocks() const { return largest_; }

  // Whether no token of a block weighs as much as e^least.
  bool below(int64_t block, double least) const {
    return !(((double)largest_[block] - highest_) * scale_ >= least);
  }

  // Fills `weights`, of kBlock tokens, 0 where a weight is below e^kCut or where there is no token; returns their sum.
  double weigh(int64_t block, double* weights) const {
    float end[kBlock];
    const float* row = row_of(block, end);
    vdouble sums[4] = {};
    for (int64_t v = 0; v < kVectors; ++v) {
      vdouble x = (__builtin_convertvector(load<vhalf>(row + v * kDoubles), vdouble) - (double)highest_) * scale_;
      vlong counts = x >= kCut;
      vdouble w = (vdouble)((vlong)exp_double(x) & counts);
      store(weights + v * kDoubles, w);
      sums[v % 4] += w;
    }
    vdouble sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double total = 0;
    for (int j = 0; j < kDoubles; ++j) total += sum[j];
    return total;
  }

  // The logits of a block; `end` has room for them where they are not all there.
  const float* row_of(int64_t block, float* end) const {
    const float* row = logits_ + block * kBlock;
    if ((block + 1) * kBlock <= n_) return row;
    std::fill(std::copy(row, logits_ + n_, end), end + kBlock, kNever);
    return end;
  }

 private:
  const float* logits_;
  int64_t n_;
  double scale_;
  float highest_ = kNever;
  std::vector<float> largest_;
};
