#pragma once

#include <cstdint>

namespace mipruner::cpu {

// The count largest of n scores by ascending position, ties to the lower position; NaN counts as
// -inf and -0.0 as +0.0. positions [count], 0 <= count <= n.
void largest_positions(const float* scores, int64_t n, int64_t count, int64_t* positions);

}  // namespace mipruner::cpu
