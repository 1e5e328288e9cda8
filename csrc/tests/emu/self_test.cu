// Small programs, each right and wrong: does the emulator report every wrong one and no right one?
//
//   self_test [--right-only]
//
// Without the checker only some mistakes show, so those builds run the right programs only. Exits
// with 1 and names each program that was judged wrongly.
#include <cstdio>
#include <cstring>

#include "cuda/common/copy.h"
#include "cuda/common/device.h"
#include "cuda/common/launch.h"
#include "cuda/common/matrix.h"
#include "cuda/common/shared.h"
#include "cuda/common/warp.h"

namespace mipruner::cuda {
namespace {

constexpr int kOut = 256;  // ints of global memory that each program may use

struct Memory {
  SharedArray<int, 64> values;
  int flag;
};

struct alignas(16) Rows {
  int values[132];
};

MIPRUNER_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
MIPRUNER_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }

// ---- shared memory

__global__ void exchange_in_warp(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int i = thread_index();
  shared.values[i] = i;
  if (!wrong) __syncwarp();
  out[i] = shared.values[i ^ 1];
}

__global__ void exchange_across_warps(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int i = thread_index();
  shared.values[i] = i;
  if (wrong) {
    __syncwarp();  // not enough
  } else {
    __syncthreads();
  }
  out[i] = shared.values[63 - i];
}

// A shuffle makes the lanes wait for each other, but does not order their memory accesses.
__global__ void shuffle_as_barrier(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int i = thread_index();
  shared.values[i] = __shfl_xor_sync(kFullWarp, i, 1);
  const int other = __shfl_xor_sync(kFullWarp, i, 2);
  if (!wrong) __syncwarp();
  out[i] = shared.values[other];
}

__global__ void overwrite_after_read(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int i = thread_index();
  shared.values[i] = i;
  __syncthreads();
  out[i] = shared.values[63 - i];
  if (!wrong) __syncthreads();
  shared.values[i] = 0;
}

__global__ void read_uninitialised(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int i = thread_index();
  if (!wrong) shared.values[i] = 1;
  out[i] = shared.values[i];
}

__global__ void overflow_array(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int end = wrong ? 65 : 64;
  for (int i = thread_index(); i < end; i += 32) shared.values[i] = 0;
  out[thread_index()] = 0;
}

__global__ void overflow_launch(int* out, bool wrong) {
  const int extra = wrong ? static_cast<int>(sizeof(Memory) / sizeof(int)) : 0;
  int* values = dynamic_shared<Memory>().values.data();
  values[thread_index() + extra] = 0;
  out[thread_index()] = 0;
}

__global__ void store_among_atomics(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  if (thread_index() == 0) shared.flag = 0;
  __syncthreads();
  if (wrong && thread_index() == 5) {
    shared.flag = 9;
  } else {
    atomicAdd(&shared.flag, 1);
  }
  __syncthreads();
  if (thread_index() == 0) out[0] = shared.flag;
}

// ---- global memory

__global__ void write_past_end(int* out, bool wrong) {
  out[kOut - 32 + thread_index() + (wrong ? 1 : 0)] = 0;
}

__global__ void read_misaligned(int* out, bool wrong) {
  const char* bytes = reinterpret_cast<const char*>(out + 64) + (wrong ? 8 : 0);
  const uint4 four = reinterpret_cast<const uint4*>(bytes)[thread_index()];
  out[thread_index()] = static_cast<int>(four.x);
}

__global__ void blocks_write_one_word(int* out, bool wrong) {
  if (thread_index() != 0) return;
  if (wrong) {
    out[0] = block_index();
  } else {
    atomicAdd(&out[0], 1);
  }
}

__global__ void block_writes_what_others_read(int* out, bool wrong) {
  if (thread_index() == 0) out[1 + block_index()] = out[0];
  if (wrong && thread_index() == 0 && block_index() == 1) out[0] = 5;
}

// out[0]: the blocks that are done; out[1 ...]: their parts; out[20]: what the last one makes of
// it.
__global__ void last_block_finishes(int* out, bool wrong) {
  Memory& shared = dynamic_shared<Memory>();
  const int blocks = static_cast<int>(gridDim.x);
  if (thread_index() == 0) {
    out[1 + block_index()] = 7;
    if (!wrong) __threadfence();
    shared.flag = atomicAdd(&out[0], 1) == blocks - 1;
  }
  __syncthreads();
  if (!shared.flag) return;
  if (!wrong) __threadfence();
  if (thread_index() < blocks) atomicAdd(&out[20], out[1 + thread_index()]);
}

// ---- barriers and collectives

__global__ void return_before_barrier(int* out, bool wrong) {
  if (wrong && thread_index() >= 20) return;
  __syncthreads();
  out[thread_index()] = 1;
}

__global__ void unequal_barriers(int* out, bool wrong) {
  const int count = wrong ? thread_index() / 32 + 1 : 2;
  for (int i = 0; i < count; ++i) __syncthreads();
  out[thread_index()] = 1;
}

__global__ void two_barriers(int* out, bool wrong) {
  if (wrong && thread_index() < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[thread_index()] = 1;
}

__global__ void shuffle_in_branch(int* out, bool wrong) {
  int value = thread_index();
  if (thread_index() < 16) value = __shfl_xor_sync(wrong ? kFullWarp : 0xffffu, value, 1);
  out[thread_index()] = value;
}

__global__ void shuffle_from_outside(int* out, bool wrong) {
  int value = thread_index();
  if (thread_index() < 16) value = __shfl_sync(0xffffu, value, wrong ? 20 : 3);
  out[thread_index()] = value;
}

__global__ void two_votes(int* out, bool wrong) {
  const bool odd = thread_index() % 2 == 1;
  if (wrong && odd) {
    out[thread_index()] = __any_sync(kFullWarp, 1);
  } else {
    out[thread_index()] = __all_sync(kFullWarp, 1);
  }
}

// A result that is not what CUDA defines shows as a write past the end.
__global__ void block_votes(int* out, bool wrong) {
  const int i = thread_index();
  const int thirds = __syncthreads_count(i % 3 == 0);
  const bool any = __syncthreads_or(i == 63) != 0 && __syncthreads_or(0) == 0;
  const bool all = __syncthreads_and(1) != 0 && __syncthreads_and(i != 5) == 0;
  const bool as_defined = any && all && thirds == (wrong ? 21 : 22);
  out[as_defined ? i : kOut] = 1;
}

// ---- asynchronous copies and matrices

__global__ void copy_not_waited_for(int* out, bool wrong) {
  Rows& shared = dynamic_shared<Rows>();
  cp_async16(shared.values + 4 * thread_index(), out, true);
  cp_async_commit();
  if (!wrong) cp_async_wait<0>();
}

__global__ void copy_read_too_early(int* out, bool wrong) {
  Rows& shared = dynamic_shared<Rows>();
  const int i = thread_index();
  cp_async16(shared.values + 4 * i, out + 128, true);
  cp_async_commit();
  if (!wrong) cp_async_wait<0>();
  out[i] = shared.values[4 * i];
  cp_async_wait<0>();
}

__global__ void copy_read_by_others(int* out, bool wrong) {
  Rows& shared = dynamic_shared<Rows>();
  const int i = thread_index();
  cp_async16(shared.values + 4 * i, out + 128, true);
  cp_async_commit();
  cp_async_wait<0>();
  if (!wrong) __syncwarp();
  out[i] = shared.values[4 * (31 - i)];
}

__global__ void copy_misaligned(int* out, bool wrong) {
  Rows& shared = dynamic_shared<Rows>();
  cp_async16(shared.values + 4 * thread_index() + (wrong ? 1 : 0), out, true);
  cp_async_commit();
  cp_async_wait<0>();
}

__global__ void matrix_misaligned(int* out, bool wrong) {
  Rows& shared = dynamic_shared<Rows>();
  for (int i = thread_index(); i < 132; i += 32) shared.values[i] = i;
  __syncwarp();
  uint32_t r[4];
  ldmatrix_x4(r, shared.values + 4 * thread_index() + (wrong ? 2 : 0));
  out[thread_index()] = static_cast<int>(r[0] + r[3]);
}

__global__ void matrix_before_barrier(int* out, bool wrong) {
  Rows& shared = dynamic_shared<Rows>();
  for (int i = thread_index(); i < 132; i += 32) shared.values[i] = i;
  if (!wrong) __syncwarp();
  uint32_t r[4];
  ldmatrix_x4(r, shared.values + 4 * thread_index());
  out[thread_index()] = static_cast<int>(r[0] + r[3]);
}

struct Program {
  const char* name;
  void (*kernel)(int* out, bool wrong);
  unsigned blocks;
  int threads;
};

constexpr Program kPrograms[] = {
    {"exchange within a warp", exchange_in_warp, 1, 32},
    {"exchange between warps", exchange_across_warps, 1, 64},
    {"shuffle taken for a barrier", shuffle_as_barrier, 1, 32},
    {"overwritten while others read", overwrite_after_read, 1, 64},
    {"uninitialised shared memory", read_uninitialised, 1, 32},
    {"overflow of an array in the struct", overflow_array, 1, 32},
    {"overflow of the launch's shared memory", overflow_launch, 1, 32},
    {"plain store among atomics", store_among_atomics, 1, 32},
    {"write past the end", write_past_end, 1, 32},
    {"misaligned vector", read_misaligned, 1, 16},
    {"blocks write one word", blocks_write_one_word, 4, 32},
    {"a block writes what others read", block_writes_what_others_read, 4, 32},
    {"last block finishes, fences", last_block_finishes, 6, 32},
    {"return before a barrier", return_before_barrier, 1, 64},
    {"unequal numbers of barriers", unequal_barriers, 1, 64},
    {"two barriers at once", two_barriers, 1, 64},
    {"shuffle in a branch", shuffle_in_branch, 1, 32},
    {"shuffle from outside its mask", shuffle_from_outside, 1, 32},
    {"two votes at once", two_votes, 1, 32},
    {"votes of a block", block_votes, 1, 64},
    {"copy not waited for", copy_not_waited_for, 1, 32},
    {"copy read too early", copy_read_too_early, 1, 32},
    {"copy read by other threads", copy_read_by_others, 1, 32},
    {"misaligned copy", copy_misaligned, 1, 32},
    {"misaligned matrix", matrix_misaligned, 1, 32},
    {"matrix before a barrier", matrix_before_barrier, 1, 32},
};

// Whether the emulator judged the program as it should.
bool judged_rightly(const Program& program, bool wrong, emu::Order order) {
  static constexpr const char* kOrders[] = {"forward", "backward", "random"};
  emu::options().order = order;
  emu::stats() = emu::Stats{};
  int* out = static_cast<int*>(emu::global_alloc(kOut * sizeof(int), "out"));
  std::memset(out, 0, kOut * sizeof(int));
  const size_t shared_bytes =
      program.kernel == overflow_launch ? sizeof(Memory) : sizeof(Memory) + sizeof(Rows);
  const Status status = launch(program.name, program.kernel, dim3(program.blocks), program.threads,
                               shared_bytes, nullptr, out, wrong);
  emu::global_free(out);
  if (status.ok() != wrong) return true;
  std::printf("%s, %s, %s order: %s\n", program.name, wrong ? "wrong" : "right",
              kOrders[static_cast<int>(order)], wrong ? "not reported" : status.message);
  return false;
}

int run_all(bool right_only) {
  int mistakes = 0;
  for (const Program& program : kPrograms) {
    for (const bool wrong : {false, true}) {
      if (wrong && right_only) continue;
      for (const auto order : {emu::Order::kForward, emu::Order::kBackward, emu::Order::kRandom}) {
        if (!judged_rightly(program, wrong, order)) ++mistakes;
      }
    }
  }
  return mistakes;
}

}  // namespace
}  // namespace mipruner::cuda

int main(int argc, char** argv) {
  const bool right_only = argc > 1 && std::strcmp(argv[1], "--right-only") == 0;
  return mipruner::cuda::run_all(right_only) == 0 ? 0 : 1;
}
