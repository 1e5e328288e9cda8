// The vocabulary that every layer shares: element types, views of caller-owned memory, status.
//
// No torch, no CUDA, no Python header may be included from csrc/core: doors (torch, Python, C)
// depend on the core, the core depends on its backends, and nothing points the other way.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mipruner {

enum class DataType : int32_t { kFloat32, kFloat16, kBFloat16 };
enum class Device : int32_t { kCpu, kCuda };

// How the similarities become a score in nats (METHOD: "specific" is the default; see
// mi_pruner_cuda/reference.py for the same four formulas in plain PyTorch).
enum class Estimator : int32_t { kSpecific, kPosterior, kJoint, kCosine };

enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = -1,  // the message names the argument, what was given and what is allowed
  kOutOfMemory = -2,
  kNotSupported = -4,  // not in this build or not on this device
  kBackend = -5,       // a failing CUDA call
  kAborted = -6,       // the caller's Cancellation said so
};

// The result of every core function. An error in the arguments leaves all
// outputs untouched; after kBackend, a launch that failed, and after kAborted they are undefined.
// The message is a fixed array so that reporting an error can neither allocate nor throw.
struct Status {
  StatusCode code = StatusCode::kOk;
  char message[256] = {0};
  bool ok() const { return code == StatusCode::kOk; }
};

// printf-style construction of a failing status.
__attribute__((format(printf, 2, 3))) Status error(StatusCode code, const char* format, ...);

// Rows of a matrix, or of a batch of matrices, owned by the caller and only read. Strides count
// elements; the elements of one row are contiguous. A batch stride of 0 repeats one matrix.
struct MatrixView {
  const void* data = nullptr;  // [batch, rows, columns]
  DataType dtype = DataType::kFloat32;
  Device device = Device::kCpu;
  int64_t batch = 1;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;  // >= columns
};

// One bool per row; data == nullptr means that every row counts. Strides count elements (bytes).
struct MaskView {
  const bool* data = nullptr;  // [batch, rows], true = the row counts
  int64_t batch_stride = 0;
  int64_t row_stride = 1;
};

inline size_t element_size(DataType dtype) { return dtype == DataType::kFloat32 ? 4 : 2; }

}  // namespace mipruner
