// Greedy selection: k times the row with the largest  relevance_i - lambda * sum of r_ik over the
// chosen k  (METHOD, "Redundancy").
//
// Method, for all items of a batch at once; each step is one kernel:
//   1. list            the rows that count; everything below works on positions in that list
//   2. similarities    q_ik / tau by tiles, kept where the table has room; the log-normaliser of
//                      each row, in parts where few tiles would leave the device empty
//   3. normalizers     the parts, put together
//   4. representatives for each row the sum over i of r_ik: the first choice in text-free mode
//   5. steps           all k choices of an item by one block, so that no launch and no look from
//                      the host comes between two of them: those of coverage, then the largest
//                      gains. One kernel for items with stored similarities, one that computes a
//                      row of them at each step
//   6. output          the chosen rows in ascending order
// An item whose rows are all kept has nothing to do in 2 to 5.
//
// Determinism: lists hide rows that do not count; sums over positions are taken chunk by chunk in
// order, however the chunks are spread over blocks; similarities have the same bits whether they
// are stored or computed anew; and the largest gain is unique, as its key holds the position.
#include <algorithm>

#include "core/coverage.h"
#include "cuda/common/launch.h"
#include "cuda/compact.cuh"
#include "cuda/greedy.cuh"
#include "cuda/row_state.cuh"
#include "cuda/similarity.cuh"

namespace mipruner::cuda {
namespace {

constexpr int kListThreads = 1024;
constexpr int kRowThreads = 256;
// Blocks of kernels 2 and 4 on one SM. Most architectures have room for kProductBlocks all the
// same; on sm_100 and sm_120 the exponentials need more registers than those would leave.
constexpr int kSumBlocks = kProductBlocks - 1;
constexpr int kStepThreads = 1024;  // with stored similarities; else kProductThreads
// Positions that each thread keeps in registers: many where nothing else needs them.
constexpr int kHeldStored = 4;
constexpr int kHeldComputed = 0;

struct Work {
  GreedyProblem problem;
  GreedyWorkspace space;
  int64_t rows;  // flat rows
  bool aligned;
  int64_t* indices;

