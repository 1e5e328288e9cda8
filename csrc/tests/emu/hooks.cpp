// The functions that -fsanitize=thread makes instrumented code call. libtsan is not linked: these
// tell our own checker instead, so that kernels need no annotation.
#include <cstddef>
#include <cstring>

#include "emu/checker.h"

namespace {

using emu::Access;

void touch(void* address, size_t bytes, Access access, const void* code) {
  emu::check_access(address, bytes, access, code);
}

// The compiler calls these where the type promises alignment, and the device would trap.
void touch_aligned(void* address, size_t bytes, Access access, const void* code) {
  emu::check_alignment(address, bytes, code);
  emu::check_access(address, bytes, access, code);
}

}  // namespace

#define EMU_CALLER __builtin_return_address(0)
#define EMU_HOOKS(bytes)                                                                       \
  void __tsan_read##bytes(void* p) { touch_aligned(p, bytes, Access::kRead, EMU_CALLER); }     \
  void __tsan_write##bytes(void* p) { touch_aligned(p, bytes, Access::kWrite, EMU_CALLER); }   \
  void __tsan_unaligned_read##bytes(void* p) { touch(p, bytes, Access::kRead, EMU_CALLER); }   \
  void __tsan_unaligned_write##bytes(void* p) { touch(p, bytes, Access::kWrite, EMU_CALLER); } \
  void __tsan_volatile_read##bytes(void* p) { touch(p, bytes, Access::kRead, EMU_CALLER); }    \
  void __tsan_volatile_write##bytes(void* p) { touch(p, bytes, Access::kWrite, EMU_CALLER); }

extern "C" {

EMU_HOOKS(1)
EMU_HOOKS(2)
EMU_HOOKS(4)
EMU_HOOKS(8)
EMU_HOOKS(16)

void __tsan_read_range(void* p, size_t bytes) { touch(p, bytes, Access::kRead, EMU_CALLER); }
void __tsan_write_range(void* p, size_t bytes) { touch(p, bytes, Access::kWrite, EMU_CALLER); }

void* __tsan_memset(void* to, int value, size_t bytes) {
  touch(to, bytes, Access::kWrite, EMU_CALLER);
  return std::memset(to, value, bytes);
}
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  touch(const_cast<void*>(from), bytes, Access::kRead, EMU_CALLER);
  touch(to, bytes, Access::kWrite, EMU_CALLER);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  touch(const_cast<void*>(from), bytes, Access::kRead, EMU_CALLER);
  touch(to, bytes, Access::kWrite, EMU_CALLER);
  return std::memmove(to, from, bytes);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
