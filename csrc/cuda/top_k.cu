// The k largest of each row of scores, by ascending index.
//
// Method, one block per row:
// 1. A score becomes an unsigned key of the same order. The keys stay in shared memory when they
//    fit; otherwise every pass makes them again from global memory, through the same code.
// 2. Radix selection: three histograms of digits of 11, 11 and 10 bits find the key of the k-th
//    largest score (scores share their exponents, so narrower digits would crowd a few bins).
// 3. Every warp owns a contiguous part of the row. It counts the greater and the equal keys of its
//    part, learns how many there are in the parts before, and walks its part once more in order:
//    the place of a chosen key is (greater before it) + (equal before it, as far as wanted).
//
// Places come out ascending and ties go to the lower index, with no sort and no atomic on the
// output: the only atomics count, and counts do not depend on the order of threads.
#include <algorithm>

#include "cuda/backend.h"
#include "cuda/common/launch.h"
#include "cuda/common/math.h"
#include "cuda/common/shared.h"
#include "cuda/common/warp.h"
#include "cuda/row_state.cuh"
#include "cuda/top_k.cuh"

namespace mipruner::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2048;
// Rows of up to this many keys are kept in shared memory. All of TopKShared fits the 99 KiB that a
// block can have on every architecture from sm_80 on. Longer rows are read again out of L2.
constexpr int kStoredKeys = 22 * 1024;

struct TopKShared {
  SharedArray<uint32_t, kBins> histogram;
  SharedArray<uint32_t, kWarps> bin_totals;  // per warp: keys in its bins
  SharedArray<int64_t, kWarps> part_totals;  // per warp: greater and equal keys of its part
  uint32_t digit;                            // the result of one pass, from the one thread that
  uint32_t equal;                            // has found it
  SharedArray<uint32_t, kStoredKeys> keys;
};
static_assert(sizeof(TopKShared) <= 99 * 1024, "a block of sm_86, sm_89 or sm_120 has no more");
static_assert(kWarps == 32, "one warp adds up the totals of all warps, one per lane");

// What one block selects from, and where to.
struct Row {
  int64_t size;    // keys
  int64_t first;   // the element of key 0
  int64_t wanted;  // 0 to size
  int64_t begin;   // its places in the output
  int64_t end;
};

// The k-th largest key, as far as the digits in `known` tell, and how many keys that are equal to
// it in those digits are wanted.
struct Threshold {
  uint32_t key;
  uint32_t known;
  uint32_t equal;
};

// ---- where keys come from and results go: the two callers of the kernel ----

struct ScoreKeys {
  const float* scores;
  int64_t columns;
  int64_t batch_stride;
  int64_t wanted;
  float* values;
  int64_t* indices;

  MIPRUNER_DEVICE Row row(int64_t b) const {
    return {columns, b * batch_stride, wanted, b * wanted, (b + 1) * wanted};
  }
  MIPRUNER_DEVICE uint32_t key(int64_t element) const { return ordered_key(scores[element]); }
  MIPRUNER_DEVICE void keep(const Row& row, int64_t place, int64_t i) const {
    // Not out of the key, which has lost the sign of -0.0.
    const float value = scores[row.first + i];
    values[place] = value == value ? value : __uint_as_float(0xff800000u);
    indices[place] = i;
  }
};

struct SelectKeys {
  Items items;
  const float* scores;
  const uint8_t* state;
  Quota quota;
  bool absolute;
  int64_t* indices;

  MIPRUNER_DEVICE Row row(int64_t b) const {
    const int64_t size = items.row_count(b);
    const int64_t begin = quota.begin(b);
    const int64_t end = quota.end(b);
    return {size, items.first_row(b), min(size, end - begin), begin, end};
  }
  // Masked rows have key 0, broken ones 1, covered ones the largest; scores have keys from that of
  // -inf, 0x007fffff, to that of +inf, 0xff800000.
  MIPRUNER_DEVICE uint32_t key(int64_t element) const {
    const uint8_t row_state = state[element];
    if (row_state == kRowCounts) return ordered_key(scores[element]);
    if (row_state == kRowCovered) return 0xffffffff;
    return row_state == kRowBroken ? 1 : 0;
  }
  MIPRUNER_DEVICE void keep(const Row& row, int64_t place, int64_t i) const {
    indices[place] = absolute ? row.first + i : i;
  }
};

