#include "json.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>

#include "utf8.h"

namespace mipruner::cli {
namespace {

using Byte = unsigned char;

std::string escaped(Byte character) {
  if (character == '"' || character == '\\') return {'\\', static_cast<char>(character)};
  char buffer[8];
  std::snprintf(buffer, sizeof buffer, "\\u%04x", character);
  return buffer;
}

template <typename T, typename Format>
std::string array_of(const std::vector<T>& values, Format format) {
  std::string text = "[";
  for (const T& value : values) {
    if (text.size() > 1) text += ", ";
    text += format(value);
  }
  return text + "]";
}

}  // namespace

std::string json_string(const std::string& text) {
  std::string result = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    const Byte first = static_cast<Byte>(text[at]);
    if (length == 0) {
      result += "\\ufffd";
    } else if (first < 0x20 || first == '"' || first == '\\') {
      result += escaped(first);
    } else {
      result.append(text, at, length);
    }
    at += length > 0 ? length : 1;
  }
  return result + "\"";
}

std::string json_hex(uint64_t value) {
  char buffer[24];
  std::snprintf(buffer, sizeof buffer, "\"0x%016" PRIx64 "\"", value);
  return buffer;
}

std::string json_number(float value) {
  if (!std::isfinite(value)) return "null";
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", static_cast<double>(value));  // reads back the same
  return buffer;
}

std::string json_array(const std::vector<int32_t>& values) {
  return array_of(values, [](int32_t value) { return std::to_string(value); });
}

std::string json_array(const std::vector<float>& values) { return array_of(values, json_number); }

}  // namespace mipruner::cli
