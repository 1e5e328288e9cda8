// Select: relevance, then the top k or the greedy k of every item.
//
// How many rows each segment keeps is known to the host; a first kernel writes where each one's
// indices begin, so that nothing is copied from host memory and the call can be captured in a
// graph.
#include <algorithm>

#include "core/coverage.h"
#include "cuda/backend.h"
#include "cuda/common/launch.h"
#include "cuda/compact.cuh"
#include "cuda/greedy.cuh"
#include "cuda/mutual_information.cuh"
#include "cuda/top_k.cuh"

namespace mipruner::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCoverThreads = 1024;
// Their counts travel as a kernel argument, which may hold 32,764 bytes.
constexpr int64_t kLargestSegmentCount = 2048;

struct SelectWorkspace {
  RelevanceWorkspace relevance;
  int64_t* begins;         // [items + 1], only with segments: see Quota
  GreedyWorkspace greedy;  // only with redundancy
};

struct SegmentCounts {
  int64_t k[kLargestSegmentCount];
};

// Also fills the scores, for the rows that are in no segment.
__global__ void __launch_bounds__(kThreads)
    segment_quota_kernel(int64_t* begins, int64_t segments, SegmentCounts counts, float* scores,
                         int64_t rows) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = thread; i < rows; i += static_cast<int64_t>(gridDim.x) * kThreads)
    scores[i] = -INFINITY;
  if (thread != 0 || segments == 0) return;  // no segments: begins has no memory
  int64_t begin = 0;
  for (int64_t s = 0; s < segments; ++s) {
    begins[s] = begin;
    begin += counts.k[s];
  }
  begins[segments] = begin;
}

// Marks the rows that coverage keeps, for the top k. One block per item.
__global__ void __launch_bounds__(kCoverThreads)
    cover_kernel(Items items, Quota quota, double coverage, const unsigned long long* counted_rows,
                 uint8_t* state) {
  auto& shared = dynamic_shared<CompactShared<kCoverThreads>>();
  const int64_t item = blockIdx.x;
  const int64_t first = items.first_row(item);
  const int64_t rows = items.row_count(item);
  const auto counted = static_cast<int64_t>(counted_rows[item]);
  const int64_t covered = coverage_count(coverage, quota.wanted(item), counted);
  if (covered == 0) return;  // the same for all threads
  int listed = 0;
  for (int64_t begin = 0; begin < rows; begin += kCoverThreads) {
    const int64_t i = begin + threadIdx.x;
    const bool counts = i < rows && state[first + i] == kRowCounts;
    const int position = place_in_list(shared, counts, &listed);
    if (position >= 0 && is_covered(position, covered, counted)) state[first + i] = kRowCovered;
  }
}

SelectWorkspace take_select_workspace(Layout& layout, const Items& items, float redundancy,
                                      int64_t similarity_bytes) {
  SelectWorkspace space = {};
  space.relevance = take_relevance_workspace(layout, items);
  if (items.visual_offsets) space.begins = layout.take<int64_t>(items.count + 1);
  if (redundancy > 0) space.greedy = take_greedy_workspace(layout, items, similarity_bytes);
  return space;
}

// Everything after the quota.
struct Selection {
  Items items;
  DataType dtype;
  float temperature;
  Estimator estimator;
  float redundancy;
  double coverage;
  Quota quota;
};

// Without redundancy.
Status launch_best(const Selection& selection, const SelectWorkspace& space, const float* scores,
                   bool absolute, int64_t* indices, void* stream) {
  const Items& items = selection.items;
  if (selection.coverage > 0) {
    const Status status =
        launch("select, cover", cover_kernel, dim3(as_grid(items.count)), kCoverThreads,
               sizeof(CompactShared<kCoverThreads>), stream, items, selection.quota,
               selection.coverage, space.relevance.counted_rows, space.relevance.state);
    if (!status.ok()) return status;
  }
  return launch_select_top_k(items, scores, space.relevance.state, selection.quota, absolute,
                             indices, stream);
}

