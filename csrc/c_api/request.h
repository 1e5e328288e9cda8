// The arguments of mipruner_select and mipruner_select_async, checked and put in the core's terms.
#pragma once

#include <vector>

#include "c_api/context.h"
#include "c_api/pointer.h"
#include "core/operations.h"

namespace mipruner::c_api {

struct Request {
  mipruner_select_params params;
  RelevanceProblem relevance;
  int64_t keep = 0;             // rows that will be kept
  std::vector<int64_t> always;  // of these, whatever they score; ascending
  bool on_device = false;

  int64_t rows() const { return relevance.visual.rows; }
  int64_t words() const { return relevance.text.rows; }
  // Nothing is pruned, so nothing has to be scored to know what is kept.
  bool keeps_all() const { return keep >= rows(); }
};

Status read_request(const mipruner_context& context, const mipruner_view* visual,
                    const mipruner_view* text, const mipruner_select_params* params,
                    Request* request);

// The caller's buffers for the `keep` indices and, where wanted, the scores of all rows.
Status check_capacity(int32_t capacity, int64_t keep);
template <class Index>
Status check_outputs(const Index* indices, int32_t capacity, const float* scores, int64_t keep) {
  if (Status status = check_capacity(capacity, keep); !status.ok()) return status;
  if (Status status = check_pointer("idx_out", indices, keep > 0); !status.ok()) return status;
  return check_pointer("scores_out", scores, false);
}

// The selection problem for `k` rows, its similarities limited to what is left of max_workspace
// beside `other_bytes`.
SelectProblem select_problem(const mipruner_context& context, const Request& request, int64_t k,
                             size_t other_bytes, const Executor& executor);

// Refuses a call that needs more scratch memory than the context allows.
Status check_workspace_limit(const mipruner_context& context, size_t bytes);

}  // namespace mipruner::c_api
