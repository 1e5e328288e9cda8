// The k largest scores of every item, as select needs them: by state of the row, per item k.
#pragma once

#include <cstdint>

#include "core/types.h"
#include "cuda/common/items.cuh"

namespace mipruner::cuda {

// For every item b, the k[b] best of its rows in indices[out_offsets[b] .. out_offsets[b + 1]),
// ascending, ties to the lower row. Rows that count come first, by score; then broken rows, the
// lowest first; masked rows never: -1 fills the places that are left over. Row numbers are local to
// the item, or flat ones if `absolute`. scores and state are [flat rows]; k [items] and out_offsets
// [items + 1] are in device memory.
Status launch_select_top_k(const Items& items, const float* scores, const uint8_t* state,
                           const int64_t* k, const int64_t* out_offsets, bool absolute,
                           int64_t* indices, void* stream);

}  // namespace mipruner::cuda
