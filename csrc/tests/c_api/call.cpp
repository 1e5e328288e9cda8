#include "call.h"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

namespace mipruner::tests {

mipruner_context_params cpu_params(int32_t n_threads) {
  mipruner_context_params params = mipruner_context_default_params();
  params.backend = MIPRUNER_BACKEND_CPU;
  params.n_threads = n_threads;
  return params;
}

mipruner_select_params params_by_relevance() {
  mipruner_select_params params = mipruner_select_default_params();
  params.redundancy = 0;
  params.coverage = 0;
  return params;
}

Context::Context(const mipruner_context_params& params) {
  EXPECT_EQ(mipruner_init(&params, &context_), MIPRUNER_OK) << mipruner_last_error(nullptr);
}

Context::Context(int32_t n_threads) : Context(cpu_params(n_threads)) {}

SelectCall::SelectCall(Problem given)
    : problem(std::move(given)),
      visual_view(problem.visual.view()),
      text_view(problem.text.view()),
      select_params(mipruner_select_default_params()) {
  forget_outputs();
}

void SelectCall::forget_outputs() {
  indices = Guarded<int32_t>(problem.visual.n_rows());
  scores = Guarded<float>(problem.visual.n_rows());
  result = Guarded<mipruner_result>(1);
  result[0].struct_size = sizeof(mipruner_result);
  idx_out = indices.data();
  idx_cap = static_cast<int32_t>(indices.size());
  scores_out = scores.data();
  result_out = result.data();
}

int32_t SelectCall::run(mipruner_context* context) {
  return mipruner_select(context, visual, text, params, idx_out, idx_cap, scores_out, result_out);
}

bool SelectCall::outputs_untouched() {
  // The struct's size is the caller's: for the comparison it becomes as it was before that.
  const size_t size = result[0].struct_size;
  std::memset(&result[0].struct_size, 0xa5, sizeof size);
  const bool untouched = indices.untouched() && scores.untouched() && result.untouched();
  result[0].struct_size = size;
  return untouched;
}

Outcome SelectCall::outcome(int32_t status) {
  EXPECT_EQ(result[0].n_rows, problem.visual.n_rows());
  EXPECT_TRUE(indices.untouched(result[0].n_keep));
  EXPECT_TRUE(scores.untouched(scores.size()));
  EXPECT_TRUE(result.untouched(1));
  return {status, indices.first(result[0].n_keep), scores.first(scores.size()), result[0]};
}

namespace {

Outcome run_well(mipruner_context* context, SelectCall* call,
                 const mipruner_select_params& params) {
  call->params = &params;
  const int32_t status = call->run(context);
  EXPECT_GE(status, 0) << mipruner_last_error(context);
  if (status < 0) return {status, {}, {}, {}};
  return call->outcome(status);
}

}  // namespace

Outcome select(mipruner_context* context, const Problem& problem,
               const mipruner_select_params& params) {
  SelectCall call(problem);
  return run_well(context, &call, params);
}

Outcome select_without_text(mipruner_context* context, const Problem& problem,
                            const mipruner_select_params& params) {
  SelectCall call(problem);
  call.text = nullptr;
  return run_well(context, &call, params);
}

void expect_same_bits(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.status, b.status);
  EXPECT_EQ(a.kept, b.kept);
  ASSERT_EQ(a.scores.size(), b.scores.size());
  if (a.scores.empty()) return;
  EXPECT_EQ(std::memcmp(a.scores.data(), b.scores.data(), a.scores.size() * sizeof(float)), 0);
  EXPECT_EQ(a.result.keep_hash, b.result.keep_hash);
}

void expect_parts(const std::string& sentence, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    EXPECT_NE(sentence.find(part), std::string::npos) << part << " is not in: " << sentence;
  }
}

void expect_refused(mipruner_context* context, SelectCall& call, int32_t status,
                    std::initializer_list<const char*> parts) {
  EXPECT_EQ(call.run(context), status);
  expect_parts(mipruner_last_error(context), parts);
  EXPECT_TRUE(call.outputs_untouched());

  const Problem problem = related(40, 5, 12);
  const mipruner_select_params params = mipruner_select_default_params();
  expect_same_bits(select(context, problem, params), select(Context(), problem, params));
}

}  // namespace mipruner::tests
