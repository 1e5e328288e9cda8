// Scalar functions of kernels: accurate versions, never the approximate ones.
#pragma once

#include <cmath>

#include "cuda/common/device.h"

namespace mipruner::cuda {

MIPRUNER_DEVICE float exp_of(float x) { return expf(x); }
MIPRUNER_DEVICE float log_of(float x) { return logf(x); }

// Maps floats to integers of the same order, so that scores can be ranked digit by digit: -0.0
// counts as +0.0 and NaN as -inf. The least key is that of -inf, 0x007fffff.
MIPRUNER_DEVICE uint32_t ordered_key(float x) {
  constexpr uint32_t kSign = 0x80000000u;
  constexpr uint32_t kKeyOfMinusInfinity = 0x007fffffu;
  if (!(x == x)) return kKeyOfMinusInfinity;
  const uint32_t bits = x == 0.0f ? 0u : __float_as_uint(x);
  return bits & kSign ? ~bits : bits | kSign;
}

// The float whose key this is (+0.0 for either zero, -inf for NaN).
MIPRUNER_DEVICE float key_to_float(uint32_t key) {
  constexpr uint32_t kSign = 0x80000000u;
  return __uint_as_float(key & kSign ? key & ~kSign : ~key);
}

}  // namespace mipruner::cuda
