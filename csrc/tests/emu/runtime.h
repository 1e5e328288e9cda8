// The emulator's own interface: what simt.h and csrc/cuda/common build on, and what tests call.
//
// Every CUDA thread is a fiber of the calling OS thread; the blocks of a grid run one after
// another.
#pragma once

#include <cstddef>
#include <cstdint>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emu {

// ---- for tests

// In which order runnable threads, and the blocks of a grid, get their turn.
enum class Order { kForward, kBackward, kRandom };

struct Options {
  Order order = Order::kForward;
  uint32_t seed = 1;  // of the random order
};

struct Stats {
  uint64_t launches = 0;
  uint64_t barriers = 0;     // block-wide
  uint64_t collectives = 0;  // of warps
  uint64_t accesses = 0;     // seen by the checker; 0 where it is not built in
  uint64_t errors = 0;
  char last_message[256] = {0};
};

Options& options();
Stats& stats();

// "Device" memory of exactly `bytes` bytes, filled with 0xff (NaN). The checker knows its bounds;
// memory that does not come from here may be used by kernels too, unchecked.
void* global_alloc(size_t bytes, const char* name);
void global_free(void* memory);

// ---- for launch()

using KernelBody = void (*)(const void* closure);

// Runs all blocks; false, and a message in stats(), as soon as one thread does something wrong. The
// threads of that block are then dropped where they stand, without running destructors.
bool launch_body(dim3 grid, dim3 block, size_t shared_bytes, KernelBody body, const void* closure);

template <class Body>
bool launch(dim3 grid, dim3 block, size_t shared_bytes, const Body& body) {
  const auto call = [](const void* closure) { (*static_cast<const Body*>(closure))(); };
  return launch_body(grid, block, shared_bytes, call, &body);
}

// ---- for kernels, by way of simt.h and csrc/cuda/common

// A place in kernel source. As a default argument, here() names the line of the call.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct Coordinates {
  dim3 thread, block, block_size, grid_size;
};
const Coordinates& coordinates();  // of the running thread
void* shared_memory();             // of the running block

// Reports an error of the running thread and ends the launch. Does not return.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(Site site, const char* format, ...);
[[noreturn]] void fail_index(int index, int size);

// Block-wide barrier.
void sync_block(Site site);
// The same, giving the number of threads whose `value` is not 0.
int sync_block_count(Site site, bool value);
// Global memory written before it is visible to who sees a later atomic update.
void fence();

// Warp collectives: a call runs when the last lane of `mask` has arrived at the same line.
enum class Shuffle { kIndex, kXor, kUp, kDown };
uint64_t shuffle(Site site, Shuffle kind, uint32_t mask, uint64_t bits, int operand, int width);
uint32_t ballot(Site site, uint32_t mask, bool value);
enum class Reduction { kAdd, kMax, kMin, kAnd, kOr, kXor };
uint32_t reduce(Site site, Reduction kind, uint32_t mask, uint32_t value);
uint32_t match_any(Site site, uint32_t mask, uint32_t value);
void sync_warp(Site site, uint32_t mask);

// Atomic updates: return the old value. T is int, unsigned or unsigned long long.
enum class Atomic { kAdd, kMax, kMin, kAnd, kOr, kExchange, kCompareAndSwap };
template <class T>
T atomic_update(Atomic kind, T* address, T value, T expected = 0);

// Copies that land as late as the program allows; until then the destination is poison.
void start_copy(Site site, void* shared, const void* global, uint32_t bytes, uint32_t source_bytes);
void commit_copies();
void wait_copies(uint32_t groups_kept);

// ldmatrix.x4 and mma.m16n8k16, as described in csrc/cuda/common/matrix.h.
void load_matrices(Site site, uint32_t (&r)[4], const void* row);
void multiply_matrices(Site site, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                       float (*decode)(uint16_t bits));

float half_to_float(uint16_t bits);
uint16_t float_to_half(float x);
uint16_t float_to_bfloat16(float x);

}  // namespace emu
