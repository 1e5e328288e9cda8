// Which rows belong to which item of a batch, for kernels.
//
// Two kinds of batch share all kernels: items of one size with strides between them, and segments
// of one pool of rows whose borders are in device memory. Kernels see only this: item b has rows
// [first_row(b), first_row(b) + row_count(b)) in the flat numbering of rows that the workspace
// uses, and words likewise.
#pragma once

#include <cstdint>

#include "core/operations.h"
#include "cuda/common/device.h"

namespace mipruner::cuda {

// One operand. Strides count elements; batch_stride and the mask are unused with segments.
struct Operand {
  const void* data;
  int64_t batch_stride;
  int64_t row_stride;
  const bool* mask;  // or nullptr
  int64_t mask_batch_stride;
  int64_t mask_row_stride;
};

struct Items {
  int64_t count;    // items
  int64_t rows;     // N: rows of every item; with segments all rows of the pool
  int64_t words;    // M: likewise; the row length of every [rows, words] table
  int32_t columns;  // D
  Operand visual;
  Operand text;
  const int64_t* visual_offsets;  // [count + 1], or nullptr: a batch of equal items
  const int64_t* text_ranges;     // [count, 2]

  MIPRUNER_DEVICE int64_t clamp(int64_t x, int64_t high) const {
    return x < 0 ? 0 : (x > high ? high : x);
  }
  // First row of item b in the flat numbering.
  MIPRUNER_DEVICE int64_t first_row(int64_t b) const {
    return visual_offsets ? clamp(visual_offsets[b], rows) : b * rows;
  }
  MIPRUNER_DEVICE int64_t row_count(int64_t b) const {
    if (!visual_offsets) return rows;
    const int64_t size = clamp(visual_offsets[b + 1], rows) - first_row(b);
    return size < 0 ? 0 : size;
  }
  MIPRUNER_DEVICE int64_t first_word(int64_t b) const {  // within the item's text matrix
    return text_ranges ? clamp(text_ranges[2 * b], words) : 0;
  }
  MIPRUNER_DEVICE int64_t word_count(int64_t b) const {
    if (!text_ranges) return words;
    const int64_t size = clamp(text_ranges[2 * b + 1], words) - first_word(b);
    return size < 0 ? 0 : size;
  }
  // Element offset of row i of item b (i counts within the item).
  MIPRUNER_DEVICE int64_t visual_element(int64_t b, int64_t i) const {
    if (visual_offsets) return (first_row(b) + i) * visual.row_stride;
    return b * visual.batch_stride + i * visual.row_stride;
  }
  MIPRUNER_DEVICE int64_t text_element(int64_t b, int64_t j) const {
    if (text_ranges) return (first_word(b) + j) * text.row_stride;
    return b * text.batch_stride + j * text.row_stride;
  }
  MIPRUNER_DEVICE bool row_counts(int64_t b, int64_t i) const {
    return !visual.mask || visual.mask[b * visual.mask_batch_stride + i * visual.mask_row_stride];
  }
  MIPRUNER_DEVICE bool word_counts(int64_t b, int64_t j) const {
    return !text.mask || text.mask[b * text.mask_batch_stride + j * text.mask_row_stride];
  }
};

// Number of flat rows.
inline int64_t flat_rows(const Items& items) {
  return items.visual_offsets ? items.rows : items.count * items.rows;
}

// How many tiles of `size` rows cover all items: exact for equal items; with segments an upper
// bound that the host can know.
inline int64_t tile_count(const Items& items, int64_t size) {
  if (items.visual_offsets) return items.rows / size + items.count;
  return items.count * ((items.rows + size - 1) / size);
}

struct RowTile {
  int64_t item;   // -1: no such tile
  int64_t first;  // its first row, within the item
};

// The item and rows of tile number `tile`. No tile has rows of two items.
MIPRUNER_DEVICE RowTile find_tile(const Items& items, int64_t tile, int64_t size) {
  if (!items.visual_offsets) {
    const int64_t per_item = (items.rows + size - 1) / size;
    return {tile / per_item, tile % per_item * size};
  }
  for (int64_t b = 0; b < items.count; ++b) {
    const int64_t here = (items.row_count(b) + size - 1) / size;
    if (tile < here) return {b, tile * size};
    tile -= here;
  }
  return {-1, 0};
}

}  // namespace mipruner::cuda
