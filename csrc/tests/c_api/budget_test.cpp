// mipruner_keep_count, mipruner_n_keep.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "call.h"

namespace mipruner::tests {
namespace {

constexpr int64_t kLargest32 = std::numeric_limits<int32_t>::max();
constexpr int64_t kLargest64 = std::numeric_limits<int64_t>::max();

struct Count {
  int64_t n;
  double ratio;
  int64_t kept;
};

// By hand, or as Python counts: min(n, max(1, math.floor(ratio * n + 0.5))).
constexpr Count kCounts[] = {
    {0, 0.25, 0},
    {0, 1.0, 0},
    {1, 1e-300, 1},
    {1, 0.25, 1},
    {1, 1.0, 1},
    {2, 0.25, 1},  // 0.5 rounds up
    {5, 0.1, 1},
    {5, 0.5, 3},  // 2.5 rounds up
    {5, 0.7, 4},  // 3.5 rounds up; 0.7 as a float32 would give 3
    {6, 0.25, 2},
    {10, 0.35, 4},  // 3.5 in float64, though the decimal fraction in there is below
    {10, 0.05, 1},
    {10, 0.149999, 1},
    {10, 0.15, 2},
    {576, 0.25, 144},
    {576, 1.0 / 9, 64},
    {3, std::numeric_limits<double>::denorm_min(), 1},
    {1000, 0.9996, 1000},
    {kLargest32, 1.0, kLargest32},
    {kLargest32, 0.5, 1073741824},  // 1073741823.5 rounds up
    {kLargest32, 0.25, 536870912},
    {(int64_t{1} << 53) + 1, 1.0, int64_t{1} << 53},  // a float64 holds no more of n
    {(int64_t{1} << 53) + 1, 0.5, int64_t{1} << 52},
    {kLargest64, 1.0, kLargest64},
    {kLargest64, 0.5, int64_t{1} << 62},
    {kLargest64, 1.0 - 0x1p-53, kLargest64 - 1023},
};

TEST(KeepCount, Table) {
  for (const Count& count : kCounts) {
    EXPECT_EQ(mipruner_keep_count(count.n, count.ratio), count.kept)
        << count.n << " * " << count.ratio;
  }
}

TEST(KeepCount, CountsBelowZero) {
  EXPECT_EQ(mipruner_keep_count(-1, 0.5), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"n: got -1"});
  EXPECT_LT(mipruner_keep_count(std::numeric_limits<int64_t>::min(), 0.5), 0);
}

TEST(KeepCount, RatiosOutside) {
  for (double ratio : {0.0, -0.25, 1.0000000000000002, 2.0, HUGE_VAL, -HUGE_VAL}) {
    EXPECT_EQ(mipruner_keep_count(10, ratio), MIPRUNER_ERROR_INVALID_ARGUMENT) << ratio;
    expect_parts(mipruner_last_error(nullptr), {"ratio: got ", "(0, 1]"});
  }
  EXPECT_EQ(mipruner_keep_count(10, std::nan("")), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"ratio: got nan"});
}

TEST(NKeep, OfTheDefaults) {
  EXPECT_EQ(mipruner_n_keep(nullptr, 0), 0);
  EXPECT_EQ(mipruner_n_keep(nullptr, 1), 1);
  EXPECT_EQ(mipruner_n_keep(nullptr, 576), 144);
  EXPECT_EQ(mipruner_n_keep(nullptr, kLargest32), 536870912);
}

TEST(NKeep, OfACountOrARatio) {
  mipruner_select_params params = mipruner_select_default_params();
  params.keep_ratio = 0.7;
  EXPECT_EQ(mipruner_n_keep(&params, 5), 4);
  params.n_keep = 64;
  EXPECT_EQ(mipruner_n_keep(&params, 576), 64);
  EXPECT_EQ(mipruner_n_keep(&params, 64), 64);
  EXPECT_EQ(mipruner_n_keep(&params, 63), 63);
  EXPECT_EQ(mipruner_n_keep(&params, 0), 0);
  params.keep_ratio = -1;  // not used beside a count
  EXPECT_EQ(mipruner_n_keep(&params, 576), 64);
}

TEST(NKeep, OfFewRows) {
  mipruner_select_params params = mipruner_select_default_params();
  params.min_tokens = 16;
  params.n_keep = 4;
  EXPECT_EQ(mipruner_n_keep(&params, 15), 15);
  EXPECT_EQ(mipruner_n_keep(&params, 16), 16);
  EXPECT_EQ(mipruner_n_keep(&params, 17), 4);
}

TEST(NKeep, RowsOutside) {
  EXPECT_EQ(mipruner_n_keep(nullptr, -1), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"n_rows: got -1"});
  EXPECT_EQ(mipruner_n_keep(nullptr, kLargest32 + 1), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"n_rows: got 2147483648", "2^31 - 1"});
}

TEST(NKeep, BadParams) {
  mipruner_select_params params = mipruner_select_default_params();
  params.n_keep = -2;
  EXPECT_EQ(mipruner_n_keep(&params, 10), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"n_keep: got -2"});
  params = mipruner_select_default_params();
  params.struct_size = 0;
  EXPECT_EQ(mipruner_n_keep(&params, 10), MIPRUNER_ERROR_INVALID_ARGUMENT);
}

// The promise that engines size their placeholders by.
TEST(NKeep, IsWhatSelectionKeeps) {
  const Context context;
  for (int64_t n_rows : {1, 2, 3, 5, 6, 7, 10, 33}) {
    for (double ratio : {0.01, 0.25, 0.35, 0.5, 0.7, 1.0}) {
      mipruner_select_params params = mipruner_select_default_params();
      params.keep_ratio = ratio;
      const Outcome outcome = select(context, related(n_rows, 3, 8), params);
      EXPECT_EQ(outcome.result.n_keep, mipruner_n_keep(&params, n_rows));
    }
  }
}

}  // namespace
}  // namespace mipruner::tests
