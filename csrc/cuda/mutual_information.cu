// Relevance: mutual information of each visual row with the text rows.
//
// Method, for all items of a batch at once; each step is one kernel:
//   1. product  dot products of 64 rows with 64 words, and the sums of squares of both. With few
//               tiles each depth chunk has a block of its own, so that a small image fills the
//               device too. The rows are read once per 64 words, after the first time from the
//               cache as far as it reaches.
//   2. words    which words count (not masked, finite), their lengths; sums set to zero
//   3. rows     which rows count, their lengths; logits s_ij / tau of the words that count; softmax
//   4. maxima   of the columns ("posterior" only)
//   5. columns  sums over the rows that count, in fixed point
//   6. scores   one per row
// Determinism: a row's numbers come from that row and the list of words alone, in a fixed order;
// sums over rows are sums of integers, which no order changes. So neither the cut into blocks, nor
// other items, nor rows that do not count change a bit.
#include <algorithm>
#include <cmath>

#include "cuda/backend.h"
#include "cuda/common/launch.h"
#include "cuda/common/math.h"
#include "cuda/compact.cuh"
#include "cuda/mutual_information.cuh"
#include "cuda/product.cuh"
#include "cuda/rows.cuh"

namespace mipruner::cuda {
namespace {

// Tuning. None of these changes a bit of the result but the last two.
constexpr int kWarpsPerBlock = 8;  // rows of one block of the rows and scores kernels
constexpr int kColumnRows = 32;    // rows whose column values one block adds up
constexpr int kColumnThreads = 128;
constexpr int kWordThreads = 256;
constexpr float kFixedPoint = 1099511627776.0f;  // 2^40: sums of 2^22 numbers up to 1 fit 63 bits
constexpr float kSmallestLogRatio = -87.0f;      // below, exp() adds nothing

// What the table holds after the rows kernel.
enum class Form { kRowSoftmax, kLogits, kCosines };

MIPRUNER_DEVICE Form form_of(Estimator estimator, int words) {
  if (estimator == Estimator::kCosine) return Form::kCosines;
  if (estimator == Estimator::kPosterior) return Form::kLogits;
  return estimator == Estimator::kSpecific && words == 1 ? Form::kLogits : Form::kRowSoftmax;
}

struct Work {
  Items items;
  RelevanceWorkspace space;
  int64_t rows;  // flat rows
  float inverse_temperature;
  Estimator estimator;
  float* scores;

  MIPRUNER_DEVICE const float* table_row(int64_t row) const {
    return space.table + row * items.words;
  }
};

// ---- 1. product ----

// Rows [first, first + 64) of one operand of one item, for multiply_tile.
template <class Element>
struct TileRows {
  const Element* start;  // row `first`
  int64_t stride;
  int64_t count;  // rows from `first` on; those beyond are zeros
  MIPRUNER_DEVICE const Element* operator()(int r) const {
    return r < count ? start + r * stride : nullptr;
  }
  MIPRUNER_DEVICE const Element* base() const { return start; }
};

template <class Element>
__global__ void __launch_bounds__(kProductThreads, kProductBlocks)
    product_kernel(Work work, bool aligned, int word_tiles) {
  auto& shared = dynamic_shared<ProductShared<Element>>();
  const Items& items = work.items;
  const RowTile tile = find_tile(items, blockIdx.x / static_cast<unsigned>(word_tiles), kTileRows);
  if (tile.item < 0) return;
  const int64_t first_word = blockIdx.x % static_cast<unsigned>(word_tiles) * kTileRows;
  const int64_t words = items.word_count(tile.item);
  if (first_word > 0 && first_word >= words) return;
  const auto* visual = static_cast<const Element*>(items.visual.data);
  const auto* text = static_cast<const Element*>(items.text.data);
  const TileRows<Element> a = {visual + items.visual_element(tile.item, tile.first),
                               items.visual.row_stride, items.row_count(tile.item) - tile.first};
  TileRows<Element> b = {a.start, 0, 0};  // no words: only the lengths of the rows are wanted
  if (words > first_word) {
    b = {text + items.text_element(tile.item, first_word), items.text.row_stride,
         words - first_word};
  }
  const int split = static_cast<int>(blockIdx.z);
  const int chunks = (items.columns + kDepthChunk - 1) / kDepthChunk;
  const bool whole = work.space.splits == 1;
  const ProductTile result = multiply_tile(shared, a, b, items.columns, whole ? 0 : split,
                                           whole ? chunks : split + 1, aligned);

  const int64_t row0 = items.first_row(tile.item) + tile.first;
  float* table = work.space.table + (split * work.rows + row0) * items.words + first_word;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = ProductTile::a_row(e / 2);
      const int word = ProductTile::b_row(j, e % 2);
      if (row < a.count && word < b.count) table[row * items.words + word] = result.dots[j][e];
    }
  }
  const int own = static_cast<int>(threadIdx.x) % kTileRows;
  if (threadIdx.x < kTileRows) {
    if (first_word == 0 && own < a.count)
      work.space.row_squares[split * work.rows + row0 + own] = result.squares;
  } else if (tile.first == 0 && own < b.count) {
    const int64_t at = (split * items.count + tile.item) * items.words + first_word + own;
    work.space.word_squares[at] = result.squares;
  }
}

