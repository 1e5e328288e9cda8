// The rows of one item that count, in order, whatever their place in memory.
//
// Every computation runs over a RowSet and never over the matrix it came from, so a masked or
// non-finite row cannot leave a trace in the result: neither in a sum nor in the order of a sum.
#pragma once

#include "core/layout.h"
#include "core/types.h"
#include "cpu/simd/kernels.h"

namespace mipruner::cpu {

struct RowSet {
  const char* data = nullptr;
  DataType dtype = DataType::kFloat32;
  int64_t row_bytes = 0;  // from one row of the matrix to the next
  int64_t columns = 0;
  int64_t count = 0;
  int64_t* index = nullptr;  // [count] ascending row numbers in the matrix
  float* scale = nullptr;    // [count] the power of two that brings huge rows into range; else 1
  float* inverse_norm =
      nullptr;  // [count] 1 / max(length of the scaled row, eps * scale); NaN: not finite

  const char* row(int64_t i) const { return data + index[i] * row_bytes; }
  const char* row_from(int64_t i, int64_t column) const {
    return row(i) + column * static_cast<int64_t>(element_size(dtype));
  }
};

// Takes the arrays of a set of at most `rows` rows.
RowSet take_row_set(Layout& layout, int64_t rows);

// Points the set at the unmasked rows of one item of the batch.
void list_rows(const MatrixView& view, const MaskView& mask, int64_t item, RowSet* rows);

// Rows whose sum of squares is at most this need no scaling: the product of two of them stays
// finite.
constexpr float kLargestSumOfSquares = 1e36f;
// Below this the squares themselves may have lost bits. It matters only where eps does not decide.
constexpr float kSmallestNorm = 1e-14f;
constexpr float kSmallestSumOfSquares = 1e-28f;

// Sets scale and inverse_norm of row i, given the sum of squares of the unscaled row. `staged` is
// scratch for kDepthChunk elements.
void settle_norm(const Kernels& kernels, const Product& product, float sum_of_squares, float eps,
                 int64_t i, RowSet* rows, void* staged);

// Sum of squares of row i times its scale.
float sum_of_squares(const Product& product, const RowSet& rows, int64_t i, float scale,
                     void* staged);

}  // namespace mipruner::cpu
