// max_workspace: what a call may need.
#include <gtest/gtest.h>

#include "call.h"

namespace mipruner::tests {
namespace {

mipruner_context_params limited(uint64_t bytes, int32_t n_threads = 1) {
  mipruner_context_params params = cpu_params(n_threads);
  params.max_workspace = bytes;
  return params;
}

constexpr int32_t kAlways[] = {0, 50};

// The exact limit will do, and a byte less will not. `params` have no redundancy, which makes do
// with less.
void expect_exact_limit(const Problem& problem, const mipruner_select_params& params) {
  const Outcome expected = select(Context(), problem, params);
  ASSERT_GT(expected.result.workspace, 0u);
  const Outcome within = select(Context(limited(expected.result.workspace)), problem, params);
  expect_same_bits(within, expected);
  EXPECT_EQ(within.result.workspace, expected.result.workspace);

  SelectCall call(problem);
  call.select_params = params;
  const Context too_little(limited(expected.result.workspace - 1));
  EXPECT_EQ(call.run(too_little), MIPRUNER_ERROR_OUT_OF_MEMORY);
  const std::string given = "got " + std::to_string(expected.result.workspace - 1) + " bytes";
  const std::string needed = "needs " + std::to_string(expected.result.workspace);
  expect_parts(too_little.last_error(), {"max_workspace: ", given.c_str(), needed.c_str()});
  EXPECT_TRUE(call.outputs_untouched());
  // Smaller images still go through it.
  EXPECT_EQ(select(too_little, related(20, 4, 16), params).status, MIPRUNER_OK);
}

TEST(MaxWorkspace, IsExact) {
  for (int32_t estimator = 1; estimator <= MIPRUNER_ESTIMATOR_COSINE; ++estimator) {
    mipruner_select_params params = params_by_relevance();
    params.estimator = estimator;
    params.n_keep = 4;
    expect_exact_limit(related(300, 9, 16), params);
  }
}

TEST(MaxWorkspace, IsExactBesideRowsThatAreAlwaysKept) {
  mipruner_select_params params = params_by_relevance();
  params.n_keep = 4;
  params.always_keep = kAlways;
  params.n_always_keep = 1;
  expect_exact_limit(related(300, 9, 16), params);
}

// The least limit that such a call works with, by bisection.
uint64_t least_workspace(const Problem& problem, const mipruner_select_params& params,
                         uint64_t enough) {
  uint64_t too_little = 1;
  while (too_little + 1 < enough) {
    const uint64_t middle = too_little + (enough - too_little) / 2;
    SelectCall call(problem);
    call.params = &params;
    const bool works = call.run(Context(limited(middle))) >= 0;
    (works ? enough : too_little) = middle;
  }
  return enough;
}

class Redundant : public testing::TestWithParam<int64_t> {
 protected:
  Redundant() {
    params.redundancy = 0.5f;
    params.n_keep = 30;
    params.always_keep = kAlways;
    params.n_always_keep = GetParam();
  }
  mipruner_select_params params = params_by_relevance();
  const Problem problem = related(300, 9, 16);
};

INSTANTIATE_TEST_SUITE_P(AlwaysKept, Redundant, testing::Values<int64_t>(0, 2));

// Similarities are worked out again where they do not fit, to the same bits.
TEST_P(Redundant, SimilaritiesShrinkToFit) {
  const Outcome expected = select(Context(), problem, params);
  for (uint64_t bytes = expected.result.workspace; bytes > 160 * 1024; bytes = bytes * 7 / 8) {
    const Outcome within = select(Context(limited(bytes)), problem, params);
    expect_same_bits(within, expected);
    EXPECT_LE(within.result.workspace, bytes);
    EXPECT_GE(within.result.workspace, bytes / 2);  // and what fits is kept
  }
}

TEST_P(Redundant, ButNotForEver) {
  const Outcome expected = select(Context(), problem, params);
  const uint64_t least = least_workspace(problem, params, expected.result.workspace);
  // All similarities are 300 * 300 floats; at least one row of them has to fit.
  EXPECT_LT(least, expected.result.workspace - 290 * 300 * sizeof(float));
  const Outcome within = select(Context(limited(least)), problem, params);
  expect_same_bits(within, expected);
  EXPECT_EQ(within.result.workspace, least);

  SelectCall call(problem);
  call.params = &params;
  const Context too_little(limited(least - 1));
  EXPECT_EQ(call.run(too_little), MIPRUNER_ERROR_OUT_OF_MEMORY);
  expect_parts(too_little.last_error(), {"max_workspace: got ", "scratch memory"});
  EXPECT_TRUE(call.outputs_untouched());
}

TEST(MaxWorkspace, OfOneByteIsNotNoLimit) {
  SelectCall call(related(12, 3, 8));
  const Context context(limited(1));
  EXPECT_EQ(call.run(context), MIPRUNER_ERROR_OUT_OF_MEMORY);
  EXPECT_TRUE(call.outputs_untouched());
}

TEST(MaxWorkspace, IsNotNeededWhereNothingIsScored) {
  SelectCall call(related(12, 3, 8));
  call.select_params.keep_ratio = 1;
  call.scores_out = nullptr;
  EXPECT_EQ(call.run(Context(limited(1))), MIPRUNER_KEPT_ALL);
}

// Threads have scratch memory of their own.
TEST(MaxWorkspace, CoversTheThreads) {
  mipruner_select_params params = params_by_relevance();
  const Problem problem = related(700, 200, 128);
  const uint64_t alone = select(Context(1), problem, params).result.workspace;
  SelectCall call(problem);
  EXPECT_EQ(call.run(Context(limited(alone, 4))), MIPRUNER_ERROR_OUT_OF_MEMORY);
}

}  // namespace
}  // namespace mipruner::tests
