#include "c_api/request.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#include "c_api/budget.h"
#include "c_api/params.h"
#include "c_api/pointer.h"
#include "core/check.h"

namespace mipruner::c_api {
namespace {

constexpr int64_t kLargestSize = std::numeric_limits<int32_t>::max();  // indices are int32_t
constexpr size_t kUnlimited = std::numeric_limits<size_t>::max();

Status check_range(const char* view, const char* member, int64_t given, int64_t lowest,
                   int64_t highest) {
  if (given >= lowest && given <= highest) return {};
  return invalid("%s.%s: got %lld, allowed are %lld to %lld", view, member,
                 static_cast<long long>(given), static_cast<long long>(lowest),
                 static_cast<long long>(highest));
}

Status read_dtype(const char* name, int32_t dtype, DataType* out) {
  switch (dtype) {
    case MIPRUNER_DTYPE_F32: *out = DataType::kFloat32; return {};
    case MIPRUNER_DTYPE_F16: *out = DataType::kFloat16; return {};
    case MIPRUNER_DTYPE_BF16: *out = DataType::kBFloat16; return {};
    default:
      return invalid("%s.dtype: got %d, allowed are %d (F32), %d (F16) and %d (BF16)", name, dtype,
                     MIPRUNER_DTYPE_F32, MIPRUNER_DTYPE_F16, MIPRUNER_DTYPE_BF16);
  }
}

Status read_memory(const mipruner_context& context, const char* name, int32_t memory,
                   Device* device) {
  if (Status status =
          check_range(name, "memory", memory, MIPRUNER_MEMORY_HOST, MIPRUNER_MEMORY_DEVICE);
      !status.ok()) {
    return status;
  }
  *device = memory == MIPRUNER_MEMORY_DEVICE ? Device::kCuda : Device::kCpu;
  if (*device == Device::kCpu || context.uses_cuda) return {};
  return error(StatusCode::kNotSupported,
               "%s.memory: got device memory, but this context works on the CPU alone", name);
}

Status read_view(const mipruner_context& context, const char* name, const mipruner_view& view,
                 MatrixView* out) {
  const int64_t stride = view.row_stride == 0 ? view.n_cols : view.row_stride;
  if (Status s = read_dtype(name, view.dtype, &out->dtype); !s.ok()) return s;
  if (Status s = read_memory(context, name, view.memory, &out->device); !s.ok()) return s;
  if (Status s = check_range(name, "n_rows", view.n_rows, 0, kLargestSize); !s.ok()) return s;
  if (Status s = check_range(name, "n_cols", view.n_cols, 1, kLargestSize); !s.ok()) return s;
  const auto element = static_cast<int64_t>(element_size(out->dtype));
  const int64_t most = PTRDIFF_MAX / element / std::max<int64_t>(view.n_rows, 1);
  if (stride < view.n_cols || stride > most) {
    return invalid("%s.row_stride: got %lld, allowed are 0 and %lld to %lld", name,
                   static_cast<long long>(view.row_stride), static_cast<long long>(view.n_cols),
                   static_cast<long long>(most));
  }
  if (view.n_rows > 0 && !view.data) {
    return invalid("%s.data: got NULL with %lld rows, allowed is readable memory", name,
                   static_cast<long long>(view.n_rows));
  }
  if (reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(element) != 0) {
    return invalid("%s.data: got an address that is not aligned to its elements of %lld bytes",
                   name, static_cast<long long>(element));
  }
  out->data = view.data;
  out->rows = view.n_rows;
  out->columns = view.n_cols;
  out->row_stride = stride;
  return {};
}

Estimator core_estimator(int32_t estimator) {
  switch (estimator) {
    case MIPRUNER_ESTIMATOR_POSTERIOR: return Estimator::kPosterior;
    case MIPRUNER_ESTIMATOR_JOINT: return Estimator::kJoint;
    case MIPRUNER_ESTIMATOR_COSINE: return Estimator::kCosine;
    default: return Estimator::kSpecific;
  }
}

Status read_views(const mipruner_context& context, const mipruner_view* visual,
                  const mipruner_view* text, RelevanceProblem* relevance) {
  if (Status s = check_pointer("visual", visual, true); !s.ok()) return s;
  if (Status s = check_pointer("text", text, false); !s.ok()) return s;
  if (Status s = read_view(context, "visual", *visual, &relevance->visual); !s.ok()) return s;
  if (text) return read_view(context, "text", *text, &relevance->text);
  // No text is a text of no rows.
  relevance->text = relevance->visual;
  relevance->text.data = nullptr;
  relevance->text.rows = 0;
  return {};
}

}  // namespace

Status read_request(const mipruner_context& context, const mipruner_view* visual,
                    const mipruner_view* text, const mipruner_select_params* params,
                    Request* request) {
  RelevanceProblem& relevance = request->relevance;
  if (Status s = read_params(params, &request->params); !s.ok()) return s;
  if (Status s = read_views(context, visual, text, &relevance); !s.ok()) return s;
  relevance.temperature = request->params.temperature;
  relevance.estimator = core_estimator(request->params.estimator);
  request->on_device = relevance.visual.device == Device::kCuda;
  request->keep = count_kept(request->params, request->rows());
  SelectProblem problem;
  problem.relevance = relevance;
  problem.k = std::max<int64_t>(request->keep, 1);
  problem.redundancy = request->params.redundancy;
  problem.coverage = request->params.coverage;
  if (Status s = check_select(problem); !s.ok()) return s;
  return read_always_keep(request->params, request->rows(), request->keep, &request->always);
}

Status check_capacity(int32_t capacity, int64_t keep) {
  if (capacity >= keep) return {};
  return error(static_cast<StatusCode>(MIPRUNER_ERROR_BUFFER_TOO_SMALL),
               "idx_cap: got %d, allowed is %lld or more, see mipruner_n_keep", capacity,
               static_cast<long long>(keep));
}

SelectProblem select_problem(const mipruner_context& context, const Request& request, int64_t k,
                             size_t other_bytes, const Executor& executor) {
  // On a device an item's similarities are stored whole or read again at every step, which costs
  // more than memory does.
  constexpr int64_t kOnDevice = int64_t{1} << 30;
  SelectProblem problem;
  problem.relevance = request.relevance;
  problem.k = k;
  problem.redundancy = request.params.redundancy;
  problem.coverage = request.params.coverage;
  if (request.on_device) problem.similarity_bytes = kOnDevice;
  const size_t limit = context.params.max_workspace ? context.params.max_workspace : kUnlimited;
  while (other_bytes + select_workspace_bytes(problem, executor) > limit &&
         problem.similarity_bytes > 0) {
    problem.similarity_bytes /= 2;
  }
  return problem;
}

Status check_workspace_limit(const mipruner_context& context, size_t bytes) {
  const uint64_t limit = context.params.max_workspace;
  if (limit == 0 || bytes <= limit) return {};
  return error(StatusCode::kOutOfMemory,
               "max_workspace: got %llu bytes, this call needs %zu of scratch memory",
               static_cast<unsigned long long>(limit), bytes);
}

}  // namespace mipruner::c_api
