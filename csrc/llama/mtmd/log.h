// What llama.cpp and mipruner say while they work: shown with --verbose; otherwise kept back, and
// the errors among it become the reason in our own sentence when a call fails.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace mipruner::cli {

class Log {
 public:
  // Everything that llama.cpp, mtmd and mipruner log comes here while this lives.
  explicit Log(bool verbose);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // Forgets the errors so far: what follows is a new attempt.
  void start();
  // The errors since start(), as ": first; second", or nothing.
  std::string reason() const;
  // The last of them alone, for calls that log each thing they tried.
  std::string last_reason() const;

 private:
  static void from_ggml(ggml_log_level level, const char* text, void* log);
  static void from_mipruner(int32_t level, const char* text, void* log);
  void add(const char* text, bool is_error, bool is_for_everyone);
  std::vector<std::string> lines() const;

  const bool verbose_;
  mutable std::mutex mutex_;  // encoders may log from threads of their own
  std::string errors_;
};

}  // namespace mipruner::cli
