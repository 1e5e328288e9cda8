#include "core/executor.h"

#include <algorithm>
#include <thread>
#include <vector>

namespace mipruner {
namespace {

void run_on_threads(void* /*self*/, int64_t lanes, Executor::Body body, void* context) {
  std::vector<std::thread> threads;
  try {
    threads.reserve(static_cast<size_t>(lanes));
    for (int64_t lane = 1; lane < lanes; ++lane) threads.emplace_back(body, context, lane);
  } catch (...) {
    // No more threads or memory to be had: lanes draw their tasks from one counter, so fewer lanes
    // do it all.
  }
  body(context, 0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

Executor thread_executor(int64_t threads) {
  Executor executor;
  executor.lanes = std::max<int64_t>(threads, 1);
  executor.run = executor.lanes > 1 ? run_on_threads : nullptr;
  return executor;
}

}  // namespace mipruner