  // Rows of the item that are wanted, as far as it has any.
  MIPRUNER_DEVICE int64_t wanted(int64_t item) const {
    return min(problem.quota.wanted(item), problem.items.row_count(item));
  }
  // How many choices have to be made: none where every row that counts is kept anyway.
  MIPRUNER_DEVICE int steps(int64_t item) const {
    const int64_t count = wanted(item);
    return count < space.counted[item] ? static_cast<int>(count) : 0;
  }
  // How many of the choices are those of coverage, which come first.
  MIPRUNER_DEVICE int covered(int64_t item) const {
    return static_cast<int>(coverage_count(problem.coverage, steps(item), space.counted[item]));
  }
  // Whether the first choice is the most representative row.
  MIPRUNER_DEVICE bool wants_representative(int64_t item) const {
    return problem.counted_words[item] == 0 && covered(item) == 0;
  }
};

template <class Element>
MIPRUNER_DEVICE SimilarRows<Element> rows_of(const Work& work, int64_t item) {
  const Items& items = work.problem.items;
  const int64_t first = items.first_row(item);
  SimilarRows<Element> rows;
  rows.data = static_cast<const Element*>(items.visual.data) + items.visual_element(item, 0);
  rows.stride = items.visual.row_stride;
  rows.columns = items.columns;
  rows.count = work.space.counted[item];
  rows.list = rows.count == items.row_count(item) ? nullptr : work.space.list + first;
  rows.inverse_norm = work.problem.inverse_norm + first;
  rows.scale = work.problem.scale + first;
  rows.any_huge = work.space.any_huge[item] != 0;
  rows.aligned = work.aligned;
  rows.inverse_temperature = 1.0f / work.problem.temperature;
  return rows;
}

// Where the similarities of position i with all others are stored, for an item with a table_begin.
MIPRUNER_DEVICE float* table_row(const Work& work, int64_t item, int i) {
  return work.space.table + work.space.table_begin[item] + i * work.problem.items.row_count(item);
}

// ---- 1. list ----

// Items take their squares of the table one after another; those behind its end get none.
MIPRUNER_DEVICE int64_t find_table_place(const Work& work, int64_t item) {
  const Items& items = work.problem.items;
  int64_t begin = 0;
  if (items.visual_offsets) {
    for (int64_t b = 0; b < item; ++b) begin += items.row_count(b) * items.row_count(b);
  } else {
    begin = item * items.rows * items.rows;
  }
  const int64_t end = begin + items.row_count(item) * items.row_count(item);
  return end <= work.space.table_size ? begin : -1;
}

__global__ void __launch_bounds__(kListThreads) list_kernel(Work work) {
  auto& shared = dynamic_shared<CompactShared<kListThreads>>();
  const int64_t item = blockIdx.x;
  const int64_t first = work.problem.items.first_row(item);
  const int64_t count = work.problem.items.row_count(item);
  int listed = 0;
  int huge = 0;
  for (int64_t begin = 0; begin < count; begin += kListThreads) {
    const int64_t i = begin + threadIdx.x;
    const bool counts = i < count && work.problem.state[first + i] == kRowCounts;
    if (counts && work.problem.scale[first + i] != 1.0f) huge = 1;
    const int place = place_in_list(shared, counts, &listed);
    if (place >= 0) work.space.list[first + place] = static_cast<int32_t>(i);
    if (i < count) work.space.chosen[first + i] = 0;
  }
  const int any_huge = __syncthreads_or(huge);
  if (threadIdx.x != 0) return;
  work.space.counted[item] = listed;
  work.space.any_huge[item] = static_cast<uint8_t>(any_huge != 0);
  work.space.table_begin[item] = find_table_place(work, item);
}

// ---- 2. to 4. sums over all positions, row by row ----

// Which rows and which chunks of positions a block works on.
struct RowSums {
  int item;   // -1: none
  int first;  // position of its first row
  int first_chunk;
  int last_chunk;
  int64_t part;  // where the result of its first row goes in the arrays [splits, R]
};

MIPRUNER_DEVICE RowSums rows_of_block(const Work& work) {
  const Items& items = work.problem.items;
  RowSums sums = {-1, 0, 0, 0, 0};
  const RowTile tile = find_tile(items, blockIdx.x, kTileRows);
  if (tile.item < 0) return sums;
  const int count = work.space.counted[tile.item];
  if (tile.first >= count || work.steps(tile.item) == 0) return sums;
  const int chunks = (count + kChunkPositions - 1) / kChunkPositions;
  const int split = static_cast<int>(blockIdx.z);
  sums.first = static_cast<int>(tile.first);
  sums.first_chunk = split;
  sums.last_chunk = work.space.splits == 1 ? chunks : split + 1;
  sums.part = split * work.rows + items.first_row(tile.item) + tile.first;
  if (split < chunks) sums.item = static_cast<int>(tile.item);
  return sums;
}

// Adds a thread's similarities of its row number h to what it has of the row.
MIPRUNER_DEVICE void add_tile(const float (&tile)[8][4], int h, LogSum* total) {
  float largest = kNotSimilar;
#pragma unroll
  for (int j = 0; j < 8; ++j) largest = fmaxf(largest, fmaxf(tile[j][2 * h], tile[j][2 * h + 1]));
  if (largest == kNotSimilar) return;
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    // What is not similar at all adds exp(-huge) = 0.
    sum += exp_of(tile[j][2 * h] - largest);
    sum += exp_of(tile[j][2 * h + 1] - largest);
  }
  *total = merge(*total, {largest, sum});
}

// Puts together what the four threads of a row have; the first of them gets the result.
MIPRUNER_DEVICE LogSum merge_threads(LogSum mine) {
#pragma unroll
  for (int distance = 1; distance < 4; distance *= 2) {
    LogSum other;
    other.largest = __shfl_xor_sync(kFullWarp, mine.largest, distance);
    other.sum = __shfl_xor_sync(kFullWarp, mine.sum, distance);
    mine = merge(mine, other);
  }
  return mine;
}

MIPRUNER_DEVICE void store_tile(const Work& work, const RowSums& sums, int column, int count,
                                const float (&tile)[8][4]) {
  if (work.space.table_begin[sums.item] < 0) return;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int i = sums.first + ProductTile::a_row(h);
    if (i >= count) continue;
    float* row = table_row(work, sums.item, i);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int k = column + ProductTile::b_row(j, c);
        if (k < count) row[k] = tile[j][2 * h + c];
      }
    }
  }
}

