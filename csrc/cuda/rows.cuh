// Rows one by one: lengths, and dot products where the tiled product left float32's range.
#pragma once

#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#include "cuda/common/warp.h"

namespace mipruner::cuda {

// The same limits as on the CPU (csrc/cpu/row_set.h).
constexpr float kNormEps = 1e-12f;             // norms below count as this
constexpr float kLargestSumOfSquares = 1e36f;  // the product of two such rows stays finite

struct RowMeasure {
  float scale;
  float inverse_norm;
  bool finite;
};

// The power of two that brings a number of this size just below 1.
MIPRUNER_DEVICE float scale_for(float largest) {
  int exponent = 0;
  frexpf(largest, &exponent);
  return ldexpf(1.0f, max(-126, min(126, -exponent)));
}

// Scale and inverse length of a row, given its sum of squares. All lanes of a warp call it
// together.
template <class Element>
MIPRUNER_DEVICE RowMeasure measure_row(const Element* row, int columns, float squares) {
  const int lane = static_cast<int>(threadIdx.x % kWarpSize);
  RowMeasure measure = {1.0f, 0.0f, true};
  if (!(squares <= kLargestSumOfSquares)) {
    // Out of range, or not finite at all: only now is a second look at the row worth its time.
    float largest = 0.0f;
    bool finite = true;
    for (int k = lane; k < columns; k += kWarpSize) {
      const float x = fabsf(to_float(row[k]));
      finite = finite && x <= 3.402823466e38f;  // false for NaN too
      largest = fmaxf(largest, x);
    }
    measure.finite = __all_sync(kFullWarp, finite) != 0;
    if (!measure.finite) return measure;
    measure.scale = scale_for(warp_max(largest));
    float sum = 0.0f;
    for (int k = lane; k < columns; k += kWarpSize) {
      const float x = to_float(row[k]) * measure.scale;
      sum = fmaf(x, x, sum);
    }
    squares = warp_sum(sum);
  }
  measure.inverse_norm = 1.0f / fmaxf(sqrtf(squares), kNormEps * measure.scale);
  return measure;
}

// The dot product of two scaled rows. All lanes of a warp call it together.
template <class Element>
MIPRUNER_DEVICE float scaled_dot(const Element* a, float scale_a, const Element* b, float scale_b,
                                 int columns) {
  float sum = 0.0f;
  for (int k = static_cast<int>(threadIdx.x % kWarpSize); k < columns; k += kWarpSize) {
    sum = fmaf(to_float(a[k]) * scale_a, to_float(b[k]) * scale_b, sum);
  }
  return warp_sum(sum);
}

}  // namespace mipruner::cuda
