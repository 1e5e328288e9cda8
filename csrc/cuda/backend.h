// The CUDA backend, as the core's dispatch calls it. Arguments have been checked; all pointers are
// device memory of the current device, but for SelectVarlenProblem::k.
//
// Every entry only launches kernels on `stream` (a cudaStream_t): it allocates nothing, never waits
// for the device, and launches the same number of kernels whatever the sizes, so that it may be
// captured in a CUDA graph. A failing launch is a status (kBackend) with CUDA's own words.
#pragma once

#include "core/operations.h"

namespace mipruner::cuda {

Status normalize(const MatrixView& x, float eps, void* out, void* stream);

size_t mutual_information_workspace_bytes(const RelevanceProblem& problem);
Status mutual_information(const RelevanceProblem& problem, float* scores, Workspace workspace,
                          void* stream);

Status top_k(const ScoresView& scores, int64_t k, float* values, int64_t* indices, void* stream);

size_t select_workspace_bytes(const SelectProblem& problem);
Status select(const SelectProblem& problem, int64_t* indices, float* scores, Workspace workspace,
              void* stream);

size_t select_varlen_workspace_bytes(const SelectVarlenProblem& problem);
Status select_varlen(const SelectVarlenProblem& problem, int64_t* indices, float* scores,
                     Workspace workspace, void* stream);

Status gather_rows(const GatherProblem& problem, void* out, void* stream);

}  // namespace mipruner::cuda
