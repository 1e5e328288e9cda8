#pragma once

#include <cstddef>
#include <cstdint>

#include "core/types.h"

namespace mipruner::c_api {

// The arguments that gathering on the host and on a device share.
struct GatherArguments {
  const void* dst;
  const void* src;
  int64_t n_rows;
  size_t row_bytes;
  size_t src_stride;  // 0: row_bytes; resolved by check_gather_arguments
  int32_t n_idx;
};

// Everything but idx, and but the places of dst and src.
Status check_gather_arguments(GatherArguments* arguments);

// Whether dst and src, checked before, share memory.
bool overlap(const GatherArguments& arguments);

}  // namespace mipruner::c_api
