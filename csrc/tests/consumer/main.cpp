// Keeps 3 of 8 rows and prints them: visual row i points along axis i, the two words along 2 and 5.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "core/operations.h"

namespace {

mipruner::MatrixView view_of(const std::vector<float>& rows, int64_t columns) {
  mipruner::MatrixView view;
  view.data = rows.data();
  view.rows = static_cast<int64_t>(rows.size()) / columns;
  view.columns = view.row_stride = columns;
  return view;
}

}  // namespace

int main() {
  constexpr int64_t kRows = 8;
  std::vector<float> visual(kRows * kRows), text(2 * kRows), scores(kRows);
  for (int64_t i = 0; i < kRows; ++i) visual[i * kRows + i] = 1.0f;
  text[2] = text[kRows + 5] = 1.0f;

  mipruner::SelectProblem problem;
  problem.relevance.visual = view_of(visual, kRows);
  problem.relevance.text = view_of(text, kRows);
  problem.k = 3;
  std::vector<int64_t> kept(problem.k);
  const mipruner::Executor executor = mipruner::thread_executor(2);
  const size_t bytes = mipruner::select_workspace_bytes(problem, executor);
  void* workspace = std::aligned_alloc(64, bytes);

  const mipruner::Status status =
      mipruner::select(problem, kept.data(), scores.data(), {workspace, bytes}, executor);
  std::free(workspace);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message);
    return 1;
  }
  for (int64_t row : kept) std::printf("%lld ", static_cast<long long>(row));
  std::printf("\n");
  return 0;
}
