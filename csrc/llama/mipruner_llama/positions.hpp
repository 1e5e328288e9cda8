// Where kept rows stand for the decoder: pure arithmetic, without llama.cpp.
//
// 1-D RoPE. llama.cpp takes only consecutive positions, so the K kept rows are renumbered
// n_past, n_past + 1, ..., and the sequence goes on at n_past + K.
//
// M-RoPE. Gaps are allowed, so kept rows stay where they were in the image: time, row and column of
// the original grid. The sequence goes on where it would have without pruning, at n_past plus the
// n_pos of the whole chunk. llama.cpp accepts any other advance in silence, and answers get worse.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "mipruner_llama/status.hpp"

namespace mipruner::llama {

// One row's position as llama_batch.pos has it under M-RoPE, in the order of its sections.
struct SectionPosition {
  int32_t t = 0, y = 0, x = 0, z = 0;
};

struct PositionPlan {
  int32_t n_sections = 1;         // 1, or 4 under M-RoPE
  int32_t n_kept = 0;             // K
  int32_t advance = 0;            // of n_past
  std::vector<int32_t> sections;  // [n_sections, n_kept]
};

// Row indices must ascend and lie in [0, n_rows).
inline Status check_kept(const int32_t* kept, int32_t n_kept, int64_t n_rows) {
  if (n_kept < 0 || n_kept > n_rows) {
    return invalid("n_kept: got " + std::to_string(n_kept) + ", allowed are 0 to the " +
                   std::to_string(n_rows) + " rows of the image");
  }
  if (kept == nullptr && n_kept > 0) {
    return invalid("kept: got NULL, allowed are " + std::to_string(n_kept) + " row indices");
  }
  for (int32_t i = 0; i < n_kept; ++i) {
    if (kept[i] < 0 || kept[i] >= n_rows || (i > 0 && kept[i] <= kept[i - 1])) {
      return invalid("kept[" + std::to_string(i) + "]: got " + std::to_string(kept[i]) +
                     (i > 0 ? " after " + std::to_string(kept[i - 1]) : "") +
                     ", allowed are ascending rows from 0 to " + std::to_string(n_rows - 1));
    }
  }
  return {};
}

inline Status check_advance(int32_t n_past, int64_t advance) {
  if (n_past < 0) {
    return invalid("n_past: got " + std::to_string(n_past) + ", allowed is 0 or more");
  }
  const int64_t room = std::numeric_limits<int32_t>::max() - int64_t{n_past};
  if (advance < 0 || advance > room) {
    return invalid("the positions of the image: got " + std::to_string(advance) + " after n_past " +
                   std::to_string(n_past) + ", allowed are 0 to " + std::to_string(room));
  }
  return {};
}

inline Status plan_renumbered(int32_t n_kept, int32_t n_past, PositionPlan* plan) {
  const Status status = check_advance(n_past, n_kept);
  if (!status.ok()) return status;
  plan->n_sections = 1;
  plan->n_kept = n_kept;
  plan->advance = n_kept;
  plan->sections.resize(static_cast<size_t>(n_kept));
  for (int32_t i = 0; i < n_kept; ++i) plan->sections[static_cast<size_t>(i)] = n_past + i;
  return {};
}

// original: the kept rows' positions in the whole image, n_past already added; n_pos: of the whole
// chunk. Time must not go back, or llama.cpp refuses the batch.
inline Status plan_original(const std::vector<SectionPosition>& original, int32_t n_pos,
                            int32_t n_past, PositionPlan* plan) {
  const Status status = check_advance(n_past, n_pos);
  if (!status.ok()) return status;
  const size_t n = original.size();
  std::vector<int32_t> sections(4 * n);
  for (size_t i = 0; i < n; ++i) {
    if (i > 0 && original[i].t < original[i - 1].t) {
      return invalid("the positions of the image: got time " + std::to_string(original[i].t) +
                     " after " + std::to_string(original[i - 1].t) +
                     ", allowed are times that do not decrease");
    }
    sections[i] = original[i].t;
    sections[n + i] = original[i].y;
    sections[2 * n + i] = original[i].x;
    sections[3 * n + i] = original[i].z;
  }
  plan->n_sections = 4;
  plan->n_kept = static_cast<int32_t>(n);
  plan->advance = n_pos;
  plan->sections = std::move(sections);
  return {};
}

// The positions of rows [first, first + count) as one llama_batch wants them: section-major with a
// stride of `count`, whatever the stride of the whole image is. out: [n_sections, count].
inline void batch_positions(const PositionPlan& plan, int32_t first, int32_t count,
                            std::vector<int32_t>* out) {
  out->clear();
  out->reserve(static_cast<size_t>(plan.n_sections) * static_cast<size_t>(count));
  for (int32_t section = 0; section < plan.n_sections; ++section) {
    const auto begin =
        plan.sections.begin() + static_cast<std::ptrdiff_t>(int64_t{section} * plan.n_kept + first);
    out->insert(out->end(), begin, begin + count);
  }
}

struct Grid {
  int32_t nx = 0, ny = 0;
};

// The grid of an image, from the positions of all its rows with n_past 0. libmtmd deprecates its
// own getters in favour of this. Three kinds are known, told apart by the second row:
//
//   time stays   a grid, row by row
//   framed       HunyuanVL: one row, then lines of nx rows and a newline, then one row. Time goes
//   on
//                with every row, and y and x change their places
//   a sequence   tiles: every section goes on with every row, and the grid is n x 1
inline Grid grid_of(const std::vector<SectionPosition>& rows) {
  const auto n = static_cast<int32_t>(rows.size());
  const bool time_stays = n < 2 || rows[1].t == rows[0].t;
  const bool is_framed = n >= 4 && !time_stays && rows[1].y == 0 && rows[1].x == 0;
  if (!time_stays && !is_framed) return {n, 1};
  Grid grid;
  const size_t skipped = is_framed ? 1 : 0;
  for (size_t i = skipped; i + skipped < rows.size(); ++i) {
    grid.nx = std::max(grid.nx, is_framed ? rows[i].y : rows[i].x + 1);
    grid.ny = std::max(grid.ny, (is_framed ? rows[i].x : rows[i].y) + 1);
  }
  return grid;
}

}  // namespace mipruner::llama
