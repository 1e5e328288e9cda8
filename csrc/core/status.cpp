#include <cstdarg>
#include <cstdio>

#include "core/types.h"

namespace mipruner {

Status error(StatusCode code, const char* format, ...) {
  Status status;
  status.code = code;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof(status.message), format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace mipruner
