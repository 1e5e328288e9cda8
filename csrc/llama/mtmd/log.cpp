#include "log.h"

#include <llama.h>
#include <mipruner/mipruner.h>
#include <mtmd-helper.h>

#include <cstdio>
#include <sstream>

namespace mipruner::cli {

Log::Log(bool verbose) : verbose_(verbose) {
  llama_log_set(from_ggml, this);
  mtmd_helper_log_set(from_ggml, this);
  mipruner_log_set(from_mipruner, this);
}

Log::~Log() {
  llama_log_set(nullptr, nullptr);
  mtmd_helper_log_set(nullptr, nullptr);
  mipruner_log_set(nullptr, nullptr);
}

void Log::start() {
  const std::lock_guard<std::mutex> lock(mutex_);
  errors_.clear();
}

std::vector<std::string> Log::lines() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> lines;
  std::istringstream text(errors_);
  for (std::string line; std::getline(text, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

std::string Log::reason() const {
  std::string reason;
  for (const std::string& line : lines()) reason += (reason.empty() ? ": " : "; ") + line;
  return reason;
}

std::string Log::last_reason() const {
  const std::vector<std::string> all = lines();
  return all.empty() ? "" : ": " + all.back();
}

void Log::from_ggml(ggml_log_level level, const char* text, void* log) {
  static_cast<Log*>(log)->add(text, level == GGML_LOG_LEVEL_ERROR, false);
}

void Log::from_mipruner(int32_t level, const char* text, void* log) {
  constexpr int32_t kWarning = 3;
  constexpr int32_t kError = 4;
  static_cast<Log*>(log)->add(text, level == kError, level == kWarning);
}

void Log::add(const char* text, bool is_error, bool is_for_everyone) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (verbose_ || is_for_everyone) std::fputs(text, stderr);
  if (is_error) errors_ += text;
}

}  // namespace mipruner::cli
