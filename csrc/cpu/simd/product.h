// The matrix product behind all similarities: rows of A against a packed panel of rows of B.
//
// Method: 6 rows of A by kVectors vectors of columns fill the registers (6 * kVectors
// accumulators); each step of the depth loads kVectors vectors of the panel and broadcasts 6
// elements of A. A panel is stored depth-major, so it streams; A rows are staged row-major, because
// broadcasts do not care.
#pragma once

#include "cpu/simd/kernels.h"
#include "cpu/simd/vector.h"

namespace mipruner::cpu {
namespace {

constexpr int64_t kTileRows = 6;
// Accumulators must leave registers for the panel and the broadcast: 16 registers allow 6 x 2, the
// 32 of AVX-512 allow 6 x 4.
constexpr int64_t kVectors = kWidth == 16 ? 4 : 2;
constexpr int64_t kPanel = kWidth * kVectors;
static_assert(kPanel <= kLargestPanel);

// ---- float ----

template <DataType kType>
MIPRUNER_INLINE float stage_row(const void* row, int64_t n, float scale, float* out) {
  constexpr int64_t kBytes = kType == DataType::kFloat32 ? 4 : 2;
  const char* next_chunk = static_cast<const char*>(row) + n * kBytes;
  // Four sums hide the latency of the additions.
  Floats sums[4] = {};
  int64_t k = 0;
  for (; k + 4 * kWidth <= n; k += 4 * kWidth) {
    // The same row's next chunk is wanted after all other rows of the block: too late for the
    // hardware's own prefetcher, which follows few streams at a time. A prefetch beyond the matrix
    // does nothing.
    for (int64_t line = 0; line < 4 * kWidth * kBytes; line += 64) {
      __builtin_prefetch(next_chunk + k * kBytes + line, 0, 2);
    }
    for (int64_t u = 0; u < 4; ++u) {
      const Floats x = load_as_floats<kType>(row, k + u * kWidth, kWidth) * scale;
      store(out + k + u * kWidth, x);
      sums[u] += x * x;
    }
  }
  for (; k < n; k += kWidth) {
    const int64_t count = n - k < kWidth ? n - k : kWidth;
    const Floats x = load_as_floats<kType>(row, k, count) * scale;
    store_part(out + k, x, count);
    sums[0] += x * x;
  }
  if (n % 2) out[n] = 0.0f;
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

float stage_floats(const void* row, DataType dtype, int64_t n, float scale, void* out) {
  float* staged = static_cast<float*>(out);
  switch (dtype) {
    case DataType::kFloat32: return stage_row<DataType::kFloat32>(row, n, scale, staged);
    case DataType::kFloat16: return stage_row<DataType::kFloat16>(row, n, scale, staged);
    default: return stage_row<DataType::kBFloat16>(row, n, scale, staged);
  }
}

// Transposes `columns` rows of 32-bit units into a panel of kPanel columns.
MIPRUNER_INLINE void pack_words(const void* staged, int64_t stride, int64_t columns, int64_t n,
                                uint32_t* panel) {
  constexpr int64_t kBlock = 16;  // one cache line of each row at a time
  for (int64_t k0 = 0; k0 < n; k0 += kBlock) {
    const int64_t end = k0 + kBlock < n ? k0 + kBlock : n;
    for (int64_t j = 0; j < kPanel; ++j) {
      if (j < columns) {
        const auto* row =
            reinterpret_cast<const uint32_t*>(static_cast<const char*>(staged) + j * stride);
        for (int64_t k = k0; k < end; ++k) panel[k * kPanel + j] = row[k];
      } else {
        for (int64_t k = k0; k < end; ++k) panel[k * kPanel + j] = 0;
      }
    }
  }
}

void pack_floats(const void* staged, int64_t stride, int64_t columns, int64_t n, void* panel) {
  pack_words(staged, stride, columns, n, static_cast<uint32_t*>(panel));
}

template <int64_t kRows>
MIPRUNER_INLINE void multiply_tile(const char* a, int64_t lda, const float* panel, int64_t n,
                                   float* c, int64_t ldc) {
  Floats sums[kRows][kVectors];
  const float* rows[kRows];
#pragma GCC unroll 6
  for (int64_t i = 0; i < kRows; ++i) {
    rows[i] = reinterpret_cast<const float*>(a + i * lda);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) sums[i][j] = load(c + i * ldc + j * kWidth);
  }
  for (int64_t k = 0; k < n; ++k) {
    Floats b[kVectors];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) b[j] = load(panel + k * kPanel + j * kWidth);
#pragma GCC unroll 6
    for (int64_t i = 0; i < kRows; ++i) {
      const Floats x = broadcast(rows[i][k]);
#pragma GCC unroll 4
      for (int64_t j = 0; j < kVectors; ++j) sums[i][j] += x * b[j];
    }
  }
#pragma GCC unroll 6
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) store(c + i * ldc + j * kWidth, sums[i][j]);
  }
}

