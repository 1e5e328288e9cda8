// Operations on one row of similarities or probabilities at a time.
#pragma once

#include "cpu/simd/elementary.h"
#include "cpu/simd/vector.h"

namespace mipruner::cpu {
namespace {

constexpr float kLowest = -3.402823466e+38f;

// Calls step(at, count) for each vector of a row; count < kWidth for the last, partial one.
template <class Step>
MIPRUNER_INLINE void for_each_vector(int64_t n, Step step) {
  int64_t k = 0;
  for (; k + kWidth <= n; k += kWidth) step(k, kWidth);
  if (k < n) step(k, n - k);
}

MIPRUNER_INLINE Floats load_up_to(const float* x, int64_t count, float fill) {
  return count == kWidth ? load(x) : load_part(x, count, fill);
}
MIPRUNER_INLINE void store_up_to(float* out, Floats x, int64_t count) {
  if (count == kWidth) {
    store(out, x);
  } else {
    store_part(out, x, count);
  }
}
// x in the first `count` lanes, 0 in the others.
MIPRUNER_INLINE Floats keep_up_to(Floats x, int64_t count) {
  if (count == kWidth) return x;
  Floats kept = {};
  __builtin_memcpy(&kept, &x, static_cast<size_t>(count) * 4);
  return kept;
}

template <DataType kType>
MIPRUNER_INLINE float largest_of(const void* row, int64_t n) {
  Floats best = {};
  Words nan = {};
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Words magnitude = as_words(load_as_floats<kType>(row, k, count)) & 0x7fffffffu;
    nan |= reinterpret_cast<Words>(magnitude > 0x7f800000u);
    best = maximum_of(best, as_floats(magnitude));
  });
  for (int64_t i = 0; i < kWidth; ++i) {
    if (nan[i]) return __builtin_nanf("");
  }
  return maximum_lane(best);
}

float largest(const void* row, DataType dtype, int64_t n) {
  switch (dtype) {
    case DataType::kFloat32: return largest_of<DataType::kFloat32>(row, n);
    case DataType::kFloat16: return largest_of<DataType::kFloat16>(row, n);
    default: return largest_of<DataType::kBFloat16>(row, n);
  }
}

template <DataType kType>
MIPRUNER_INLINE void scale_row(const void* row, int64_t n, float first, float second, void* out) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats x = load_as_floats<kType>(row, k, count) * first * second;
    if constexpr (kType == DataType::kFloat32) {
      store_up_to(static_cast<float*>(out) + k, x, count);
    } else {
      uint16_t* halves = static_cast<uint16_t*>(out) + k;
      for (int64_t i = 0; i < count; ++i) {
        halves[i] = kType == DataType::kFloat16 ? to_float16(x[i]) : to_bfloat16(x[i]);
      }
    }
  });
}

void scale(const void* row, DataType dtype, int64_t n, float first, float second, void* out) {
  switch (dtype) {
    case DataType::kFloat32: return scale_row<DataType::kFloat32>(row, n, first, second, out);
    case DataType::kFloat16: return scale_row<DataType::kFloat16>(row, n, first, second, out);
    default: return scale_row<DataType::kBFloat16>(row, n, first, second, out);
  }
}

void weigh(float* x, const float* weights, float weight, float factor, int64_t n) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats both = load_up_to(weights + k, count, 0.0f) * weight;
    store_up_to(x + k, load_up_to(x + k, count, 0.0f) * both * factor, count);
  });
}

float maximum(const float* x, int64_t n) {
  Floats best = broadcast(kLowest);
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    best = maximum_of(best, load_up_to(x + k, count, kLowest));
  });
  return maximum_lane(best);
}

float softmax(float* x, int64_t n) {
  const float top = maximum(x, n);
  Floats sum = {};
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats e = exp_of(load_up_to(x + k, count, kLowest) - top);
    sum += keep_up_to(e, count);
    store_up_to(x + k, e, count);
  });
  const float total = sum_lanes(sum);
  const float inverse = 1.0f / total;
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    store_up_to(x + k, load_up_to(x + k, count, 0.0f) * inverse, count);
  });
  return top + log_of(total);
}

float log_sum_exp(const float* x, int64_t n) {
  const float top = maximum(x, n);
  Floats sum = {};
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    sum += keep_up_to(exp_of(load_up_to(x + k, count, kLowest) - top), count);
  });
  return top + log_of(sum_lanes(sum));
}

float divergence(const float* p, const float* q, int64_t n) {
  Floats sum = {};
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    // Lanes beyond the row hold p = q = 1, which adds 0.
    const Floats a = load_up_to(p + k, count, 1.0f);
    const Floats b = load_up_to(q + k, count, 1.0f);
    sum += a * log_of(a / b) - (a - b);
  });
  const float total = sum_lanes(sum);
  return total > 0.0f ? total : 0.0f;  // never negative, not even by rounding
}

float pointwise(const float* x, const float* shift, float scale, int64_t n) {
  Floats sum = {};
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    // exp_of stops at -87: the factor beside it must stop there too, or a tiny temperature outgrows
    // it.
    const Floats log_ratio = maximum_of(
        load_up_to(x + k, count, 0.0f) - load_up_to(shift + k, count, 0.0f), broadcast(-87.0f));
    sum += keep_up_to(exp_of(log_ratio) * log_ratio, count);
  });
  return sum_lanes(sum) / scale;
}

void add_scaled(float* sums, const float* x, float factor, int64_t n) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    store_up_to(sums + k,
                load_up_to(sums + k, count, 0.0f) + load_up_to(x + k, count, 0.0f) * factor, count);
  });
}

void keep_maximum(float* maxima, const float* x, int64_t n) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    store_up_to(maxima + k,
                maximum_of(load_up_to(maxima + k, count, 0.0f), load_up_to(x + k, count, 0.0f)),
                count);
  });
}

void add_exp(float* sums, const float* x, const float* maxima, int64_t n) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats e = exp_of(load_up_to(x + k, count, 0.0f) - load_up_to(maxima + k, count, 0.0f));
    store_up_to(sums + k, load_up_to(sums + k, count, 0.0f) + e, count);
  });
}

// max(0, p (log p + log N)) with p = exp(log_p).
MIPRUNER_INLINE Floats redundancy_of(Floats log_p, float log_count) {
  return maximum_of(exp_of(log_p) * (log_p + log_count), Floats{});
}

void add_redundancy(float* sums, const float* x, const float* normalizers, float log_count,
                    int64_t n) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats log_p = load_up_to(x + k, count, 0.0f) - load_up_to(normalizers + k, count, 0.0f);
    store_up_to(sums + k, load_up_to(sums + k, count, 0.0f) + redundancy_of(log_p, log_count),
                count);
  });
}

float redundancy_sum(const float* x, const float* normalizers, float log_count, int64_t n) {
  Floats sum = {};
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats log_p = load_up_to(x + k, count, 0.0f) - load_up_to(normalizers + k, count, 0.0f);
    sum += keep_up_to(redundancy_of(log_p, log_count), count);
  });
  return sum_lanes(sum);
}

void gains(const float* relevance, const float* sums, float weight, float* gains, int64_t n) {
  for_each_vector(n, [&](int64_t k, int64_t count) __attribute__((always_inline)) {
    const Floats gain =
        load_up_to(relevance + k, count, 0.0f) - load_up_to(sums + k, count, 0.0f) * weight;
    store_up_to(gains + k, maximum_of(gain, broadcast(kLowest)), count);
  });
}

}  // namespace
}  // namespace mipruner::cpu
