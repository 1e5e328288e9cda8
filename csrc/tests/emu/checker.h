// What the emulator tells the checker. checker.cpp judges it; unchecked.cpp, linked in its place
// where kernels are not instrumented, ignores it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

enum class Access { kRead, kWrite, kAtomic };

void check_launch_begins();
void check_block_begins();
void check_access(const void* address, size_t bytes, Access access, const void* code);
void check_alignment(const void* address, size_t bytes, const void* code);
void check_warp_barrier(uint32_t mask);
void check_fence();
// Before check_access of the atomic itself: it may take over what other blocks have released.
void check_atomic_order(const void* address);
void check_copy_started(const void* shared, size_t bytes);
void check_copy_landed(const void* shared, size_t bytes);

// The shared memory of blocks: at least `bytes` bytes until the launch ends.
char* take_shared(size_t bytes);
void give_back_shared(char* shared);

}  // namespace emu