// The parts of a number that blocks of different depth chunks left, added in order.
MIPRUNER_DEVICE float sum_of_splits(const float* parts, int64_t stride, int splits) {
  float sum = parts[0];
  for (int s = 1; s < splits; ++s) sum += parts[s * stride];
  return sum;
}

// ---- 2. words ----

// Measures word j with the whole warp. All lanes must agree on j.
template <class Element>
MIPRUNER_DEVICE RowMeasure measure_word(const Work& work, int64_t item, int64_t j) {
  const Items& items = work.items;
  if (!items.word_counts(item, j)) return {1.0f, 0.0f, false};
  const float squares = sum_of_splits(work.space.word_squares + item * items.words + j,
                                      items.count * items.words, work.space.splits);
  const auto* text = static_cast<const Element*>(items.text.data);
  return measure_row(text + items.text_element(item, j), items.columns, squares);
}

template <class Element>
__global__ void __launch_bounds__(kWordThreads) words_kernel(Work work) {
  auto& shared = dynamic_shared<CompactShared<kWordThreads>>();
  const int64_t item = blockIdx.x;
  const int64_t words = work.items.word_count(item);
  const int64_t table = item * work.items.words;
  const int64_t thread = threadIdx.x;
  if (thread == 0) {
    work.space.row_value_sum[item] = 0;
    work.space.counted_rows[item] = 0;
    work.space.row_value_maximum[item] = 0;
  }
  for (int64_t j = thread; j < words; j += kWordThreads) {
    work.space.column_sums[table + j] = 0;
    work.space.column_maxima[table + j] = 0;
  }
  // Without rows no block has left sums of squares, and nobody will ask for the words.
  const int64_t last = work.items.row_count(item) > 0 ? words : 0;
  int total = 0;
  for (int64_t first = 0; first < last; first += kWordThreads) {
    // Each warp measures its 32 words one after another; each lane keeps its own.
    RowMeasure mine = {1.0f, 0.0f, false};
    const int64_t warp_first = first + thread / kWarpSize * kWarpSize;
    for (int l = 0; l < kWarpSize && warp_first + l < last; ++l) {
      const RowMeasure measure = measure_word<Element>(work, item, warp_first + l);
      if (l == static_cast<int>(thread % kWarpSize)) mine = measure;
    }
    const int place = place_in_list(shared, mine.finite, &total);
    if (place >= 0) {
      work.space.word_list[table + place] = static_cast<int32_t>(first + thread);
      work.space.word_scale[table + place] = mine.scale;
      work.space.word_inverse_norm[table + place] = mine.inverse_norm;
    }
  }
  if (thread == 0) work.space.counted_words[item] = total;
}

