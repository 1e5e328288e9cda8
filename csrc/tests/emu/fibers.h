// Fibers: stacks to switch between within one OS thread.
#pragma once

#include <cstddef>
#include <vector>

namespace emu {

struct Fiber {
  void* stack_pointer = nullptr;  // while it does not run
  char* stack = nullptr;          // lowest address
  size_t stack_bytes = 0;
};

// Stacks for `count` fibers, each with an unmapped page below it. Kept from launch to launch.
class FiberStacks {
 public:
  ~FiberStacks();
  void reserve(size_t count);
  Fiber fiber(size_t index) const;
  bool contain(const void* address) const;
  void forget_poison() const;  // marks that abandoned fibers have left in the sanitizer's shadow

 private:
  void release();
  char* memory_ = nullptr;
  size_t count_ = 0;
};

// Makes `fiber` start with entry(), which must never return.
void prepare_fiber(Fiber& fiber, void (*entry)());

// The first thing that a fiber's entry must do.
void fiber_entered();

// Runs `to` from the launching thread's own stack; comes back by leave_fibers().
void enter_fibers(const Fiber& to);
[[noreturn]] void leave_fibers();

void switch_fiber(Fiber& from, const Fiber& to);
[[noreturn]] void switch_from_dead_fiber(const Fiber& to);

}  // namespace emu
