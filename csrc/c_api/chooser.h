// Which rows a request keeps: scoring and choosing, in the memory that the rows are in.
#pragma once

#include <vector>

#include "c_api/request.h"

namespace mipruner::c_api {

struct Choice {
  std::vector<int64_t> kept;      // ascending
  const float* scores = nullptr;  // [rows] in the context's host memory; nullptr: none were needed
  size_t workspace_bytes = 0;
};

// For a request with at least one row; on a device the context's own must be in use. Waits for the
// result.
Status choose(mipruner_context* context, const Request& request, Choice* choice);

}  // namespace mipruner::c_api
