// Which rows win where scores do not decide, how many, and in which order they come out.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "call.h"

namespace mipruner::tests {
namespace {

std::vector<int32_t> first_rows(int32_t count) {
  std::vector<int32_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

Problem repeated(int64_t n_rows, int64_t n_cols) {
  const Problem one = related(1, 4, n_cols);
  std::vector<double> values;
  for (int64_t i = 0; i < n_rows; ++i) {
    values.insert(values.end(), one.visual.values().begin(), one.visual.values().end());
  }
  return {Rows(values, n_rows, n_cols), one.text};
}

Problem with_row_values(int64_t n_rows, int64_t n_cols, const std::vector<int64_t>& rows,
                        double value) {
  const Problem problem = related(n_rows, 4, n_cols);
  std::vector<double> values = problem.visual.values();
  for (int64_t row : rows) {
    const auto begin = values.begin() + row * n_cols;
    std::fill(begin, begin + n_cols, value);
  }
  return {Rows(values, n_rows, n_cols), problem.text};
}

mipruner_select_params keeping(int32_t n_keep, float redundancy = 0) {
  mipruner_select_params params = params_by_relevance();
  params.n_keep = n_keep;
  params.redundancy = redundancy;
  return params;
}

// ---- ties ----

TEST(Ties, GoToTheLowerIndex) {
  const Outcome outcome = select(Context(), repeated(20, 8), keeping(6));
  EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE);
  EXPECT_EQ(outcome.kept, first_rows(6));
}

// The rows of a pair score the same bits.
TEST(Ties, BetweenRowsThatLieApart) {
  const Problem ten = related(10, 4, 8);
  std::vector<double> values = ten.visual.values();
  values.insert(values.end(), ten.visual.values().begin(), ten.visual.values().end());
  const Problem twice = {Rows(values, 20, 8), ten.text};
  const Outcome outcome = select(Context(), twice, keeping(5));
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(outcome.scores[i], outcome.scores[i + 10]);
  // Two whole pairs, and of the third best the row that comes first.
  const auto single = std::find_if(outcome.kept.begin(), outcome.kept.end(), [&](int32_t row) {
    const int32_t twin = row < 10 ? row + 10 : row - 10;
    return std::count(outcome.kept.begin(), outcome.kept.end(), twin) == 0;
  });
  ASSERT_NE(single, outcome.kept.end());
  EXPECT_LT(*single, 10);
}

TEST(Ties, GoToTheLowerIndexBesideRowsKeptAnyway) {
  mipruner_select_params params = keeping(6);
  const int32_t always[] = {1, 19};
  params.always_keep = always;
  params.n_always_keep = 2;
  EXPECT_EQ(select(Context(), repeated(20, 8), params).kept,
            (std::vector<int32_t>{0, 1, 2, 3, 4, 19}));
}

TEST(Ties, WithRedundancy) {
  EXPECT_EQ(select(Context(), repeated(20, 8), keeping(6, 0.5f)).kept, first_rows(6));
  EXPECT_EQ(select_without_text(Context(), repeated(20, 8), keeping(6, 0.5f)).kept, first_rows(6));
}

TEST(Ties, ATextOfZerosTellsNothing) {
  for (int64_t words : {1, 3}) {
    const auto zeros = static_cast<size_t>(words * 8);
    const Problem problem = {related(20, 4, 8).visual, Rows(std::vector<double>(zeros), words, 8)};
    for (int32_t estimator = 1; estimator <= MIPRUNER_ESTIMATOR_COSINE; ++estimator) {
      mipruner_select_params params = keeping(6);
      params.estimator = estimator;
      const Outcome outcome = select(Context(), problem, params);
      EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE) << estimator;
      EXPECT_EQ(outcome.kept, first_rows(6)) << estimator;
    }
  }
}

// ---- rows that are zero or not finite ----

TEST(OddRows, OfZerosAreFinite) {
  const Outcome outcome = select(Context(), with_row_values(20, 8, {0, 7}, 0.0), keeping(5));
  EXPECT_EQ(outcome.status, MIPRUNER_OK);
  EXPECT_EQ(outcome.result.n_not_finite, 0);
  EXPECT_TRUE(std::isfinite(outcome.scores[0]));
}

TEST(OddRows, NotFiniteOnesComeLast) {
  for (double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    const Problem problem = with_row_values(20, 8, {2, 3, 4, 11}, value);
    const Outcome outcome = select(Context(), problem, keeping(16));
    EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE);
    EXPECT_EQ(outcome.result.n_not_finite, 4);
    for (int32_t row : {2, 3, 4, 11}) {
      EXPECT_EQ(outcome.scores[static_cast<size_t>(row)], -HUGE_VALF);
      EXPECT_EQ(std::count(outcome.kept.begin(), outcome.kept.end(), row), 0);
    }
  }
}

