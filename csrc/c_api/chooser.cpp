#include "c_api/chooser.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/coverage.h"
#include "core/layout.h"
#include "cuda/memory.h"

namespace mipruner::c_api {
namespace {

struct Arrays {
  // These two side by side: they are fetched together.
  float* scores;        // [rows] the relevance
  int64_t* indices;     // [rows] those chosen come first, ascending
  float* discarded;     // [rows] what a choice among some of the rows says of them
  bool* mask;           // [rows] the rows that are not kept anyway
  int64_t* candidates;  // [rows] the same as a list
  float* values;        // [rows] of the candidates
};

Arrays take_arrays(Layout& layout, const Request& request) {
  const int64_t rows = request.rows();
  const int64_t rows_around = request.always.empty() ? 0 : rows;
  Arrays arrays;
  arrays.scores = layout.take<float>(rows);
  arrays.indices = layout.take<int64_t>(rows);
  arrays.discarded = layout.take<float>(rows_around);
  arrays.mask = layout.take<bool>(rows_around);
  arrays.candidates = layout.take<int64_t>(rows_around);
  arrays.values = layout.take<float>(rows_around);
  return arrays;
}

class Chooser {
 public:
  Chooser(mipruner_context* context, const Request& request, const Executor& executor)
      : context_(*context),
        request_(request),
        executor_(executor),
        to_choose_(request.keep - static_cast<int64_t>(request.always.size())) {}

  // Scratch memory, within the context's limit.
  Status prepare(Choice* choice);
  Status run(Choice* choice);

 private:
  size_t core_bytes();
  RelevanceProblem scoring() const;
  Status score();
  Status choose_around_greedily();
  void cover(int64_t candidates);
  Status choose_around_best();
  Status fetch(void* host, const void* place, int64_t bytes) const;

