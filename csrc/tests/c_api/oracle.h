// The method in float64, for results to be compared with. Written from the formulas of the README's
// "What it computes", without a look at the kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "rows.h"

namespace mipruner::tests {

struct Task {
  int32_t estimator = MIPRUNER_ESTIMATOR_SPECIFIC;
  double temperature = 0.1;
  double redundancy = 0.0;
  double coverage = 0.0;
  int64_t keep = 1;
  std::vector<int32_t> always_keep;
};

struct Expected {
  std::vector<double> scores;  // -inf for rows that are not finite
  std::vector<int32_t> kept;   // ascending
  // By how much the closest decision was won. Where it is below what float32 can tell, another
  // choice would be as good.
  double margin;
};

// problem.text may have no rows: then there is redundancy.
Expected expected_selection(const Problem& problem, const Task& task);

}  // namespace mipruner::tests
