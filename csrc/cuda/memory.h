// Device memory and the device in use, for a door that brings neither of its own: the C interface.
#pragma once

#include <cstddef>

#include "core/types.h"

namespace mipruner::cuda {

// The devices of this machine. A failure (no driver, for one) leaves 0 and says why.
Status count_devices(int* count);

// While it lives, the device is the one in use on this thread; then it is the one before again.
class DeviceScope {
 public:
  DeviceScope() = default;
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  ~DeviceScope();

  Status enter(int device);

 private:
  [[maybe_unused]] int previous_ = -1;
};

// On the device in use; release waits for the device. nullptr is allowed.
Status allocate(size_t bytes, void** memory);
void release(void* memory);

// Ordered after the work on `stream` (a cudaStream_t); both wait until the copy is done.
Status copy_to_host(void* host, const void* device, size_t bytes, void* stream);
Status copy_to_device(void* device, const void* host, size_t bytes, void* stream);

}  // namespace mipruner::cuda
