#pragma once

#include <cstdint>

namespace mipruner::c_api {

constexpr int32_t kDebug = 1;
constexpr int32_t kInfo = 2;
constexpr int32_t kWarning = 3;

// One line, printf-style, without its newline.
__attribute__((format(printf, 2, 3))) void log(int32_t level, const char* format, ...);

}  // namespace mipruner::c_api
