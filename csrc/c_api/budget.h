// How many rows are kept, and which of them whatever their score.
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.h"
#include "mipruner/mipruner.h"

namespace mipruner::c_api {

// min(n, max(1, floor(ratio * n + 0.5))); the arguments have been checked.
int64_t keep_count(int64_t n, double ratio);

// The rows that a selection with these checked parameters keeps of n.
int64_t count_kept(const mipruner_select_params& params, int64_t n);

// The rows to keep whatever they score, ascending and each once; at most `most` of the n rows.
Status read_always_keep(const mipruner_select_params& params, int64_t n, int64_t most,
                        std::vector<int64_t>* rows);

}  // namespace mipruner::c_api
