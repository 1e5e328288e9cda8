// Relevance and selection: scores as on the CPU, the same rows but for near ties, and the same bits
// whatever else is in the call and in whatever order threads and blocks run.
#include "tests/cuda_cases/select_problem.h"

namespace mipruner::cases {
namespace {

// A batch against its items one by one, bit for bit, blocks and threads in another order.
std::string compare_with_items(const SelectProblem& problem, const Result& result) {
  const int64_t rows = problem.relevance.visual.rows;
  const int64_t width = std::min(problem.k, rows);
  next_thread_order();
  for (int64_t b = 0; b < problem.relevance.visual.batch; ++b) {
    const Result alone = select_on_device(item_of(problem, b));
    if (!alone.status.ok()) return alone.status.message;
    if (alone.launches != result.launches) return "the item alone takes more or fewer launches";
    if (!same_bits(alone.scores, result.scores.data() + b * rows))
      return "scores differ from those of the item alone";
    if (!same_bits(alone.indices, result.indices.data() + b * width))
      return "indices differ from those of the item alone";
  }
  return {};
}

// What CUDA graphs and latencies rest on: choosing another number of rows takes no other launches.
std::string check_launches(SelectProblem problem, const Result& result) {
  problem.k = problem.k == 1 ? problem.relevance.visual.rows + 1 : 1;
  const Result other = select_on_device(problem);
  if (!other.status.ok()) return other.status.message;
  const MatrixView& visual = problem.relevance.visual;
  if (result.launches == 0 && visual.batch * visual.rows > 0) return "no launch was counted";
  return other.launches == result.launches ? "" : "the number of launches depends on k";
}

std::string check_whole(const SelectProblem& problem) {
  const Result got = select_on_device(problem);
  if (!got.status.ok()) return got.status.message;
  const Result want = select_on_cpu(problem);
  const int64_t rows = problem.relevance.visual.rows;
  const int64_t width = std::min(problem.k, rows);
  for (int64_t b = 0; b < problem.relevance.visual.batch; ++b) {
    const float* scores = got.scores.data() + b * rows;
    std::string fault =
        compare_scores(scores, want.scores.data() + b * rows, rows, problem.relevance.temperature);
    if (fault.empty())
      fault = check_indices(item_of(problem, b), got.indices.data() + b * width, scores);
    if (!fault.empty()) return fault + " (item " + std::to_string(b) + ")";
  }
  const std::string fault = compare_with_items(problem, got);
  return fault.empty() ? check_launches(problem, got) : fault;
}

}  // namespace

Verdict check_mutual_information(Random& random) {
  const Problem problem = any_problem(random, false);
  const RelevanceProblem& relevance = problem.select.relevance;
  const int64_t rows = relevance.visual.batch * relevance.visual.rows;
  const Buffer<float> scores(rows, "scores");
  const size_t bytes = cuda::mutual_information_workspace_bytes(relevance);
  const Buffer<char> workspace(static_cast<int64_t>(bytes), "workspace");
  const Status status =
      cuda::mutual_information(relevance, scores.data(), {workspace.data(), bytes}, nullptr);
  const std::string what = "mutual_information " + describe(problem.select) + ": ";
  if (!status.ok()) return {what + status.message};
  const Result want = select_on_cpu(problem.select);
  for (int64_t b = 0; b < relevance.visual.batch; ++b) {
    const int64_t first = b * relevance.visual.rows;
    const std::string fault = compare_scores(scores.data() + first, want.scores.data() + first,
                                             relevance.visual.rows, relevance.temperature);
    if (!fault.empty()) return {what + fault};
  }
  return {};
}

// Relevance alone: the k best.
Verdict check_select(Random& random) {
  const Problem problem = any_problem(random, false);
  const std::string fault = check_whole(problem.select);
  return {fault.empty() ? fault : "select " + describe(problem.select) + ": " + fault};
}

// With redundancy, and perhaps without a text.
Verdict check_greedy(Random& random) {
  Problem problem = any_problem(random, true);
  SelectProblem& select = problem.select;
  select.redundancy = random.any_of({0.25f, 1.0f, 3.0f});
  select.similarity_bytes = any_similarity_bytes(random, select);
  const std::string fault = check_whole(select);
  return {fault.empty() ? fault : "greedy " + describe(select) + ": " + fault};
}

}  // namespace mipruner::cases
