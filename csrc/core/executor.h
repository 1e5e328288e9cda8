// How a door lends its threads to the core.
#pragma once

#include <cstdint>

namespace mipruner {

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
};

// Threads that live for one call, for hosts that bring none of their own (NumPy, the C API).
// threads < 1 means 1.
Executor thread_executor(int64_t threads);

}  // namespace mipruner
