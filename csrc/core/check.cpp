#include "core/check.h"

#include <cmath>
#include <cstring>

namespace mipruner {
namespace {

constexpr int64_t kLargestRowCount = int64_t{1} << 31;  // row numbers fit 32 bits in the kernels

const char* name_of(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32: return "float32";
    case DataType::kFloat16: return "float16";
    case DataType::kBFloat16: return "bfloat16";
  }
  return "an unknown dtype";
}

const char* name_of(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }

Status invalid(const char* name, const char* what, long long given, const char* allowed) {
  return error(StatusCode::kInvalidArgument, "%s: got %s %lld, allowed is %s", name, what, given,
               allowed);
}

Status check_matrix(const char* name, const MatrixView& x) {
  if (x.batch < 0 || x.rows < 0 || x.columns < 0) {
    return error(StatusCode::kInvalidArgument,
                 "%s: got shape [%lld, %lld, %lld], allowed are sizes >= 0", name,
                 static_cast<long long>(x.batch), static_cast<long long>(x.rows),
                 static_cast<long long>(x.columns));
  }
  if (x.rows > kLargestRowCount) return invalid(name, "row count", x.rows, "at most 2^31 rows");
  if (x.rows > 1 && x.row_stride < x.columns) {
    // An expanded row (stride 0) is readable: only a stride between 0 and the width is a mistake.
    if (x.row_stride != 0)
      return invalid(name, "row stride", x.row_stride, "0 or >= the row width");
  }
  if (x.batch_stride < 0) return invalid(name, "batch stride", x.batch_stride, ">= 0");
  const bool empty = x.batch == 0 || x.rows == 0 || x.columns == 0;
  if (!empty && x.data == nullptr) {
    return error(StatusCode::kInvalidArgument, "%s: got a null pointer, allowed is readable memory",
                 name);
  }
  return {};
}

Status check_temperature(float temperature) {
  // Cosines are divided by it: the lower bound keeps the quotients finite in float32.
  constexpr float kLowest = 1e-20f;
  if (std::isfinite(temperature) && temperature >= kLowest) return {};
  return error(StatusCode::kInvalidArgument,
               "temperature: got %g, allowed is a finite number > 0 (at least 1e-20)",
               static_cast<double>(temperature));
}

Status check_k(int64_t k) {
  if (k >= 1) return {};
  return error(StatusCode::kInvalidArgument, "k: got %lld, allowed is an integer >= 1",
               static_cast<long long>(k));
}

}  // namespace

Status check_normalize(const MatrixView& x, float eps) {
  if (Status status = check_matrix("x", x); !status.ok()) return status;
  if (std::isfinite(eps) && eps > 0) return {};
  return error(StatusCode::kInvalidArgument, "eps: got %g, allowed is a finite number > 0",
               static_cast<double>(eps));
}

Status check_relevance(const RelevanceProblem& problem, bool text_may_be_empty) {
  const MatrixView& visual = problem.visual;
  const MatrixView& text = problem.text;
  if (Status status = check_matrix("visual", visual); !status.ok()) return status;
  if (Status status = check_matrix("text", text); !status.ok()) return status;
  if (visual.columns < 1) return invalid("visual", "row width", visual.columns, "at least 1");
  if (visual.columns != text.columns) {
    return error(StatusCode::kInvalidArgument,
                 "text: got row width %lld, allowed is that of visual, %lld",
                 static_cast<long long>(text.columns), static_cast<long long>(visual.columns));
  }
  if (visual.batch != text.batch) {
    return error(StatusCode::kInvalidArgument,
                 "text: got batch %lld, allowed is that of visual, %lld",
                 static_cast<long long>(text.batch), static_cast<long long>(visual.batch));
  }
  if (visual.dtype != text.dtype) {
    return error(StatusCode::kInvalidArgument, "text: got %s, allowed is the dtype of visual, %s",
                 name_of(text.dtype), name_of(visual.dtype));
  }
  if (visual.device != text.device) {
    return error(StatusCode::kInvalidArgument, "text: got device %s, allowed is that of visual, %s",
                 name_of(text.device), name_of(visual.device));
  }
  if (text.rows == 0 && !text_may_be_empty) {
    return error(StatusCode::kInvalidArgument,
                 "text: got 0 rows, allowed is at least 1 (select has a text-free mode with "
                 "redundancy > 0)");
  }
  return check_temperature(problem.temperature);
}

