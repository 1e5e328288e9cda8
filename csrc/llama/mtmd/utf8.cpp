#include "utf8.h"

#include <cstdio>

namespace mipruner::cli {
namespace {

using Byte = unsigned char;

// The length of the sequence at `at`; bytes that are not UTF-8 count as one each.
size_t step(const std::string& text, size_t at) {
  const size_t length = utf8_length(text, at);
  return length > 0 ? length : 1;
}

bool is_control(Byte byte) { return byte < 0x20 || byte == 0x7F; }

}  // namespace

size_t utf8_length(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<Byte>(text[at + i]) : Byte{0};
  };
  const auto continues = [&](size_t i, Byte lowest = 0x80, Byte highest = 0xBF) {
    return byte(i) >= lowest && byte(i) <= highest;
  };
  const Byte first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    // No overlong forms, and no surrogates.
    const bool second = continues(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF);
    return second && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool second = continues(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF);
    return second && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(const std::string& text) {
  for (size_t at = 0; at < text.size(); at += step(text, at)) {
    if (utf8_length(text, at) == 0) return false;
  }
  return true;
}

std::string printable(const std::string& text) {
  std::string result;
  for (size_t at = 0; at < text.size(); at += step(text, at)) {
    const Byte first = static_cast<Byte>(text[at]);
    const size_t length = utf8_length(text, at);
    if (length > 0 && !is_control(first)) {
      result.append(text, at, length);
      continue;
    }
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", first);
    result += escaped;
  }
  return result;
}

}  // namespace mipruner::cli
