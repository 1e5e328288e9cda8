// Rows copied by index.
#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "cpu/backend.h"

namespace mipruner::cpu {
namespace {

constexpr int64_t kRowsPerTask = 64;

}  // namespace

void gather_rows(const GatherProblem& problem, void* out, const Executor& executor) {
  const int64_t total = problem.batch * problem.count;
  const auto bytes = static_cast<size_t>(problem.row_bytes);
  if (bytes == 0) return;
  for_each_task(executor, (total + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int64_t) {
    const int64_t end = std::min((task + 1) * kRowsPerTask, total);
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      const int64_t item = r / problem.count;
      const int64_t row = problem.indices[item * problem.indices_batch_stride + r % problem.count];
      char* const target = static_cast<char*>(out) + r * problem.row_bytes;
      if (row < 0) {
        std::memset(target, 0, bytes);
        continue;
      }
      const char* const source = static_cast<const char*>(problem.source) +
                                 item * problem.batch_stride_bytes + row * problem.row_stride_bytes;
      std::memcpy(target, source, bytes);
    }
  });
}

}  // namespace mipruner::cpu