// ---- 3. rows ----

// Where the calling warp's row is; item < 0: nowhere.
struct WarpRow {
  int64_t item;
  int64_t index;  // within the item
  int64_t flat;
};

MIPRUNER_DEVICE WarpRow row_of_warp(const Items& items) {
  const RowTile tile = find_tile(items, blockIdx.x, kWarpsPerBlock);
  if (tile.item < 0) return {-1, 0, 0};
  const int64_t index = tile.first + static_cast<int>(threadIdx.x / kWarpSize);
  if (index >= items.row_count(tile.item)) return {-1, 0, 0};
  return {tile.item, index, items.first_row(tile.item) + index};
}

// The dot product of a row and a listed word j (-1: none, for lanes beyond the list). Pairs with a
// huge partner are multiplied once more by the whole warp, one after another.
template <class Element>
MIPRUNER_DEVICE float dot_of(const Work& work, const WarpRow& row, const RowMeasure& measure,
                             int64_t j) {
  const Items& items = work.items;
  const int64_t at = row.item * items.words + j;
  const int64_t word = j < 0 ? 0 : work.space.word_list[at];
  const float word_scale = j < 0 ? 1.0f : work.space.word_scale[at];
  const float* parts = work.space.table + row.flat * items.words + word;
  float dot = j < 0 ? 0.0f : sum_of_splits(parts, work.rows * items.words, work.space.splits);
  const bool huge = j >= 0 && (measure.scale != 1.0f || word_scale != 1.0f);
  const auto* visual = static_cast<const Element*>(items.visual.data);
  const auto* text = static_cast<const Element*>(items.text.data);
  for (uint32_t left = __ballot_sync(kFullWarp, huge); left != 0; left &= left - 1) {
    const int lane = __ffs(static_cast<int>(left)) - 1;
    const int64_t its_word = __shfl_sync(kFullWarp, word, lane);
    const float its_scale = __shfl_sync(kFullWarp, word_scale, lane);
    const float exact =
        scaled_dot(visual + items.visual_element(row.item, row.index), measure.scale,
                   text + items.text_element(row.item, its_word), its_scale, items.columns);
    if (lane == static_cast<int>(threadIdx.x % kWarpSize)) dot = exact;
  }
  return dot;
}

// Writes the logits of a row over its dot products, packed to the words that count; returns this
// lane's maximum.
template <class Element>
MIPRUNER_DEVICE float write_logits(const Work& work, const WarpRow& row, const RowMeasure& measure,
                                   int words, float factor) {
  float* logits = work.space.table + row.flat * work.items.words;
  float largest = -INFINITY;
  for (int first = 0; first < words; first += kWarpSize) {
    const int j = first + static_cast<int>(threadIdx.x % kWarpSize);
    const bool here = j < words;
    const float dot = dot_of<Element>(work, row, measure, here ? j : -1);
    // The list ascends, so no place is written before it was read, if all lanes have read.
    __syncwarp();
    if (!here) continue;
    const float inverse = work.space.word_inverse_norm[row.item * work.items.words + j];
    logits[j] = dot * inverse * measure.inverse_norm * factor;
    largest = fmaxf(largest, logits[j]);
  }
  return largest;
}

// Turns a row of logits into probabilities; returns their log-normaliser. Each lane reads and
// writes its own words alone.
MIPRUNER_DEVICE float softmax_row(float* row, int words, float lane_largest) {
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const float largest = warp_max(lane_largest);
  float sum = 0.0f;
  for (int j = lane; j < words; j += kWarpSize) {
    row[j] = exp_of(row[j] - largest);
    sum += row[j];
  }
  const float total = warp_sum(sum);
  const float inverse = 1.0f / total;
  for (int j = lane; j < words; j += kWarpSize) row[j] *= inverse;
  return largest + log_of(total);
}

