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
  if (scores.batch < 0 || scores.columns < 0 || scores.columns > kLargestRowCount) {
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
  if (problem.relevance.text.rows == 0 && problem.redundancy == 0) {
    return error(StatusCode::kInvalidArgument,
                 "redundancy: got 0 without text rows, allowed is > 0 there: with neither text nor "
                 "redundancy nothing tells the rows apart");
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
