// How a door lends its threads to the core.
#pragma once

#include <atomic>
#include <cstdint>

namespace mipruner {

// A caller's wish to end an operation early. It is asked between tasks, on the calling thread
// alone; the other threads learn of it through `requested`. What an operation has computed by then
// is garbage: it returns StatusCode::kAborted, and its outputs are undefined.
struct Cancellation {
  bool (*asked)(void* data) = nullptr;
  void* data = nullptr;
  std::atomic<bool> requested{false};
};

// `run` calls body(context, lane) once for each lane in [0, lanes), on any threads, and returns
// when all calls have returned. Lanes may run one after another: no lane ever waits for another.
//
// A lane is also the index of a private scratch area, and lanes draw tasks from a shared counter,
// so which lane computes which task is unknown; no result may depend on it.
struct Executor {
  using Body = void (*)(void* context, int64_t lane);
  int64_t lanes = 1;
  void (*run)(void* self, int64_t lanes, Body body, void* context) = nullptr;  // nullptr: serial
  void* self = nullptr;
  // For CUDA tensors, which need no lanes: the cudaStream_t to launch on; nullptr: the default one.
  void* stream = nullptr;
  Cancellation* cancellation = nullptr;  // nullptr: never

  bool cancelled() const {
    return cancellation && cancellation->requested.load(std::memory_order_relaxed);
  }
  // To be called by the calling thread, which runs lane 0.
  bool ask_whether_cancelled() const {
    if (!cancellation) return false;
    if (!cancelled() && cancellation->asked(cancellation->data))
      cancellation->requested.store(true, std::memory_order_relaxed);
    return cancelled();
  }
};

// Threads that live for one call, for hosts that bring none of their own (NumPy, the C API).
// threads < 1 means 1.
Executor thread_executor(int64_t threads);

}  // namespace mipruner
