// Greedy selection: count times the row with the largest  relevance_i - lambda * sum over chosen k
// of r_ik.
//
// With r as METHOD defines it this is the chain rule I(v; T | S) = I(v; T) - I(v; S) for lambda
// = 1. Sums grow in the order of choice, ties go to the lower row.
#include "cpu/greedy.h"

#include <algorithm>
#include <limits>

namespace mipruner::cpu {
namespace {

int64_t best_row(const float* values, const bool* chosen, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (!chosen[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

}  // namespace

GreedyScratch take_greedy_scratch(Layout& layout, const SelectProblem& problem) {
  const int64_t rows = problem.relevance.visual.rows;
  GreedyScratch scratch;
  scratch.redundancy =
      take_redundancy_scratch(layout, problem.relevance.visual, problem.similarity_bytes);
  scratch.relevance = layout.take<float>(rows);
  scratch.sums = layout.take<float>(rows);
  scratch.gains = layout.take<float>(rows);
  scratch.chosen = layout.take<bool>(rows);
  return scratch;
}

void greedy(const Kernels& kernels, const SelectProblem& problem, const RowSet& rows, int64_t count,
            bool text_free, const BlockScratch* lanes, const Executor& executor,
            GreedyScratch* scratch) {
  const int64_t n = rows.count;
  std::fill(scratch->sums, scratch->sums + n, 0.0f);
  std::fill(scratch->chosen, scratch->chosen + n, count >= n);
  if (count >= n) return;  // everything is kept: no need to know in which order
  Redundancy redundancy(kernels, rows, problem.relevance.temperature, lanes, executor,
                        &scratch->redundancy);
  redundancy.prepare();
  for (int64_t step = 0; step < count; ++step) {
    if (text_free && step == 0) {
      redundancy.representativeness(scratch->gains);
    } else {
      kernels.gains(scratch->relevance, scratch->sums, problem.redundancy, scratch->gains, n);
    }
    if (executor.ask_whether_cancelled()) return;  // the gains may be garbage
    const int64_t best = best_row(scratch->gains, scratch->chosen, n);
    scratch->chosen[best] = true;
    if (step + 1 < count) redundancy.add(best, scratch->gains, scratch->chosen, scratch->sums);
  }
}

}  // namespace mipruner::cpu
