#include "failing_new.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};
std::atomic<int64_t> failing{0};  // number of the allocation that fails

void* allocate(size_t bytes, size_t alignment) noexcept {
  if (counting && ++allocations == failing) return nullptr;
  // aligned_alloc wants a multiple of the alignment.
  const size_t rounded = (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  return rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded);
}

void* allocate_or_throw(size_t bytes, size_t alignment) {
  if (void* memory = allocate(bytes, alignment)) return memory;
  throw std::bad_alloc();
}

constexpr size_t kUsual = alignof(std::max_align_t);

size_t number(std::align_val_t alignment) { return static_cast<size_t>(alignment); }

}  // namespace

void* operator new(size_t n) { return allocate_or_throw(n, kUsual); }
void* operator new[](size_t n) { return allocate_or_throw(n, kUsual); }
void* operator new(size_t n, std::align_val_t a) { return allocate_or_throw(n, number(a)); }
void* operator new[](size_t n, std::align_val_t a) { return allocate_or_throw(n, number(a)); }
void* operator new(size_t n, const std::nothrow_t&) noexcept { return allocate(n, kUsual); }
void* operator new[](size_t n, const std::nothrow_t&) noexcept { return allocate(n, kUsual); }
void* operator new(size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, number(a));
}
void* operator new[](size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate(n, number(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }

namespace mipruner::tests {

void fail_allocation(int64_t n) {
  allocations = 0;
  failing = n;
  counting = true;
}

int64_t stop_failing() {
  counting = false;
  return allocations;
}

}  // namespace mipruner::tests