// The tile as store_tile has left it.
MIPRUNER_DEVICE void load_tile(const Work& work, const RowSums& sums, int column, int count,
                               float (&tile)[8][4]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = sums.first + ProductTile::a_row(e / 2);
      const int k = column + ProductTile::b_row(j, e % 2);
      tile[j][e] = i < count && k < count ? table_row(work, sums.item, i)[k] : kNotSimilar;
    }
  }
}

template <class Element>
__global__ void __launch_bounds__(kProductThreads, kSumBlocks) similarities_kernel(Work work) {
  auto& shared = dynamic_shared<ProductShared<Element>>();
  const RowSums sums = rows_of_block(work);
  if (sums.item < 0) return;
  const SimilarRows<Element> rows = rows_of<Element>(work, sums.item);
  for (int chunk = sums.first_chunk; chunk < sums.last_chunk; ++chunk) {
    LogSum mine[2];
    const int end = min((chunk + 1) * kChunkPositions, rows.count);
    for (int column = chunk * kChunkPositions; column < end; column += kTileRows) {
      float tile[8][4];
      similarity_tile(shared, tile_at(rows, sums.first), tile_at(rows, column), tile);
      store_tile(work, sums, column, rows.count, tile);
#pragma unroll
      for (int h = 0; h < 2; ++h) add_tile(tile, h, &mine[h]);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const LogSum whole = merge_threads(mine[h]);
      const int row = ProductTile::a_row(h);
      if (threadIdx.x % 4 != 0 || sums.first + row >= rows.count) continue;
      // Running totals are in memory rather than in registers, of which the product needs all.
      float& largest = work.space.part_maxima[sums.part + row];
      float& sum = work.space.part_sums[sums.part + row];
      const LogSum total = chunk == sums.first_chunk ? whole : merge({largest, sum}, whole);
      largest = total.largest;
      sum = total.sum;
    }
  }
}

MIPRUNER_DEVICE int parts_of(const Work& work, int64_t item) {
  if (work.space.splits == 1) return 1;
  return (work.space.counted[item] + kChunkPositions - 1) / kChunkPositions;
}

__global__ void __launch_bounds__(kRowThreads) normalizers_kernel(Work work) {
  const Items& items = work.problem.items;
  const RowTile tile = find_tile(items, blockIdx.x, kRowThreads);
  if (tile.item < 0 || work.steps(tile.item) == 0) return;
  const int64_t position = tile.first + threadIdx.x;
  if (position >= work.space.counted[tile.item]) return;
  const int64_t at = items.first_row(tile.item) + position;
  LogSum total;
  for (int part = 0; part < parts_of(work, tile.item); ++part) {
    const int64_t from = part * work.rows + at;
    total = merge(total, {work.space.part_maxima[from], work.space.part_sums[from]});
  }
  work.space.normalizers[at] = total.largest + log_of(total.sum);
}

// part_sums becomes, for each row k, the sum of r_ik over the chunk's rows i: by symmetry from row
// k of the similarities and the normalisers of the rows i.
template <class Element>
__global__ void __launch_bounds__(kProductThreads, kSumBlocks) representatives_kernel(Work work) {
  auto& shared = dynamic_shared<ProductShared<Element>>();
  const RowSums sums = rows_of_block(work);
  if (sums.item < 0 || !work.wants_representative(sums.item)) return;
  const SimilarRows<Element> rows = rows_of<Element>(work, sums.item);
  for (int chunk = sums.first_chunk; chunk < sums.last_chunk; ++chunk) {
    float mine[2] = {};
    const int end = min((chunk + 1) * kChunkPositions, rows.count);
    for (int column = chunk * kChunkPositions; column < end; column += kTileRows) {
      float tile[8][4];
      if (work.space.table_begin[sums.item] >= 0) {
        load_tile(work, sums, column, rows.count, tile);
      } else {
        similarity_tile(shared, tile_at(rows, sums.first), tile_at(rows, column), tile);
      }
      // Looked up anew for each tile: the product leaves no registers to keep them in.
      const float* normalizers = work.space.normalizers + work.problem.items.first_row(sums.item);
      const float log_count = log_of(static_cast<float>(rows.count));
#pragma unroll
      for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int i = column + ProductTile::b_row(j, e % 2);
          if (i < rows.count) mine[e / 2] += redundancy_of(tile[j][e], normalizers[i], log_count);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float whole = mine[h] + __shfl_xor_sync(kFullWarp, mine[h], 1);
      whole += __shfl_xor_sync(kFullWarp, whole, 2);
      const int row = ProductTile::a_row(h);
      if (threadIdx.x % 4 != 0 || sums.first + row >= rows.count) continue;
      float& sum = work.space.part_sums[sums.part + row];
      sum = chunk == sums.first_chunk ? whole : sum + whole;
    }
  }
}

