// Rows copied by index. One warp copies one piece of one row, a few independent units per lane.
#include <algorithm>

#include "cuda/backend.h"
#include "cuda/common/device.h"
#include "cuda/common/launch.h"

namespace mipruner::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kUnitsPerLane = 4;  // copies in flight per lane
constexpr int64_t kUnitsPerPiece = 32 * kUnitsPerLane;
constexpr int64_t kLargestGrid = 1 << 20;  // more pieces than that are taken in turns

template <class Unit>
int64_t pieces_per_row(const GatherProblem& problem) {
  const int64_t units = problem.row_bytes / static_cast<int64_t>(sizeof(Unit));
  return (units + kUnitsPerPiece - 1) / kUnitsPerPiece;
}

// The source of row r of the output, or nullptr for a row of zeros.
MIPRUNER_DEVICE const char* source_row(const GatherProblem& problem, int64_t r) {
  const int64_t item = r / problem.count;
  const int64_t row = problem.indices[item * problem.indices_batch_stride + r % problem.count];
  if (row < 0 || row >= problem.rows) return nullptr;
  return static_cast<const char*>(problem.source) + item * problem.batch_stride_bytes +
         row * problem.row_stride_bytes;
}

template <class Unit>
MIPRUNER_DEVICE void copy_piece(const Unit* source, int64_t first, int64_t units, Unit* target) {
  Unit values[kUnitsPerLane];
#pragma unroll
  for (int i = 0; i < kUnitsPerLane; ++i) {
    const int64_t at = first + i * 32 + threadIdx.x % 32;
    values[i] = source && at < units ? source[at] : Unit{};
  }
#pragma unroll
  for (int i = 0; i < kUnitsPerLane; ++i) {
    const int64_t at = first + i * 32 + threadIdx.x % 32;
    if (at < units) target[at] = values[i];
  }
}

template <class Unit>
__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(GatherProblem problem, int64_t pieces, Unit* out) {
  const int64_t units = problem.row_bytes / static_cast<int64_t>(sizeof(Unit));
  const int64_t total = problem.batch * problem.count * pieces;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t p = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; p < total; p += step) {
    const int64_t r = p / pieces;
    const Unit* source = reinterpret_cast<const Unit*>(source_row(problem, r));
    copy_piece(source, p % pieces * kUnitsPerPiece, units, out + r * units);
  }
}

template <class Unit>
Status launch_gather(const GatherProblem& problem, void* out, void* stream) {
  const int64_t pieces = pieces_per_row<Unit>(problem);
  const int64_t total = problem.batch * problem.count * pieces;
  const int64_t blocks = std::min((total + kWarps - 1) / kWarps, kLargestGrid);
  return launch("gather_rows", gather_rows_kernel<Unit>, dim3(static_cast<unsigned>(blocks)),
                kThreads, 0, stream, problem, pieces, static_cast<Unit*>(out));
}

}  // namespace

Status gather_rows(const GatherProblem& problem, void* out, void* stream) {
  // The strides count only where there is a second row or item, but one that is not a multiple of
  // 16 there only costs speed.
  const auto all_bits = static_cast<uint64_t>(problem.row_bytes | problem.row_stride_bytes |
                                              problem.batch_stride_bytes) |
                        reinterpret_cast<uintptr_t>(problem.source) |
                        reinterpret_cast<uintptr_t>(out);
  return all_bits % 16 == 0 ? launch_gather<uint4>(problem, out, stream)
                            : launch_gather<uint8_t>(problem, out, stream);
}

}  // namespace mipruner::cuda
