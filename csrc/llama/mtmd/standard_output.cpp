#include "standard_output.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "failure.h"

namespace mipruner::cli {

void ignore_closed_pipes() { std::signal(SIGPIPE, SIG_IGN); }

void end_by_closed_pipe() {
  std::signal(SIGPIPE, SIG_DFL);
  std::raise(SIGPIPE);
  std::_Exit(128 + SIGPIPE);  // the signal is blocked: what a shell calls an end by it
}

void write_output(const std::string& text) {
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (written && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) throw ClosedPipe();
  throw Failure(join("the text could not be written to standard output: ", std::strerror(errno)));
}

}  // namespace mipruner::cli
