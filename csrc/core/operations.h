// The operations of the core, as every door calls them.
//
// Each operation has a `*_workspace_bytes` function of the shapes alone (never of the data), so
// that a host can allocate once, and an entry that takes that many bytes of 64-byte aligned scratch
// memory on the device of the views. All arguments are checked before anything is written.
//
// Guarantees (METHOD, "The numerical contract"): results do not depend on the number of lanes, on
// the other items of a batch, or on masked rows, bit for bit.
#pragma once

#include "core/executor.h"
#include "core/types.h"

namespace mipruner {

struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
};

// Rows of unit length: out[b, i] = x[b, i] / max(||x[b, i]||, eps), in the dtype of x.
// A zero row stays zero; a row that holds NaN or Inf becomes NaN throughout.
Status normalize(const MatrixView& x, float eps, void* out /* [batch, rows, columns] contiguous */,
                 const Executor& executor);

struct RelevanceProblem {
  MatrixView visual;     // [B, N, D]
  MatrixView text;       // [B, M, D], same dtype and device as visual
  MaskView visual_mask;  // [B, N]
  MaskView text_mask;    // [B, M]
  float temperature = 0.1f;
  Estimator estimator = Estimator::kSpecific;
};

size_t mutual_information_workspace_bytes(const RelevanceProblem& problem,
                                          const Executor& executor);

// scores [B, N] float32, in nats ("cosine": the cosine itself). Masked and non-finite rows score
// -inf. M = 0 is an error here: there is no text to be informative about.
Status mutual_information(const RelevanceProblem& problem, float* scores, Workspace workspace,
                          const Executor& executor);

struct ScoresView {
  const float* data = nullptr;  // [batch, columns]
  Device device = Device::kCpu;
  int64_t batch = 1;
  int64_t columns = 0;
  int64_t batch_stride = 0;
};

size_t top_k_workspace_bytes(const ScoresView& scores, int64_t k, const Executor& executor);

// The min(k, columns) largest scores of each row of `scores`, by ascending index; ties go to the
// lower index, NaN counts as -inf, -0.0 as +0.0. values and indices: [batch, min(k, columns)].
Status top_k(const ScoresView& scores, int64_t k, float* values, int64_t* indices,
             Workspace workspace, const Executor& executor);

struct SelectProblem {
  RelevanceProblem relevance;  // text.rows = 0: text-free mode, which needs redundancy > 0
  int64_t k = 0;
  float redundancy = 0.0f;  // the lambda of METHOD; 0 = relevance only, which is exactly top-k
  // The share of the k rows that is spread evenly over the rows that count, [0, 1]: coverage.h.
  double coverage = 0.0;
  // Greedy selection stores visual-visual similarities up to this many bytes: all N x N of them
  // when they fit, otherwise as many rows as fit, recomputing the rest when needed. On CUDA these
  // are bytes for all items together, and an item's N x N is stored whole or not at all: then each
  // step reads all rows once more, on one SM.
  int64_t similarity_bytes = int64_t{64} << 20;
};

size_t select_workspace_bytes(const SelectProblem& problem, const Executor& executor);

// indices [B, min(k, N)] ascending, scores [B, N] the relevance in nats. An item with fewer
// unmasked rows than that ends with -1 in the places left over: a masked row is never selected.
Status select(const SelectProblem& problem, int64_t* indices, float* scores, Workspace workspace,
              const Executor& executor);

// Segments of one pool of packed rows, each selected by itself: images of different sizes in one
// call.
struct SelectVarlenProblem {
  MatrixView visual;     // [R, D], batch 1; segment s is rows [offsets[s], offsets[s+1])
  MatrixView text;       // [T, D], batch 1
  int64_t segments = 0;  // S
  const int64_t* visual_offsets = nullptr;  // [S + 1] ascending, on the device of the rows
  const int64_t* text_ranges = nullptr;     // [S, 2] begin and end; several may name the same rows
  const int64_t* k = nullptr;               // [S] at least 1 each, always in host memory
  float temperature = 0.1f;
  Estimator estimator = Estimator::kSpecific;
  float redundancy = 0.0f;
  double coverage = 0.0;  // of each segment's k
  int64_t similarity_bytes = int64_t{64} << 20;
};

size_t select_varlen_workspace_bytes(const SelectVarlenProblem& problem, const Executor& executor);

// indices [sum of k], segment s at [k[0] + .. + k[s-1], + k[s]): rows of the packed `visual`,
// ascending, -1 in the places that a segment with fewer rows leaves over. scores [R]: relevance in
// nats, each row's within its segment; -inf for rows in no segment. On the CPU offsets and ranges
// outside the matrices are an error; on CUDA, where looking would mean waiting for the device, they
// are clamped to them.
Status select_varlen(const SelectVarlenProblem& problem, int64_t* indices, float* scores,
                     Workspace workspace, const Executor& executor);

// out[b, j] = source[b, index[b, j]]: embeddings, DeepStack planes or positions by kept index. Rows
// are bytes; elements within a row are adjacent.
struct GatherProblem {
  const void* source = nullptr;
  Device device = Device::kCpu;
  int64_t batch = 1;
  int64_t rows = 0;
  int64_t row_bytes = 0;
  int64_t batch_stride_bytes = 0;
  int64_t row_stride_bytes = 0;
  const int64_t* indices = nullptr;  // [batch, count] contiguous with indices_batch_stride
  int64_t indices_batch_stride = 0;  // 0: the same indices for every item
  int64_t count = 0;
};

// out [batch, count, row_bytes] contiguous. An index of -1 gives a row of zero bytes (the places
// that select leaves over); on the CPU any other index out of range is an error, on CUDA it gives
// zero bytes too.
Status gather_rows(const GatherProblem& problem, void* out, const Executor& executor);

// Parses "specific", "posterior", "joint" or "cosine".
Status parse_estimator(const char* name, Estimator* estimator);

// ---- what this build and this machine can do ----
bool has_cuda();          // compiled with the CUDA backend
const char* cpu_level();  // the level in use: "baseline", "avx2", "avx512" or "avx512_bf16"
const char*
cpu_levels();  // every level compiled in and supported here, comma separated, lowest first
// Replaces the level in use, for tests that run every level in one process; nullptr: choose anew.
// The list of cpu_levels ends with "emulated", avx512_bf16's code spelled out for any processor,
// which is never chosen by itself.
Status set_cpu_level(const char* level);
const char* version();

}  // namespace mipruner
