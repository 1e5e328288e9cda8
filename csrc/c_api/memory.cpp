#include "c_api/memory.h"

#include <new>

#include "cuda/memory.h"

namespace mipruner::c_api {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void HostMemory::release() {
  ::operator delete(data_, kAlignment);
  data_ = nullptr;
  bytes_ = 0;
}

Status HostMemory::reserve(size_t bytes) {
  if (bytes <= bytes_) return {};
  release();
  data_ = ::operator new(bytes, kAlignment, std::nothrow);
  if (!data_) {
    return error(StatusCode::kOutOfMemory, "out of memory: %zu bytes of scratch memory", bytes);
  }
  bytes_ = bytes;
  return {};
}

void DeviceMemory::release() {
  cuda::release(data_);
  data_ = nullptr;
  bytes_ = 0;
}

Status DeviceMemory::reserve(size_t bytes) {
  if (bytes <= bytes_) return {};
  release();
  Status status = cuda::allocate(bytes, &data_);
  if (status.ok()) bytes_ = bytes;
  return status;
}

}  // namespace mipruner::c_api
