// What became of a visual row.
#pragma once

#include <cstdint>

namespace mipruner::cuda {

constexpr uint8_t kRowMasked = 0;  // never selected
constexpr uint8_t kRowBroken = 1;  // holds NaN or Inf: selected only when no other row is left
constexpr uint8_t kRowCounts = 2;
constexpr uint8_t kRowCovered = 3;  // counts, and is selected before all others (core/coverage.h)

}  // namespace mipruner::cuda
