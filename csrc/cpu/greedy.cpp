// Greedy selection: count times the row with the largest  relevance_i - lambda * sum over chosen k
// of r_ik.
//
// With r as METHOD defines it this is the chain rule I(v; T | S) = I(v; T) - I(v; S) for lambda
// = 1. Sums grow in the order of choice, ties go to the lower row. With coverage the covered rows
// are the first choices, in ascending order.
#include "cpu/greedy.h"

#include <algorithm>
#include <limits>

#include "core/coverage.h"

namespace mipruner::cpu {
namespace {

int64_t best_row(const float* values, const bool* chosen, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (!chosen[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  return best;
}

// Gains by which the covered rows are chosen first, the lower ones before the others; among the
// rest those of relevance, so that rows likely to follow have their similarities computed together.
void prefer_covered(const float* relevance, int64_t covered, int64_t n, float* gains) {
  std::copy(relevance, relevance + n, gains);
  for (int64_t j = 0; j < covered; ++j)
    gains[coverage_position(j, covered, n)] = std::numeric_limits<float>::max();
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
  const int64_t covered = coverage_count(problem.coverage, count, n);
  if (covered > 0) prefer_covered(scratch->relevance, covered, n, scratch->gains);
  for (int64_t step = 0; step < count; ++step) {
    if (covered == 0 && text_free && step == 0) {
      redundancy.representativeness(scratch->gains);
    } else if (step >= covered) {  // until then the gains stay as they are
      kernels.gains(scratch->relevance, scratch->sums, problem.redundancy, scratch->gains, n);
    }
    if (executor.ask_whether_cancelled()) return;  // the gains may be garbage
    const int64_t best = best_row(scratch->gains, scratch->chosen, n);
    scratch->chosen[best] = true;
    if (step + 1 < count) redundancy.add(best, scratch->gains, scratch->chosen, scratch->sums);
  }
}

}  // namespace mipruner::cpu
