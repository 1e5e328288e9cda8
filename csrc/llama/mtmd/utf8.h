// Texts and the bytes that only look like them.
#pragma once

#include <cstddef>
#include <string>

namespace mipruner::cli {

// How many bytes the UTF-8 sequence at `at` takes; 0 where there is none that is allowed.
size_t utf8_length(const std::string& text, size_t at);

bool is_utf8(const std::string& text);

// For a terminal: control characters and bytes that are not UTF-8 become \x and two digits.
std::string printable(const std::string& text);

}  // namespace mipruner::cli
