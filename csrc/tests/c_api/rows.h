// Matrices for the library to read, and what their elements stand for.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "mipruner/mipruner.h"

namespace mipruner::tests {

// [n_rows, n_cols] of any element type, in memory that ends with the last element. What lies
// between two rows is NaN.
class Rows {
 public:
  Rows(const std::vector<double>& values, int64_t n_rows, int64_t n_cols,
       int32_t dtype = MIPRUNER_DTYPE_F32, int64_t row_stride = 0);

  mipruner_view view(int32_t memory = MIPRUNER_MEMORY_HOST) const;
  // After rounding to the element type, row by row.
  const std::vector<double>& values() const { return values_; }
  int64_t n_rows() const { return n_rows_; }
  int64_t n_cols() const { return n_cols_; }

 private:
  int64_t n_rows_, n_cols_, row_stride_;
  int32_t dtype_;
  std::vector<double> values_;
  std::vector<unsigned char> bytes_;
};

struct Problem {
  Rows visual;
  Rows text;
};

// Visual rows that resemble the words to different degrees, as real ones do.
Problem related(int64_t n_rows, int64_t n_words, int64_t n_cols, uint32_t seed = 1,
                int32_t dtype = MIPRUNER_DTYPE_F32, int64_t row_stride = 0);

}  // namespace mipruner::tests
