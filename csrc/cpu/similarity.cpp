#include "cpu/similarity.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"

namespace mipruner::cpu {
namespace {

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

int64_t tile_columns(int64_t columns, int64_t wanted) {
  const int64_t fitting = kTileBytes / (round_up(columns, 2) * 4) / kLargestPanel * kLargestPanel;
  const int64_t most = std::clamp(fitting, kLargestPanel, kTileColumns);
  return std::min(round_up(std::max<int64_t>(wanted, 1), kLargestPanel), most);
}

Tile take_tile(Layout& layout, int64_t columns, int64_t wanted) {
  Tile tile;
  tile.capacity = tile_columns(columns, wanted);
  tile.panels = layout.take<float>(tile.capacity * round_up(columns, 2));
  return tile;
}

BlockScratch* take_lanes(Layout& layout, const Executor& executor, int64_t tile_capacity) {
  BlockScratch* lanes = layout.take<BlockScratch>(executor.lanes);
  for (int64_t lane = 0; lane < executor.lanes; ++lane) {
    BlockScratch scratch;
    scratch.staged = layout.take<char>(kStagedRows * kStagedStride);
    scratch.dots = layout.take<float>(kBlockRows * tile_capacity);
    if (lanes) lanes[lane] = scratch;
  }
  return lanes;
}

void measure_rows(const Kernels& kernels, RowSet* rows, const BlockScratch* lanes,
                  const Executor& executor) {
  const Product& product = product_for(kernels, rows->dtype);
  const int64_t tasks = (rows->count + kBlockRows - 1) / kBlockRows;
  for_each_task(executor, tasks, [&](int64_t task, int64_t lane) {
    void* staged = lanes[lane].staged;
    const int64_t end = std::min((task + 1) * kBlockRows, rows->count);
    for (int64_t i = task * kBlockRows; i < end; ++i) {
      const float sum = sum_of_squares(product, *rows, i, 1.0f, staged);
      settle_norm(kernels, product, sum, kNormEps, i, rows, staged);
    }
  });
}

void pack_tile(const Product& product, const RowSet& rows, int64_t first, int64_t count, Tile* tile,
               const BlockScratch* lanes, const Executor& executor) {
  tile->count = count;
  tile->panel_bytes = product.panel * round_up(rows.columns, 2) * product.element_bytes;
  const int64_t panels = (count + product.panel - 1) / product.panel;
  for_each_task(executor, panels, [&](int64_t panel, int64_t lane) {
    char* staged = lanes[lane].staged;
    char* out = static_cast<char*>(tile->panels) + panel * tile->panel_bytes;
    const int64_t begin = first + panel * product.panel;
    const int64_t width = std::min(product.panel, first + count - begin);
    for (int64_t k = 0; k < rows.columns; k += kDepthChunk) {
      const int64_t n = std::min(kDepthChunk, rows.columns - k);
      for (int64_t j = 0; j < width; ++j) {
        product.stage(rows.row_from(begin + j, k), rows.dtype, n, rows.scale[begin + j],
                      staged + j * kStagedStride);
      }
      product.pack(staged, kStagedStride, width, n,
                   out + k * product.panel * product.element_bytes);
    }
  });
}

void multiply_block(const Product& product, const RowSet& rows, int64_t first, int64_t count,
                    const Tile& tile, int64_t first_panel, const BlockScratch& scratch,
                    float* sums) {
  const int64_t panels = (tile.count + product.panel - 1) / product.panel;
  std::memset(scratch.dots, 0, static_cast<size_t>(count * tile.capacity) * sizeof(float));
  for (int64_t k = 0; k < rows.columns; k += kDepthChunk) {
    const int64_t n = std::min(kDepthChunk, rows.columns - k);
    for (int64_t i = 0; i < count; ++i) {
      const float scale = sums ? 1.0f : rows.scale[first + i];
      const float sum = product.stage(rows.row_from(first + i, k), rows.dtype, n, scale,
                                      scratch.staged + i * kStagedStride);
      if (sums) sums[i] += sum;
    }
    for (int64_t panel = first_panel; panel < panels; ++panel) {
      const char* packed = static_cast<const char*>(tile.panels) + panel * tile.panel_bytes +
                           k * product.panel * product.element_bytes;
      product.multiply(scratch.staged, kStagedStride, count, packed, n,
                       scratch.dots + panel * product.panel, tile.capacity);
    }
  }
}

}  // namespace mipruner::cpu
