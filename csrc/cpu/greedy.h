// Greedy selection with redundancy: relevance by chain rule, one row at a time.
#pragma once

#include "cpu/redundancy.h"

namespace mipruner::cpu {

struct GreedyScratch {
  RedundancyScratch redundancy;
  float* relevance;  // [N] of the rows that count, in their order: the caller fills it
  float* sums;       // [N] redundancy with the rows chosen so far
  float* gains;      // [N]
  bool* chosen;      // [N]
};

GreedyScratch take_greedy_scratch(Layout& layout, const SelectProblem& problem);

// Chooses `count` <= rows.count of the measured rows and marks them in scratch.chosen. In text-free
// mode the first choice, unless coverage makes it, is the row that represents the others best.
void greedy(const Kernels& kernels, const SelectProblem& problem, const RowSet& rows, int64_t count,
            bool text_free, const BlockScratch* lanes, const Executor& executor,
            GreedyScratch* scratch);

}  // namespace mipruner::cpu
