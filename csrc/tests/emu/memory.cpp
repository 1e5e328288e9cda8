// Asynchronous copies, atomics, and conversions of 16-bit elements.
#include <algorithm>
#include <cstring>

#include "emu/checker.h"
#include "emu/machine.h"

namespace emu {

void start_copy(Site site, void* shared, const void* global, uint32_t bytes,
                uint32_t source_bytes) {
  const uintptr_t both = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
  if (both % bytes != 0) fail(site, "cp.async: an address is not a multiple of %u", bytes);
  Thread& self = *machine->running;
  const void* code = __builtin_return_address(0);
  if (source_bytes > 0) check_access(global, source_bytes, Access::kRead, code);
  check_access(shared, bytes, Access::kWrite, code);
  check_copy_started(shared, bytes);
  std::memset(shared, 0xff, bytes);
  self.site = site;
  self.copies.push_back({shared, global, bytes, source_bytes, self.copy_group});
}

void commit_copies() { ++machine->running->copy_group; }

void wait_copies(uint32_t groups_kept) {
  Thread& self = *machine->running;
  auto first_kept = self.copies.begin();
  while (first_kept != self.copies.end() && first_kept->group + groups_kept < self.copy_group) {
    char* shared = static_cast<char*>(first_kept->shared);
    check_copy_landed(shared, first_kept->bytes);
    check_access(shared, first_kept->bytes, Access::kWrite, __builtin_return_address(0));
    std::memcpy(shared, first_kept->global, first_kept->source_bytes);
    std::memset(shared + first_kept->source_bytes, 0, first_kept->bytes - first_kept->source_bytes);
    ++first_kept;
  }
  self.copies.erase(self.copies.begin(), first_kept);
}

namespace {

template <class T>
T updated(Atomic kind, T old, T value, T expected) {
  switch (kind) {
    // Unsigned, because a device's integers wrap around.
    case Atomic::kAdd:
      return static_cast<T>(static_cast<unsigned long long>(old) +
                            static_cast<unsigned long long>(value));
    case Atomic::kMax: return std::max(old, value);
    case Atomic::kMin: return std::min(old, value);
    case Atomic::kAnd: return old & value;
    case Atomic::kOr: return old | value;
    case Atomic::kExchange: return value;
    case Atomic::kCompareAndSwap: return old == expected ? value : old;
  }
  return old;
}

}  // namespace

// Indivisible as it is: fibers take turns only in the calls that wait.
template <class T>
T atomic_update(Atomic kind, T* address, T value, T expected) {
  check_atomic_order(address);
  check_access(address, sizeof(T), Access::kAtomic, __builtin_return_address(0));
  const T old = *address;
  *address = updated(kind, old, value, expected);
  return old;
}

template int atomic_update(Atomic, int*, int, int);
template unsigned atomic_update(Atomic, unsigned*, unsigned, unsigned);
template unsigned long long atomic_update(Atomic, unsigned long long*, unsigned long long,
                                          unsigned long long);

float half_to_float(uint16_t bits) {
  _Float16 x;
  std::memcpy(&x, &bits, sizeof x);
  return static_cast<float>(x);
}

uint16_t float_to_half(float x) {
  if (x != x) return 0x7fff;
  const _Float16 half = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}

uint16_t float_to_bfloat16(float x) {
  if (x != x) return 0x7fff;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits += 0x7fff + (bits >> 16 & 1);  // to nearest, ties to even
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace emu
