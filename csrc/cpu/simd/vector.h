// Vectors of kWidth floats in the compiler's own vector types, which serve every processor: gcc and
// clang turn them into the widest registers that the translation unit's flags allow.
//
// Private to kernels.cpp; everything is always_inline, so that no out-of-line copy for one
// instruction set is ever shared with another.
#pragma once

#include <cstdint>

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "core/types.h"

#define MIPRUNER_INLINE static inline __attribute__((always_inline))

namespace mipruner::cpu {
namespace {

#ifndef MIPRUNER_VECTOR_FLOATS
#if defined(__AVX512F__)
#define MIPRUNER_VECTOR_FLOATS 16
#elif defined(__AVX2__)
#define MIPRUNER_VECTOR_FLOATS 8
#else
#define MIPRUNER_VECTOR_FLOATS 4
#endif
#endif
constexpr int64_t kWidth = MIPRUNER_VECTOR_FLOATS;

typedef float Floats __attribute__((vector_size(kWidth * 4)));
typedef int32_t Ints __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Words __attribute__((vector_size(kWidth * 4)));
typedef uint16_t Halves __attribute__((vector_size(kWidth * 2)));

// The same types at any address.
typedef float LooseFloats __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef uint32_t LooseWords __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef uint16_t LooseHalves __attribute__((vector_size(kWidth * 2), aligned(2), may_alias));

// x - 0 is x for every x, so the compiler drops the subtraction; x + 0 would turn -0 into +0 and
// stay.
MIPRUNER_INLINE Floats broadcast(float x) { return x - Floats{}; }
MIPRUNER_INLINE Floats load(const float* x) { return *reinterpret_cast<const LooseFloats*>(x); }
MIPRUNER_INLINE void store(float* out, Floats x) { *reinterpret_cast<LooseFloats*>(out) = x; }

// The first `count` < kWidth elements, the rest `fill`.
MIPRUNER_INLINE Floats load_part(const float* x, int64_t count, float fill) {
  Floats v = broadcast(fill);
  __builtin_memcpy(&v, x, static_cast<size_t>(count) * 4);
  return v;
}
MIPRUNER_INLINE void store_part(float* out, Floats x, int64_t count) {
  __builtin_memcpy(out, &x, static_cast<size_t>(count) * 4);
}

MIPRUNER_INLINE Floats maximum_of(Floats a, Floats b) { return a > b ? a : b; }
MIPRUNER_INLINE Floats minimum_of(Floats a, Floats b) { return a < b ? a : b; }

MIPRUNER_INLINE Floats as_floats(Words x) { return reinterpret_cast<Floats>(x); }
MIPRUNER_INLINE Words as_words(Floats x) { return reinterpret_cast<Words>(x); }

// Sum and maximum over the lanes, in the order of a halving tree.
MIPRUNER_INLINE float sum_lanes(Floats x) {
  float lanes[kWidth];
  __builtin_memcpy(lanes, &x, sizeof(lanes));
  for (int64_t half = kWidth / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
MIPRUNER_INLINE float maximum_lane(Floats x) {
  float best = x[0];
  for (int64_t i = 1; i < kWidth; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

MIPRUNER_INLINE Floats from_bfloat16(Halves x) {
  return as_floats(__builtin_convertvector(x, Words) << 16);
}

MIPRUNER_INLINE Floats from_float16(Halves x) {
#if defined(__AVX512F__) && MIPRUNER_VECTOR_FLOATS == 16
  return reinterpret_cast<Floats>(_mm512_maskz_cvtph_ps(0xffff, reinterpret_cast<__m256i>(x)));
#elif defined(__F16C__) && MIPRUNER_VECTOR_FLOATS == 8
  return reinterpret_cast<Floats>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(x)));
#else
  const Words bits = __builtin_convertvector(x, Words);
  // Exponent and fraction move to their places in a float, whose exponent bias is larger by 112:
  // the multiplication corrects it, for subnormals too. Inf and NaN get the largest exponent back.
  const Floats magnitude = as_floats((bits & 0x7fffu) << 13) * 0x1p112f;
  const Words special = reinterpret_cast<Words>((bits & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  return as_floats(as_words(magnitude) | special | ((bits & 0x8000u) << 16));
#endif
}

// `count` <= kWidth elements of a row of any dtype as floats, zero-filled.
template <DataType kType>
MIPRUNER_INLINE Floats load_as_floats(const void* row, int64_t at, int64_t count) {
  if constexpr (kType == DataType::kFloat32) {
    const float* x = static_cast<const float*>(row) + at;
    return count == kWidth ? load(x) : load_part(x, count, 0.0f);
  } else {
    const uint16_t* x = static_cast<const uint16_t*>(row) + at;
    Halves v = {};
    if (count == kWidth) {
      v = *reinterpret_cast<const LooseHalves*>(x);
    } else {
      __builtin_memcpy(&v, x, static_cast<size_t>(count) * 2);
    }
    return kType == DataType::kFloat16 ? from_float16(v) : from_bfloat16(v);
  }
}

MIPRUNER_INLINE uint16_t to_bfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>((bits >> 16) | 0x40u);  // NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >>
                               16);  // to nearest, ties even
}

MIPRUNER_INLINE uint16_t to_float16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // NaN
  if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to Inf
  if (bits < 0x38800000u) {
    // Subnormal in float16: adding 0.5 aligns its unit, 2^-24, with the last bit of the sum, and
    // the addition rounds to nearest even.
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    __builtin_memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13));
}

}  // namespace
}  // namespace mipruner::cpu
