// Parameter structs across versions: what a caller filled in becomes what this library knows.
#pragma once

#include "core/types.h"
#include "mipruner/mipruner.h"

namespace mipruner::c_api {

// Copies what the caller has of the struct; the rest keeps its default. A struct of a newer header
// is accepted as long as everything this library does not know is zero: nothing asked for is ever
// ignored. NULL gives the defaults.
Status read_params(const mipruner_context_params* given, mipruner_context_params* params);
// Checks every member but always_keep, which needs the row count: see budget.h.
Status read_params(const mipruner_select_params* given, mipruner_select_params* params);

// Whether *result may be written: result is NULL or tells a size that some version had.
Status check_result(const mipruner_result* result);
// Writes as much of `values` as the caller's struct holds.
void write_result(const mipruner_result& values, mipruner_result* result);

}  // namespace mipruner::c_api
