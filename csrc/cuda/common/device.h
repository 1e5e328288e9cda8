// The vocabulary of a kernel: CUDA's own headers, or their emulation on a host compiler.
//
// The same kernel text is compiled by nvcc for devices and by a plain C++ compiler for tests on
// machines without one. Everything that the two spell differently lives in this folder.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define MIPRUNER_DEVICE __device__ __forceinline__
#else
#include "emu/simt.h"
#define MIPRUNER_DEVICE inline
#endif

namespace mipruner::cuda {

constexpr int kWarpSize = 32;
constexpr uint32_t kFullWarp = 0xffffffffu;

}  // namespace mipruner::cuda
