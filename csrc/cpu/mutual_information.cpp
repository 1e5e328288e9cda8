// Relevance: mutual information of each visual row with the text rows.
//
// Method, per item:
//   1. List the rows that are not masked; measure the text rows and drop those that are not finite.
//   2. For each block of visual rows: dot products with the packed text rows, norms on the way (the
//   rows are
//      read once, and no normalised copy is written), logits s_ij / tau into the table, softmax per
//      row.
//   3. Drop visual rows that turned out not to be finite.
//   4. Column statistics over the rows that are left: chunk by chunk, then over the chunks in
//   order.
//   5. One score per row.
#include "cpu/mutual_information.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/parallel.h"
#include "cpu/backend.h"

namespace mipruner::cpu {
namespace {

// What the table holds after step 2, and which column statistic step 4 needs.
enum class Form {
  kRowSoftmax,  // P(t_j | v_i): specific, joint
  kLogits,      // s_ij / tau: posterior, and specific with a single word
  kCosines,     // s_ij: cosine
};

Form form_of(Estimator estimator, int64_t words) {
  switch (estimator) {
    case Estimator::kSpecific: return words == 1 ? Form::kLogits : Form::kRowSoftmax;
    case Estimator::kJoint: return Form::kRowSoftmax;
    case Estimator::kPosterior: return Form::kLogits;
    default: return Form::kCosines;
  }
}

struct Work {
  const Kernels& kernels;
  const Executor& executor;
  RelevanceScratch& scratch;
  int64_t words;  // columns of the table