void multiply_floats(const void* a, int64_t lda, int64_t rows, const void* panel, int64_t n,
                     float* c, int64_t ldc) {
  const char* x = static_cast<const char*>(a);
  const float* b = static_cast<const float*>(panel);
  int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    multiply_tile<kTileRows>(x + i * lda, lda, b, n, c + i * ldc, ldc);
  }
  switch (rows - i) {
    case 5: return multiply_tile<5>(x + i * lda, lda, b, n, c + i * ldc, ldc);
    case 4: return multiply_tile<4>(x + i * lda, lda, b, n, c + i * ldc, ldc);
    case 3: return multiply_tile<3>(x + i * lda, lda, b, n, c + i * ldc, ldc);
    case 2: return multiply_tile<2>(x + i * lda, lda, b, n, c + i * ldc, ldc);
    case 1: return multiply_tile<1>(x + i * lda, lda, b, n, c + i * ldc, ldc);
    default: return;
  }
}

// ---- bfloat16 pairs: two products per 32-bit lane, summed in float32 ----

#if defined(__AVX512BF16__)
MIPRUNER_INLINE Floats add_pair_products(Floats sum, Words a, Words b) {
  return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
#else
MIPRUNER_INLINE Floats add_pair_products(Floats sum, Words a, Words b) {
  const Words upper = Words{} + 0xffff0000u;
  sum += as_floats(a & upper) * as_floats(b & upper);
  return sum + as_floats(a << 16) * as_floats(b << 16);
}
#endif

#if defined(MIPRUNER_BFLOAT16_PAIRS)

// A bfloat16 row stays as it is, except that a power-of-two scale, exact in bfloat16, may be
// applied.
float stage_pairs(const void* row, DataType /*dtype*/, int64_t n, float scale, void* out) {
  uint16_t* staged = static_cast<uint16_t*>(out);
  if (scale == 1.0f) {
    __builtin_memcpy(staged, row, static_cast<size_t>(n) * 2);
  } else {
    for (int64_t k = 0; k < n; ++k) {
      const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(row)[k]) << 16;
      float x;
      __builtin_memcpy(&x, &bits, 4);
      staged[k] = to_bfloat16(x * scale);
    }
  }
  if (n % 2) staged[n] = 0;
  const char* next_chunk = static_cast<const char*>(row) + n * 2;
  Floats sums[2] = {};
  int64_t k = 0;
  for (; k + 2 * kWidth <= n; k += 2 * kWidth) {
    __builtin_prefetch(next_chunk + k * 2, 0, 2);  // as in stage_row
    for (int64_t u = 0; u < 2; ++u) {
      const Floats x = load_as_floats<DataType::kBFloat16>(staged, k + u * kWidth, kWidth);
      sums[u] += x * x;
    }
  }
  for (; k < n; k += kWidth) {
    const int64_t count = n - k < kWidth ? n - k : kWidth;
    const Floats x = load_as_floats<DataType::kBFloat16>(staged, k, count);
    sums[0] += x * x;
  }
  return sum_lanes(sums[0] + sums[1]);
}

void pack_pairs(const void* staged, int64_t stride, int64_t columns, int64_t n, void* panel) {
  pack_words(staged, stride, columns, (n + 1) / 2, static_cast<uint32_t*>(panel));
}

template <int64_t kRows>
MIPRUNER_INLINE void multiply_pair_tile(const char* a, int64_t lda, const uint32_t* panel,
                                        int64_t pairs, float* c, int64_t ldc) {
  Floats sums[kRows][kVectors];
  const uint32_t* rows[kRows];
#pragma GCC unroll 6
  for (int64_t i = 0; i < kRows; ++i) {
    rows[i] = reinterpret_cast<const uint32_t*>(a + i * lda);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) sums[i][j] = load(c + i * ldc + j * kWidth);
  }
  for (int64_t k = 0; k < pairs; ++k) {
    Words b[kVectors];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) {
      b[j] = *reinterpret_cast<const LooseWords*>(panel + k * kPanel + j * kWidth);
    }
#pragma GCC unroll 6
    for (int64_t i = 0; i < kRows; ++i) {
      const Words x = Words{} + rows[i][k];
#pragma GCC unroll 4
      for (int64_t j = 0; j < kVectors; ++j) sums[i][j] = add_pair_products(sums[i][j], x, b[j]);
    }
  }
#pragma GCC unroll 6
  for (int64_t i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kVectors; ++j) store(c + i * ldc + j * kWidth, sums[i][j]);
  }
}

void multiply_pairs(const void* a, int64_t lda, int64_t rows, const void* panel, int64_t n,
                    float* c, int64_t ldc) {
  const char* x = static_cast<const char*>(a);
  const uint32_t* b = static_cast<const uint32_t*>(panel);
  const int64_t pairs = (n + 1) / 2;
  int64_t i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    multiply_pair_tile<kTileRows>(x + i * lda, lda, b, pairs, c + i * ldc, ldc);
  }
  for (; i < rows; ++i) multiply_pair_tile<1>(x + i * lda, lda, b, pairs, c + i * ldc, ldc);
}

#endif  // MIPRUNER_BFLOAT16_PAIRS

}  // namespace
}  // namespace mipruner::cpu