template <class Element>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarpSize) rows_kernel(Work work) {
  const Items& items = work.items;
  const WarpRow row = row_of_warp(items);
  if (row.item < 0) return;
  const bool first_lane = threadIdx.x % kWarpSize == 0;
  if (!items.row_counts(row.item, row.index)) {
    if (first_lane) work.space.state[row.flat] = kRowMasked;
    return;
  }
  const float squares =
      sum_of_splits(work.space.row_squares + row.flat, work.rows, work.space.splits);
  const auto* visual = static_cast<const Element*>(items.visual.data);
  const RowMeasure measure =
      measure_row(visual + items.visual_element(row.item, row.index), items.columns, squares);
  if (first_lane) {
    work.space.state[row.flat] = measure.finite ? kRowCounts : kRowBroken;
    work.space.scale[row.flat] = measure.scale;
    work.space.inverse_norm[row.flat] = measure.inverse_norm;
  }
  const int words = work.space.counted_words[row.item];
  if (!measure.finite || words == 0) return;
  const Form form = form_of(work.estimator, words);
  const float factor = form == Form::kCosines ? 1.0f : work.inverse_temperature;
  const float largest = write_logits<Element>(work, row, measure, words, factor);
  if (form == Form::kLogits && words == 1) {
    if (first_lane)
      atomicMax(&work.space.column_maxima[row.item * items.words], ordered_key(largest));
  }
  if (form != Form::kRowSoftmax) return;
  const float normalizer = softmax_row(work.space.table + row.flat * items.words, words, largest);
  if (!first_lane) return;
  work.space.row_values[row.flat] = normalizer;
  if (work.estimator == Estimator::kJoint)
    atomicMax(&work.space.row_value_maximum[row.item], ordered_key(normalizer));
}

// ---- 4. and 5. columns ----

// Calls use(j, row) for the columns of this thread and the rows of this block that count.
template <class Begin, class Use, class End>
MIPRUNER_DEVICE void for_each_column(const Work& work, const RowTile& tile, const Begin& begin,
                                     const Use& use, const End& end) {
  const int words = work.space.counted_words[tile.item];
  const int64_t first = work.items.first_row(tile.item) + tile.first;
  const int64_t left = work.items.row_count(tile.item) - tile.first;
  const int rows = static_cast<int>(left < kColumnRows ? left : kColumnRows);
  for (int j = static_cast<int>(threadIdx.x); j < words; j += kColumnThreads) {
    begin(j);
    for (int r = 0; r < rows; ++r) {
      if (work.space.state[first + r] == kRowCounts) use(j, first + r);
    }
    end(j);
  }
}

__global__ void __launch_bounds__(kColumnThreads) maxima_kernel(Work work) {
  const RowTile tile = find_tile(work.items, blockIdx.x, kColumnRows);
  if (tile.item < 0) return;
  float largest = 0.0f;
  for_each_column(
      work, tile, [&](int) { largest = -INFINITY; },
      [&](int j, int64_t row) { largest = fmaxf(largest, work.table_row(row)[j]); },
      [&](int j) {
        atomicMax(&work.space.column_maxima[tile.item * work.items.words + j],
                  ordered_key(largest));
      });
}

MIPRUNER_DEVICE unsigned long long to_fixed_point(float x) {
  return static_cast<unsigned long long>(llrintf(x * kFixedPoint));
}

// The weight of a row that counts: exp of its log-normaliser, relative to the largest ("joint").
MIPRUNER_DEVICE float row_weight(const Work& work, int64_t item, int64_t row) {
  const float largest = key_to_float(work.space.row_value_maximum[item]);
  return exp_of(work.space.row_values[row] - largest);
}

