// Checks the arguments, then hands the work to the backend of the device the data is on.
#include "core/operations.h"

#include "core/check.h"
#include "cpu/backend.h"
#include "cpu/dispatch.h"
#include "cuda/backend.h"

namespace mipruner {
namespace {

// The device of the data, or the reason why this build cannot work there.
Status check_device(Device device) {
  if (device == Device::kCpu || has_cuda()) return {};
  return error(StatusCode::kNotSupported,
               "device: got a CUDA tensor, but this build has no CUDA kernels; move it to the CPU "
               "(tensor.cpu())");
}

// Where every row is kept there is nothing to choose, and redundancy, which compares every pair of
// rows, need not be worked out.
SelectProblem without_idle_choice(SelectProblem problem) {
  if (problem.k >= problem.relevance.visual.rows) problem.redundancy = 0;
  return problem;
}

// The status of work that has returned.
Status outcome(const Executor& executor) {
  if (!executor.cancelled()) return {};
  return error(StatusCode::kAborted, "aborted: the abort callback returned true");
}

}  // namespace

Status normalize(const MatrixView& x, float eps, void* out, const Executor& executor) {
  if (Status status = check_normalize(x, eps); !status.ok()) return status;
  if (Status status = check_executor(executor); !status.ok()) return status;
  const int64_t results = x.batch * x.rows * x.columns;
  if (Status status = check_output("out", out, results); !status.ok()) return status;
  if (Status status = check_device(x.device); !status.ok()) return status;
  if (x.device == Device::kCuda) return cuda::normalize(x, eps, out, executor.stream);
  const cpu::Kernels* kernels = nullptr;
  if (Status status = cpu::active_kernels(&kernels); !status.ok()) return status;
  cpu::normalize(*kernels, x, eps, out, executor);
  return outcome(executor);
}

size_t mutual_information_workspace_bytes(const RelevanceProblem& problem,
                                          const Executor& executor) {
  if (!check_relevance(problem, false).ok() || !check_executor(executor).ok())
    return 0;  // the call itself will say why
  if (problem.visual.device == Device::kCuda)
    return cuda::mutual_information_workspace_bytes(problem);
  return cpu::mutual_information_workspace_bytes(problem, executor);
}

Status mutual_information(const RelevanceProblem& problem, float* scores, Workspace workspace,
                          const Executor& executor) {
  if (Status status = check_relevance(problem, false); !status.ok()) return status;
  if (Status status = check_executor(executor); !status.ok()) return status;
  const int64_t results = problem.visual.batch * problem.visual.rows;
  if (Status status = check_output("scores", scores, results); !status.ok()) return status;
  if (Status status = check_device(problem.visual.device); !status.ok()) return status;
  const size_t needed = mutual_information_workspace_bytes(problem, executor);
  if (Status status = check_workspace(workspace, needed); !status.ok()) return status;
  if (problem.visual.device == Device::kCuda)
    return cuda::mutual_information(problem, scores, workspace, executor.stream);
  const cpu::Kernels* kernels = nullptr;
  if (Status status = cpu::active_kernels(&kernels); !status.ok()) return status;
  cpu::mutual_information(*kernels, problem, scores, workspace, executor);
  return outcome(executor);
}

size_t top_k_workspace_bytes(const ScoresView& /*scores*/, int64_t /*k*/,
                             const Executor& /*executor*/) {
  return 0;
}

Status top_k(const ScoresView& scores, int64_t k, float* values, int64_t* indices,
             Workspace /*workspace*/, const Executor& executor) {
  if (Status status = check_top_k(scores, k); !status.ok()) return status;
  if (Status status = check_executor(executor); !status.ok()) return status;
  const int64_t results = scores.batch * scores.columns;
  if (Status status = check_output("values", values, results); !status.ok()) return status;
  if (Status status = check_output("indices", indices, results); !status.ok()) return status;
  if (Status status = check_device(scores.device); !status.ok()) return status;
  if (scores.device == Device::kCuda)
    return cuda::top_k(scores, k, values, indices, executor.stream);
  cpu::top_k(scores, k, values, indices, executor);
  return outcome(executor);
}

size_t select_workspace_bytes(const SelectProblem& problem, const Executor& executor) {
  if (!check_select(problem).ok() || !check_executor(executor).ok()) return 0;
  const SelectProblem needed = without_idle_choice(problem);
  if (problem.relevance.visual.device == Device::kCuda) return cuda::select_workspace_bytes(needed);
  return cpu::select_workspace_bytes(needed, executor);
}

Status select(const SelectProblem& problem, int64_t* indices, float* scores, Workspace workspace,
              const Executor& executor) {
  if (Status status = check_select(problem); !status.ok()) return status;
  if (Status status = check_executor(executor); !status.ok()) return status;
  const int64_t results = problem.relevance.visual.batch * problem.relevance.visual.rows;
  if (Status status = check_output("indices", indices, results); !status.ok()) return status;
  if (Status status = check_output("scores", scores, results); !status.ok()) return status;
  if (Status status = check_device(problem.relevance.visual.device); !status.ok()) return status;
  const size_t needed = select_workspace_bytes(problem, executor);
  if (Status status = check_workspace(workspace, needed); !status.ok()) return status;
  const SelectProblem chosen = without_idle_choice(problem);
  if (problem.relevance.visual.device == Device::kCuda)
    return cuda::select(chosen, indices, scores, workspace, executor.stream);
  const cpu::Kernels* kernels = nullptr;
  if (Status status = cpu::active_kernels(&kernels); !status.ok()) return status;
  cpu::select(*kernels, chosen, indices, scores, workspace, executor);
  return outcome(executor);
}

size_t select_varlen_workspace_bytes(const SelectVarlenProblem& problem, const Executor& executor) {
  if (!check_select_varlen(problem).ok() || !check_executor(executor).ok()) return 0;
  if (problem.visual.device == Device::kCuda) return cuda::select_varlen_workspace_bytes(problem);
  return cpu::select_varlen_workspace_bytes(problem, executor);
}

Status select_varlen(const SelectVarlenProblem& problem, int64_t* indices, float* scores,
                     Workspace workspace, const Executor& executor) {
  if (Status status = check_select_varlen(problem); !status.ok()) return status;
  if (Status status = check_executor(executor); !status.ok()) return status;
  if (Status status = check_output("indices", indices, problem.segments); !status.ok())
    return status;
  if (Status status = check_output("scores", scores, problem.visual.rows); !status.ok())
    return status;
  if (Status status = check_device(problem.visual.device); !status.ok()) return status;
  const size_t needed = select_varlen_workspace_bytes(problem, executor);
  if (Status status = check_workspace(workspace, needed); !status.ok()) return status;
  if (problem.visual.device == Device::kCuda)
    return cuda::select_varlen(problem, indices, scores, workspace, executor.stream);
  const cpu::Kernels* kernels = nullptr;
  if (Status status = cpu::active_kernels(&kernels); !status.ok()) return status;
  cpu::select_varlen(*kernels, problem, indices, scores, workspace, executor);
  return outcome(executor);
}

Status gather_rows(const GatherProblem& problem, void* out, const Executor& executor) {
  if (Status status = check_gather(problem); !status.ok()) return status;
  if (Status status = check_executor(executor); !status.ok()) return status;
  const int64_t results = problem.batch * problem.count * problem.row_bytes;
  if (Status status = check_output("out", out, results); !status.ok()) return status;
  if (Status status = check_device(problem.device); !status.ok()) return status;
  if (problem.device == Device::kCuda) return cuda::gather_rows(problem, out, executor.stream);
  cpu::gather_rows(problem, out, executor);
  return outcome(executor);
}

const char* version() { return MIPRUNER_VERSION; }

}  // namespace mipruner
