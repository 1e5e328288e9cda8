// The state of a launch, shared by the emulator's own files.
#pragma once

#include <cstdint>
#include <vector>

#include "emu/fibers.h"
#include "emu/runtime.h"

namespace emu {

constexpr unsigned kLanes = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxWarps = kMaxThreads / kLanes;

enum class State : uint8_t { kReady, kAtBarrier, kAtCollective, kExited };

struct PendingCopy {
  void* shared;
  const void* global;
  uint32_t bytes;
  uint32_t source_bytes;
  uint32_t group;
};

struct Thread {
  Fiber fiber;
  Coordinates coordinates;
  unsigned index = 0;  // in the block
  unsigned lane = 0;
  unsigned first_of_warp = 0;
  State state = State::kReady;
  Site site{};  // where it waits

  // At a collective: which one, and where this lane's operands and results are.
  const char* operation = nullptr;
  uint32_t mask = 0;
  void* argument = nullptr;

  std::vector<PendingCopy> copies;
  uint32_t copy_group = 0;
};

// What the lanes of one warp do, a bit for each: a collective looks at these and not at 32 threads.
struct Warp {
  uint32_t waiting = 0;  // at a collective
  uint32_t gone = 0;     // exited, or never there
};

// Those threads of the block that can run.
class ReadyThreads {
 public:
  static constexpr unsigned kNone = kMaxThreads;

  void fill(unsigned size);
  void insert(unsigned index) { words_[index / kBits] |= uint64_t{1} << index % kBits; }
  void erase(unsigned index) { words_[index / kBits] &= ~(uint64_t{1} << index % kBits); }
  // The nearest one after or before `index`, going around at the ends, `index` itself last.
  unsigned after(unsigned index) const;
  unsigned before(unsigned index) const;

 private:
  static constexpr unsigned kBits = 64;
  static constexpr unsigned kWords = kMaxThreads / kBits;
  uint64_t words_[kWords] = {};
};

struct Block {
  unsigned index = 0;  // in the grid
  unsigned size = 0;
  unsigned arrived = 0;  // at the barrier
  unsigned exited = 0;
  unsigned barriers_passed = 0;
  unsigned count[2] = {0, 0};  // of sync_block_count, by parity of barriers_passed
  char* shared = nullptr;
  size_t shared_bytes = 0;
};

struct Machine {
  std::vector<Thread> threads;
  Warp warps[kMaxWarps];
  ReadyThreads ready;  // those whose state is kReady
  FiberStacks stacks;
  Block block;
  Thread* running = nullptr;  // nullptr: the launcher
  bool failed = false;
  uint32_t random_state = 1;
  KernelBody body = nullptr;
  const void* closure = nullptr;
};

// One launch at a time: a mutex in launch_body sees to it. `__thread`, so that code of other OS
// threads never takes itself for the running thread, without the wrapper of `thread_local`.
extern __thread Machine* machine;  // nullptr outside launches

void set_state(Thread& thread, State state);

uint32_t next_random();
void count_error(const char* message);

// Gives the turn to other threads until the running one is ready again.
void wait_turn();

}  // namespace emu