TEST(OddRows, NotFiniteOnesFillWhatIsLeft) {
  const Problem problem = with_row_values(20, 8, {2, 3, 4, 11}, std::nan(""));
  for (float redundancy : {0.0f, 0.5f}) {
    const Outcome outcome = select(Context(), problem, keeping(18, redundancy));
    std::vector<int32_t> all_but_two = first_rows(20);
    all_but_two.erase(all_but_two.begin() + 11);
    all_but_two.erase(all_but_two.begin() + 4);
    EXPECT_EQ(outcome.kept, all_but_two);
  }
}

TEST(OddRows, AllNotFinite) {
  const Problem problem = {Rows(std::vector<double>(160, std::nan("")), 20, 8),
                           related(1, 4, 8).text};
  for (float redundancy : {0.0f, 0.5f}) {
    const Outcome outcome = select(Context(), problem, keeping(5, redundancy));
    EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE);
    EXPECT_EQ(outcome.kept, first_rows(5));
    EXPECT_EQ(outcome.result.n_not_finite, 20);
  }
}

TEST(OddRows, NoWordIsFinite) {
  const Problem problem = {related(20, 4, 8).visual,
                           Rows(std::vector<double>(32, std::nan("")), 4, 8)};
  const Outcome outcome = select(Context(), problem, keeping(5));
  EXPECT_EQ(outcome.status, MIPRUNER_DEGENERATE);
  EXPECT_EQ(outcome.kept, first_rows(5));
  EXPECT_EQ(outcome.scores, std::vector<float>(20));
}

TEST(OddRows, HugeAndTinyOnesAreOnlyLongOrShort) {
  Problem problem = related(20, 4, 8);
  const Outcome expected = select(Context(), problem, keeping(5));
  std::vector<double> values = problem.visual.values();
  for (size_t i = 0; i < 8; ++i) values[i] *= 0x1p100;   // row 0
  for (size_t i = 8; i < 16; ++i) values[i] *= 0x1p-20;  // row 1
  problem.visual = Rows(values, 20, 8);
  const Outcome outcome = select(Context(), problem, keeping(5));
  EXPECT_EQ(outcome.kept, expected.kept);
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(outcome.scores[i], expected.scores[i], 1e-5);
}

// ---- how many ----

TEST(HowMany, AllOfThem) {
  const Problem problem = related(12, 4, 8);
  for (int32_t n_keep : {12, 13, 1000000}) {
    const Outcome outcome = select(Context(), problem, keeping(n_keep));
    EXPECT_EQ(outcome.status, MIPRUNER_KEPT_ALL);
    EXPECT_EQ(outcome.kept, first_rows(12));
    EXPECT_EQ(outcome.result.n_not_finite, 0);
    EXPECT_EQ(outcome.scores, select(Context(), problem, keeping(3)).scores);
  }
}

TEST(HowMany, AllOfThemWithoutScoring) {
  SelectCall call(related(12, 4, 8));
  call.select_params.keep_ratio = 1;
  call.scores_out = nullptr;
  EXPECT_EQ(call.run(Context()), MIPRUNER_KEPT_ALL);
  EXPECT_EQ(call.indices.first(12), first_rows(12));
  EXPECT_EQ(call.result[0].n_not_finite, -1);
  EXPECT_EQ(call.result[0].workspace, 0u);
  EXPECT_EQ(call.result[0].keep_hash, mipruner_keep_hash(12, call.indices.data(), 12));
}

TEST(HowMany, ImagesOfFewRowsAreKeptWhole) {
  mipruner_select_params params = keeping(3);
  params.min_tokens = 12;
  EXPECT_EQ(select(Context(), related(12, 4, 8), params).status, MIPRUNER_KEPT_ALL);
  const Outcome outcome = select(Context(), related(13, 4, 8), params);
  EXPECT_EQ(outcome.status, MIPRUNER_OK);
  EXPECT_EQ(outcome.kept.size(), 3u);
}

TEST(HowMany, ARatioOfThem) {
  mipruner_select_params params = mipruner_select_default_params();
  EXPECT_EQ(select(Context(), related(20, 4, 8), params).kept.size(), 5u);
  params.keep_ratio = 0.125;  // 2.5 rounds up
  EXPECT_EQ(select(Context(), related(20, 4, 8), params).kept.size(), 3u);
}

