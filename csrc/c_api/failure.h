// How a failure leaves the library: a status for the caller and a sentence for mipruner_last_error.
#pragma once

#include <new>

#include "core/types.h"
#include "mipruner/mipruner.h"

namespace mipruner::c_api {

// The codes of the core are the C interface's own.
static_assert(static_cast<int32_t>(StatusCode::kInvalidArgument) ==
              MIPRUNER_ERROR_INVALID_ARGUMENT);
static_assert(static_cast<int32_t>(StatusCode::kOutOfMemory) == MIPRUNER_ERROR_OUT_OF_MEMORY);
static_assert(static_cast<int32_t>(StatusCode::kNotSupported) == MIPRUNER_ERROR_NOT_SUPPORTED);
static_assert(static_cast<int32_t>(StatusCode::kBackend) == MIPRUNER_ERROR_BACKEND);
static_assert(static_cast<int32_t>(StatusCode::kAborted) == MIPRUNER_ERROR_ABORTED);

// error() for MIPRUNER_ERROR_INVALID_ARGUMENT.
__attribute__((format(printf, 1, 2))) Status invalid(const char* format, ...);

// Keeps the sentence of a failing status, with the context or, for nullptr, for this thread;
// returns its code. The sentence of a call that succeeds leaves the last one alone.
int32_t report(mipruner_context* context, const Status& status);

const char* last_error_of_thread();

// Runs work() -> Status or int32_t behind the wall that no exception passes.
template <class Work>
int32_t guarded(mipruner_context* context, const Work& work) noexcept {
  Status status;
  try {
    return work();
  } catch (const std::bad_alloc&) {
    status = error(StatusCode::kOutOfMemory, "out of memory");
  } catch (...) {
    status.code = static_cast<StatusCode>(MIPRUNER_ERROR_INTERNAL);
  }
  return report(context, status);
}

// The same for functions that need a context.
template <class Work>
int32_t with_context(mipruner_context* context, const Work& work) noexcept {
  if (context) return guarded(context, work);
  return report(nullptr, invalid("context: got NULL, allowed is one of mipruner_init"));
}

}  // namespace mipruner::c_api
