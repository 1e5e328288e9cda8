// Lists of what counts, in ascending order: one block walks the candidates in batches of one per
// thread.
#pragma once

#include <cstdint>

#include "cuda/common/device.h"
#include "cuda/common/shared.h"

namespace mipruner::cuda {

template <int kThreads>
struct CompactShared {
  SharedArray<int, kThreads / kWarpSize> warp_counts;
};

// Where the calling thread's candidate goes in the list, given how many before this batch are in
// it; -1 when it is not to be listed. `total` becomes the new length. All threads must call.
template <int kThreads>
MIPRUNER_DEVICE int place_in_list(CompactShared<kThreads>& shared, bool listed, int* total) {
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  const int warp = static_cast<int>(threadIdx.x / kWarpSize);
  const uint32_t votes = __ballot_sync(kFullWarp, listed);
  if (lane == 0) shared.warp_counts[warp] = __popc(votes);
  __syncthreads();
  int before = *total;
  int all = *total;
  for (int w = 0; w < kThreads / kWarpSize; ++w) {
    if (w < warp) before += shared.warp_counts[w];
    all += shared.warp_counts[w];
  }
  __syncthreads();  // warp_counts is written again for the next batch
  *total = all;
  return listed ? before + __popc(votes & ((1u << lane) - 1u)) : -1;
}

}  // namespace mipruner::cuda
