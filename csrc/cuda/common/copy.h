// Asynchronous copies from global to shared memory.
#pragma once

#include "cuda/common/device.h"

namespace mipruner::cuda {

#if defined(__CUDACC__)

// The 32-bit address that PTX wants for shared memory.
MIPRUNER_DEVICE uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Starts a copy of 16 bytes, both ends aligned to 16; writes zeros, and does not read, if !valid.
// `global` must still be an address within its allocation.
MIPRUNER_DEVICE void cp_async16(void* shared, const void* global, bool valid) {
  const int source_bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)),
               "l"(global), "r"(source_bytes)
               : "memory");
}

MIPRUNER_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until at most `kKeep` of this thread's groups are still under way. Other threads see the
// bytes only after a barrier that follows this.
template <int kKeep>
MIPRUNER_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kKeep) : "memory");
}

#else

inline void cp_async16(void* shared, const void* global, bool valid,
                       ::emu::Site site = ::emu::Site::here()) {
  ::emu::start_copy(site, shared, global, 16, valid ? 16 : 0);
}

inline void cp_async_commit() { ::emu::commit_copies(); }

template <int kKeep>
inline void cp_async_wait() {
  ::emu::wait_copies(kKeep);
}

#endif

}  // namespace mipruner::cuda
