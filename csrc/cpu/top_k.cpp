// The k largest scores, by radix selection.
//
// Method: a score becomes an unsigned key of the same order. Three passes over digits of 11, 11 and
// 10 bits find the key of the k-th largest score (scores share their exponents, so narrower digits
// would crowd a few bins); one last pass in order takes every larger key and as many equal ones as
// are still missing. Positions come out ascending, ties go to the lower one, and nothing is sorted.
#include "cpu/top_k.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/parallel.h"
#include "cpu/backend.h"

namespace mipruner::cpu {
namespace {

uint32_t key_of(float score) {
  if (score != score) score = -std::numeric_limits<float>::infinity();
  score += 0.0f;  // -0.0 becomes +0.0
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof(bits));
  // Negative numbers: flip all bits, so that larger magnitudes come first; others: only the sign.
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Threshold {
  uint32_t key;   // of the k-th largest score
  int64_t equal;  // how many scores with exactly this key are wanted
};

Threshold find_threshold(const float* scores, int64_t n, int64_t count) {
  constexpr int kShifts[] = {21, 10, 0};
  constexpr int kBits[] = {11, 11, 10};
  Threshold threshold = {0, count};
  uint32_t known = 0;  // mask of the digits already decided
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = kShifts[pass];
    const uint32_t digits = uint32_t{1} << kBits[pass];
    int64_t histogram[2048] = {};
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t key = key_of(scores[i]);
      if ((key & known) == threshold.key) ++histogram[(key >> shift) & (digits - 1)];
    }
    uint32_t digit = digits - 1;
    while (histogram[digit] < threshold.equal) threshold.equal -= histogram[digit--];
    threshold.key |= digit << shift;
    known |= (digits - 1) << shift;
  }
  return threshold;
}

}  // namespace

void largest_positions(const float* scores, int64_t n, int64_t count, int64_t* positions) {
  if (count == 0) return;
  const Threshold threshold = find_threshold(scores, n, count);
  int64_t equal = threshold.equal;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = key_of(scores[i]);
    if (key < threshold.key || (key == threshold.key && equal-- <= 0)) continue;
    *positions++ = i;
  }
}

void top_k(const ScoresView& scores, int64_t k, float* values, int64_t* indices,
           const Executor& executor) {
  const int64_t width = std::min(k, scores.columns);
  for_each_task(executor, scores.batch, [&](int64_t item, int64_t) {
    const float* row = scores.data + item * scores.batch_stride;
    int64_t* out = indices + item * width;
    largest_positions(row, scores.columns, width, out);
    for (int64_t j = 0; j < width; ++j) {
      const float value = row[out[j]];
      values[item * width + j] = value == value ? value : -std::numeric_limits<float>::infinity();
    }
  });
}

}  // namespace mipruner::cpu
