#include "interrupt.h"

#include <pthread.h>

namespace mipruner::cli {

InterruptScope::InterruptScope() {
  sigemptyset(&interrupt_);
  sigaddset(&interrupt_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt_, &before_);
}

InterruptScope::~InterruptScope() {
  requested();  // one that is still waiting would end the program as soon as it is let through
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool InterruptScope::requested() {
  sigset_t waiting;
  sigemptyset(&waiting);
  sigpending(&waiting);
  if (sigismember(&waiting, SIGINT) == 1) {
    int signal = 0;
    sigwait(&interrupt_, &signal);
    requested_ = true;
  }
  return requested_;
}

}  // namespace mipruner::cli