// ---- 5. steps ----

template <int kThreads>
struct BestShared {
  // By parity of the step: a fast warp may be one step ahead.
  SharedArray<unsigned long long, 2 * kThreads / kWarpSize> warp_best;
};

MIPRUNER_DEVICE unsigned long long warp_largest(unsigned long long x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const unsigned long long other = __shfl_xor_sync(kFullWarp, x, distance);
    x = other > x ? other : x;
  }
  return x;
}

// The largest key of the block. One barrier.
template <int kThreads>
MIPRUNER_DEVICE unsigned long long block_largest(BestShared<kThreads>& shared, int step,
                                                 unsigned long long mine) {
  constexpr int kWarps = kThreads / kWarpSize;
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int slot = step % 2 * kWarps;
  const unsigned long long best = warp_largest(mine);
  if (lane == 0) shared.warp_best[slot + static_cast<int>(threadIdx.x / kWarpSize)] = best;
  __syncthreads();
  return warp_largest(lane < kWarps ? shared.warp_best[slot + lane] : 0);
}

// Larger gains have larger keys, and of equal gains the lower position.
MIPRUNER_DEVICE unsigned long long key_of(float gain, int position) {
  return static_cast<unsigned long long>(ordered_key(gain)) << 32 |
         ~static_cast<uint32_t>(position);
}

MIPRUNER_DEVICE int position_of(unsigned long long key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

// What a thread knows of a position.
struct Candidate {
  float relevance;
  float normalizer;
  float sum;  // redundancy with the chosen rows; -1: chosen itself
};

// The choices of one item by one block of kThreads.
template <int kThreads, int kHeld>
struct Steps {
  const Work& work;
  int64_t item;
  int64_t first;  // flat row
  int count;      // positions
  float log_count;
  // Positions threadIdx.x + j * kThreads; the rest is in the workspace.
  Candidate held[kHeld > 0 ? kHeld : 1];

  MIPRUNER_DEVICE Steps(const Work& all, int64_t b)
      : work(all),
        item(b),
        first(all.problem.items.first_row(b)),
        count(all.space.counted[b]),
        log_count(log_of(static_cast<float>(count))) {
    for_each_position([&](int position, Candidate& candidate) {
      const int64_t at = first + position;
      const int64_t row = first + work.space.list[at];
      candidate = {work.problem.scores[row], work.space.normalizers[at], 0.0f};
    });
  }

  // Calls use(position, candidate) for the positions of this thread. The constructor's use sets all
  // of a candidate, so that no sum is taken from the workspace before it was written there.
  template <class Use>
  MIPRUNER_DEVICE void for_each_position(const Use& use) {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int j = 0; j < kHeld; ++j) {
      if (thread + j * kThreads < count) use(thread + j * kThreads, held[j]);
    }
    for (int p = thread + kHeld * kThreads; p < count; p += kThreads) {
      const int64_t at = first + p;
      Candidate candidate = {work.problem.scores[first + work.space.list[at]],
                             work.space.normalizers[at], work.space.sums[at]};
      use(p, candidate);
      work.space.sums[at] = candidate.sum;
    }
  }

  // The best key among this thread's positions for the first choice of text-free mode.
  MIPRUNER_DEVICE unsigned long long most_representative() {
    unsigned long long best = 0;
    for_each_position([&](int position, Candidate&) {
      float total = 0.0f;
      for (int part = 0; part < parts_of(work, item); ++part)
        total += work.space.part_sums[part * work.rows + first + position];
      best = max(best, key_of(total, position));
    });
    return best;
  }

  MIPRUNER_DEVICE unsigned long long key_of_candidate(const Candidate& candidate, int position) {
    return key_of(fmaf(-work.problem.redundancy, candidate.sum, candidate.relevance), position);
  }

  MIPRUNER_DEVICE unsigned long long most_relevant() {
    unsigned long long best = 0;
    for_each_position([&](int position, Candidate& candidate) {
      best = max(best, key_of_candidate(candidate, position));
    });
    return best;
  }

  // Takes note of a choice, whose similarities are given, and finds this thread's next best.
  MIPRUNER_DEVICE unsigned long long next_best(int chosen, const float* similarities) {
    unsigned long long best = 0;
    for_each_position([&](int position, Candidate& candidate) {
      if (position == chosen) candidate.sum = -1.0f;
      if (candidate.sum < 0.0f) return;
      candidate.sum += redundancy_of(similarities[position], candidate.normalizer, log_count);
      best = max(best, key_of_candidate(candidate, position));
    });
    return best;
  }

  MIPRUNER_DEVICE void mark(int chosen) {
    if (threadIdx.x == 0) work.space.chosen[first + work.space.list[first + chosen]] = 1;
  }

  // similarities_of(k): the row of similarities of position k, for all threads to read.
  template <class SimilaritiesOf>
  MIPRUNER_DEVICE void run(BestShared<kThreads>& shared, const SimilaritiesOf& similarities_of) {
    const int steps = work.steps(item);
    const int covered = work.covered(item);
    unsigned long long mine =
        work.wants_representative(item) ? most_representative() : most_relevant();
    for (int step = 0; step < steps; ++step) {
      int chosen;
      if (step < covered) {
        chosen = static_cast<int>(coverage_position(step, covered, count));
      } else {
        chosen = position_of(block_largest(shared, step, mine));
      }
      mark(chosen);
      if (step + 1 < steps) mine = next_best(chosen, similarities_of(chosen));
    }
  }
};

