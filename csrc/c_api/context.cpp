// Contexts: made, freed, asked for their last error.
#include "c_api/context.h"

#include "c_api/log.h"
#include "c_api/params.h"
#include "c_api/pointer.h"
#include "core/operations.h"
#include "cuda/memory.h"

namespace mipruner::c_api {
namespace {

// Which backend the parameters come to on this machine.
Status choose_backend(const mipruner_context_params& params, bool* uses_cuda) {
  *uses_cuda = false;
  if (params.backend == MIPRUNER_BACKEND_CPU) return {};
  const bool insists = params.backend == MIPRUNER_BACKEND_CUDA;
  if (!has_cuda()) {
    if (!insists) return {};
    return error(StatusCode::kNotSupported,
                 "backend: got CUDA, but this library has no CUDA kernels; link libmipruner_cuda");
  }
  int devices = 0;
  const Status counted = cuda::count_devices(&devices);
  if (params.device_id < devices) {
    *uses_cuda = true;
    return {};
  }
  if (insists && !counted.ok()) return counted;
  if (insists || devices > 0) {
    return invalid("device_id: got %d, allowed are the %d CUDA devices of this machine, from 0",
                   params.device_id, devices);
  }
  log(kInfo, "no CUDA device was found (%s): working on the CPU", counted.message);
  return {};
}

Status create(const mipruner_context_params* given, mipruner_context** out) {
  mipruner_context_params params;
  if (Status status = read_params(given, &params); !status.ok()) return status;
  bool uses_cuda = false;
  if (Status status = choose_backend(params, &uses_cuda); !status.ok()) return status;
  auto* const context = new (std::nothrow) mipruner_context;
  if (!context) return error(StatusCode::kOutOfMemory, "out of memory");
  context->params = params;
  context->uses_cuda = uses_cuda;
  log(kDebug, "mipruner %s: %s, CPU level %s, %d threads", version(),
      uses_cuda ? "CUDA and CPU" : "CPU", cpu_level(), params.n_threads);
  *out = context;
  return {};
}

}  // namespace
}  // namespace mipruner::c_api

extern "C" {

int32_t mipruner_init(const mipruner_context_params* params, mipruner_context** context) {
  using namespace mipruner::c_api;
  if (mipruner::Status status = check_pointer("context", context, true); !status.ok()) {
    return report(nullptr, status);
  }
  *context = nullptr;
  return guarded(nullptr, [&] { return report(nullptr, create(params, context)); });
}

void mipruner_free(mipruner_context* context) {
  if (!context) return;
  mipruner::cuda::DeviceScope scope;
  if (context->uses_cuda) (void)scope.enter(context->params.device_id);
  delete context;
}

const char* mipruner_last_error(const mipruner_context* context) {
  return context ? context->last_error : mipruner::c_api::last_error_of_thread();
}

}  // extern "C"