// ---- the steps of the kernel ----

template <class Source>
MIPRUNER_DEVICE uint32_t key_at(const Source& source, const Row& row, TopKShared& shared,
                                int64_t i) {
  return row.size <= kStoredKeys ? shared.keys[static_cast<int>(i)] : source.key(row.first + i);
}

template <class Source>
MIPRUNER_DEVICE void store_keys(const Source& source, const Row& row, TopKShared& shared) {
  if (row.size > kStoredKeys) return;
  const int size = static_cast<int>(row.size);
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    shared.keys[i] = source.key(row.first + i);
  }
  // No barrier: until write_chosen every thread reads only the keys it has stored itself.
}

// Counts the next digit of the keys that agree with the threshold in all known ones.
template <class Source>
MIPRUNER_DEVICE void count_digits(const Source& source, const Row& row, const Threshold& threshold,
                                  int shift, uint32_t digits, TopKShared& shared) {
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) {
    shared.histogram[bin] = 0;
  }
  __syncthreads();
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < row.size; i += kThreads) {
    const uint32_t key = key_at(source, row, shared, i);
    if ((key & threshold.known) != threshold.key) continue;
    atomicAdd(&shared.histogram[static_cast<int>((key >> shift) & (digits - 1))], 1u);
  }
  __syncthreads();  // the histogram is complete
}

MIPRUNER_DEVICE uint32_t sum_up_to_lane(uint32_t x) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const uint32_t lower = __shfl_up_sync(kFullWarp, x, distance);
    if (lane >= static_cast<int>(distance)) x += lower;
  }
  return x;
}

// The sum of `count` over all lower threads of the block.
MIPRUNER_DEVICE uint32_t sum_before_thread(uint32_t count, TopKShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const uint32_t in_warp = sum_up_to_lane(count);
  if (lane == 31) shared.bin_totals[warp] = in_warp;
  __syncthreads();
  const uint32_t in_warps = sum_up_to_lane(shared.bin_totals[lane]);
  const uint32_t before_warp = __shfl_sync(kFullWarp, in_warps, max(warp - 1, 0));
  return (warp > 0 ? before_warp : 0) + in_warp - count;
}

// Adds to the threshold the digit that the histogram shows.
MIPRUNER_DEVICE void settle_digit(int shift, uint32_t digits, TopKShared& shared,
                                  Threshold* threshold) {
  // Larger digits to lower threads, two to each.
  const int upper = static_cast<int>(digits) - 1 - 2 * static_cast<int>(threadIdx.x);
  const uint32_t first = upper > 0 ? shared.histogram[upper] : 0;
  const uint32_t second = upper > 0 ? shared.histogram[upper - 1] : 0;
  const uint32_t before = sum_before_thread(first + second, shared);
  // True in one thread of the block, the one whose two digits hold the wanted key.
  if (before < threshold->equal && threshold->equal <= before + first + second) {
    const bool is_first = threshold->equal <= before + first;
    shared.digit = static_cast<uint32_t>(is_first ? upper : upper - 1);
    shared.equal = threshold->equal - before - (is_first ? 0 : first);
  }
  // After this no thread reads the histogram or the totals of this pass. The next pass has more
  // barriers before it writes the two results again.
  __syncthreads();
  threshold->key |= shared.digit << shift;
  threshold->known |= (digits - 1) << shift;
  threshold->equal = shared.equal;
}

template <class Source>
MIPRUNER_DEVICE Threshold find_threshold(const Source& source, const Row& row, TopKShared& shared) {
  Threshold threshold = {0, 0, static_cast<uint32_t>(row.wanted)};
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = pass == 0 ? 21 : (pass == 1 ? 10 : 0);
    const uint32_t digits = pass < 2 ? 2048 : 1024;
    count_digits(source, row, threshold, shift, digits, shared);
    settle_digit(shift, digits, shared, &threshold);
  }
  return threshold;
}

