// How the functions of the llama.cpp door report: a code and a sentence.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "mipruner/mipruner.h"

namespace mipruner::llama {

// code is an enum mipruner_status: 0 is success, above 0 a warning, below 0 an error.
// MIPRUNER_ERROR_BACKEND stands for a call of llama.cpp that failed; the message has its code.
struct Status {
  int32_t code = MIPRUNER_OK;
  std::string message;
  bool ok() const { return code >= 0; }
};

inline Status error(int32_t code, std::string message) { return {code, std::move(message)}; }

inline Status invalid(std::string message) {
  return error(MIPRUNER_ERROR_INVALID_ARGUMENT, std::move(message));
}

}  // namespace mipruner::llama
