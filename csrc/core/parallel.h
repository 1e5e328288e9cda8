// Tasks on the lanes of an executor.
#pragma once

#include <algorithm>
#include <atomic>

#include "core/executor.h"

namespace mipruner {

// Calls task(index, lane) once for each index in [0, count). Lanes draw indices from one counter,
// so a slow lane takes fewer of them. Tasks must write disjoint memory; returns when all are done,
// or when the caller has cancelled, with some left undone.
template <class Task>
void for_each_task(const Executor& executor, int64_t count, const Task& task) {
  const int64_t lanes = executor.run ? std::min(executor.lanes, count) : 1;
  if (lanes <= 1) {
    for (int64_t index = 0; index < count && !executor.ask_whether_cancelled(); ++index)
      task(index, int64_t{0});
    return;
  }
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t count;
    const Task* task;
    const Executor* executor;
  } shared;
  shared.executor = &executor;
  shared.count = count;
  shared.task = &task;
  executor.run(
      executor.self, lanes,
      [](void* context, int64_t lane) {
        auto& work = *static_cast<Shared*>(context);
        for (;;) {
          const bool stop =
              lane == 0 ? work.executor->ask_whether_cancelled() : work.executor->cancelled();
          if (stop) return;
          const int64_t index = work.next.fetch_add(1, std::memory_order_relaxed);
          if (index >= work.count) return;
          (*work.task)(index, lane);
        }
      },
      &shared);
}

}  // namespace mipruner
