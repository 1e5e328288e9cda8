// What the library says about itself.
#include "core/operations.h"
#include "mipruner/mipruner.h"

extern "C" {

const char* mipruner_version(void) { return mipruner::version(); }

int32_t mipruner_abi_version(void) { return MIPRUNER_ABI_VERSION; }

bool mipruner_supports(int32_t backend, int32_t dtype, int32_t estimator) {
  const bool known_dtype =
      dtype == MIPRUNER_DTYPE_F32 || dtype == MIPRUNER_DTYPE_F16 || dtype == MIPRUNER_DTYPE_BF16;
  const bool known_estimator =
      estimator >= MIPRUNER_ESTIMATOR_DEFAULT && estimator <= MIPRUNER_ESTIMATOR_COSINE;
  const bool known_backend = backend == MIPRUNER_BACKEND_AUTO || backend == MIPRUNER_BACKEND_CPU ||
                             (backend == MIPRUNER_BACKEND_CUDA && mipruner::has_cuda());
  return known_backend && known_dtype && known_estimator;
}

const char* mipruner_status_str(int32_t status) {
  switch (status) {
    case MIPRUNER_OK: return "success";
    case MIPRUNER_KEPT_ALL: return "every row was kept";
    case MIPRUNER_DEGENERATE: return "some rows are not finite, or no row stands out";
    case MIPRUNER_ERROR_INVALID_ARGUMENT: return "an argument is not allowed";
    case MIPRUNER_ERROR_OUT_OF_MEMORY: return "out of memory";
    case MIPRUNER_ERROR_BUFFER_TOO_SMALL: return "an output buffer is too small";
    case MIPRUNER_ERROR_NOT_SUPPORTED: return "not supported by this library";
    case MIPRUNER_ERROR_BACKEND: return "a CUDA call failed";
    case MIPRUNER_ERROR_ABORTED: return "the abort callback ended the call";
    case MIPRUNER_ERROR_INTERNAL: return "an internal error of mipruner";
    default: return "an unknown status";
  }
}

}  // extern "C"
