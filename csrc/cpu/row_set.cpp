#include "cpu/row_set.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mipruner::cpu {

RowSet take_row_set(Layout& layout, int64_t rows) {
  RowSet set;
  set.index = layout.take<int64_t>(rows);
  set.scale = layout.take<float>(rows);
  set.inverse_norm = layout.take<float>(rows);
  return set;
}

void list_rows(const MatrixView& view, const MaskView& mask, int64_t item, RowSet* rows) {
  const int64_t bytes = static_cast<int64_t>(element_size(view.dtype));
  rows->data = static_cast<const char*>(view.data) + item * view.batch_stride * bytes;
  rows->dtype = view.dtype;
  rows->row_bytes = view.row_stride * bytes;
  rows->columns = view.columns;
  rows->count = 0;
  for (int64_t i = 0; i < view.rows; ++i) {
    if (mask.data && !mask.data[item * mask.batch_stride + i * mask.row_stride]) continue;
    rows->index[rows->count++] = i;
  }
}

float sum_of_squares(const Product& product, const RowSet& rows, int64_t i, float scale,
                     void* staged) {
  float sum = 0;
  for (int64_t k = 0; k < rows.columns; k += kDepthChunk) {
    const int64_t n = std::min(kDepthChunk, rows.columns - k);
    sum += product.stage(rows.row_from(i, k), rows.dtype, n, scale, staged);
  }
  return sum;
}

void settle_norm(const Kernels& kernels, const Product& product, float sum, float eps, int64_t i,
                 RowSet* rows, void* staged) {
  float scale = 1.0f;
  const bool huge = !(sum <= kLargestSumOfSquares);
  const bool tiny = sum < kSmallestSumOfSquares && eps < kSmallestNorm;
  if (huge || tiny) {
    // Out of float32's range or not finite at all: only now is a second look at the row worth its
    // time.
    const float largest = kernels.largest(rows->row(i), rows->dtype, rows->columns);
    if (!std::isfinite(largest)) {
      rows->scale[i] = 1.0f;
      rows->inverse_norm[i] = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    int exponent = 0;
    std::frexp(largest, &exponent);
    scale = std::ldexp(1.0f, std::clamp(-exponent, -126, 126));
    sum = sum_of_squares(product, *rows, i, scale, staged);
  }
  rows->scale[i] = scale;
  rows->inverse_norm[i] = 1.0f / std::max(std::sqrt(sum), eps * scale);
}

}  // namespace mipruner::cpu
