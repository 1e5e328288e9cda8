// Select on segments of one pool of rows: each segment is a select of its own, on views into the
// pool.
#include <algorithm>
#include <limits>

#include "cpu/backend.h"

namespace mipruner::cpu {
namespace {

// Rows [first, first + count) of a matrix.
MatrixView rows_of(const MatrixView& matrix, int64_t first, int64_t count) {
  MatrixView part = matrix;
  part.rows = count;
  const int64_t bytes =
      first * matrix.row_stride * static_cast<int64_t>(element_size(matrix.dtype));
  if (count > 0) part.data = static_cast<const char*>(matrix.data) + bytes;
  return part;
}

SelectProblem segment_problem(const SelectVarlenProblem& problem, int64_t segment) {
  const int64_t* offsets = problem.visual_offsets + segment;
  const int64_t* range = problem.text_ranges + 2 * segment;
  SelectProblem part;
  part.relevance.visual = rows_of(problem.visual, offsets[0], offsets[1] - offsets[0]);
  part.relevance.text = rows_of(problem.text, range[0], range[1] - range[0]);
  part.relevance.temperature = problem.temperature;
  part.relevance.estimator = problem.estimator;
  part.k = problem.k[segment];
  // A segment that is kept whole leaves nothing to choose (core/operations.cpp).
  part.redundancy = part.k < part.relevance.visual.rows ? problem.redundancy : 0;
  part.coverage = problem.coverage;
  part.similarity_bytes = problem.similarity_bytes;
  return part;
}

}  // namespace

size_t select_varlen_workspace_bytes(const SelectVarlenProblem& problem, const Executor& executor) {
  size_t bytes = 0;
  for (int64_t s = 0; s < problem.segments; ++s)
    bytes = std::max(bytes, cpu::select_workspace_bytes(segment_problem(problem, s), executor));
  return bytes;
}

void select_varlen(const Kernels& kernels, const SelectVarlenProblem& problem, int64_t* indices,
                   float* scores, Workspace workspace, const Executor& executor) {
  // For the rows that are in no segment.
  std::fill(scores, scores + problem.visual.rows, -std::numeric_limits<float>::infinity());
  for (int64_t s = 0; s < problem.segments; ++s) {
    const SelectProblem part = segment_problem(problem, s);
    const int64_t first = problem.visual_offsets[s];
    cpu::select(kernels, part, indices, scores + first, workspace, executor);
    const int64_t width = std::min(part.k, part.relevance.visual.rows);
    for (int64_t j = 0; j < width; ++j) {
      if (indices[j] >= 0) indices[j] += first;
    }
    std::fill(indices + width, indices + part.k, int64_t{-1});
    indices += part.k;
  }
}

}  // namespace mipruner::cpu