  mipruner_context& context_;
  const Request& request_;
  const Executor& executor_;
  const int64_t to_choose_;  // besides the rows that are always kept
  SelectProblem problem_;
  Workspace core_;
  Arrays place_ = {};  // where the views are
  Arrays host_ = {};   // the same arrays on the CPU, copies on a device
};

size_t Chooser::core_bytes() {
  const size_t bytes = select_workspace_bytes(problem_, executor_);
  if (request_.always.empty()) return bytes;
  return std::max(bytes, mutual_information_workspace_bytes(scoring(), executor_));
}

Status Chooser::prepare(Choice* choice) {
  Layout measured;
  take_arrays(measured, request_);
  const size_t array_bytes = measured.used();
  const size_t copied = request_.on_device ? array_bytes : 0;
  problem_ = select_problem(context_, request_, std::max<int64_t>(to_choose_, 1),
                            array_bytes + copied, executor_);
  core_.bytes = core_bytes();
  choice->workspace_bytes = array_bytes + copied + core_.bytes;
  if (Status s = check_workspace_limit(context_, choice->workspace_bytes); !s.ok()) return s;

  void* place = nullptr;
  if (request_.on_device) {
    if (Status s = context_.device.reserve(array_bytes + core_.bytes); !s.ok()) return s;
    place = context_.device.data();
  }
  if (Status s = context_.host.reserve(request_.on_device ? copied : choice->workspace_bytes);
      !s.ok()) {
    return s;
  }
  Layout host_layout(context_.host.data());
  host_ = take_arrays(host_layout, request_);
  if (!place) place = context_.host.data();
  Layout layout(place);
  place_ = take_arrays(layout, request_);
  core_.data = static_cast<char*>(place) + array_bytes;
  return {};
}

Status Chooser::fetch(void* host, const void* place, int64_t bytes) const {
  if (!request_.on_device) return {};
  return cuda::copy_to_host(host, place, static_cast<size_t>(bytes), executor_.stream);
}

// What gives every row its relevance. Without text that is 0, but for rows with NaN or Inf: to find
// them, a row stands in for the text.
RelevanceProblem Chooser::scoring() const {
  RelevanceProblem problem = request_.relevance;
  if (request_.words() > 0) return problem;
  problem.text = problem.visual;
  problem.text.rows = 1;
  problem.estimator = Estimator::kCosine;
  return problem;
}

Status Chooser::score() {
  const int64_t rows = request_.rows();
  Status status = mutual_information(scoring(), place_.scores, core_, executor_);
  if (status.ok()) status = fetch(host_.scores, place_.scores, rows * int64_t{sizeof(float)});
  if (!status.ok() || request_.words() > 0) return status;
  std::replace_if(
      host_.scores, host_.scores + rows, [](float score) { return std::isfinite(score); }, 0.0f);
  return {};
}

// With redundancy the other rows are chosen among themselves, as if those kept anyway were not
// there.
Status Chooser::choose_around_greedily() {
  const int64_t rows = request_.rows();
  std::fill(host_.mask, host_.mask + rows, true);
  for (int64_t row : request_.always) host_.mask[row] = false;
  if (request_.on_device) {
    const auto bytes = static_cast<size_t>(rows);
    Status status = cuda::copy_to_device(place_.mask, host_.mask, bytes, executor_.stream);
    if (!status.ok()) return status;
  }
  problem_.relevance.visual_mask.data = place_.mask;
  Status status = select(problem_, place_.indices, place_.discarded, core_, executor_);
  if (!status.ok()) return status;
  return fetch(host_.indices, place_.indices, problem_.k * int64_t{sizeof(int64_t)});
}

// Gives covered rows, in place of their relevance, more than any other row has.
void Chooser::cover(int64_t candidates) {
  int64_t* const finite = host_.indices;  // nothing has been chosen yet
  int64_t rows = 0;
  for (int64_t i = 0; i < candidates; ++i) {
    if (std::isfinite(host_.values[i])) finite[rows++] = i;
  }
  const int64_t covered = coverage_count(request_.params.coverage, to_choose_, rows);
  for (int64_t j = 0; j < covered; ++j) {
    const int64_t position = coverage_position(j, covered, rows);
    host_.values[finite[position]] = std::numeric_limits<float>::infinity();
  }
}

// Without redundancy the other rows compete by the relevance that they have among all rows.
Status Chooser::choose_around_best() {
  ScoresView view;
  view.data = host_.values;
  auto kept_anyway = request_.always.begin();
  for (int64_t row = 0; row < request_.rows(); ++row) {
    if (kept_anyway != request_.always.end() && *kept_anyway == row) {
      ++kept_anyway;
      continue;
    }
    host_.candidates[view.columns] = row;
    host_.values[view.columns] = host_.scores[row];
    ++view.columns;
  }
  if (request_.params.coverage > 0) cover(view.columns);
  Status status = top_k(view, to_choose_, host_.discarded, host_.indices, {}, {});
  for (int64_t i = 0; i < to_choose_; ++i) host_.indices[i] = host_.candidates[host_.indices[i]];
  return status;
}

Status Chooser::run(Choice* choice) {
  choice->scores = host_.scores;
  if (request_.always.empty()) {
    Status status = select(problem_, place_.indices, place_.scores, core_, executor_);
    if (status.ok()) {
      const auto* const end = reinterpret_cast<const char*>(place_.indices + request_.keep);
      status =
          fetch(host_.scores, place_.scores, end - reinterpret_cast<const char*>(place_.scores));
    }
    choice->kept.assign(host_.indices, host_.indices + (status.ok() ? request_.keep : 0));
    return status;
  }
  Status status = score();
  if (status.ok() && to_choose_ > 0) {
    status = request_.params.redundancy > 0 ? choose_around_greedily() : choose_around_best();
  }
  if (!status.ok()) return status;
  choice->kept.resize(static_cast<size_t>(request_.keep));
  std::merge(host_.indices, host_.indices + to_choose_, request_.always.begin(),
             request_.always.end(), choice->kept.begin());
  return {};
}

// The threads of a call: no more than its work is worth starting them for.
Executor executor_for(const mipruner_context& context, const Request& request,
                      Cancellation* cancellation) {
  // Multiply-adds that take about as long as starting a thread does.
  constexpr double kWorkPerThread = 4e6;
  const auto rows = static_cast<double>(request.rows());
  const double others =
      static_cast<double>(request.words()) + (request.params.redundancy > 0 ? rows : 0.0);
  const double work = rows * others * static_cast<double>(request.relevance.visual.columns);
  const double worthwhile = std::clamp(work / kWorkPerThread, 1.0, 1e6);
  Executor executor = thread_executor(
      std::min<int64_t>(context.params.n_threads, static_cast<int64_t>(worthwhile)));
  executor.stream = request.params.stream;
  if (context.params.abort_callback) {
    cancellation->asked = context.params.abort_callback;
    cancellation->data = context.params.abort_user_data;
    executor.cancellation = cancellation;
  }
  return executor;
}

}  // namespace

Status choose(mipruner_context* context, const Request& request, Choice* choice) {
  Cancellation cancellation;
  const Executor executor = executor_for(*context, request, &cancellation);
  Chooser chooser(context, request, executor);
  if (Status status = chooser.prepare(choice); !status.ok()) return status;
  return chooser.run(choice);
}

}  // namespace mipruner::c_api
