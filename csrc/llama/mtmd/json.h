// Writes JSON values into a string: what dump.cpp needs of it and no more.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mipruner::cli {

// With the quotes. Bytes that are not UTF-8, as file names may have, become U+FFFD.
std::string json_string(const std::string& text);
std::string json_hex(uint64_t value);  // "0x0123456789abcdef": too large for a JSON number
std::string json_number(float value);  // null for what JSON cannot say: NaN and the infinities
std::string json_array(const std::vector<int32_t>& values);
std::string json_array(const std::vector<float>& values);

}  // namespace mipruner::cli
