#include "emu/fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "switch_stack is written for x86-64 only"
#endif

// Saves what a call must preserve on the current stack, the stack pointer to *rdi, and goes on from
// the stack in rsi. swapcontext would do the same, with a system call for every switch.
asm(R"(
.text
.type emu_switch_stack, @function
emu_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch_stack, . - emu_switch_stack
.type emu_start_fiber, @function
emu_start_fiber:
  xorl %ebp, %ebp
  call *%r12
  hlt
.size emu_start_fiber, . - emu_start_fiber
)");
extern "C" void emu_switch_stack(void** save, void* load) __attribute__((visibility("hidden")));
extern "C" void emu_start_fiber() __attribute__((visibility("hidden")));

namespace emu {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kStride = kStackBytes + kGuardBytes;
// Stacks end at different distances from the next page: at the same one, the parts in use of all of
// them would share a few lines of the processor's cache.
constexpr size_t kColours = 32;
constexpr size_t kColourBytes = 128;

Fiber launcher;  // the stack that called launch()

// AddressSanitizer keeps bounds of the current stack and must be told of every switch.
#if defined(__SANITIZE_ADDRESS__)
void announce(void** fake_stack, const Fiber& to) {
  __sanitizer_start_switch_fiber(fake_stack, to.stack, to.stack_bytes);
}
void arrived(void* fake_stack) { __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr); }
#else
void announce(void**, const Fiber&) {}
void arrived(void*) {}
#endif

}  // namespace

FiberStacks::~FiberStacks() { release(); }

void FiberStacks::release() {
  if (memory_) munmap(memory_, count_ * kStride);
  memory_ = nullptr;
  count_ = 0;
}

void FiberStacks::reserve(size_t count) {
  if (count <= count_) return;
  release();
  void* memory = mmap(nullptr, count * kStride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<char*>(memory);
  count_ = count;
  for (size_t i = 0; i < count; ++i) mprotect(memory_ + i * kStride, kGuardBytes, PROT_NONE);
}

Fiber FiberStacks::fiber(size_t index) const {
  const size_t unused = index % kColours * kColourBytes;
  return {nullptr, memory_ + index * kStride + kGuardBytes, kStackBytes - unused};
}

bool FiberStacks::contain(const void* address) const {
  const char* p = static_cast<const char*>(address);
  return p >= memory_ && p < memory_ + count_ * kStride;
}

void FiberStacks::forget_poison() const {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory_, count_ * kStride);
#endif
}

void prepare_fiber(Fiber& fiber, void (*entry)()) {
  // From the top: two empty words (alignment), the return address, rbp, rbx, r12 ... r15.
  void** top = reinterpret_cast<void**>(fiber.stack + fiber.stack_bytes);
  top[-1] = top[-2] = nullptr;
  top[-3] = reinterpret_cast<void*>(&emu_start_fiber);
  for (int i = 4; i <= 9; ++i) top[-i] = nullptr;
  top[-6] = reinterpret_cast<void*>(entry);  // r12
  fiber.stack_pointer = top - 9;
}

void enter_fibers(const Fiber& to) {
  void* fake_stack = nullptr;
  announce(&fake_stack, to);
  emu_switch_stack(&launcher.stack_pointer, to.stack_pointer);
  arrived(fake_stack);
}

void fiber_entered() {
#if defined(__SANITIZE_ADDRESS__)
  // Only the first arrival of a block comes from the launcher, and learns its stack's bounds.
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!launcher.stack) {
    launcher.stack = static_cast<char*>(const_cast<void*>(bottom));
    launcher.stack_bytes = bytes;
  }
#endif
}

void leave_fibers() {
  Fiber to = launcher;
  launcher = Fiber{};
  announce(nullptr, to);  // a null fake stack: this fiber will not run again
  void* unused;
  emu_switch_stack(&unused, to.stack_pointer);
  __builtin_unreachable();
}

void switch_fiber(Fiber& from, const Fiber& to) {
  void* fake_stack = nullptr;
  announce(&fake_stack, to);
  emu_switch_stack(&from.stack_pointer, to.stack_pointer);
  arrived(fake_stack);
}

void switch_from_dead_fiber(const Fiber& to) {
  announce(nullptr, to);
  void* unused;
  emu_switch_stack(&unused, to.stack_pointer);
  __builtin_unreachable();
}

}  // namespace emu
