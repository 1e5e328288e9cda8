// The position plan: by hand for what it must be, and over random cases for what must always hold.
#include "mipruner_llama/positions.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "support.h"

namespace mipruner::llama {
namespace {

using test::expect_error;
using test::expect_ok;
using Rows = std::vector<int32_t>;

int32_t draw(std::mt19937* random, int32_t low, int32_t high) {
  return std::uniform_int_distribution<int32_t>(low, high)(*random);
}

Rows draw_kept(std::mt19937* random, int32_t n_rows, int32_t n_kept) {
  Rows rows(static_cast<size_t>(n_rows));
  std::iota(rows.begin(), rows.end(), 0);
  std::shuffle(rows.begin(), rows.end(), *random);
  rows.resize(static_cast<size_t>(n_kept));
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::vector<SectionPosition> grid(int32_t nx, int32_t ny, int32_t n_past) {
  std::vector<SectionPosition> rows;
  for (int32_t y = 0; y < ny; ++y) {
    for (int32_t x = 0; x < nx; ++x) rows.push_back({n_past, n_past + y, n_past + x, n_past});
  }
  return rows;
}

std::vector<SectionPosition> framed(int32_t nx, int32_t ny) {
  std::vector<SectionPosition> rows = {{0, 0, 0, 0}};
  for (int32_t i = 0; i < (nx + 1) * ny; ++i) {
    rows.push_back({i + 1, i % (nx + 1), i / (nx + 1), 0});
  }
  const auto last = static_cast<int32_t>(rows.size());
  rows.push_back({last, last, last, last});
  return rows;
}

std::vector<SectionPosition> sequence(int32_t n) {
  std::vector<SectionPosition> rows;
  for (int32_t i = 0; i < n; ++i) rows.push_back({i, i, i, i});
  return rows;
}

TEST(Positions, OneDimensionIsRenumbered) {
  PositionPlan plan;
  expect_ok(plan_renumbered(3, 10, &plan));
  EXPECT_EQ(plan.n_sections, 1);
  EXPECT_EQ(plan.advance, 3);
  EXPECT_EQ(plan.sections, (Rows{10, 11, 12}));
}

TEST(Positions, MropeKeepsTheGridAndAdvancesByTheWholeImage) {
  PositionPlan plan;
  // Rows 1 and 5 of a 3 x 2 grid at position 7.
  expect_ok(plan_original({{7, 7, 8, 7}, {7, 8, 9, 7}}, 3, 7, &plan));
  EXPECT_EQ(plan.n_sections, 4);
  EXPECT_EQ(plan.n_kept, 2);
  EXPECT_EQ(plan.advance, 3);
  EXPECT_EQ(plan.sections, (Rows{7, 7, 7, 8, 8, 9, 7, 7}));
}

TEST(Positions, NothingKeptStillAdvancesUnderMrope) {
  PositionPlan plan;
  expect_ok(plan_original({}, 24, 5, &plan));
  EXPECT_EQ(plan.advance, 24);
  expect_ok(plan_renumbered(0, 5, &plan));
  EXPECT_EQ(plan.advance, 0);
}

TEST(Positions, TimeThatGoesBackIsRefused) {
  PositionPlan plan;
  plan.advance = 77;
  expect_error(plan_original({{5, 0, 0, 0}, {4, 0, 0, 0}}, 2, 0, &plan), {"time 4 after 5"});
  EXPECT_EQ(plan.advance, 77);
}

TEST(Positions, OverflowIsRefused) {
  PositionPlan plan;
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  expect_ok(plan_renumbered(2, kMost - 2, &plan));
  EXPECT_EQ(plan.sections, (Rows{kMost - 2, kMost - 1}));
  expect_error(plan_renumbered(3, kMost - 2, &plan), {"got 3 after n_past 2147483645", "0 to 2"});
  expect_error(plan_original({}, 3, kMost - 2, &plan), {"got 3 after"});
  expect_error(plan_original({}, -1, 0, &plan), {"got -1 after n_past 0"});
  expect_error(plan_renumbered(1, -1, &plan), {"n_past: got -1"});
}

TEST(Positions, KeptRowsAreChecked) {
  const Rows good = {0, 3, 4};
  expect_ok(check_kept(good.data(), 3, 5));
  expect_ok(check_kept(nullptr, 0, 5));
  expect_error(check_kept(good.data(), 3, 4),
               {"kept[2]: got 4 after 3, allowed are ascending rows from 0 to 3"});
  expect_error(check_kept(good.data(), 3, 2), {"n_kept: got 3", "0 to the 2 rows"});
  expect_error(check_kept(good.data(), -1, 5), {"n_kept: got -1"});
  expect_error(check_kept(nullptr, 1, 5), {"kept: got NULL"});
  const Rows falling = {3, 1};
  expect_error(check_kept(falling.data(), 2, 5), {"kept[1]: got 1 after 3, allowed are ascending"});
  const Rows twice = {2, 2};
  expect_error(check_kept(twice.data(), 2, 5), {"kept[1]: got 2 after 2"});
  const Rows negative = {-1, 2};
  expect_error(check_kept(negative.data(), 2, 5),
               {"kept[0]: got -1, allowed are ascending rows from 0 to 4"});
}

TEST(Positions, GridsAreToldApart) {
  const auto expect_grid = [](const std::vector<SectionPosition>& rows, int32_t nx, int32_t ny) {
    const Grid found = grid_of(rows);
    EXPECT_EQ(found.nx, nx);
    EXPECT_EQ(found.ny, ny);
  };
  for (int32_t nx = 1; nx <= 9; ++nx) {
    for (int32_t ny = 1; ny <= 9; ++ny) {
      SCOPED_TRACE(std::to_string(nx) + " x " + std::to_string(ny));
      expect_grid(grid(nx, ny, 0), nx, ny);
      expect_grid(framed(nx, ny), nx, ny);
    }
    expect_grid(sequence(nx), nx, 1);
  }
}

// Over random images, cuts into batches and kept rows.
TEST(Positions, RandomPlans) {
  std::mt19937 random(20260704);
  for (int trial = 0; trial < 2000; ++trial) {
    SCOPED_TRACE(trial);
    const int32_t nx = draw(&random, 1, 20);
    const int32_t ny = draw(&random, 1, 20);
    const int32_t n_past = draw(&random, 0, 1000);
    const int32_t n_kept = draw(&random, 0, nx * ny);
    const Rows kept = draw_kept(&random, nx * ny, n_kept);
    ASSERT_TRUE(check_kept(kept.data(), n_kept, nx * ny).ok());
    const bool is_mrope = draw(&random, 0, 1) == 1;
    const std::vector<SectionPosition> all = grid(nx, ny, n_past);
    std::vector<SectionPosition> original;
    for (const int32_t row : kept) original.push_back(all[static_cast<size_t>(row)]);
    PositionPlan plan;
    expect_ok(is_mrope ? plan_original(original, std::max(nx, ny), n_past, &plan)
                       : plan_renumbered(n_kept, n_past, &plan));
    EXPECT_EQ(plan.advance, is_mrope ? std::max(nx, ny) : n_kept);

    // Sub-batches put together again are the plan, section by section.
    const int32_t step = draw(&random, 1, nx * ny);
    std::vector<Rows> together(static_cast<size_t>(plan.n_sections));
    for (int32_t first = 0; first < n_kept; first += step) {
      const int32_t count = std::min(step, n_kept - first);
      Rows part;
      batch_positions(plan, first, count, &part);
      ASSERT_EQ(part.size(), static_cast<size_t>(plan.n_sections * count));
      for (size_t s = 0; s < together.size(); ++s) {
        const auto begin = part.begin() + static_cast<std::ptrdiff_t>(s) * count;
        together[s].insert(together[s].end(), begin, begin + count);
      }
    }
    for (int32_t k = 0; k < n_kept; ++k) {
      const auto i = static_cast<size_t>(k);
      const SectionPosition& at = all[static_cast<size_t>(kept[i])];
      EXPECT_EQ(together[0][i], is_mrope ? n_past : n_past + k);
      if (!is_mrope) continue;
      EXPECT_EQ(together[1][i], at.y);
      EXPECT_EQ(together[2][i], at.x);
      EXPECT_EQ(together[3][i], at.z);
      // No kept row lies at or beyond where the sequence goes on.
      EXPECT_LT(std::max({at.t, at.y, at.x}), n_past + plan.advance);
    }
    EXPECT_TRUE(std::is_sorted(together[0].begin(), together[0].end()));
  }
}

}  // namespace
}  // namespace mipruner::llama
