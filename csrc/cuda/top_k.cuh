// The k largest scores of every item, as select needs them: by state of the row, per item k.
#pragma once

#include <cstdint>

#include "core/types.h"
#include "cuda/common/items.cuh"
#include "cuda/quota.cuh"

namespace mipruner::cuda {

// For every item its quota of best rows, ascending, ties to the lower row. Covered rows come first;
// then rows that count, by score; then broken rows, the lowest first; masked rows never: -1 fills
// the places that are left over. Row numbers are local to the item, or flat ones if `absolute`.
// scores and state are [flat rows].
Status launch_select_top_k(const Items& items, const float* scores, const uint8_t* state,
                           const Quota& quota, bool absolute, int64_t* indices, void* stream);

}  // namespace mipruner::cuda
