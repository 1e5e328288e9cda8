// Rows of unit length.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "cpu/backend.h"
#include "cpu/row_set.h"

namespace mipruner::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;

void normalize_row(const Kernels& kernels, const RowSet& source, int64_t row, float eps,
                   void* out) {
  // One row at a time needs no arrays of its own: a set of one row, on the stack.
  alignas(64) float staged[kDepthChunk];
  int64_t index = row;
  float scale = 1.0f;
  float inverse_norm = 0.0f;
  RowSet rows = source;
  rows.count = 1;
  rows.index = &index;
  rows.scale = &scale;
  rows.inverse_norm = &inverse_norm;
  const float sum = sum_of_squares(kernels.float_product, rows, 0, 1.0f, staged);
  settle_norm(kernels, kernels.float_product, sum, eps, 0, &rows, staged);
  kernels.scale(rows.row(0), rows.dtype, rows.columns, scale, inverse_norm, out);
}

}  // namespace

void normalize(const Kernels& kernels, const MatrixView& x, float eps, void* out,
               const Executor& executor) {
  const int64_t bytes = static_cast<int64_t>(element_size(x.dtype));
  const int64_t rows = x.batch * x.rows;
  for_each_task(executor, (rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int64_t) {
    const int64_t end = std::min((task + 1) * kRowsPerTask, rows);
    for (int64_t r = task * kRowsPerTask; r < end; ++r) {
      RowSet source;
      source.data = static_cast<const char*>(x.data) + r / x.rows * x.batch_stride * bytes;
      source.dtype = x.dtype;
      source.row_bytes = x.row_stride * bytes;
      source.columns = x.columns;
      normalize_row(kernels, source, r % x.rows, eps,
                    static_cast<char*>(out) + r * x.columns * bytes);
    }
  });
}

}  // namespace mipruner::cpu
