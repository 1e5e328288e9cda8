// Calls that must be refused, one by one: prints what each status says, and whether the outputs are
// as they were.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/operations.h"

namespace {

constexpr int64_t kRows = 8;

struct Call {
  std::vector<float> visual = std::vector<float>(kRows * kRows, 1.0f);
  std::vector<float> text = std::vector<float>(2 * kRows, 1.0f);
  std::vector<float> scores = std::vector<float>(kRows, -7.0f);
  std::vector<int64_t> kept = std::vector<int64_t>(3, -7);
  mipruner::SelectProblem problem;

  Call() {
    problem.relevance.visual.data = visual.data();
    problem.relevance.visual.rows = kRows;
    problem.relevance.text.data = text.data();
    problem.relevance.text.rows = 2;
    for (auto* view : {&problem.relevance.visual, &problem.relevance.text})
      view->columns = view->row_stride = kRows;
    problem.k = 3;
  }

  void make(const char* name, mipruner::Workspace workspace) {
    const mipruner::Status status =
        mipruner::select(problem, kept.data(), scores.data(), workspace, {});
    const bool untouched =
        std::all_of(kept.begin(), kept.end(), [](int64_t x) { return x == -7; }) &&
        std::all_of(scores.begin(), scores.end(), [](float x) { return x == -7.0f; });
    std::printf("%s | %s | %s\n", name, status.ok() ? "no error" : status.message,
                untouched ? "untouched" : "written");
  }
};

}  // namespace

int main() {
  const size_t bytes = mipruner::select_workspace_bytes(Call().problem, {});
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(64, bytes + 64),
                                                      std::free);
  Call().make("right but for nothing", {memory.get(), bytes});
  Call().make("workspace too small", {memory.get(), bytes - 1});
  Call().make("no workspace", {});
  Call().make("workspace misaligned", {static_cast<char*>(memory.get()) + 4, bytes});

  Call elsewhere;
  elsewhere.problem.relevance.text.device = mipruner::Device::kCuda;
  elsewhere.make("mixed devices", {memory.get(), bytes});

  Call on_device;
  on_device.problem.relevance.text.device = mipruner::Device::kCuda;
  on_device.problem.relevance.visual.device = mipruner::Device::kCuda;
  on_device.make("a device that the build does not know", {memory.get(), bytes});
  return 0;
}