Status check_top_k(const ScoresView& scores, int64_t k) {
  if (scores.batch < 0 || scores.batch > kLargestRowCount) {
    return invalid("scores", "batch", scores.batch, "0 to 2^31");
  }
  if (scores.columns < 0 || scores.columns > kLargestRowCount) {
    return invalid("scores", "length", scores.columns, "0 to 2^31");
  }
  if (scores.batch > 0 && scores.columns > 0 && scores.data == nullptr) {
    return error(StatusCode::kInvalidArgument, "scores: got a null pointer");
  }
  return check_k(k);
}

Status check_select(const SelectProblem& problem) {
  if (Status status = check_relevance(problem.relevance, true); !status.ok()) return status;
  if (Status status = check_k(problem.k); !status.ok()) return status;
  if (!(std::isfinite(problem.redundancy) && problem.redundancy >= 0)) {
    return error(StatusCode::kInvalidArgument,
                 "redundancy: got %g, allowed is a finite number >= 0",
                 static_cast<double>(problem.redundancy));
  }
  if (!(problem.coverage >= 0 && problem.coverage <= 1)) {  // true for NaN
    return error(StatusCode::kInvalidArgument, "coverage: got %g, allowed is [0, 1]",
                 problem.coverage);
  }
  if (problem.relevance.text.rows == 0 && problem.redundancy == 0) {
    return error(StatusCode::kInvalidArgument,
                 "redundancy: got 0 without text rows, allowed is > 0 there: with neither text nor "
                 "redundancy nothing tells the rows apart");
  }
  return {};
}

namespace {

// Segment s of host arrays: its rows, its words and how many rows it keeps.
Status check_segment(const SelectVarlenProblem& problem, int64_t s) {
  const auto segment = static_cast<long long>(s);
  const int64_t* offsets = problem.visual_offsets + s;
  if (offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > problem.visual.rows) {
    return error(StatusCode::kInvalidArgument,
                 "visual_offsets: got %lld and then %lld for segment %lld, allowed are ascending "
                 "numbers from 0 to the %lld rows of visual",
                 static_cast<long long>(offsets[0]), static_cast<long long>(offsets[1]), segment,
                 static_cast<long long>(problem.visual.rows));
  }
  const int64_t* range = problem.text_ranges + 2 * s;
  if (range[0] < 0 || range[1] < range[0] || range[1] > problem.text.rows) {
    return error(StatusCode::kInvalidArgument,
                 "text_ranges: got [%lld, %lld) for segment %lld, allowed is begin <= end, both "
                 "from 0 to the %lld rows of text",
                 static_cast<long long>(range[0]), static_cast<long long>(range[1]), segment,
                 static_cast<long long>(problem.text.rows));
  }
  if (range[0] == range[1] && problem.redundancy == 0) {
    return error(StatusCode::kInvalidArgument,
                 "text_ranges: got no row for segment %lld with redundancy 0, allowed is at least "
                 "one row there: with neither text nor redundancy nothing tells the rows apart",
                 segment);
  }
  return {};
}

}  // namespace