// How many keys are greater than (upper half) and equal to (lower half) the threshold in all parts
// of the row before this warp's, which is [begin, end).
template <class Source>
MIPRUNER_DEVICE int64_t count_before_part(const Source& source, const Row& row, uint32_t threshold,
                                          int64_t begin, int64_t end, TopKShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int64_t counts = 0;
#pragma unroll 4
  for (int64_t i = begin + lane; i < end; i += 32) {
    const uint32_t key = key_at(source, row, shared, i);
    counts += (int64_t{key > threshold} << 32) + int64_t{key == threshold};
  }
  counts = warp_sum(counts);
  if (lane == 0) shared.part_totals[warp] = counts;
  __syncthreads();
  return warp_sum(lane < warp ? shared.part_totals[lane] : int64_t{0});
}

template <class Source>
MIPRUNER_DEVICE void write_chosen(const Source& source, const Row& row, const Threshold& threshold,
                                  TopKShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t part = (row.size + kThreads - 1) / kThreads * 32;
  const int64_t begin = min(threadIdx.x / 32 * part, row.size);
  const int64_t end = min(begin + part, row.size);
  const int64_t before = count_before_part(source, row, threshold.key, begin, end, shared);
  int64_t greater_before = before >> 32;
  int64_t equal_before = before & 0xffffffff;
  const uint32_t lower_lanes = (1u << lane) - 1;
  for (int64_t base = begin; base < end; base += 32) {
    const int64_t i = base + lane;
    const bool inside = i < end;
    const uint32_t key = inside ? key_at(source, row, shared, i) : 0;
    const bool is_greater = inside && key > threshold.key;
    const bool is_equal = inside && key == threshold.key;
    const uint32_t greater = __ballot_sync(kFullWarp, is_greater);
    const uint32_t equal = __ballot_sync(kFullWarp, is_equal);
    const int64_t my_greater = greater_before + __popc(greater & lower_lanes);
    const int64_t my_equal = equal_before + __popc(equal & lower_lanes);
    if (is_greater || (is_equal && my_equal < threshold.equal)) {
      const int64_t place = my_greater + min(my_equal, int64_t{threshold.equal});
      source.keep(row, row.begin + place, i);
    }
    greater_before += __popc(greater);
    equal_before += __popc(equal);
  }
}

template <class Source>
__global__ void __launch_bounds__(kThreads, 1) top_k_kernel(Source source) {
  TopKShared& shared = dynamic_shared<TopKShared>();
  const Row row = source.row(blockIdx.x);
  int64_t chosen = 0;
  if (row.wanted > 0) {  // the same for all threads, as barriers need
    store_keys(source, row, shared);
    Threshold threshold = find_threshold(source, row, shared);
    chosen = row.wanted;
    if (threshold.key == 0) {  // fewer keys above 0 than wanted, and key 0 is never chosen
      chosen -= threshold.equal;
      threshold.equal = 0;
    }
    write_chosen(source, row, threshold, shared);
  }
  for (int64_t place = row.begin + chosen + threadIdx.x; place < row.end; place += kThreads) {
    source.indices[place] = -1;
  }
}

template <class Source>
Status launch_top_k(const char* what, const Source& source, int64_t rows, void* stream) {
  return launch(what, top_k_kernel<Source>, dim3(static_cast<unsigned>(rows)), kThreads,
                sizeof(TopKShared), stream, source);
}

}  // namespace

Status top_k(const ScoresView& scores, int64_t k, float* values, int64_t* indices, void* stream) {
  const int64_t wanted = std::min(k, scores.columns);
  if (wanted == 0) return {};
  if (scores.batch > INT32_MAX) {
    return error(StatusCode::kInvalidArgument,
                 "scores: got a batch of %lld, allowed on CUDA is at most %d",
                 static_cast<long long>(scores.batch), INT32_MAX);
  }
  const ScoreKeys source = {scores.data, scores.columns, scores.batch_stride,
                            wanted,      values,         indices};
  return launch_top_k("top_k", source, scores.batch, stream);
}

Status launch_select_top_k(const Items& items, const float* scores, const uint8_t* state,
                           const Quota& quota, bool absolute, int64_t* indices, void* stream) {
  const SelectKeys source = {items, scores, state, quota, absolute, indices};
  return launch_top_k("select: top_k", source, items.count, stream);
}

}  // namespace mipruner::cuda
