#include "c_api/log.h"

#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "mipruner/mipruner.h"

namespace mipruner::c_api {
namespace {

void write_to_stderr(int32_t level, const char* text, void* /*user_data*/) {
  if (level >= kWarning) std::fputs(text, stderr);
}

struct Sink {
  std::mutex mutex;
  mipruner_log_callback callback = write_to_stderr;
  void* user_data = nullptr;
};

// Initialised at compile time and never destroyed, whatever the C++ library's mutex does when it
// is: no thread is too early or too late.
union Undying {
  Sink sink;
  constexpr Undying() : sink{} {}
  ~Undying() {}
} undying;
Sink& sink = undying.sink;

}  // namespace

void log(int32_t level, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = std::vsnprintf(line, sizeof(line) - 1, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  if (length > static_cast<int>(sizeof(line)) - 2) length = sizeof(line) - 2;
  line[length] = '\n';
  line[length + 1] = '\0';
  // Held during the call, so that a callback is not called once mipruner_log_set has replaced it.
  const std::lock_guard<std::mutex> lock(sink.mutex);
  sink.callback(level, line, sink.user_data);
}

}  // namespace mipruner::c_api

void mipruner_log_set(mipruner_log_callback callback, void* user_data) {
  using namespace mipruner::c_api;
  const std::lock_guard<std::mutex> lock(sink.mutex);
  sink.callback = callback ? callback : write_to_stderr;
  sink.user_data = user_data;
}
