// The emulated device for csrc/cuda/memory.h: there is one, its memory is this process's own, and
// its streams never lag.
#include <cstring>
#include <new>

#include "cuda/memory.h"

namespace mipruner::cuda {

Status count_devices(int* count) {
  *count = 1;
  return {};
}

Status DeviceScope::enter(int device) {
  previous_ = device;
  return {};
}

DeviceScope::~DeviceScope() = default;

Status allocate(size_t bytes, void** memory) {
  *memory = ::operator new(bytes, std::align_val_t{256}, std::nothrow);
  if (*memory) return {};
  return error(StatusCode::kOutOfMemory, "out of memory: %zu bytes of scratch memory on the device",
               bytes);
}

void release(void* memory) { ::operator delete(memory, std::align_val_t{256}); }

Status copy_to_host(void* host, const void* device, size_t bytes, void* /*stream*/) {
  std::memcpy(host, device, bytes);
  return {};
}

Status copy_to_device(void* device, const void* host, size_t bytes, void* /*stream*/) {
  std::memcpy(device, host, bytes);
  return {};
}

}  // namespace mipruner::cuda
