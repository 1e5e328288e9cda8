// select_varlen: each segment is, bit for bit, a select of its own.
#include "tests/cuda_cases/select_problem.h"

namespace mipruner::cases {
namespace {

// Where the segments are, in device memory.
struct Segments {
  int64_t count;
  Buffer<int64_t> offsets;
  Buffer<int64_t> ranges;
  std::vector<int64_t> k;  // in host memory

  Segments(Random& random, int64_t segments, int64_t rows, int64_t words)
      : count(segments),
        offsets(segments + 1, "visual_offsets"),
        ranges(2 * segments, "text_ranges") {
    offsets[0] = random.one_in(2) ? 0 : random.below(rows + 1);
    // Many segments are mostly empty.
    const int64_t largest = segments > 10 ? rows : rows / segments + random.below(rows);
    for (int64_t s = 0; s < segments; ++s) {
      const int64_t left = std::min(rows - offsets[s], largest);
      const bool empty = segments > 10 ? !random.one_in(segments / 2) : random.one_in(6);
      offsets[s + 1] = offsets[s] + (empty ? 0 : random.below(left + 1));
      ranges[2 * s] = random.below(words + 1);
      ranges[2 * s + 1] = ranges[2 * s] + random.below(words + 1 - ranges[2 * s]);
      k.push_back(1 + random.below(random.any_of<int64_t>({3, std::min<int64_t>(rows + 2, 100)})));
    }
    if (random.one_in(3)) offsets[segments] = rows;
    if (!random.one_in(8)) return;
    // Outside of the matrices: clamped to them.
    offsets[0] = -3;
    offsets[segments] = rows + 7;
    ranges[0] = -2;
    ranges[2 * segments - 1] = words + 9;
  }
};

int64_t clamp(int64_t x, int64_t high) { return std::min(std::max<int64_t>(x, 0), high); }

// Segment s of a problem of one item.
SelectProblem segment_of(const SelectProblem& problem, const Segments& segments, int64_t s) {
  SelectProblem alone = problem;
  alone.k = segments.k[static_cast<size_t>(s)];
  const auto cut = [](MatrixView* view, int64_t begin, int64_t end) {
    const auto size = static_cast<int64_t>(element_size(view->dtype));
    const int64_t first = clamp(begin, view->rows);
    view->rows = std::max<int64_t>(clamp(end, view->rows) - first, 0);
    view->data = static_cast<const char*>(view->data) + first * view->row_stride * size;
  };
  cut(&alone.relevance.visual, segments.offsets[s], segments.offsets[s + 1]);
  cut(&alone.relevance.text, segments.ranges[2 * s], segments.ranges[2 * s + 1]);
  return alone;
}

std::string compare_with_segments(const SelectProblem& problem, const Segments& segments,
                                  const int64_t* indices, const float* scores) {
  next_thread_order();
  for (int64_t s = 0; s < segments.count; ++s) {
    const SelectProblem alone = segment_of(problem, segments, s);
    const int64_t first = clamp(segments.offsets[s], problem.relevance.visual.rows);
    Result want;
    if (alone.relevance.visual.rows > 0) want = select_on_device(alone);
    if (!want.status.ok()) return want.status.message;
    for (int64_t& i : want.indices) i += i < 0 ? 0 : first;
    want.indices.resize(static_cast<size_t>(alone.k), -1);
    if (!same_bits(want.indices, indices)) return "indices differ from those of the segment alone";
    if (!same_bits(want.scores, scores + first))
      return "scores differ from those of the segment alone";
    indices += alone.k;
  }
  return {};
}

std::string check_uncovered(const Segments& segments, const Buffer<float>& scores, int64_t rows) {
  const int64_t last = segments.offsets[segments.count];
  for (int64_t i = 0; i < rows; ++i) {
    const bool covered = i >= segments.offsets[0] && i < last;
    if (!covered && scores[i] != -kInfinity) return "a row of no segment has a score";
  }
  return {};
}

SelectVarlenProblem pack(const SelectProblem& problem, const Segments& segments) {
  SelectVarlenProblem packed;
  packed.visual = problem.relevance.visual;
  packed.text = problem.relevance.text;
  packed.segments = segments.count;
  packed.visual_offsets = segments.offsets.data();
  packed.text_ranges = segments.ranges.data();
  packed.k = segments.k.data();
  packed.temperature = problem.relevance.temperature;
  packed.estimator = problem.relevance.estimator;
  packed.redundancy = problem.redundancy;
  packed.coverage = problem.coverage;
  packed.similarity_bytes = problem.similarity_bytes;
  return packed;
}

// No segments at all, and null where their arrays would be: every row is in no segment.
std::string check_no_segments(const SelectProblem& problem) {
  SelectVarlenProblem packed;
  packed.visual = problem.relevance.visual;
  packed.text = problem.relevance.text;
  packed.redundancy = problem.redundancy;
  const int64_t rows = packed.visual.rows;
  const Buffer<float> scores(rows, "scores");
  const size_t bytes = cuda::select_varlen_workspace_bytes(packed);
  const Buffer<char> workspace(static_cast<int64_t>(bytes), "workspace");
  const Status status =
      cuda::select_varlen(packed, nullptr, scores.data(), {workspace.data(), bytes}, nullptr);
  if (!status.ok()) return status.message;
  for (int64_t i = 0; i < rows; ++i) {
    if (scores[i] != -kInfinity) return "without segments a row has a score";
  }
  return {};
}

}  // namespace

Verdict check_select_varlen(Random& random) {
  Problem problem = any_problem(random, false);
  SelectProblem& select = problem.select;
  select.relevance.visual.batch = select.relevance.text.batch = 1;
  select.relevance.visual_mask = select.relevance.text_mask = {};
  if (random.one_in(2)) select.redundancy = 1.0f;
  if (random.one_in(12)) return {check_no_segments(select)};
  select.similarity_bytes = any_similarity_bytes(random, select);
  const int64_t rows = select.relevance.visual.rows;
  // With that many segments, no sum is cut into parts for want of blocks.
  const int64_t count = random.one_in(8) ? 260 : 1 + random.below(4);
  const Segments segments(random, count, rows, select.relevance.text.rows);
  const SelectVarlenProblem packed = pack(select, segments);

  const int64_t total = std::accumulate(segments.k.begin(), segments.k.end(), int64_t{0});
  const Buffer<int64_t> indices(total, "indices");
  const Buffer<float> scores(rows, "scores");
  const size_t bytes = cuda::select_varlen_workspace_bytes(packed);
  const Buffer<char> workspace(static_cast<int64_t>(bytes), "workspace");
  const Status status = cuda::select_varlen(packed, indices.data(), scores.data(),
                                            {workspace.data(), bytes}, nullptr);
  std::string fault = status.ok() ? "" : status.message;
  if (fault.empty()) fault = compare_with_segments(select, segments, indices.data(), scores.data());
  if (fault.empty()) fault = check_uncovered(segments, scores, rows);
  if (fault.empty()) return {};
  return {"select_varlen of " + std::to_string(count) + " segments, " + describe(select) + ": " +
          fault};
}

}  // namespace mipruner::cases