  float* table_row(int64_t i) const { return scratch.table + i * words; }
};

// A row whose sum of squares left the range of float32 is scaled and multiplied once more, alone.
void redo_huge_row(const Work& work, int64_t i, const BlockScratch& lane, float* dots) {
  const BlockScratch alone = {lane.staged, dots};
  multiply_block(product_for(work.kernels, work.scratch.visual.dtype), work.scratch.visual, i, 1,
                 work.scratch.tile, 0, alone, nullptr);
}

// Step 2, one block: logits of rows [first, first + count) for the text rows of the current tile.
void fill_block(const Work& work, int64_t first, int64_t count, int64_t first_word,
                float inverse_temperature, const BlockScratch& lane) {
  const Product& product = product_for(work.kernels, work.scratch.visual.dtype);
  RowSet& rows = work.scratch.visual;
  const Tile& tile = work.scratch.tile;
  float sums[kBlockRows] = {};
  multiply_block(product, rows, first, count, tile, 0, lane, sums);
  for (int64_t r = 0; r < count; ++r) {
    const int64_t i = first + r;
    float* dots = lane.dots + r * tile.capacity;
    settle_norm(work.kernels, product, sums[r], kNormEps, i, &rows, lane.staged);
    if (rows.scale[i] != 1.0f) redo_huge_row(work, i, lane, dots);
    work.kernels.weigh(dots, work.scratch.text.inverse_norm + first_word, rows.inverse_norm[i],
                       inverse_temperature, tile.count);
    std::memcpy(work.table_row(i) + first_word, dots,
                static_cast<size_t>(tile.count) * sizeof(float));
  }
}

void fill_table(const Work& work, float inverse_temperature, Form form) {
  const int64_t rows = work.scratch.visual.count;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  for (int64_t word = 0; word < work.words; word += work.scratch.tile.capacity) {
    const int64_t width = std::min(work.scratch.tile.capacity, work.words - word);
    const bool row_is_complete = word + width == work.words;
    pack_tile(product_for(work.kernels, work.scratch.text.dtype), work.scratch.text, word, width,
              &work.scratch.tile, work.scratch.lanes, work.executor);
    for_each_task(work.executor, blocks, [&](int64_t block, int64_t lane) {
      const int64_t first = block * kBlockRows;
      const int64_t count = std::min(kBlockRows, rows - first);
      fill_block(work, first, count, word, inverse_temperature, work.scratch.lanes[lane]);
      if (!row_is_complete || form != Form::kRowSoftmax) return;
      for (int64_t i = first; i < first + count; ++i) {
        work.scratch.row_values[i] = work.kernels.softmax(work.table_row(i), work.words);
      }
    });
  }
}

// Keeps the finite rows of a set, and with them their rows of the table (words columns, may be 0).
void drop_rows_not_finite(RowSet* rows, float* table, float* row_values, int64_t words) {
  int64_t kept = 0;
  for (int64_t i = 0; i < rows->count; ++i) {
    if (std::isnan(rows->inverse_norm[i])) continue;
    if (kept != i) {
      rows->index[kept] = rows->index[i];
      rows->scale[kept] = rows->scale[i];
      rows->inverse_norm[kept] = rows->inverse_norm[i];
      if (words > 0) {
        std::memcpy(table + kept * words, table + i * words,
                    static_cast<size_t>(words) * sizeof(float));
        row_values[kept] = row_values[i];
      }
    }
    ++kept;
  }
  rows->count = kept;
}

struct Chunks {
  int64_t size;
  int64_t count;
};

// At most this many chunks, so that their partial columns fit kPartialFloats. It depends on the
// words that count, never on masked ones.
int64_t largest_chunk_count(int64_t words) {
  return std::clamp<int64_t>(kPartialFloats / std::max<int64_t>(words, 1), 1, kLargestChunkCount);
}

Chunks chunks_of(int64_t rows, int64_t words) {
  const int64_t most = largest_chunk_count(words);
  Chunks chunks;
  chunks.size = std::max(kSmallestChunk, (rows + most - 1) / most);
  chunks.count = (rows + chunks.size - 1) / chunks.size;
  return chunks;
}

// Enough for the partial columns of any `rows` or fewer rows and `words` or fewer words: the number
// of chunks itself may grow when rows are masked, because their size shrinks.
int64_t partial_floats(int64_t rows, int64_t words) {
  const int64_t smallest_chunks = (rows + kSmallestChunk - 1) / kSmallestChunk;
  return std::min(smallest_chunks * words, std::max(kPartialFloats, words));
}

// Runs row(i, partial) over the rows of each chunk, partial being the chunk's M column values,
// zeroed.
template <class Row>
Chunks for_each_chunk(const Work& work, const Row& row) {
  const Chunks chunks = chunks_of(work.scratch.visual.count, work.words);
  for_each_task(work.executor, chunks.count, [&](int64_t chunk, int64_t) {
    float* partial = work.scratch.column_partials + chunk * work.words;
    std::memset(partial, 0, static_cast<size_t>(work.words) * sizeof(float));
    const int64_t end = std::min((chunk + 1) * chunks.size, work.scratch.visual.count);
    for (int64_t i = chunk * chunks.size; i < end; ++i) row(i, i == chunk * chunks.size, partial);
  });
  return chunks;
}

// Column j of the chunk partials, added up in order.
double column_sum(const Work& work, const Chunks& chunks, int64_t j) {
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
    sum += static_cast<double>(work.scratch.column_partials[chunk * work.words + j]);
  }
  return sum;
}

// P(t_j) = sum_i P(v_i) P(t_j | v_i). `weights` is P(v_i), or nullptr for the uniform 1 / N.
void column_marginal(const Work& work, const float* weights) {
  const Chunks chunks = for_each_chunk(work, [&](int64_t i, bool, float* partial) {
    work.kernels.add_scaled(partial, work.table_row(i), weights ? weights[i] : 1.0f, work.words);
  });
  const double total = weights ? 1.0 : static_cast<double>(work.scratch.visual.count);
  for (int64_t j = 0; j < work.words; ++j) {
    work.scratch.column_values[j] = static_cast<float>(column_sum(work, chunks, j) / total);
  }
}

// column_values[j] = log sum_i exp(x_ij) - log N, so that x_ij - column_values[j] = log[N P(v_i |
// t_j)].
void column_log_mean_exp(const Work& work) {
  float* maxima = work.scratch.column_values;
  const Chunks chunks = for_each_chunk(work, [&](int64_t i, bool first, float* partial) {
    if (first) {
      std::memcpy(partial, work.table_row(i), static_cast<size_t>(work.words) * sizeof(float));
    } else {
      work.kernels.keep_maximum(partial, work.table_row(i), work.words);
    }
  });
  std::memcpy(maxima, work.scratch.column_partials,
              static_cast<size_t>(work.words) * sizeof(float));
  for (int64_t chunk = 1; chunk < chunks.count; ++chunk) {
    work.kernels.keep_maximum(maxima, work.scratch.column_partials + chunk * work.words,
                              work.words);
  }
  for_each_chunk(work, [&](int64_t i, bool, float* partial) {
    work.kernels.add_exp(partial, work.table_row(i), maxima, work.words);
  });
  const double rows = static_cast<double>(work.scratch.visual.count);
  for (int64_t j = 0; j < work.words; ++j) {
    const double log_mean = std::log(column_sum(work, chunks, j) / rows);
    maxima[j] = static_cast<float>(static_cast<double>(maxima[j]) + log_mean);
  }
}

void column_statistics(const Work& work, Estimator estimator, Form form) {
  if (form == Form::kLogits) column_log_mean_exp(work);
  if (form != Form::kRowSoftmax) return;
  if (estimator == Estimator::kJoint) {
    // P(v_i) is the softmax of the rows' log-normalisers.
    work.kernels.softmax(work.scratch.row_values, work.scratch.visual.count);
    column_marginal(work, work.scratch.row_values);
  } else {
    column_marginal(work, nullptr);
  }
}

float score_of(const Work& work, Estimator estimator, int64_t i) {
  const float* row = work.table_row(i);
  const float* columns = work.scratch.column_values;
  const float rows = static_cast<float>(work.scratch.visual.count);
  switch (estimator) {
    case Estimator::kSpecific:
      if (work.words == 1) return row[0] - columns[0];
      return work.kernels.divergence(row, columns, work.words);
    case Estimator::kJoint:
      // sum_j P_ij log[P_ij / (P_i P_j)] = P_i D_KL( P(T|v_i) || P(T) )
      return work.scratch.row_values[i] * work.kernels.divergence(row, columns, work.words);
    case Estimator::kPosterior:
      return work.kernels.pointwise(row, columns, rows * static_cast<float>(work.words),
                                    work.words);
    default: return work.kernels.maximum(row, work.words);
  }
}

void write_scores(const Work& work, Estimator estimator, float* scores) {
  const RowSet& rows = work.scratch.visual;
  const Chunks chunks = chunks_of(rows.count, work.words);
  for_each_task(work.executor, chunks.count, [&](int64_t chunk, int64_t) {
    const int64_t end = std::min((chunk + 1) * chunks.size, rows.count);
    for (int64_t i = chunk * chunks.size; i < end; ++i)
      scores[rows.index[i]] = score_of(work, estimator, i);
  });
}

RelevanceScratch take_scratch(Layout& layout, const RelevanceProblem& problem,
                              const Executor& executor) {
  const int64_t capacity = tile_columns(problem.visual.columns, problem.text.rows);
  return take_relevance_scratch(layout, problem, take_lanes(layout, executor, capacity));
}

}  // namespace

