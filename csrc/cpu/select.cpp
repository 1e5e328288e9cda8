// Select: relevance, then the top k or the greedy k.
#include <algorithm>
#include <limits>

#include "core/coverage.h"
#include "cpu/backend.h"
#include "cpu/greedy.h"
#include "cpu/mutual_information.h"
#include "cpu/top_k.h"

namespace mipruner::cpu {
namespace {

struct SelectScratch {
  BlockScratch* lanes;
  RelevanceScratch relevance;
  GreedyScratch greedy;  // only with redundancy
  float* finite_scores;  // [N] of the rows that count, in their order
  int64_t* positions;    // [N]
};

SelectScratch take_select_scratch(Layout& layout, const SelectProblem& problem,
                                  const Executor& executor) {
  SelectScratch scratch = {};
  const MatrixView& visual = problem.relevance.visual;
  // The lanes serve both passes: the tiles of words and, with redundancy, those of visual rows.
  const int64_t widest =
      std::max(problem.relevance.text.rows, problem.redundancy > 0 ? visual.rows : 0);
  scratch.lanes = take_lanes(layout, executor, tile_columns(visual.columns, widest));
  scratch.relevance = take_relevance_scratch(layout, problem.relevance, scratch.lanes);
  if (problem.redundancy > 0) {
    scratch.greedy = take_greedy_scratch(layout, problem);
    scratch.finite_scores = scratch.greedy.relevance;
  } else {
    scratch.finite_scores = layout.take<float>(visual.rows);
  }
  scratch.positions = layout.take<int64_t>(visual.rows);
  return scratch;
}

// Chooses `count` of the finite rows; returns their row numbers, ascending, in scratch.positions.
void choose_finite(const Kernels& kernels, const SelectProblem& problem, int64_t count,
                   const Executor& executor, SelectScratch* scratch) {
  const RowSet& rows = scratch->relevance.visual;
  int64_t* positions = scratch->positions;
  if (problem.redundancy > 0) {
    const bool text_free = scratch->relevance.text.count == 0;
    greedy(kernels, problem, rows, count, text_free, scratch->lanes, executor, &scratch->greedy);
    if (executor.cancelled()) return;  // fewer may have been chosen
    int64_t at = 0;
    for (int64_t i = 0; i < rows.count; ++i) {
      if (scratch->greedy.chosen[i]) positions[at++] = i;
    }
  } else {
    // Scores of rows that count are finite: what is covered beats them all.
    const int64_t covered = coverage_count(problem.coverage, count, rows.count);
    for (int64_t j = 0; j < covered; ++j) {
      scratch->finite_scores[coverage_position(j, covered, rows.count)] =
          std::numeric_limits<float>::infinity();
    }
    largest_positions(scratch->finite_scores, rows.count, count, positions);
  }
  for (int64_t j = 0; j < count; ++j) positions[j] = rows.index[positions[j]];
}

// Adds the first unmasked rows that are not finite, until `wanted` are chosen; returns how many
// are.
int64_t add_rows_not_finite(const SelectProblem& problem, int64_t item, const RowSet& finite,
                            int64_t chosen, int64_t wanted, int64_t* positions) {
  const MaskView& mask = problem.relevance.visual_mask;
  const int64_t first_added = chosen;
  int64_t next_finite = 0;
  for (int64_t i = 0; i < problem.relevance.visual.rows && chosen < wanted; ++i) {
    if (next_finite < finite.count && finite.index[next_finite] == i) {
      ++next_finite;
    } else if (!mask.data || mask.data[item * mask.batch_stride + i * mask.row_stride]) {
      positions[chosen++] = i;
    }
  }
  std::inplace_merge(positions, positions + first_added, positions + chosen);
  return chosen;
}

}  // namespace

size_t select_workspace_bytes(const SelectProblem& problem, const Executor& executor) {
  Layout layout;
  take_select_scratch(layout, problem, executor);
  return layout.used();
}

void select(const Kernels& kernels, const SelectProblem& problem, int64_t* indices, float* scores,
            Workspace workspace, const Executor& executor) {
  Layout layout(workspace.data);
  SelectScratch scratch = take_select_scratch(layout, problem, executor);
  const int64_t n = problem.relevance.visual.rows;
  const int64_t width = std::min(problem.k, n);
  for (int64_t item = 0; item < problem.relevance.visual.batch; ++item) {
    float* item_scores = scores + item * n;
    score_item(kernels, problem.relevance, item, executor, &scratch.relevance, item_scores);
    if (executor.cancelled()) return;
    const RowSet& rows = scratch.relevance.visual;
    for (int64_t i = 0; i < rows.count; ++i) scratch.finite_scores[i] = item_scores[rows.index[i]];
    int64_t chosen = std::min(width, rows.count);
    choose_finite(kernels, problem, chosen, executor, &scratch);
    if (executor.cancelled()) return;
    if (chosen < width)
      chosen = add_rows_not_finite(problem, item, rows, chosen, width, scratch.positions);
    int64_t* out = std::copy(scratch.positions, scratch.positions + chosen, indices + item * width);
    std::fill(out, indices + (item + 1) * width, int64_t{-1});
  }
}

}  // namespace mipruner::cpu
