// The inner loops of the CPU backend, one table per instruction set.
//
// kernels.cpp is compiled once per level (see CMakeLists.txt) and each object exports one table.
// Everything outside this folder is compiled for the baseline processor and calls through the
// table, so no code for a newer processor can leak into a program that runs on an older one. For
// the same reason kernels.cpp and what it includes use no standard-library template: the linker
// might keep its newest copy for everyone.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace mipruner::cpu {

// Panels are at most this wide at any level, so scratch sizes need not know the level.
constexpr int64_t kLargestPanel = 64;
// Rows of scratch that a product reads are padded to this many floats.
constexpr int64_t kDepthChunk = 256;

// A product C += A * B^T of rows staged in scratch memory. "Staged" elements are float, or bfloat16
// kept as they are where the processor multiplies them directly. Every element of C is one chain of
// fused multiply-adds in the order of the depth: its bits depend on its own row and column alone.
struct Product {
  int64_t element_bytes;  // of a staged element: 4 or 2
  int64_t panel;          // columns of C computed together

  // Stages n elements of a row, times a power of two, and returns their sum of squares in float32
  // (Inf where it overflows, NaN where an element is NaN). Writes up to the next even count,
  // zero-filled.
  float (*stage)(const void* row, DataType dtype, int64_t n, float scale, void* out);

  // Packs the depth range [0, n) of `columns` staged rows, `stride` bytes apart, as one panel;
  // absent columns are zeros. One panel takes panel * (n rounded up to even) elements.
  void (*pack)(const void* staged, int64_t stride, int64_t columns, int64_t n, void* panel);

  // c[rows, panel] += a[rows, n] * panel; lda in bytes, ldc in floats.
  void (*multiply)(const void* a, int64_t lda, int64_t rows, const void* panel, int64_t n, float* c,
                   int64_t ldc);
};

struct Kernels {
  const char* level;
  Product float_product;
  Product bfloat16_product;  // the float product again where bfloat16 has no instruction of its own

  // The largest magnitude of a row; NaN if the row holds one.
  float (*largest)(const void* row, DataType dtype, int64_t n);
  // out[j] = row[j] * first * second, rounded to dtype. Two factors, because their product may
  // overflow.
  void (*scale)(const void* row, DataType dtype, int64_t n, float first, float second, void* out);

  // x[j] = x[j] * (weights[j] * weight) * factor: symmetric in the two weights, to the last bit.
  void (*weigh)(float* x, const float* weights, float weight, float factor, int64_t n);
  float (*maximum)(const float* x, int64_t n);
  // x becomes exp(x) / sum exp(x); returns log sum exp(x). n >= 1.
  float (*softmax)(float* x, int64_t n);
  // log sum exp(x), x untouched. n >= 1.
  float (*log_sum_exp)(const float* x, int64_t n);
  // sum_j p log(p / q) - p + q: the Kullback-Leibler divergence of two distributions in the form
  // whose terms are all >= 0, which does not cancel when p is close to q.
  float (*divergence)(const float* p, const float* q, int64_t n);
  // sum_j p log(scale * p) with log(scale * p) = x[j] - shift[j] and p = exp(that) / scale.
  float (*pointwise)(const float* x, const float* shift, float scale, int64_t n);

  // Column statistics, one row at a time.
  void (*add_scaled)(float* sums, const float* x, float factor, int64_t n);
  void (*keep_maximum)(float* maxima, const float* x, int64_t n);
  void (*add_exp)(float* sums, const float* x, const float* maxima, int64_t n);

  // Redundancy of all rows i with one row c, given x[i] = q_ic / tau and the rows' log-normalisers:
  // p = exp(x - normalizers), sums[i] += max(0, p * (log p + log_count)).
  void (*add_redundancy)(float* sums, const float* x, const float* normalizers, float log_count,
                         int64_t n);
  // The sum over i of what add_redundancy adds.
  float (*redundancy_sum)(const float* x, const float* normalizers, float log_count, int64_t n);
  // gains[i] = max(relevance[i] - weight * sums[i], the lowest finite float).
  void (*gains)(const float* relevance, const float* sums, float weight, float* gains, int64_t n);
};

const Kernels& kernels_baseline();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_avx512_bf16();
// avx512_bf16 with its 16-wide vectors and its dot product spelled out for any processor: how the
// tests run that level's code on machines without it. Never chosen by itself.
const Kernels& kernels_emulated();

}  // namespace mipruner::cpu
