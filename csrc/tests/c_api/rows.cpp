#include "rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace mipruner::tests {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

size_t size_of(int32_t dtype) { return dtype == MIPRUNER_DTYPE_F32 ? 4 : 2; }

uint16_t bfloat16_bits(double value) {
  const auto narrow = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

// Rounded down to a multiple of the last place; exponents as normal numbers have them.
uint16_t half_bits(double value) {
  const int sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return 0x7e00;
  if (std::isinf(value)) return static_cast<uint16_t>(sign | 0x7c00);
  if (std::fabs(value) < std::ldexp(1.0, -14)) return static_cast<uint16_t>(sign);
  const int exponent = std::ilogb(value);
  const int fraction = static_cast<int>(std::ldexp(std::fabs(value), 10 - exponent)) - 1024;
  return static_cast<uint16_t>(sign | (exponent + 15) << 10 | fraction);
}

double half_value(uint16_t bits) {
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  if (exponent == 31) return fraction ? kNaN : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

// Writes one element; returns what it stands for.
double write_element(double value, int32_t dtype, unsigned char* to) {
  if (dtype == MIPRUNER_DTYPE_F32) {
    const auto narrow = static_cast<float>(value);
    std::memcpy(to, &narrow, sizeof narrow);
    return static_cast<double>(narrow);
  }
  const bool is_half = dtype == MIPRUNER_DTYPE_F16;
  const uint16_t bits = is_half ? half_bits(value) : bfloat16_bits(value);
  std::memcpy(to, &bits, sizeof bits);
  if (is_half) return half_value(bits);
  const uint32_t wide = uint32_t{bits} << 16;
  float narrow;
  std::memcpy(&narrow, &wide, sizeof narrow);
  return static_cast<double>(narrow);
}

}  // namespace

Rows::Rows(const std::vector<double>& values, int64_t n_rows, int64_t n_cols, int32_t dtype,
           int64_t row_stride)
    : n_rows_(n_rows), n_cols_(n_cols), row_stride_(row_stride), dtype_(dtype), values_(values) {
  if (n_rows == 0) return;
  const int64_t stride = row_stride ? row_stride : n_cols;
  const auto elements = static_cast<size_t>((n_rows - 1) * stride + n_cols);
  bytes_.resize(elements * size_of(dtype));
  for (size_t i = 0; i < elements; ++i) write_element(kNaN, dtype, &bytes_[i * size_of(dtype)]);
  for (int64_t i = 0; i < n_rows * n_cols; ++i) {
    const auto at = static_cast<size_t>(i / n_cols * stride + i % n_cols);
    double& value = values_[static_cast<size_t>(i)];
    value = write_element(value, dtype, &bytes_[at * size_of(dtype)]);
  }
}

mipruner_view Rows::view(int32_t memory) const {
  return {bytes_.data(), n_rows_, n_cols_, row_stride_, dtype_, memory};
}

Problem related(int64_t n_rows, int64_t n_words, int64_t n_cols, uint32_t seed, int32_t dtype,
                int64_t row_stride) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<double> text(static_cast<size_t>(n_words * n_cols));
  for (double& value : text) value = normal(engine);
  std::vector<double> visual;
  for (int64_t i = 0; i < n_rows; ++i) {
    const double likeness = 1.5 * std::fabs(normal(engine));
    const int64_t word = n_words ? static_cast<int64_t>(engine()) % n_words : 0;
    for (int64_t k = 0; k < n_cols; ++k) {
      const double theme = n_words ? text[static_cast<size_t>(word * n_cols + k)] : 0.0;
      visual.push_back(normal(engine) + likeness * theme);
    }
  }
  return {Rows(visual, n_rows, n_cols, dtype, row_stride),
          Rows(text, n_words, n_cols, dtype, row_stride)};
}

}  // namespace mipruner::tests