// One thread counts this block's rows and adds up their weights.
MIPRUNER_DEVICE void add_row_facts(const Work& work, const RowTile& tile) {
  const int64_t first = work.items.first_row(tile.item) + tile.first;
  const int64_t left = work.items.row_count(tile.item) - tile.first;
  unsigned long long count = 0;
  unsigned long long weights = 0;
  for (int r = 0; r < kColumnRows && r < left; ++r) {
    if (work.space.state[first + r] != kRowCounts) continue;
    ++count;
    if (work.estimator == Estimator::kJoint && work.space.counted_words[tile.item] > 0)
      weights += to_fixed_point(row_weight(work, tile.item, first + r));
  }
  if (count == 0) return;
  atomicAdd(&work.space.counted_rows[tile.item], count);
  if (weights > 0) atomicAdd(&work.space.row_value_sum[tile.item], weights);
}

// Eight blocks on one SM: left alone, the compiler aims for more and runs out of registers.
__global__ void __launch_bounds__(kColumnThreads, 8) columns_kernel(Work work) {
  const RowTile tile = find_tile(work.items, blockIdx.x, kColumnRows);
  if (tile.item < 0) return;
  const int64_t table = tile.item * work.items.words;
  const Form form = form_of(work.estimator, work.space.counted_words[tile.item]);
  // The last thread is the one most likely to have no column.
  if (threadIdx.x == kColumnThreads - 1) add_row_facts(work, tile);
  if (form == Form::kCosines) return;
  unsigned long long sum = 0;
  float largest = 0.0f;
  for_each_column(
      work, tile,
      [&](int j) {
        sum = 0;
        if (form == Form::kLogits) largest = key_to_float(work.space.column_maxima[table + j]);
      },
      [&](int j, int64_t row) {
        float value = work.table_row(row)[j];
        if (form == Form::kLogits) value = exp_of(value - largest);
        if (work.estimator == Estimator::kJoint) value *= row_weight(work, tile.item, row);
        sum += to_fixed_point(value);
      },
      [&](int j) {
        if (sum > 0) atomicAdd(&work.space.column_sums[table + j], sum);
      });
}

// ---- 6. scores ----

// A sum in fixed point over `total`; at least one unit, so that its logarithm exists. Whatever
// rounds to nothing has no weight in any score.
MIPRUNER_DEVICE float mean_of(unsigned long long sum, float total) {
  return static_cast<float>(sum > 0 ? sum : 1ull) / kFixedPoint / total;
}

// This lane's part of sum_j p_j log(p_j / q_j), each term made non-negative by the p and q that sum
// to the same.
MIPRUNER_DEVICE float divergence_term(float p, float q) {
  return p > 0.0f ? p * log_of(p / q) - (p - q) : q;
}

// This lane's part of a row's score, before the sum over lanes; "cosine": its maximum.
MIPRUNER_DEVICE float score_part(const Work& work, const WarpRow& row, int words, float rows) {
  const float* table = work.table_row(row.flat);
  const int64_t columns = row.item * work.items.words;
  const Form form = form_of(work.estimator, words);
  float total = rows;  // what the column sums are divided by
  if (work.estimator == Estimator::kJoint)
    total = static_cast<float>(work.space.row_value_sum[row.item]) / kFixedPoint;
  float part = form == Form::kCosines ? -INFINITY : 0.0f;
  for (int j = static_cast<int>(threadIdx.x % kWarpSize); j < words; j += kWarpSize) {
    if (form == Form::kCosines) {
      part = fmaxf(part, table[j]);
      continue;
    }
    const float mean = mean_of(work.space.column_sums[columns + j], total);
    if (form == Form::kRowSoftmax) {
      part += divergence_term(table[j], mean);
      continue;
    }
    // log[N P(v_i | t_j)]
    const float shift = key_to_float(work.space.column_maxima[columns + j]) + log_of(mean);
    const float log_ratio = table[j] - shift;
    if (work.estimator == Estimator::kSpecific) {
      part = log_ratio;  // a single word
    } else {
      const float bounded = fmaxf(log_ratio, kSmallestLogRatio);
      part += exp_of(bounded) * bounded;
    }
  }
  return part;
}