Status check_select_varlen(const SelectVarlenProblem& problem) {
  SelectProblem whole;
  whole.relevance.visual = problem.visual;
  whole.relevance.text = problem.text;
  whole.relevance.temperature = problem.temperature;
  whole.relevance.estimator = problem.estimator;
  whole.k = 1;
  whole.redundancy = problem.redundancy;
  whole.coverage = problem.coverage;
  if (Status status = check_relevance(whole.relevance, true); !status.ok()) return status;
  if (problem.segments < 0) return invalid("segments", "count", problem.segments, "at least 0");
  if (problem.segments == 0) return {};
  if (Status status = check_select(whole); !status.ok()) return status;
  if (!problem.visual_offsets) {
    return error(StatusCode::kInvalidArgument, "visual_offsets: got a null pointer");
  }
  if (!problem.text_ranges) {
    return error(StatusCode::kInvalidArgument, "text_ranges: got a null pointer");
  }
  if (!problem.k) return error(StatusCode::kInvalidArgument, "k: got a null pointer");
  for (int64_t s = 0; s < problem.segments; ++s) {
    if (Status status = check_k(problem.k[s]); !status.ok()) return status;
    // Device memory cannot be looked at without waiting for the device.
    if (problem.visual.device != Device::kCpu) continue;
    if (Status status = check_segment(problem, s); !status.ok()) return status;
  }
  return {};
}

Status check_gather(const GatherProblem& problem) {
  if (problem.batch < 0) return invalid("rows", "batch", problem.batch, "at least 0");
  if (problem.rows < 0) return invalid("rows", "row count", problem.rows, "at least 0");
  if (problem.row_bytes < 0) return invalid("rows", "row size", problem.row_bytes, "at least 0");
  if (problem.count < 0) return invalid("indices", "count", problem.count, "at least 0");
  if (problem.batch == 0 || problem.count == 0) return {};
  if (!problem.indices) return error(StatusCode::kInvalidArgument, "indices: got a null pointer");
  if (problem.rows > 0 && problem.row_bytes > 0 && !problem.source) {
    return error(StatusCode::kInvalidArgument, "rows: got a null pointer");
  }
  if (problem.device != Device::kCpu) return {};
  for (int64_t b = 0; b < problem.batch; ++b) {
    for (int64_t j = 0; j < problem.count; ++j) {
      const int64_t index = problem.indices[b * problem.indices_batch_stride + j];
      if (index >= -1 && index < problem.rows) continue;
      return error(StatusCode::kInvalidArgument,
                   "indices: got %lld, allowed are 0 to %lld, and -1 for a row of zeros",
                   static_cast<long long>(index), static_cast<long long>(problem.rows - 1));
    }
  }
  return {};
}

Status check_executor(const Executor& executor) {
  if (executor.lanes >= 1) return {};
  return invalid("executor", "lane count", executor.lanes, "at least 1");
}

Status check_output(const char* name, const void* output, int64_t count) {
  if (output != nullptr || count == 0) return {};
  return error(StatusCode::kInvalidArgument,
               "%s: got a null pointer, allowed is memory for %lld results", name,
               static_cast<long long>(count));
}

Status check_workspace(const Workspace& workspace, size_t needed) {
  if (workspace.bytes < needed || (needed > 0 && workspace.data == nullptr)) {
    return error(StatusCode::kInvalidArgument, "workspace: got %zu bytes, allowed are %zu or more",
                 workspace.bytes, needed);
  }
  if (reinterpret_cast<uintptr_t>(workspace.data) % 64 != 0) {
    return error(StatusCode::kInvalidArgument,
                 "workspace: got a pointer that is not 64-byte aligned");
  }
  return {};
}

Status parse_estimator(const char* name, Estimator* estimator) {
  constexpr const char* kNames[] = {"specific", "posterior", "joint", "cosine"};
  for (int i = 0; i < 4; ++i) {
    if (std::strcmp(name, kNames[i]) == 0) {
      *estimator = static_cast<Estimator>(i);
      return {};
    }
  }
  return error(StatusCode::kInvalidArgument,
               "estimator: got \"%.40s\", allowed are specific, posterior, joint, cosine", name);
}

}  // namespace mipruner
