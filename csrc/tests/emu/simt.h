// Stands in for <cuda_runtime.h> where kernels are compiled by a plain C++ compiler: the names that
// CUDA gives to kernels, on top of the emulator. Only what our kernels use; what they must not use
// (__activemask, __shared__ outside dynamic_shared, atomics on floats) is missing on purpose.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emu/runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

#define threadIdx (::emu::coordinates().thread)
#define blockIdx (::emu::coordinates().block)
#define blockDim (::emu::coordinates().block_size)
#define gridDim (::emu::coordinates().grid_size)

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;

struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- barriers and fences

inline void __syncthreads(::emu::Site site = ::emu::Site::here()) { ::emu::sync_block(site); }
inline int __syncthreads_count(int value, ::emu::Site site = ::emu::Site::here()) {
  return ::emu::sync_block_count(site, value != 0);
}
inline int __syncthreads_or(int value, ::emu::Site site = ::emu::Site::here()) {
  return ::emu::sync_block_count(site, value != 0) != 0;
}
inline int __syncthreads_and(int value, ::emu::Site site = ::emu::Site::here()) {
  return ::emu::sync_block_count(site, value == 0) == 0;
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, ::emu::Site site = ::emu::Site::here()) {
  ::emu::sync_warp(site, mask);
}
inline void __threadfence() { ::emu::fence(); }
inline void __threadfence_block() {}

// ---- warp collectives

namespace emu {
template <class T>
T shuffle_value(Site site, Shuffle kind, uint32_t mask, T value, int operand, int width) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle(site, kind, mask, bits, operand, width);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace emu

template <class T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = 32,
              ::emu::Site site = ::emu::Site::here()) {
  return ::emu::shuffle_value(site, ::emu::Shuffle::kIndex, mask, value, lane, width);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  ::emu::Site site = ::emu::Site::here()) {
  return ::emu::shuffle_value(site, ::emu::Shuffle::kXor, mask, value, lane_mask, width);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 ::emu::Site site = ::emu::Site::here()) {
  return ::emu::shuffle_value(site, ::emu::Shuffle::kUp, mask, value, static_cast<int>(delta),
                              width);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   ::emu::Site site = ::emu::Site::here()) {
  return ::emu::shuffle_value(site, ::emu::Shuffle::kDown, mask, value, static_cast<int>(delta),
                              width);
}
inline uint32_t __ballot_sync(uint32_t mask, int value, ::emu::Site site = ::emu::Site::here()) {
  return ::emu::ballot(site, mask, value != 0);
}
inline int __any_sync(uint32_t mask, int value, ::emu::Site site = ::emu::Site::here()) {
  return ::emu::ballot(site, mask, value != 0) != 0;
}
inline int __all_sync(uint32_t mask, int value, ::emu::Site site = ::emu::Site::here()) {
  return ::emu::ballot(site, mask, value != 0) == mask;
}
inline uint32_t __match_any_sync(uint32_t mask, uint32_t value,
                                 ::emu::Site site = ::emu::Site::here()) {
  return ::emu::match_any(site, mask, value);
}
inline uint32_t __reduce_add_sync(uint32_t mask, uint32_t value,
                                  ::emu::Site site = ::emu::Site::here()) {
  return ::emu::reduce(site, ::emu::Reduction::kAdd, mask, value);
}
inline uint32_t __reduce_max_sync(uint32_t mask, uint32_t value,
                                  ::emu::Site site = ::emu::Site::here()) {
  return ::emu::reduce(site, ::emu::Reduction::kMax, mask, value);
}
inline uint32_t __reduce_min_sync(uint32_t mask, uint32_t value,
                                  ::emu::Site site = ::emu::Site::here()) {
  return ::emu::reduce(site, ::emu::Reduction::kMin, mask, value);
}

// ---- atomics: the second argument converts to the first one's type, as in CUDA

namespace emu {
template <class T>
struct AsGiven {
  using type = T;
};
template <class T>
using Value = typename AsGiven<T>::type;  // not deduced
}  // namespace emu

template <class T>
T atomicAdd(T* address, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kAdd, address, value);
}
template <class T>
T atomicMax(T* address, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kMax, address, value);
}
template <class T>
T atomicMin(T* address, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kMin, address, value);
}
template <class T>
T atomicAnd(T* address, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kAnd, address, value);
}
template <class T>
T atomicOr(T* address, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kOr, address, value);
}
template <class T>
T atomicExch(T* address, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kExchange, address, value);
}
template <class T>
T atomicCAS(T* address, ::emu::Value<T> expected, ::emu::Value<T> value) {
  return ::emu::atomic_update(::emu::Atomic::kCompareAndSwap, address, value, expected);
}
float atomicAdd(float*, float) = delete;  // its result would depend on the order of threads
double atomicAdd(double*, double) = delete;

// ---- bits and arithmetic

inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
template <class T>
T __ldg(const T* address) {
  return *address;
}
// A macro, because newer C libraries declare a function of this name.
#define rsqrtf(x) (1.0f / sqrtf(x))

using std::max;
using std::min;
