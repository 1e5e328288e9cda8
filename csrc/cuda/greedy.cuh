// Greedy selection on a device: relevance minus redundancy with what was chosen before.
#pragma once

#include <cstdint>

#include "core/layout.h"
#include "core/types.h"
#include "cuda/common/items.cuh"
#include "cuda/quota.cuh"

namespace mipruner::cuda {

// What is selected from: the facts that the relevance pass left, and the budget.
struct GreedyProblem {
  Items items;
  DataType dtype;
  float temperature;
  float redundancy;           // lambda
  double coverage;            // share of the quota that coverage chooses first
  const uint8_t* state;       // [R] flat rows, see row_state.cuh
  const float* inverse_norm;  // [R]
  const float* scale;         // [R]
  const float* scores;        // [R] relevance in nats
  Quota quota;
  const int32_t* counted_words;  // [items]; 0: text-free mode
  bool absolute;                 // flat row numbers, not local ones
};

// Rows that count are listed; a position is a place in the list of its item. The arrays over
// positions begin at the item's first flat row.
struct GreedyWorkspace {
  int32_t splits;        // 1, or as many as there are chunks of positions: parts of each sum
  int64_t table_size;    // floats
  int32_t* list;         // [R] local row at each position
  int32_t* counted;      // [B] length of the list
  uint8_t* any_huge;     // [B] whether a listed row has a scale
  int64_t* table_begin;  // [B] where the item's similarities are stored; -1: they are not
  float* part_maxima;    // [splits, R]
  float* part_sums;      // [splits, R]
  float* normalizers;    // [R] log of the sum over k != i of exp(q_ik / tau)
  float* sums;           // [R] redundancy with the rows chosen so far; -1 for chosen ones
  float* similarity;     // [R] a row of similarities that was computed anew
  uint8_t* chosen;       // [R] by local row
  float* table;          // [n, n] q_ik / tau by position for each stored item, rows row_count apart
};

GreedyWorkspace take_greedy_workspace(Layout& layout, const Items& items, int64_t similarity_bytes);

// For every item its quota of rows, chosen greedily, after those that coverage chooses: ascending;
// broken rows, the lowest first, only when all rows that count are kept; masked rows never: -1 in
// the places left over.
Status launch_greedy(const GreedyProblem& problem, const GreedyWorkspace& workspace,
                     int64_t* indices, void* stream);

}  // namespace mipruner::cuda
