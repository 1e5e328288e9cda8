#include "c_api/failure.h"

#include <cstdarg>
#include <cstdio>

#include "c_api/context.h"

namespace mipruner::c_api {
namespace {

thread_local char thread_error[sizeof(Status::message)] = {0};

}  // namespace

Status invalid(const char* format, ...) {
  Status status;
  status.code = StatusCode::kInvalidArgument;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof(status.message), format, arguments);
  va_end(arguments);
  return status;
}

int32_t report(mipruner_context* context, const Status& status) {
  const auto code = static_cast<int32_t>(status.code);
  if (status.ok()) return code;
  char* const kept = context ? context->last_error : thread_error;
  const char* const message = status.message[0] ? status.message : mipruner_status_str(code);
  std::snprintf(kept, sizeof(thread_error), "%s", message);
  return code;
}

const char* last_error_of_thread() { return thread_error; }

}  // namespace mipruner::c_api
