// Relevance of one item's visual rows, with what greedy selection needs to go on from there.
#pragma once

#include "core/operations.h"
#include "cpu/similarity.h"

namespace mipruner::cpu {

struct RelevanceScratch {
  RowSet visual;  // after score_item: the finite, unmasked rows, measured
  RowSet text;    // likewise
  Tile tile;      // packed text rows
  const BlockScratch* lanes;
  float* table;            // [N, M] logits, then probabilities
  float* row_values;       // [N] log-normalisers of the rows
  float* column_partials;  // [chunks, M]
  float* column_values;    // [M]
};

// Column sums are sums of chunk sums in a fixed order; the chunks depend on the row count alone.
constexpr int64_t kLargestChunkCount = 1024;
constexpr int64_t kPartialFloats = int64_t{1} << 20;  // 4 MB of partial columns
constexpr int64_t kSmallestChunk = 64;

// `lanes` must fit tiles of tile_columns(D, M).
RelevanceScratch take_relevance_scratch(Layout& layout, const RelevanceProblem& problem,
                                        const BlockScratch* lanes);

// Writes scores[N] of one item. Without a text row that counts, every row that counts scores 0.
void score_item(const Kernels& kernels, const RelevanceProblem& problem, int64_t item,
                const Executor& executor, RelevanceScratch* scratch, float* scores);

}  // namespace mipruner::cpu