MIPRUNER_DEVICE float score_of_row(const Work& work, const WarpRow& row) {
  const int words = work.space.counted_words[row.item];
  if (words == 0) return 0.0f;
  const auto rows = static_cast<float>(work.space.counted_rows[row.item]);
  const float part = score_part(work, row, words, rows);
  const Form form = form_of(work.estimator, words);
  if (form == Form::kCosines) return warp_max(part);
  const float sum = warp_sum(part);
  if (form == Form::kLogits)
    return work.estimator == Estimator::kSpecific ? sum : sum / (rows * static_cast<float>(words));
  const float divergence = fmaxf(sum, 0.0f);  // never negative, not even by rounding
  if (work.estimator == Estimator::kSpecific) return divergence;
  const float total = static_cast<float>(work.space.row_value_sum[row.item]) / kFixedPoint;
  return row_weight(work, row.item, row.flat) / total * divergence;
}

__global__ void __launch_bounds__(kWarpsPerBlock* kWarpSize) scores_kernel(Work work) {
  const WarpRow row = row_of_warp(work.items);
  if (row.item < 0) return;
  float score = -INFINITY;
  if (work.space.state[row.flat] == kRowCounts) score = score_of_row(work, row);
  if (threadIdx.x % kWarpSize == 0) work.scores[row.flat] = score;
}

// ---- launching ----

bool is_aligned(const Items& items, DataType dtype) {
  return rows_are_aligned(items.visual, items.columns, dtype) &&
         rows_are_aligned(items.text, items.columns, dtype);
}

template <class Element>
Status launch_kernels(const Work& work, bool aligned, void* stream) {
  const Items& items = work.items;
  const int64_t word_tiles = std::max<int64_t>(1, (items.words + kTileRows - 1) / kTileRows);
  const dim3 tiles(as_grid(tile_count(items, kTileRows) * word_tiles), 1,
                   as_grid(work.space.splits));
  const unsigned row_blocks = as_grid(tile_count(items, kWarpsPerBlock));
  const unsigned column_blocks = as_grid(tile_count(items, kColumnRows));
  Status status =
      launch("relevance, products", product_kernel<Element>, tiles, kProductThreads,
             sizeof(ProductShared<Element>), stream, work, aligned, static_cast<int>(word_tiles));
  if (!status.ok()) return status;
  status = launch("relevance, words", words_kernel<Element>, dim3(as_grid(items.count)),
                  kWordThreads, sizeof(CompactShared<kWordThreads>), stream, work);
  if (!status.ok()) return status;
  status = launch("relevance, rows", rows_kernel<Element>, dim3(row_blocks),
                  kWarpsPerBlock * kWarpSize, 0, stream, work);
  if (!status.ok()) return status;
  if (work.estimator == Estimator::kPosterior) {
    status = launch("relevance, maxima", maxima_kernel, dim3(column_blocks), kColumnThreads, 0,
                    stream, work);
    if (!status.ok()) return status;
  }
  status = launch("relevance, columns", columns_kernel, dim3(column_blocks), kColumnThreads, 0,
                  stream, work);
  if (!status.ok()) return status;
  return launch("relevance, scores", scores_kernel, dim3(row_blocks), kWarpsPerBlock * kWarpSize, 0,
                stream, work);
}

Operand operand_of(const MatrixView& view, const MaskView& mask) {
  return {view.data, view.batch_stride, view.row_stride,
          mask.data, mask.batch_stride, mask.row_stride};
}

}  // namespace

Items items_of(const RelevanceProblem& problem) {
  Items items = {};
  items.count = problem.visual.batch;
  items.rows = problem.visual.rows;
  items.words = problem.text.rows;
  // A wider one is refused as too wide, not wrapped around.
  items.columns = static_cast<int32_t>(std::min<int64_t>(problem.visual.columns, INT32_MAX));
  items.visual = operand_of(problem.visual, problem.visual_mask);
  items.text = operand_of(problem.text, problem.text_mask);
  return items;
}

