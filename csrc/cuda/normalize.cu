// Rows of unit length, one warp per row.
//
// Every lane owns groups of 16 bytes of the row, the same ones however they are read, so that the
// bits of a row do not depend on the alignment that its place in a batch gives it.
#include <algorithm>

#include "cuda/backend.h"
#include "cuda/common/elements.h"
#include "cuda/common/launch.h"
#include "cuda/common/warp.h"
#include "cuda/rows.cuh"

namespace mipruner::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kLargestGrid = 1 << 20;  // more rows than that are taken in turns

// Limits of csrc/cpu/row_set.h, below which squares lose bits.
constexpr float kSmallestSumOfSquares = 1e-28f;
constexpr float kSmallestNorm = 1e-14f;
constexpr float kLargestFloat = 3.402823466e+38f;

template <class E>
constexpr int kGroup = 16 / static_cast<int>(sizeof(E));  // elements that a lane takes at a time

template <class E>
struct RowView {
  const E* data;
  int64_t columns;
  bool aligned;  // to 16 bytes
};

MIPRUNER_DEVICE bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Calls step(x, at) for every group of elements [at, at + kGroup) of this lane, in order; elements
// beyond the end of the row are zeros.
template <class E, class Step>
MIPRUNER_DEVICE void for_each_group(const RowView<E>& row, Step step) {
  constexpr int kCount = kGroup<E>;
  const int64_t lane = threadIdx.x % 32;
  for (int64_t at = lane * kCount; at < row.columns; at += 32 * kCount) {
    float x[kCount];
    if (row.aligned && at + kCount <= row.columns) {
      alignas(16) E elements[kCount];
      *reinterpret_cast<uint4*>(elements) = *reinterpret_cast<const uint4*>(row.data + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] = to_float(elements[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        x[i] = at + i < row.columns ? to_float(row.data[at + i]) : 0.0f;
      }
    }
    step(x, at);
  }
}

template <class E>
MIPRUNER_DEVICE float sum_of_squares(const RowView<E>& row, float scale) {
  float sum = 0.0f;
  for_each_group(row, [&](const float (&x)[kGroup<E>], int64_t) {
#pragma unroll
    for (int i = 0; i < kGroup<E>; ++i) sum = fmaf(x[i] * scale, x[i] * scale, sum);
  });
  return warp_sum(sum);
}

// The largest magnitude of a row; Inf if it holds NaN or Inf.
template <class E>
MIPRUNER_DEVICE float largest(const RowView<E>& row) {
  float best = 0.0f;
  bool finite = true;
  for_each_group(row, [&](const float (&x)[kGroup<E>], int64_t) {
#pragma unroll
    for (int i = 0; i < kGroup<E>; ++i) {
      finite = finite && fabsf(x[i]) <= kLargestFloat;
      best = max(best, fabsf(x[i]));
    }
  });
  return __all_sync(kFullWarp, finite) ? warp_max(best) : __uint_as_float(0x7f800000u);
}

template <class E>
MIPRUNER_DEVICE void normalize_row(const RowView<E>& row, float eps, E* out) {
  float scale = 1.0f;
  float sum = sum_of_squares(row, scale);
  float inverse_norm = 0.0f;
  const bool huge = !(sum <= kLargestSumOfSquares);
  const bool tiny = sum < kSmallestSumOfSquares && eps < kSmallestNorm;
  bool finite = true;
  if (huge || tiny) {  // the same in all lanes, which hold the same sum
    const float largest_element = largest(row);
    finite = largest_element <= kLargestFloat;
    if (finite) {
      scale = scale_for(largest_element);
      sum = sum_of_squares(row, scale);
    }
  }
  inverse_norm = finite ? 1.0f / max(sqrtf(sum), eps * scale) : __uint_as_float(0x7fc00000u);
  const bool aligned = is_aligned(out);
  for_each_group(row, [&](const float (&x)[kGroup<E>], int64_t at) {
    alignas(16) E elements[kGroup<E>];
    // Two factors, because their product may overflow.
#pragma unroll
    for (int i = 0; i < kGroup<E>; ++i) elements[i] = from_float<E>(x[i] * scale * inverse_norm);
    if (aligned && at + kGroup<E> <= row.columns) {
      *reinterpret_cast<uint4*>(out + at) = *reinterpret_cast<const uint4*>(elements);
    } else {
#pragma unroll
      for (int i = 0; i < kGroup<E>; ++i) {
        if (at + i < row.columns) out[at + i] = elements[i];
      }
    }
  });
}

template <class E>
__global__ void __launch_bounds__(kThreads, 4) normalize_kernel(MatrixView x, float eps, E* out) {
  const int64_t rows = x.batch * x.rows;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t r = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; r < rows; r += step) {
    const E* data =
        static_cast<const E*>(x.data) + r / x.rows * x.batch_stride + r % x.rows * x.row_stride;
    normalize_row(RowView<E>{data, x.columns, is_aligned(data)}, eps, out + r * x.columns);
  }
}

}  // namespace

Status normalize(const MatrixView& x, float eps, void* out, void* stream) {
  const int64_t rows = x.batch * x.rows;
  const int64_t blocks = std::min((rows + kWarps - 1) / kWarps, kLargestGrid);
  return for_element(x.dtype, [&](auto element) {
    using E = decltype(element);
    return launch("normalize", normalize_kernel<E>, dim3(static_cast<unsigned>(blocks)), kThreads,
                  0, stream, x, eps, static_cast<E*>(out));
  });
}

}  // namespace mipruner::cuda
