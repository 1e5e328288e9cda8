// Ctrl-C while the program works: remembered instead of ending it.
#pragma once

#include <csignal>

namespace mipruner::cli {

// While one lives, SIGINT is kept back from this thread and from the threads it starts. No handler,
// and so no global: requested() asks the system what is waiting.
class InterruptScope {
 public:
  InterruptScope();
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  bool requested();

 private:
  sigset_t interrupt_;
  sigset_t before_;
  bool requested_ = false;
};

}  // namespace mipruner::cli
