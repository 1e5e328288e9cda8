// mipruner_select_async and mipruner_gather_rows_async: work put on a stream, nothing waited for.
#include "c_api/gather.h"
#include "c_api/request.h"
#include "core/layout.h"
#include "cuda/memory.h"

namespace mipruner::c_api {
namespace {

Status check_asynchronous(const Request& request) {
  if (!request.on_device) {
    return error(StatusCode::kNotSupported,
                 "visual.memory: got host memory, allowed is device memory; mipruner_select takes "
                 "both");
  }
  if (request.params.order != MIPRUNER_ORDER_ASCENDING) {
    return error(StatusCode::kNotSupported,
                 "order: got %d, allowed is MIPRUNER_ORDER_ASCENDING without waiting",
                 request.params.order);
  }
  if (!request.always.empty()) {
    return error(StatusCode::kNotSupported,
                 "always_keep: got %zu rows, allowed is none without waiting",
                 request.always.size());
  }
  return {};
}

Status enqueue(mipruner_context* context, const Request& request, int64_t* indices, float* scores) {
  Executor executor;
  executor.stream = request.params.stream;
  // The operation writes all scores; where the caller wants none they go to scratch memory.
  Layout measured;
  measured.take<float>(scores ? 0 : request.rows());
  const size_t score_bytes = measured.used();
  const SelectProblem problem =
      select_problem(*context, request, request.keep, score_bytes, executor);
  const size_t bytes = score_bytes + select_workspace_bytes(problem, executor);
  if (Status status = check_workspace_limit(*context, bytes); !status.ok()) return status;
  if (Status status = context->device.reserve(bytes); !status.ok()) return status;
  char* const memory = static_cast<char*>(context->device.data());
  if (!scores) scores = reinterpret_cast<float*>(memory);
  return select(problem, indices, scores, {memory + score_bytes, bytes - score_bytes}, executor);
}

int32_t select_on_stream(mipruner_context* context, const mipruner_view* visual,
                         const mipruner_view* text, const mipruner_select_params* params,
                         int64_t* indices, int32_t capacity, float* scores) {
  Request request;
  Status status = read_request(*context, visual, text, params, &request);
  if (status.ok()) status = check_asynchronous(request);
  if (status.ok()) status = check_outputs(indices, capacity, scores, request.keep);
  if (!status.ok()) return report(context, status);
  if (request.rows() == 0) return MIPRUNER_KEPT_ALL;
  cuda::DeviceScope scope;
  status = scope.enter(context->params.device_id);
  if (status.ok()) status = enqueue(context, request, indices, scores);
  if (!status.ok()) return report(context, status);
  return request.keeps_all() ? MIPRUNER_KEPT_ALL : MIPRUNER_OK;
}

Status gather_on_stream(const mipruner_context& context, GatherArguments arguments, void* dst,
                        const int64_t* idx, void* stream) {
  if (!context.uses_cuda) {
    return error(
        StatusCode::kNotSupported,
        "context: got one for the CPU, allowed is one that uses CUDA; mipruner_gather_rows "
        "works in host memory");
  }
  if (Status status = check_gather_arguments(&arguments); !status.ok()) return status;
  if (Status s = check_pointer("idx", idx, arguments.n_idx > 0); !s.ok()) return s;
  if (overlap(arguments)) {
    return invalid("dst: got memory that overlaps src, allowed is other memory");
  }
  GatherProblem problem;
  problem.source = arguments.src;
  problem.device = Device::kCuda;
  problem.rows = arguments.n_rows;
  problem.row_bytes = static_cast<int64_t>(arguments.row_bytes);
  problem.row_stride_bytes = static_cast<int64_t>(arguments.src_stride);
  problem.indices = idx;
  problem.count = arguments.n_idx;
  cuda::DeviceScope scope;
  if (Status status = scope.enter(context.params.device_id); !status.ok()) return status;
  Executor executor;
  executor.stream = stream;
  return gather_rows(problem, dst, executor);
}

}  // namespace
}  // namespace mipruner::c_api

extern "C" {

int32_t mipruner_select_async(mipruner_context* context, const mipruner_view* visual,
                              const mipruner_view* text, const mipruner_select_params* params,
                              int64_t* idx_out, int32_t idx_cap, float* scores_out) {
  using namespace mipruner::c_api;
  return with_context(context, [&] {
    return select_on_stream(context, visual, text, params, idx_out, idx_cap, scores_out);
  });
}

int32_t mipruner_gather_rows_async(mipruner_context* context, void* dst, const void* src,
                                   int64_t n_rows, size_t row_bytes, size_t src_stride,
                                   const int64_t* idx, int32_t n_idx, void* stream) {
  using namespace mipruner::c_api;
  return with_context(context, [&] {
    const GatherArguments arguments = {dst, src, n_rows, row_bytes, src_stride, n_idx};
    return report(context, gather_on_stream(*context, arguments, dst, idx, stream));
  });
}

}  // extern "C"
