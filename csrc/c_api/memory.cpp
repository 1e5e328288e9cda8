#include "c_api/memory.h"

#include <new>

#include "cuda/memory.h"

namespace mipruner::c_api {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

Status Host::allocate(size_t bytes, void** memory) {
  *memory = ::operator new(bytes, kAlignment, std::nothrow);
  if (*memory) return {};
  return error(StatusCode::kOutOfMemory, "out of memory: %zu bytes of scratch memory", bytes);
}

void Host::release(void* memory) { ::operator delete(memory, kAlignment); }

Status OnDevice::allocate(size_t bytes, void** memory) { return cuda::allocate(bytes, memory); }

void OnDevice::release(void* memory) { cuda::release(memory); }

}  // namespace mipruner::c_api