TEST(HowMany, NoRowsAtAll) {
  SelectCall call(related(0, 4, 8));
  call.visual_view.data = nullptr;
  call.idx_out = nullptr;
  call.idx_cap = 0;
  for (int32_t order : {MIPRUNER_ORDER_ASCENDING, MIPRUNER_ORDER_SCORE}) {
    call.select_params.order = order;
    EXPECT_EQ(call.run(Context()), MIPRUNER_KEPT_ALL);
    EXPECT_EQ(call.result[0].n_keep, 0);
    EXPECT_EQ(call.result[0].n_rows, 0);
    EXPECT_TRUE(call.scores.untouched());
  }
}

TEST(HowMany, ASingleRow) {
  const Outcome outcome = select(Context(), related(1, 4, 8), keeping(1, 0.5f));
  EXPECT_EQ(outcome.status, MIPRUNER_KEPT_ALL);
  EXPECT_EQ(outcome.kept, first_rows(1));
}

// ---- rows that are always kept ----

TEST(AlwaysKept, RepeatsCountOnce) {
  const Problem problem = related(20, 4, 8);
  mipruner_select_params params = keeping(5);
  const int32_t once[] = {3, 17};
  params.always_keep = once;
  params.n_always_keep = 2;
  const Outcome expected = select(Context(), problem, params);
  const int32_t repeats[] = {17, 3, 3, 17, 3, 17, 17, 3, 3};
  params.always_keep = repeats;
  params.n_always_keep = 9;
  expect_same_bits(select(Context(), problem, params), expected);
  EXPECT_TRUE(std::includes(expected.kept.begin(), expected.kept.end(), once, once + 2));
}

TEST(AlwaysKept, AsManyAsAreKept) {
  for (float redundancy : {0.0f, 1.0f}) {
    mipruner_select_params params = keeping(3, redundancy);
    const int32_t always[] = {19, 0, 7};
    params.always_keep = always;
    params.n_always_keep = 3;
    EXPECT_EQ(select(Context(), related(20, 4, 8), params).kept, (std::vector<int32_t>{0, 7, 19}));
  }
}

TEST(AlwaysKept, EvenIfNotFinite) {
  const Problem problem = with_row_values(20, 8, {2, 9}, std::nan(""));
  for (float redundancy : {0.0f, 1.0f}) {
    mipruner_select_params params = keeping(4, redundancy);
    const int32_t always = 9;
    params.always_keep = &always;
    params.n_always_keep = 1;
    const Outcome outcome = select(Context(), problem, params);
    EXPECT_EQ(std::count(outcome.kept.begin(), outcome.kept.end(), 9), 1);
    EXPECT_EQ(std::count(outcome.kept.begin(), outcome.kept.end(), 2), 0);
    EXPECT_EQ(outcome.result.n_not_finite, 2);
  }
}

TEST(AlwaysKept, AllRows) {
  const std::vector<int32_t> all = first_rows(10);
  for (float redundancy : {0.0f, 1.0f}) {
    mipruner_select_params params = keeping(10, redundancy);
    params.always_keep = all.data();
    params.n_always_keep = 10;
    const Outcome outcome = select(Context(), related(10, 4, 8), params);
    EXPECT_EQ(outcome.status, MIPRUNER_KEPT_ALL);
    EXPECT_EQ(outcome.kept, all);
  }
}

// ---- rows that cover the image ----

TEST(Coverage, OfAllIsTheSameWhateverTheRowsHold) {
  for (float redundancy : {0.0f, 0.5f}) {
    mipruner_select_params params = keeping(4, redundancy);
    params.coverage = 1;
    // The middle of the first of four runs of five; then a golden ratio on, and on.
    EXPECT_EQ(select(Context(), related(20, 4, 8), params).kept,
              (std::vector<int32_t>{2, 5, 13, 16}));
    EXPECT_EQ(select(Context(), repeated(20, 8), params).kept,
              (std::vector<int32_t>{2, 5, 13, 16}));
  }
}

TEST(Coverage, CountsOnlyRowsToChooseAmong) {
  for (float redundancy : {0.0f, 0.5f}) {
    mipruner_select_params params = keeping(6, redundancy);
    params.coverage = 1;
    const int32_t always[] = {2, 16};
    params.always_keep = always;
    params.n_always_keep = 2;
    // Positions 2, 5, 13, 16 of the twenty that are left.
    const Problem problem = with_row_values(24, 8, {3, 20}, std::nan(""));
    EXPECT_EQ(select(Context(), problem, params).kept, (std::vector<int32_t>{2, 4, 7, 15, 16, 19}));
  }
}

