// What mipruner_select keeps and how it scores, beside the method in float64.
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "call.h"
#include "oracle.h"

namespace mipruner::tests {
namespace {

// Decisions that were won by less than this are float32's to make.
constexpr double kDecisive = 1e-4;

mipruner_select_params params_for(const Task& task) {
  mipruner_select_params params = mipruner_select_default_params();
  params.estimator = task.estimator;
  params.temperature = static_cast<float>(task.temperature);
  params.redundancy = static_cast<float>(task.redundancy);
  params.coverage = task.coverage;
  params.n_keep = static_cast<int32_t>(task.keep);
  params.always_keep = task.always_keep.data();
  params.n_always_keep = static_cast<int64_t>(task.always_keep.size());
  return params;
}

void expect_close(const std::vector<float>& scores, const std::vector<double>& exact) {
  double largest = 0;
  for (double score : exact) {
    if (std::isfinite(score)) largest = std::max(largest, std::fabs(score));
  }
  ASSERT_EQ(scores.size(), exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    if (std::isinf(exact[i])) {
      EXPECT_EQ(scores[i], -HUGE_VALF) << i;
    } else {
      EXPECT_NEAR(static_cast<double>(scores[i]), exact[i], 1e-5 * largest + 2e-6) << i;
    }
  }
}

void expect_as_in_float64(const Problem& problem, const Task& task) {
  const Expected expected = expected_selection(problem, task);
  ASSERT_GT(expected.margin, kDecisive) << "this input decides nothing";
  const Outcome outcome = select(Context(), problem, params_for(task));
  EXPECT_EQ(outcome.kept, expected.kept);
  expect_close(outcome.scores, expected.scores);
}

// The first of the random problems whose choice float32 has to get right.
Problem decisive_problem(int64_t n_rows, int64_t n_words, int64_t n_cols, const Task& task,
                         int32_t dtype = MIPRUNER_DTYPE_F32, int64_t row_stride = 0) {
  for (uint32_t seed = 1; seed < 100; ++seed) {
    Problem problem = related(n_rows, n_words, n_cols, seed, dtype, row_stride);
    if (expected_selection(problem, task).margin > kDecisive) return problem;
  }
  ADD_FAILURE() << "no problem of this kind decides anything";
  return related(n_rows, n_words, n_cols);
}

// ---- every estimator, with and without redundancy, of every element type ----

class Values : public testing::TestWithParam<std::tuple<int32_t, double, int32_t>> {
 protected:
  Task task_to_keep(int64_t keep) const {
    Task task;
    task.estimator = std::get<0>(GetParam());
    task.redundancy = std::get<1>(GetParam());
    task.keep = keep;
    return task;
  }
  int32_t dtype() const { return std::get<2>(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(
    All, Values,
    testing::Combine(testing::Values(MIPRUNER_ESTIMATOR_SPECIFIC, MIPRUNER_ESTIMATOR_POSTERIOR,
                                     MIPRUNER_ESTIMATOR_JOINT, MIPRUNER_ESTIMATOR_COSINE),
                     testing::Values(0.0, 0.5),
                     testing::Values(MIPRUNER_DTYPE_F32, MIPRUNER_DTYPE_F16, MIPRUNER_DTYPE_BF16)));

// More words than a vector has lanes, more columns than are staged at once.
TEST_P(Values, AreThoseOfTheMethod) {
  const Task task = task_to_keep(12);
  expect_as_in_float64(decisive_problem(53, 21, 300, task, dtype()), task);
}

TEST_P(Values, AroundRowsThatAreAlwaysKept) {
  Task task = task_to_keep(9);
  task.always_keep = {0, 17, 39};
  expect_as_in_float64(decisive_problem(40, 6, 33, task, dtype()), task);
}

TEST_P(Values, AfterRowsThatCoverTheImage) {
  Task task = task_to_keep(12);
  task.coverage = 0.5;
  expect_as_in_float64(decisive_problem(53, 21, 30, task, dtype()), task);
  task.coverage = 0.4;  // of the 7 besides
  task.keep = 9;
  task.always_keep = {17, 39};
  expect_as_in_float64(decisive_problem(40, 6, 33, task, dtype()), task);
}

TEST_P(Values, OfRowsFarApart) {
  const Task task = task_to_keep(8);
  expect_as_in_float64(decisive_problem(31, 5, 24, task, dtype(), 41), task);
}

TEST_P(Values, BesideRowsThatAreNotFinite) {
  Task task = task_to_keep(7);
  task.coverage = 0.3;
  Problem problem = decisive_problem(30, 5, 24, task, dtype());
  std::vector<double> visual = problem.visual.values(), text = problem.text.values();
  visual[3 * 24] = std::nan("");
  visual[11 * 24 + 23] = HUGE_VAL;
  text[2 * 24 + 5] = -HUGE_VAL;  // words do not count either
  problem = {Rows(visual, 30, 24, dtype()), Rows(text, 5, 24, dtype())};
  const Outcome outcome = select(Context(), problem, params_for(task));
  const Expected expected = expected_selection(problem, task);
  EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE);
  EXPECT_EQ(outcome.result.n_not_finite, 2);
  expect_close(outcome.scores, expected.scores);
  if (expected.margin > kDecisive) {
    EXPECT_EQ(outcome.kept, expected.kept);
  }
}

// ---- other words, temperatures, redundancies ----

class OneEstimator : public testing::TestWithParam<int32_t> {
 protected:
  OneEstimator() {
    task.estimator = GetParam();
    task.keep = 6;
  }
  Task task;
};

INSTANTIATE_TEST_SUITE_P(All, OneEstimator,
                         testing::Values(MIPRUNER_ESTIMATOR_SPECIFIC, MIPRUNER_ESTIMATOR_POSTERIOR,
                                         MIPRUNER_ESTIMATOR_JOINT, MIPRUNER_ESTIMATOR_COSINE));

TEST_P(OneEstimator, OfASingleWord) {
  if (task.estimator == MIPRUNER_ESTIMATOR_JOINT) {
    // A single word carries no information of this kind.
    const Outcome outcome = select(Context(), related(24, 1, 16), params_for(task));
    expect_close(outcome.scores, std::vector<double>(24));
    return;
  }
  expect_as_in_float64(decisive_problem(24, 1, 16, task), task);
}

TEST_P(OneEstimator, OfASingleColumn) {
  const Outcome outcome = select(Context(), related(24, 3, 1), params_for(task));
  expect_close(outcome.scores, expected_selection(related(24, 3, 1), task).scores);
}

TEST_P(OneEstimator, OfAHighTemperature) {
  task.temperature = 0.5;
  expect_as_in_float64(decisive_problem(24, 7, 16, task), task);
}

TEST_P(OneEstimator, OfStrongRedundancy) {
  task.redundancy = 3;
  expect_as_in_float64(decisive_problem(24, 7, 16, task), task);
}

TEST(Estimators, TheDefaultIsSpecific) {
  const Problem problem = related(24, 5, 16);
  mipruner_select_params params = mipruner_select_default_params();
  const Outcome by_default = select(Context(), problem, params);
  params.estimator = MIPRUNER_ESTIMATOR_SPECIFIC;
  expect_same_bits(by_default, select(Context(), problem, params));
  params.estimator = MIPRUNER_ESTIMATOR_COSINE;
  EXPECT_NE(by_default.scores, select(Context(), problem, params).scores);
}

TEST(Estimators, NoParamsAreTheDefaults) {
  SelectCall call(related(24, 5, 16));
  const Outcome given = select(Context(), call.problem, mipruner_select_default_params());
  call.params = nullptr;
  const int32_t status = call.run(Context());
  expect_same_bits(call.outcome(status), given);
}

// What the library does with so many rows where no params are given.
Task default_task(int64_t rows) {
  const mipruner_select_params params = mipruner_select_default_params();
  Task task;
  task.redundancy = static_cast<double>(params.redundancy);
  task.coverage = params.coverage;
  task.keep = mipruner_n_keep(nullptr, rows);
  return task;
}

// With redundancy and coverage, of whatever strength, and not the top K by relevance.
TEST(Estimators, TheDefaultsAreThoseOfTheMethod) {
  const Task task = default_task(40);
  const Problem problem = decisive_problem(40, 6, 33, task);
  expect_as_in_float64(problem, task);
  SelectCall call(problem);
  call.params = nullptr;
  const int32_t status = call.run(Context());
  const Outcome by_default = call.outcome(status);
  EXPECT_EQ(by_default.kept, expected_selection(problem, task).kept);
  EXPECT_NE(by_default.kept, select(Context(), problem, params_by_relevance()).kept);
}

// ---- without text ----

class WithoutText : public testing::TestWithParam<std::vector<int32_t>> {};

INSTANTIATE_TEST_SUITE_P(All, WithoutText,
                         testing::Values(std::vector<int32_t>{}, std::vector<int32_t>{4},
                                         std::vector<int32_t>{0, 1, 29}));

TEST_P(WithoutText, RedundancyChooses) {
  Task task;
  task.redundancy = 1;
  task.keep = 8;
  task.always_keep = GetParam();
  const Problem problem = decisive_problem(30, 0, 12, task);
  expect_as_in_float64(problem, task);
  expect_same_bits(select_without_text(Context(), problem, params_for(task)),
                   select(Context(), problem, params_for(task)));
}

TEST(WithoutTextOrParams, RedundancyChoosesByDefault) {
  const Task task = default_task(30);
  const Problem problem = decisive_problem(30, 0, 12, task);
  SelectCall call(problem);
  call.text = nullptr;
  call.params = nullptr;
  ASSERT_EQ(call.run(Context()), MIPRUNER_OK);
  EXPECT_EQ(call.outcome(MIPRUNER_OK).kept, expected_selection(problem, task).kept);
}

// A row that is kept whatever it scores is not finite for all that.
TEST_P(WithoutText, RowsThatAreNotFiniteScoreNothing) {
  Task task;
  task.redundancy = 1;
  task.keep = 8;
  task.always_keep = GetParam();
  std::vector<double> values = related(30, 0, 12).visual.values();
  for (size_t row : {0u, 4u, 13u}) values[row * 12 + row % 12] = std::nan("");
  const Problem problem = {Rows(values, 30, 12), Rows({}, 0, 12)};
  const Outcome outcome = select(Context(), problem, params_for(task));
  EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE);
  EXPECT_EQ(outcome.result.n_not_finite, 3);
  expect_close(outcome.scores, expected_selection(problem, task).scores);
}

// ---- bits ----

TEST(Bits, AreTheSameOnAnyNumberOfThreads) {
  const Problem problem = related(700, 31, 128);
  for (float redundancy : {0.0f, 0.5f}) {
    mipruner_select_params params = params_by_relevance();
    params.redundancy = redundancy;
    params.n_keep = 40;
    const Outcome alone = select(Context(1), problem, params);
    uint64_t workspace = alone.result.workspace;
    for (int32_t n_threads = 2; n_threads <= 8; ++n_threads) {
      const Outcome together = select(Context(n_threads), problem, params);
      expect_same_bits(alone, together);
      // Every lane has scratch memory: so one can see that there were more of them. Without
      // redundancy there is not enough work for any.
      if (redundancy > 0) {
        EXPECT_GT(together.result.workspace, workspace);
      }
      workspace = together.result.workspace;
    }
  }
}

TEST(Bits, AreTheSameWhateverLiesBetweenTheRows) {
  mipruner_select_params params = mipruner_select_default_params();
  params.redundancy = 0.5f;
  expect_same_bits(select(Context(), related(60, 9, 30), params),
                   select(Context(), related(60, 9, 30, 1, MIPRUNER_DTYPE_F32, 77), params));
}

TEST(Bits, ScoresDoNotDependOnWhatIsKept) {
  const Problem problem = related(60, 9, 30);
  mipruner_select_params params = params_by_relevance();
  const Outcome few = select(Context(), problem, params);
  const int32_t always[] = {5, 59};
  params.always_keep = always;
  params.n_always_keep = 2;
  params.redundancy = 1;
  EXPECT_EQ(select(Context(), problem, params).scores, few.scores);
  params.n_keep = 60;
  EXPECT_EQ(select(Context(), problem, params).scores, few.scores);
}

}  // namespace
}  // namespace mipruner::tests
