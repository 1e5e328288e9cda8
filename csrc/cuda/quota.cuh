// How many rows each item keeps, and where its indices go.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"

namespace mipruner::cuda {

// Item b writes indices [begin(b), end(b)), and keeps that many rows if it has them.
struct Quota {
  const int64_t* begins;  // [items + 1] in device memory; nullptr: all keep `equal`
  int64_t equal;

  MIPRUNER_DEVICE int64_t begin(int64_t b) const { return begins ? begins[b] : b * equal; }
  MIPRUNER_DEVICE int64_t end(int64_t b) const { return begin(b + 1); }
  MIPRUNER_DEVICE int64_t wanted(int64_t b) const { return end(b) - begin(b); }
};

}  // namespace mipruner::cuda
