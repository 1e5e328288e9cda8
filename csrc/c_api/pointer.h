// Pointers of the caller's, looked at before anything is read or written through them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "c_api/failure.h"

namespace mipruner::c_api {

inline Status check_aligned(const char* name, const void* pointer, size_t alignment) {
  if (reinterpret_cast<uintptr_t>(pointer) % alignment == 0) return {};
  return invalid("%s: got an address that is not aligned to %zu bytes", name, alignment);
}

// There, where it is needed, and fit for a T.
template <class T>
Status check_pointer(const char* name, const T* pointer, bool needed) {
  if (needed && !pointer) return invalid("%s: got NULL, allowed is memory of the caller's", name);
  return check_aligned(name, pointer, alignof(T));
}

}  // namespace mipruner::c_api