__global__ void __launch_bounds__(kStepThreads, 1) stored_steps_kernel(Work work) {
  auto& shared = dynamic_shared<BestShared<kStepThreads>>();
  const int64_t item = blockIdx.x;
  if (work.steps(item) == 0 || work.space.table_begin[item] < 0) return;
  Steps<kStepThreads, kHeldStored> steps(work, item);
  steps.run(shared, [&](int chosen) { return table_row(work, item, chosen); });
}

template <class Element>
struct ComputedShared {
  ProductShared<Element> product;
  BestShared<kProductThreads> best;
};

// Computes the similarities of one position with all others, as a row of the table would hold them.
template <class Element>
MIPRUNER_DEVICE void compute_row(ProductShared<Element>& shared, const SimilarRows<Element>& rows,
                                 int position, float* out) {
  const PositionTile<Element> a = {rows, position, 1};
  for (int column = 0; column < rows.count; column += kTileRows) {
    float tile[8][4];
    similarity_tile(shared, a, tile_at(rows, column), tile);
    if (ProductTile::a_row(0) != 0) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int k = column + ProductTile::b_row(j, c);
        if (k < rows.count) out[k] = tile[j][c];
      }
    }
  }
}

template <class Element>
__global__ void __launch_bounds__(kProductThreads, kProductBlocks)
    computed_steps_kernel(Work work) {
  auto& shared = dynamic_shared<ComputedShared<Element>>();
  const int64_t item = blockIdx.x;
  if (work.steps(item) == 0 || work.space.table_begin[item] >= 0) return;
  const SimilarRows<Element> rows = rows_of<Element>(work, item);
  float* row = work.space.similarity + work.problem.items.first_row(item);
  Steps<kProductThreads, kHeldComputed> steps(work, item);
  steps.run(shared.best, [&](int chosen) {
    // Everybody is done with the row before: a tile is written only after the barriers of its
    // product.
    compute_row(shared.product, rows, chosen, row);
    __syncthreads();
    return row;
  });
}

// ---- 6. output ----

__global__ void __launch_bounds__(kListThreads) output_kernel(Work work) {
  auto& shared = dynamic_shared<CompactShared<kListThreads>>();
  const int64_t item = blockIdx.x;
  const int64_t first = work.problem.items.first_row(item);
  const int64_t count = work.problem.items.row_count(item);
  const int64_t out = work.problem.quota.begin(item);
  const int64_t wanted = work.wanted(item);
  const bool all = wanted >= work.space.counted[item];
  const int64_t broken_wanted = all ? wanted - work.space.counted[item] : 0;
  int broken = 0;
  int kept = 0;
  for (int64_t begin = 0; begin < count; begin += kListThreads) {
    const int64_t i = begin + threadIdx.x;
    const uint8_t state = i < count ? work.problem.state[first + i] : kRowMasked;
    const int broken_before = place_in_list(shared, state == kRowBroken, &broken);
    bool keep = broken_before >= 0 && broken_before < broken_wanted;
    if (state == kRowCounts) keep = all || work.space.chosen[first + i] != 0;
    const int place = place_in_list(shared, keep, &kept);
    if (place >= 0) work.indices[out + place] = work.problem.absolute ? first + i : i;
  }
  const int64_t end = work.problem.quota.end(item);
  for (int64_t place = out + kept + threadIdx.x; place < end; place += kListThreads)
    work.indices[place] = -1;
}

