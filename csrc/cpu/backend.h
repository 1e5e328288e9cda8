// The CPU backend, as the core's dispatch calls it. Arguments have been checked.
#pragma once

#include "core/operations.h"

namespace mipruner::cpu {

struct Kernels;

void normalize(const Kernels& kernels, const MatrixView& x, float eps, void* out,
               const Executor& executor);

size_t mutual_information_workspace_bytes(const RelevanceProblem& problem,
                                          const Executor& executor);
void mutual_information(const Kernels& kernels, const RelevanceProblem& problem, float* scores,
                        Workspace workspace, const Executor& executor);

void top_k(const ScoresView& scores, int64_t k, float* values, int64_t* indices,
           const Executor& executor);

size_t select_workspace_bytes(const SelectProblem& problem, const Executor& executor);
void select(const Kernels& kernels, const SelectProblem& problem, int64_t* indices, float* scores,
            Workspace workspace, const Executor& executor);

size_t select_varlen_workspace_bytes(const SelectVarlenProblem& problem, const Executor& executor);
void select_varlen(const Kernels& kernels, const SelectVarlenProblem& problem, int64_t* indices,
                   float* scores, Workspace workspace, const Executor& executor);

void gather_rows(const GatherProblem& problem, void* out, const Executor& executor);

}  // namespace mipruner::cpu
