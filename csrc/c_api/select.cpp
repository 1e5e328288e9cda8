// mipruner_select: the rows to keep, and a wait for them.
//
// Method:
//   1. Check everything; where nothing is pruned and no score is asked for, answer at once.
//   2. Score and choose in the memory that the views are in, into scratch memory (chooser.h).
//   3. Only then write the caller's outputs, which therefore stay as they were after any failure.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "c_api/chooser.h"
#include "c_api/hash.h"
#include "c_api/log.h"
#include "c_api/params.h"
#include "c_api/request.h"
#include "cuda/memory.h"

namespace mipruner::c_api {
namespace {

using Clock = std::chrono::steady_clock;

struct Outputs {
  int32_t* indices;
  int32_t capacity;
  float* scores;            // may be nullptr
  mipruner_result* result;  // may be nullptr
};

// The best first, ties by index; rows without a finite score come last.
void sort_by_score(const float* scores, std::vector<int64_t>* kept) {
  std::stable_sort(kept->begin(), kept->end(),
                   [scores](int64_t a, int64_t b) { return scores[a] > scores[b]; });
}

int32_t count_not_finite(const float* scores, int64_t rows) {
  return static_cast<int32_t>(
      std::count_if(scores, scores + rows, [](float score) { return std::isinf(score); }));
}

// Whether text was given and tells no row from another.
bool all_equal(const Request& request, const float* scores) {
  if (request.words() == 0) return false;
  float lowest = INFINITY, highest = -INFINITY;
  for (int64_t i = 0; i < request.rows(); ++i) {
    if (std::isinf(scores[i])) continue;
    lowest = std::min(lowest, scores[i]);
    highest = std::max(highest, scores[i]);
  }
  return lowest >= highest;
}

int32_t verdict(const Request& request, const Choice& choice, int32_t not_finite) {
  if (request.keeps_all()) return MIPRUNER_KEPT_ALL;
  if (not_finite > 0) {
    log(kWarning, "%d of %lld visual rows hold NaN or Inf; they are kept last", not_finite,
        static_cast<long long>(request.rows()));
    return MIPRUNER_DEGENERATE;
  }
  if (all_equal(request, choice.scores)) {
    log(kWarning, "no visual row says more about the text than another: relevance decides nothing");
    return MIPRUNER_DEGENERATE;
  }
  return MIPRUNER_OK;
}

int32_t write_outputs(const Request& request, const Choice& choice, Clock::time_point start,
                      const Outputs& outputs) {
  const int64_t rows = request.rows();
  const int32_t not_finite = choice.scores ? count_not_finite(choice.scores, rows) : -1;
  const int32_t status = verdict(request, choice, not_finite);
  std::vector<int64_t> kept = choice.kept;
  if (request.params.order == MIPRUNER_ORDER_SCORE) sort_by_score(choice.scores, &kept);
  mipruner_result result = {};
  result.n_rows = static_cast<int32_t>(rows);
  result.n_keep = static_cast<int32_t>(kept.size());
  result.n_not_finite = not_finite;
  result.workspace = choice.workspace_bytes;
  result.keep_hash = hash_of_kept(rows, choice.kept.data(), result.n_keep);
  const std::chrono::duration<float, std::milli> elapsed = Clock::now() - start;
  result.t_ms = elapsed.count();
  std::transform(kept.begin(), kept.end(), outputs.indices,
                 [](int64_t row) { return static_cast<int32_t>(row); });
  if (outputs.scores) std::copy(choice.scores, choice.scores + rows, outputs.scores);
  write_result(result, outputs.result);
  return status;
}

int32_t select_rows(mipruner_context* context, const mipruner_view* visual,
                    const mipruner_view* text, const mipruner_select_params* params,
                    const Outputs& outputs) {
  const Clock::time_point start = Clock::now();
  Request request;
  Status status = read_request(*context, visual, text, params, &request);
  if (status.ok()) {
    status = check_outputs(outputs.indices, outputs.capacity, outputs.scores, request.keep);
  }
  if (status.ok()) status = check_result(outputs.result);
  if (!status.ok()) return report(context, status);
  Choice choice;
  const bool wants_scores = outputs.scores || request.params.order == MIPRUNER_ORDER_SCORE;
  if (request.rows() == 0 || (request.keeps_all() && !wants_scores)) {
    choice.kept.resize(static_cast<size_t>(request.keep));
    std::iota(choice.kept.begin(), choice.kept.end(), int64_t{0});
  } else {
    cuda::DeviceScope scope;
    if (request.on_device) status = scope.enter(context->params.device_id);
    if (status.ok()) status = choose(context, request, &choice);
    if (!status.ok()) return report(context, status);
  }
  return write_outputs(request, choice, start, outputs);
}

}  // namespace
}  // namespace mipruner::c_api

int32_t mipruner_select(mipruner_context* context, const mipruner_view* visual,
                        const mipruner_view* text, const mipruner_select_params* params,
                        int32_t* idx_out, int32_t idx_cap, float* scores_out,
                        mipruner_result* result) {
  using namespace mipruner::c_api;
  return with_context(context, [&] {
    return select_rows(context, visual, text, params, {idx_out, idx_cap, scores_out, result});
  });
}