Status launch_selection(const Selection& selection, const SelectWorkspace& space, int64_t* indices,
                        float* scores, void* stream) {
  const Items& items = selection.items;
  const bool absolute = items.visual_offsets != nullptr;
  Status status = launch_relevance(items, selection.dtype, selection.temperature,
                                   selection.estimator, space.relevance, scores, stream);
  if (!status.ok()) return status;
  if (selection.redundancy == 0)
    return launch_best(selection, space, scores, absolute, indices, stream);
  GreedyProblem greedy = {};
  greedy.items = items;
  greedy.dtype = selection.dtype;
  greedy.temperature = selection.temperature;
  greedy.redundancy = selection.redundancy;
  greedy.coverage = selection.coverage;
  greedy.state = space.relevance.state;
  greedy.inverse_norm = space.relevance.inverse_norm;
  greedy.scale = space.relevance.scale;
  greedy.scores = scores;
  greedy.quota = selection.quota;
  greedy.counted_words = space.relevance.counted_words;
  greedy.absolute = absolute;
  return launch_greedy(greedy, space.greedy, indices, stream);
}

Items segments_of(const SelectVarlenProblem& problem) {
  RelevanceProblem whole;
  whole.visual = problem.visual;
  whole.text = problem.text;
  Items items = items_of(whole);
  items.count = problem.segments;
  items.visual_offsets = problem.visual_offsets;
  items.text_ranges = problem.text_ranges;
  // Segments are found by their offsets.
  items.visual.batch_stride = 0;
  items.text.batch_stride = 0;
  return items;
}

}  // namespace

size_t select_workspace_bytes(const SelectProblem& problem) {
  Layout layout;
  take_select_workspace(layout, items_of(problem.relevance), problem.redundancy,
                        problem.similarity_bytes);
  return layout.used();
}

Status select(const SelectProblem& problem, int64_t* indices, float* scores, Workspace workspace,
              void* stream) {
  const RelevanceProblem& relevance = problem.relevance;
  const Items items = items_of(relevance);
  if (Status status = check_items(items); !status.ok()) return status;
  Layout layout(workspace.data);
  const SelectWorkspace space =
      take_select_workspace(layout, items, problem.redundancy, problem.similarity_bytes);
  if (items.count == 0 || items.rows == 0) return {};
  const Selection selection = {items,
                               relevance.visual.dtype,
                               relevance.temperature,
                               relevance.estimator,
                               problem.redundancy,
                               problem.coverage,
                               {nullptr, std::min(problem.k, items.rows)}};
  return launch_selection(selection, space, indices, scores, stream);
}

size_t select_varlen_workspace_bytes(const SelectVarlenProblem& problem) {
  Layout layout;
  take_select_workspace(layout, segments_of(problem), problem.redundancy, problem.similarity_bytes);
  return layout.used();
}

Status select_varlen(const SelectVarlenProblem& problem, int64_t* indices, float* scores,
                     Workspace workspace, void* stream) {
  if (problem.segments > kLargestSegmentCount) {
    return error(StatusCode::kInvalidArgument,
                 "k: got %lld segments, allowed on CUDA are %lld or fewer in one call",
                 static_cast<long long>(problem.segments),
                 static_cast<long long>(kLargestSegmentCount));
  }
  const Items items = segments_of(problem);
  if (Status status = check_items(items); !status.ok()) return status;
  Layout layout(workspace.data);
  const SelectWorkspace space =
      take_select_workspace(layout, items, problem.redundancy, problem.similarity_bytes);
  SegmentCounts counts = {};
  std::copy(problem.k, problem.k + problem.segments, counts.k);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items.rows / kThreads + 1, 1024));
  Status status = launch("select_varlen, quota", segment_quota_kernel, dim3(blocks), kThreads, 0,
                         stream, space.begins, items.count, counts, scores, items.rows);
  if (!status.ok() || items.count == 0) return status;
  const Selection selection = {items,
                               problem.visual.dtype,
                               problem.temperature,
                               problem.estimator,
                               problem.redundancy,
                               problem.coverage,
                               {space.begins, 0}};
  return launch_selection(selection, space, indices, scores, stream);
}

}  // namespace mipruner::cuda
