// Memory that a context keeps between calls and grows to the largest one.
#pragma once

#include <cstddef>

#include "core/types.h"

namespace mipruner::c_api {

class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  ~HostMemory() { release(); }

  // 64-byte aligned; what was in it is lost.
  Status reserve(size_t bytes);
  void* data() const { return data_; }

 private:
  void release();

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { release(); }

  // On the device in use, and for work on it alone. Growing waits for all work on the device, which
  // may still be using the old memory.
  Status reserve(size_t bytes);
  void* data() const { return data_; }

 private:
  void release();

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mipruner::c_api
