// Blocks of raw dot products between two row sets: what relevance and redundancy have in common.
//
// Method: up to kTileColumns rows of one set are packed into panels that stay in the cache; the
// other set passes by in blocks of kBlockRows rows, staged kDepthChunk elements at a time.
#pragma once

#include "core/executor.h"
#include "cpu/row_set.h"

namespace mipruner::cpu {

constexpr int64_t kBlockRows = 48;
constexpr int64_t kTileColumns = 256;
constexpr int64_t kTileBytes = int64_t{8} << 20;
// Bytes from one staged row to the next: the padding keeps rows from falling into the same cache
// sets.
constexpr int64_t kStagedStride = kDepthChunk * 4 + 64;
constexpr int64_t kStagedRows = kBlockRows > kLargestPanel ? kBlockRows : kLargestPanel;
constexpr float kNormEps = 1e-12f;  // of the normalisation inside scores; norms below count as this

// Private to one lane.
struct BlockScratch {
  char* staged;  // [kStagedRows] rows of kStagedStride bytes
  float* dots;   // [kBlockRows, tile.capacity]
};

struct Tile {
  void* panels = nullptr;
  int64_t capacity = 0;  // columns it can hold
  int64_t count = 0;     // columns it holds
  int64_t panel_bytes = 0;
};

// Columns per tile for rows of this width: as many as fit kTileBytes, a multiple of kLargestPanel.
int64_t tile_columns(int64_t columns, int64_t wanted);

Tile take_tile(Layout& layout, int64_t columns, int64_t wanted);
// One scratch for each lane of the executor, for tiles of up to tile_capacity columns.
BlockScratch* take_lanes(Layout& layout, const Executor& executor, int64_t tile_capacity);

inline const Product& product_for(const Kernels& kernels, DataType dtype) {
  return dtype == DataType::kBFloat16 ? kernels.bfloat16_product : kernels.float_product;
}

// Measures every row of a set: scale and inverse_norm.
void measure_rows(const Kernels& kernels, RowSet* rows, const BlockScratch* lanes,
                  const Executor& executor);

// Packs rows[first, first + count) as the tile's columns. The rows have been measured.
void pack_tile(const Product& product, const RowSet& rows, int64_t first, int64_t count, Tile* tile,
               const BlockScratch* lanes, const Executor& executor);

// dots[i, j] = scaled row (first + i) . tile column j, for the panels from `first_panel` on. With
// `sums`, the rows are taken unscaled and their sums of squares are added to sums[i]; otherwise
// their scale is applied.
void multiply_block(const Product& product, const RowSet& rows, int64_t first, int64_t count,
                    const Tile& tile, int64_t first_panel, const BlockScratch& scratch,
                    float* sums);

}  // namespace mipruner::cpu
