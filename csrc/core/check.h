// Argument checks shared by all backends. Each returns the first fault found; nothing is written
// before all of an operation's checks have passed.
#pragma once

#include "core/operations.h"

namespace mipruner {

Status check_normalize(const MatrixView& x, float eps);
Status check_relevance(const RelevanceProblem& problem, bool text_may_be_empty);
Status check_top_k(const ScoresView& scores, int64_t k);
Status check_select(const SelectProblem& problem);
// Also reads the offsets and ranges where they are in host memory.
Status check_select_varlen(const SelectVarlenProblem& problem);
// Also reads the indices where they are in host memory.
Status check_gather(const GatherProblem& problem);
Status check_executor(const Executor& executor);
// `count` results are to be written to `output`.
Status check_output(const char* name, const void* output, int64_t count);
Status check_workspace(const Workspace& workspace, size_t needed);

}  // namespace mipruner