TEST(Coverage, OfAHalfRoundsUp) {
  const Problem problem = related(40, 4, 8);
  mipruner_select_params params = keeping(1);
  params.coverage = 0.5;  // of the one row
  EXPECT_EQ(select(Context(), problem, params).kept, (std::vector<int32_t>{20}));
  params.coverage = 0.49;
  EXPECT_EQ(select(Context(), problem, params).kept, select(Context(), problem, keeping(1)).kept);
}

TEST(Coverage, LeavesScoresAlone) {
  const Problem problem = related(40, 4, 8);
  mipruner_select_params params = keeping(10);
  const Outcome without = select(Context(), problem, params);
  params.coverage = 0.5;
  const Outcome covered = select(Context(), problem, params);
  EXPECT_EQ(covered.scores, without.scores);
  EXPECT_NE(covered.kept, without.kept);
}

TEST(Coverage, WithoutTextTheMostRepresentativeRowComesAfterIt) {
  mipruner_select_params params = keeping(1, 1.0f);
  params.coverage = 1;
  EXPECT_EQ(select_without_text(Context(), related(20, 4, 8), params).kept,
            (std::vector<int32_t>{10}));
}

// ---- order ----

class OrderOf : public testing::TestWithParam<float> {};
INSTANTIATE_TEST_SUITE_P(Redundancies, OrderOf, testing::Values(0.0f, 0.5f));

TEST_P(OrderOf, ByScoreIsTheSameRowsBestFirst) {
  const Problem problem = related(50, 4, 8);
  mipruner_select_params params = keeping(12, GetParam());
  const Outcome ascending = select(Context(), problem, params);
  EXPECT_TRUE(std::is_sorted(ascending.kept.begin(), ascending.kept.end()));
  params.order = MIPRUNER_ORDER_SCORE;
  const Outcome best_first = select(Context(), problem, params);
  EXPECT_EQ(best_first.scores, ascending.scores);
  EXPECT_EQ(best_first.result.keep_hash, ascending.result.keep_hash);
  std::vector<int32_t> expected = ascending.kept;
  std::sort(expected.begin(), expected.end(), [&](int32_t a, int32_t b) {
    const float score_a = ascending.scores[static_cast<size_t>(a)];
    const float score_b = ascending.scores[static_cast<size_t>(b)];
    return score_a != score_b ? score_a > score_b : a < b;
  });
  EXPECT_EQ(best_first.kept, expected);
}

TEST_P(OrderOf, ByScoreWithTies) {
  mipruner_select_params params = keeping(9, GetParam());
  params.order = MIPRUNER_ORDER_SCORE;
  EXPECT_EQ(select(Context(), repeated(20, 8), params).kept, first_rows(9));
}

TEST(Order, ByScoreNeedsNoScoresOut) {
  SelectCall call(related(30, 4, 8));
  call.select_params.order = MIPRUNER_ORDER_SCORE;
  const Outcome expected = select(Context(), call.problem, call.select_params);
  call.scores_out = nullptr;
  EXPECT_EQ(call.run(Context()), MIPRUNER_OK);
  EXPECT_EQ(call.indices.first(8), expected.kept);
}

TEST(Order, ByScoreOfAllRows) {
  mipruner_select_params params = keeping(30);
  params.order = MIPRUNER_ORDER_SCORE;
  const Outcome outcome = select(Context(), related(30, 4, 8), params);
  EXPECT_EQ(outcome.status, MIPRUNER_KEPT_ALL);
  for (size_t i = 1; i < 30; ++i) {
    EXPECT_GE(outcome.scores[static_cast<size_t>(outcome.kept[i - 1])],
              outcome.scores[static_cast<size_t>(outcome.kept[i])]);
  }
}

// Rows without a score end the list.
TEST(Order, ByScoreWithRowsThatAreNotFinite) {
  const Problem problem = with_row_values(10, 8, {0, 5}, std::nan(""));
  mipruner_select_params params = keeping(9);
  params.order = MIPRUNER_ORDER_SCORE;
  EXPECT_EQ(select(Context(), problem, params).kept.back(), 0);
}

// ---- what else is told ----

TEST(Result, TellsWhatWasDone) {
  const Outcome outcome = select(Context(), related(50, 4, 8), keeping(12));
  EXPECT_EQ(outcome.result.struct_size, sizeof(mipruner_result));
  EXPECT_EQ(outcome.result.n_rows, 50);
  EXPECT_EQ(outcome.result.n_keep, 12);
  EXPECT_EQ(outcome.result.n_not_finite, 0);
  EXPECT_GT(outcome.result.workspace, 50u * 4 * sizeof(float));
  EXPECT_GE(outcome.result.t_ms, 0.0f);
  EXPECT_LT(outcome.result.t_ms, 10000.0f);
}

}  // namespace
}  // namespace mipruner::tests