// ---- launching ----

template <class Element>
Status launch_kernels(const Work& work, void* stream) {
  const Items& items = work.problem.items;
  const dim3 per_item(as_grid(items.count));
  const dim3 tiles(as_grid(tile_count(items, kTileRows)), 1, as_grid(work.space.splits));
  const size_t list_bytes = sizeof(CompactShared<kListThreads>);
  Status status =
      launch("greedy, list", list_kernel, per_item, kListThreads, list_bytes, stream, work);
  if (!status.ok()) return status;
  status = launch("greedy, similarities", similarities_kernel<Element>, tiles, kProductThreads,
                  sizeof(ProductShared<Element>), stream, work);
  if (!status.ok()) return status;
  status = launch("greedy, normalizers", normalizers_kernel,
                  dim3(as_grid(tile_count(items, kRowThreads))), kRowThreads, 0, stream, work);
  if (!status.ok()) return status;
  status = launch("greedy, representatives", representatives_kernel<Element>, tiles,
                  kProductThreads, sizeof(ProductShared<Element>), stream, work);
  if (!status.ok()) return status;
  status = launch("greedy, steps with stored similarities", stored_steps_kernel, per_item,
                  kStepThreads, sizeof(BestShared<kStepThreads>), stream, work);
  if (!status.ok()) return status;
  status = launch("greedy, steps with computed similarities", computed_steps_kernel<Element>,
                  per_item, kProductThreads, sizeof(ComputedShared<Element>), stream, work);
  if (!status.ok()) return status;
  return launch("greedy, output", output_kernel, per_item, kListThreads, list_bytes, stream, work);
}

// Room for the similarities of as many whole items as fit. How large segments are the host does not
// know, but together they have no more pairs than one item of all rows.
int64_t table_floats(const Items& items, int64_t limit) {
  const int64_t pairs = items.rows * items.rows;
  if (items.visual_offsets) return std::min(pairs, limit);
  return pairs == 0 ? 0 : std::min(items.count, limit / pairs) * pairs;
}

}  // namespace

GreedyWorkspace take_greedy_workspace(Layout& layout, const Items& items,
                                      int64_t similarity_bytes) {
  const int64_t rows = flat_rows(items);
  const int64_t chunks = (items.rows + kChunkPositions - 1) / kChunkPositions;
  GreedyWorkspace space = {};
  space.splits = tile_count(items, kTileRows) < kTilesThatFill
                     ? static_cast<int32_t>(std::max<int64_t>(chunks, 1))
                     : 1;
  space.table_size = table_floats(items, similarity_bytes / static_cast<int64_t>(sizeof(float)));
  space.list = layout.take<int32_t>(rows);
  space.counted = layout.take<int32_t>(items.count);
  space.any_huge = layout.take<uint8_t>(items.count);
  space.table_begin = layout.take<int64_t>(items.count);
  space.part_maxima = layout.take<float>(space.splits * rows);
  space.part_sums = layout.take<float>(space.splits * rows);
  space.normalizers = layout.take<float>(rows);
  space.sums = layout.take<float>(rows);
  space.similarity = layout.take<float>(rows);
  space.chosen = layout.take<uint8_t>(rows);
  space.table = layout.take<float>(space.table_size);
  return space;
}

Status launch_greedy(const GreedyProblem& problem, const GreedyWorkspace& space, int64_t* indices,
                     void* stream) {
  const Items& items = problem.items;
  const bool aligned = rows_are_aligned(items.visual, items.columns, problem.dtype);
  const int64_t rows = flat_rows(items);
  const Work work = {problem, space, rows, aligned, indices};
  return for_element(problem.dtype,
                     [&](auto element) { return launch_kernels<decltype(element)>(work, stream); });
}

}  // namespace mipruner::cuda
