// Relevance on a device: what the pass leaves in the workspace for selection, and its launcher.
#pragma once

#include "core/layout.h"
#include "core/operations.h"
#include "cuda/common/items.cuh"
#include "cuda/row_state.cuh"

namespace mipruner::cuda {

// R: flat rows of all items; M: items.words; B: items.
struct RelevanceWorkspace {
  int32_t splits;       // 1, or as many as there are depth chunks: parts of each dot product
  float* table;         // [splits, R, M] dot products; then [R, M]: logits or P(t | v) of the words
                        // that count, first in each row
  float* row_squares;   // [splits, R] sums of squares
  float* word_squares;  // [splits, B, M]
  uint8_t* state;       // [R] see row_state.cuh
  float* scale;         // [R] the power of two that brings a huge row into range; else 1
  float* inverse_norm;  // [R] 1 / max(length of the scaled row, eps * scale)
  float* row_values;    // [R] log-normalisers of the rows of the table
  int32_t* counted_words;    // [B]
  int32_t* word_list;        // [B, M] the words that count, ascending
  float* word_scale;         // [B, M] of the listed words
  float* word_inverse_norm;  // [B, M]
  // Sums in fixed point: integers add up to the same bits in any order, so that blocks may add in
  // whatever order they finish, and a row that does not count leaves no trace.
  unsigned long long* column_sums;    // [B, M]
  unsigned long long* row_value_sum;  // [B]
  unsigned long long* counted_rows;   // [B]
  uint32_t* column_maxima;            // [B, M] ordered keys
  uint32_t* row_value_maximum;        // [B]
};

Items items_of(const RelevanceProblem& problem);

// Refuses what the kernels have no room for: 2^22 rows and 2^22 words of one item, or of
// all segments, which sums in
// fixed point hold, rows of 2^24 elements, and grids of 2^31 blocks.
Status check_items(const Items& items);

RelevanceWorkspace take_relevance_workspace(Layout& layout, const Items& items);

// Scores of all items, [R] in nats, and the workspace's facts about their rows.
Status launch_relevance(const Items& items, DataType dtype, float temperature, Estimator estimator,
                        const RelevanceWorkspace& workspace, float* scores, void* stream);

}  // namespace mipruner::cuda
