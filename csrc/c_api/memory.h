// Memory that a context keeps between calls and grows to the largest one.
#pragma once

#include <cstddef>

#include "core/types.h"

namespace mipruner::c_api {

template <class Kind>
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { Kind::release(data_); }

  // 64-byte aligned; what was in it is lost.
  Status reserve(size_t bytes) {
    if (bytes <= bytes_) return {};
    Kind::release(data_);
    data_ = nullptr;
    bytes_ = 0;
    Status status = Kind::allocate(bytes, &data_);
    if (status.ok()) bytes_ = bytes;
    return status;
  }

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

struct Host {
  static Status allocate(size_t bytes, void** memory);
  static void release(void* memory);
};

// On the device in use, and for work on it alone. Growing waits for all work on the device, which
// may still be using the old memory.
struct OnDevice {
  static Status allocate(size_t bytes, void** memory);
  static void release(void* memory);
};

using HostMemory = Memory<Host>;
using DeviceMemory = Memory<OnDevice>;

}  // namespace mipruner::c_api
