// What ends a command: a sentence for the person at the terminal. main() makes it an exit code.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace mipruner::cli {

// The command was understood and could not be carried out. In a chat only the message is lost.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The command line asks for something that is not allowed.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace mipruner::cli