Status check_items(const Items& items) {
  constexpr int64_t kLargestRows = int64_t{1} << 22;
  constexpr int64_t kLargestColumns = int64_t{1} << 24;
  constexpr int64_t kLargestGrid = (int64_t{1} << 31) - 1;
  const auto refuse = [](const char* name, const char* what, int64_t given, int64_t allowed) {
    return error(StatusCode::kInvalidArgument, "%s: got %s %lld, allowed on CUDA is at most %lld",
                 name, what, static_cast<long long>(given), static_cast<long long>(allowed));
  };
  if (items.rows > kLargestRows) return refuse("visual", "row count", items.rows, kLargestRows);
  if (items.words > kLargestRows) return refuse("text", "row count", items.words, kLargestRows);
  if (items.columns > kLargestColumns)
    return refuse("visual", "row width", items.columns, kLargestColumns);
  const int64_t word_tiles = (items.words + kTileRows - 1) / kTileRows;
  const int64_t blocks =
      std::max(tile_count(items, kTileRows) * word_tiles, tile_count(items, kWarpsPerBlock));
  if (blocks > kLargestGrid)
    return refuse("visual", "a batch that needs as many blocks as", blocks, kLargestGrid);
  return {};
}

RelevanceWorkspace take_relevance_workspace(Layout& layout, const Items& items) {
  const int64_t rows = flat_rows(items);
  const int64_t words = items.words;
  const int64_t tiles = tile_count(items, kTileRows) * ((words + kTileRows - 1) / kTileRows);
  RelevanceWorkspace space = {};
  space.splits = tiles < kTilesThatFill ? static_cast<int32_t>(depth_chunks(items.columns)) : 1;
  space.table = layout.take<float>(space.splits * rows * words);
  space.row_squares = layout.take<float>(space.splits * rows);
  space.word_squares = layout.take<float>(space.splits * items.count * words);
  space.state = layout.take<uint8_t>(rows);
  space.scale = layout.take<float>(rows);
  space.inverse_norm = layout.take<float>(rows);
  space.row_values = layout.take<float>(rows);
  space.counted_words = layout.take<int32_t>(items.count);
  space.word_list = layout.take<int32_t>(items.count * words);
  space.word_scale = layout.take<float>(items.count * words);
  space.word_inverse_norm = layout.take<float>(items.count * words);
  space.column_sums = layout.take<unsigned long long>(items.count * words);
  space.row_value_sum = layout.take<unsigned long long>(items.count);
  space.counted_rows = layout.take<unsigned long long>(items.count);
  space.column_maxima = layout.take<uint32_t>(items.count * words);
  space.row_value_maximum = layout.take<uint32_t>(items.count);
  return space;
}

Status launch_relevance(const Items& items, DataType dtype, float temperature, Estimator estimator,
                        const RelevanceWorkspace& space, float* scores, void* stream) {
  const Work work = {items, space, flat_rows(items), 1.0f / temperature, estimator, scores};
  return for_element(dtype, [&](auto element) {
    return launch_kernels<decltype(element)>(work, is_aligned(items, dtype), stream);
  });
}

size_t mutual_information_workspace_bytes(const RelevanceProblem& problem) {
  Layout layout;
  take_relevance_workspace(layout, items_of(problem));
  return layout.used();
}

Status mutual_information(const RelevanceProblem& problem, float* scores, Workspace workspace,
                          void* stream) {
  const Items items = items_of(problem);
  if (Status status = check_items(items); !status.ok()) return status;
  Layout layout(workspace.data);
  const RelevanceWorkspace space = take_relevance_workspace(layout, items);
  return launch_relevance(items, problem.visual.dtype, problem.temperature, problem.estimator,
                          space, scores, stream);
}

}  // namespace mipruner::cuda
