// Shared memory: one struct per kernel, its arrays bounds-checked where kernels run emulated.
#pragma once

#include "cuda/common/device.h"

namespace mipruner::cuda {

// An array member of a kernel's shared struct. No constructor: shared memory starts undefined.
template <class T, int kSize>
struct SharedArray {
  static constexpr int size = kSize;
  T values[kSize];

  MIPRUNER_DEVICE T& operator[](int i) {
    check(i);
    return values[i];
  }
  MIPRUNER_DEVICE const T& operator[](int i) const {
    check(i);
    return values[i];
  }
  MIPRUNER_DEVICE T* data() { return values; }
  MIPRUNER_DEVICE const T* data() const { return values; }

 private:
  MIPRUNER_DEVICE static void check([[maybe_unused]] int i) {
#if !defined(__CUDACC__)
    if (i < 0 || i >= kSize) ::emu::fail_index(i, kSize);
#endif
  }
};

// The block's shared memory as T; the launch must have asked for sizeof(T) bytes.
template <class T>
MIPRUNER_DEVICE T& dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char mipruner_shared[];
  return *reinterpret_cast<T*>(mipruner_shared);
#else
  return *static_cast<T*>(::emu::shared_memory());
#endif
}

}  // namespace mipruner::cuda
