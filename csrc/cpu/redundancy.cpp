#include "cpu/redundancy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/parallel.h"
#include "cpu/top_k.h"

namespace mipruner::cpu {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kMissBatch = 64;

int64_t block_count(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

float log_add_exp(float a, float b) {
  const float high = std::max(a, b);
  const float low = std::min(a, b);
  return low == -kInfinity ? high : high + std::log1p(std::exp(low - high));
}

}  // namespace

RedundancyScratch take_redundancy_scratch(Layout& layout, const MatrixView& visual,
                                          int64_t limit_bytes) {
  const int64_t rows = visual.rows;
  const int64_t row_bytes = std::max<int64_t>(rows, 1) * static_cast<int64_t>(sizeof(float));
  RedundancyScratch scratch;
  scratch.capacity = std::clamp<int64_t>(limit_bytes / row_bytes, 1, std::max<int64_t>(rows, 1));
  scratch.similarities = layout.take<float>(scratch.capacity * rows);
  scratch.normalizers = layout.take<float>(rows);
  scratch.slot_of = layout.take<int64_t>(rows);
  scratch.row_of = layout.take<int64_t>(scratch.capacity);
  scratch.urgency = layout.take<float>(rows);
  scratch.batch = layout.take<int64_t>(kMissBatch);
  scratch.batch_rows = take_row_set(layout, kMissBatch);
  scratch.tile = take_tile(layout, visual.columns, rows);
  return scratch;
}

Redundancy::Redundancy(const Kernels& kernels, const RowSet& rows, float temperature,
                       const BlockScratch* lanes, const Executor& executor,
                       RedundancyScratch* scratch)
    : kernels_(kernels),
      product_(product_for(kernels, rows.dtype)),
      rows_(rows),
      inverse_temperature_(1.0f / temperature),
      log_count_(std::log(static_cast<float>(rows.count))),
      lanes_(lanes),
      executor_(executor),
      scratch_(*scratch) {}

int64_t Redundancy::tile_width(int64_t column) const {
  return std::min(scratch_.tile.capacity, rows_.count - column);
}

void Redundancy::prepare() {
  const int64_t n = rows_.count;
  std::fill(scratch_.normalizers, scratch_.normalizers + n, -kInfinity);
  std::fill(scratch_.slot_of, scratch_.slot_of + n, int64_t{-1});
  std::fill(scratch_.row_of, scratch_.row_of + scratch_.capacity, int64_t{-1});
  if (keeps_all()) return keep_all();
  stream([this](int64_t i, int64_t, int64_t width, const float* similarities) {
    float& total = scratch_.normalizers[i];
    total = log_add_exp(total, kernels_.log_sum_exp(similarities, width));
  });
}

// Calls use(i, column, width, similarities) for every row and tile, tiles in order for each row;
// nothing is kept.
template <class Use>
void Redundancy::stream(const Use& use) {
  for (int64_t column = 0; column < rows_.count; column += scratch_.tile.capacity) {
    const int64_t width = tile_width(column);
    pack_tile(product_, rows_, column, width, &scratch_.tile, lanes_, executor_);
    for_each_task(executor_, block_count(rows_.count), [&](int64_t block, int64_t lane) {
      const int64_t first = block * kBlockRows;
      const int64_t count = std::min(kBlockRows, rows_.count - first);
      multiply_block(product_, rows_, first, count, scratch_.tile, 0, lanes_[lane], nullptr);
      for (int64_t i = first; i < first + count; ++i) {
        float* dots = lanes_[lane].dots + (i - first) * scratch_.tile.capacity;
        kernels_.weigh(dots, rows_.inverse_norm + column, rows_.inverse_norm[i],
                       inverse_temperature_, width);
        if (i >= column && i < column + width) dots[i - column] = kLowest;  // k != i
        use(i, column, width, dots);
      }
    });
  }
}

void Redundancy::keep_all() {
  const int64_t n = rows_.count;
  for (int64_t column = 0; column < n; column += scratch_.tile.capacity) {
    const int64_t width = tile_width(column);
    pack_tile(product_, rows_, column, width, &scratch_.tile, lanes_, executor_);
    for_each_task(executor_, block_count(column + width), [&](int64_t block, int64_t lane) {
      const int64_t first = block * kBlockRows;
      const int64_t count = std::min(kBlockRows, column + width - first);
      // Panels that lie wholly below the diagonal are never looked at.
      const int64_t first_panel = std::max<int64_t>(first - column, 0) / product_.panel;
      float* dots = lanes_[lane].dots;
      multiply_block(product_, rows_, first, count, scratch_.tile, first_panel, lanes_[lane],
                     nullptr);
      for (int64_t i = first; i < first + count; ++i) {
        kernels_.weigh(dots + (i - first) * scratch_.tile.capacity, rows_.inverse_norm + column,
                       rows_.inverse_norm[i], inverse_temperature_, width);
      }
      mirror_block(first, count, column, width, dots);
    });
  }
  for_each_task(executor_, n, [&](int64_t i, int64_t) {
    float* similarities = similarity_row(i);
    similarities[i] = kLowest;  // the softmax runs over k != i
    for (int64_t column = 0; column < n; column += scratch_.tile.capacity) {
      const float part = kernels_.log_sum_exp(similarities + column, tile_width(column));
      scratch_.normalizers[i] = log_add_exp(scratch_.normalizers[i], part);
    }
    scratch_.slot_of[i] = i;
    scratch_.row_of[i] = i;
  });
}

// Writes the part of a block above the diagonal to its place and to the mirrored one.
void Redundancy::mirror_block(int64_t first_row, int64_t row_count, int64_t column, int64_t width,
                              const float* dots) {
  const int64_t stride = scratch_.tile.capacity;
  for (int64_t r = 0; r < row_count; ++r) {
    const int64_t begin = std::max<int64_t>(first_row + r + 1 - column, 0);
    if (begin >= width) continue;
    std::memcpy(similarity_row(first_row + r) + column + begin, dots + r * stride + begin,
                static_cast<size_t>(width - begin) * sizeof(float));
  }
  for (int64_t j = 0; j < width; ++j) {
    float* mirrored = similarity_row(column + j) + first_row;
    const int64_t end = std::min(row_count, column + j - first_row);
    for (int64_t r = 0; r < end; ++r) mirrored[r] = dots[r * stride + j];
  }
}

void Redundancy::representativeness(float* totals) {
  std::fill(totals, totals + rows_.count, 0.0f);
  // By symmetry q_ik = q_ki: column k of r comes from row k of q and the normalisers of the rows i.
  const auto add_tile = [&](int64_t k, int64_t column, int64_t width, const float* similarities) {
    totals[k] +=
        kernels_.redundancy_sum(similarities, scratch_.normalizers + column, log_count_, width);
  };
  if (!keeps_all()) return stream(add_tile);
  for_each_task(executor_, rows_.count, [&](int64_t k, int64_t) {
    for (int64_t column = 0; column < rows_.count; column += scratch_.tile.capacity) {
      add_tile(k, column, tile_width(column), similarity_row(k) + column);
    }
  });
}

void Redundancy::add(int64_t k, const float* gains, const bool* chosen, float* sums) {
  if (scratch_.slot_of[k] < 0) fetch(k, gains, chosen);
  kernels_.add_redundancy(sums, similarity_row(scratch_.slot_of[k]), scratch_.normalizers,
                          log_count_, rows_.count);
}

// Fills batch with k and with the rows of largest gain that are neither chosen nor cached; k comes
// first.
int64_t Redundancy::rows_to_fetch(int64_t k, const float* gains, const bool* chosen) {
  const int64_t n = rows_.count;
  for (int64_t i = 0; i < n; ++i) {
    scratch_.urgency[i] = chosen[i] || scratch_.slot_of[i] >= 0 ? -kInfinity : gains[i];
  }
  scratch_.urgency[k] = kInfinity;
  const int64_t most = std::min({kMissBatch, scratch_.capacity, n});
  largest_positions(scratch_.urgency, n, most, scratch_.batch);
  int64_t* end = std::remove_if(scratch_.batch, scratch_.batch + most,
                                [&](int64_t i) { return scratch_.urgency[i] == -kInfinity; });
  std::swap(scratch_.batch[0], *std::find(scratch_.batch, end, k));
  return end - scratch_.batch;
}

// Gives rows of the batch slots, in order, while there are any: empty ones and those of rows that
// were chosen before, which are never asked for again. The first row always gets one: the row
// fetched before it has been chosen since, so its slot at least is free. Returns how many rows got
// one.
int64_t Redundancy::place_batch(int64_t count, const bool* chosen) {
  int64_t placed = 0;
  for (int64_t slot = 0; slot < scratch_.capacity && placed < count; ++slot) {
    const int64_t row = scratch_.row_of[slot];
    if (row >= 0 && !chosen[row]) continue;
    scratch_.row_of[slot] = scratch_.batch[placed];
    scratch_.slot_of[scratch_.batch[placed]] = slot;
    ++placed;
  }
  return placed;
}

void Redundancy::fetch(int64_t k, const float* gains, const bool* chosen) {
  const int64_t count = place_batch(rows_to_fetch(k, gains, chosen), chosen);
  RowSet& wanted = scratch_.batch_rows;
  RowSet source = rows_;
  source.count = count;
  source.index = wanted.index;
  source.scale = wanted.scale;
  source.inverse_norm = wanted.inverse_norm;
  for (int64_t b = 0; b < count; ++b) {
    wanted.index[b] = rows_.index[scratch_.batch[b]];
    wanted.scale[b] = rows_.scale[scratch_.batch[b]];
    wanted.inverse_norm[b] = rows_.inverse_norm[scratch_.batch[b]];
  }
  // The wanted rows are the tile and all rows pass by: column b of a block belongs to wanted row b.
  for (int64_t column = 0; column < count; column += scratch_.tile.capacity) {
    const int64_t width = std::min(scratch_.tile.capacity, count - column);
    pack_tile(product_, source, column, width, &scratch_.tile, lanes_, executor_);
    for_each_task(executor_, block_count(rows_.count), [&](int64_t block, int64_t lane) {
      const int64_t first = block * kBlockRows;
      const int64_t rows = std::min(kBlockRows, rows_.count - first);
      multiply_block(product_, rows_, first, rows, scratch_.tile, 0, lanes_[lane], nullptr);
      for (int64_t i = first; i < first + rows; ++i) {
        float* dots = lanes_[lane].dots + (i - first) * scratch_.tile.capacity;
        kernels_.weigh(dots, source.inverse_norm + column, rows_.inverse_norm[i],
                       inverse_temperature_, width);
        for (int64_t b = 0; b < width; ++b) {
          similarity_row(scratch_.slot_of[scratch_.batch[column + b]])[i] = dots[b];
        }
      }
    });
  }
  for (int64_t b = 0; b < count; ++b) {
    similarity_row(scratch_.slot_of[scratch_.batch[b]])[scratch_.batch[b]] = kLowest;
  }
}

}  // namespace mipruner::cpu
