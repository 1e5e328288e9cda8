// Reductions over the 32 lanes of a warp. All lanes must call; all get the result.
#pragma once

#include <cmath>

#include "cuda/common/device.h"

namespace mipruner::cuda {

// A butterfly: the order of the sum is fixed, and addition commutes, so that all lanes get the same
// bits.
template <class T>
MIPRUNER_DEVICE T warp_sum(T x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(kFullWarp, x, distance);
  }
  return x;
}

MIPRUNER_DEVICE float warp_max(float x) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, distance));
  }
  return x;
}

}  // namespace mipruner::cuda