RelevanceScratch take_relevance_scratch(Layout& layout, const RelevanceProblem& problem,
                                        const BlockScratch* lanes) {
  const int64_t rows = problem.visual.rows;
  const int64_t words = problem.text.rows;
  RelevanceScratch scratch;
  scratch.visual = take_row_set(layout, rows);
  scratch.text = take_row_set(layout, words);
  scratch.tile = take_tile(layout, problem.visual.columns, words);
  scratch.lanes = lanes;
  scratch.table = layout.take<float>(rows * words);
  scratch.row_values = layout.take<float>(rows);
  scratch.column_partials = layout.take<float>(partial_floats(rows, words));
  scratch.column_values = layout.take<float>(words);
  return scratch;
}

void score_item(const Kernels& kernels, const RelevanceProblem& problem, int64_t item,
                const Executor& executor, RelevanceScratch* scratch, float* scores) {
  RowSet& visual = scratch->visual;
  RowSet& text = scratch->text;
  list_rows(problem.visual, problem.visual_mask, item, &visual);
  list_rows(problem.text, problem.text_mask, item, &text);
  std::fill(scores, scores + problem.visual.rows, -std::numeric_limits<float>::infinity());

  measure_rows(kernels, &text, scratch->lanes, executor);
  if (executor.cancelled()) return;
  drop_rows_not_finite(&text, nullptr, nullptr, 0);
  const Work work = {kernels, executor, *scratch, text.count};
  if (text.count == 0) {
    measure_rows(kernels, &visual, scratch->lanes, executor);
    if (executor.cancelled()) return;
    drop_rows_not_finite(&visual, nullptr, nullptr, 0);
    for (int64_t i = 0; i < visual.count; ++i) scores[visual.index[i]] = 0.0f;
    return;
  }
  const Form form = form_of(problem.estimator, text.count);
  fill_table(work, form == Form::kCosines ? 1.0f : 1.0f / problem.temperature, form);
  if (executor.cancelled()) return;
  drop_rows_not_finite(&visual, scratch->table, scratch->row_values, text.count);
  if (visual.count == 0) return;
  column_statistics(work, problem.estimator, form);
  if (executor.cancelled()) return;
  write_scores(work, problem.estimator, scores);
}

size_t mutual_information_workspace_bytes(const RelevanceProblem& problem,
                                          const Executor& executor) {
  Layout layout;
  take_scratch(layout, problem, executor);
  return layout.used();
}

void mutual_information(const Kernels& kernels, const RelevanceProblem& problem, float* scores,
                        Workspace workspace, const Executor& executor) {
  Layout layout(workspace.data);
  RelevanceScratch scratch = take_scratch(layout, problem, executor);
  for (int64_t item = 0; item < problem.visual.batch; ++item) {
    score_item(kernels, problem, item, executor, &scratch, scores + item * problem.visual.rows);
  }
}

}  // namespace mipruner::cpu
