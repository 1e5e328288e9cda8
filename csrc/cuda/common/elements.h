// Element types as kernels see them, and their conversions.
#pragma once

#include <cstring>

#include "core/types.h"
#include "cuda/common/device.h"

namespace mipruner::cuda {

// Bits only: CUDA's own half types bring long headers and implicit conversions with them.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

MIPRUNER_DEVICE float to_float(float x) { return x; }

// A bfloat16 is the upper half of a float.
MIPRUNER_DEVICE float to_float(BFloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}

// Round to nearest even; every NaN becomes the canonical one, as the hardware does it.
template <class Element>
MIPRUNER_DEVICE Element from_float(float x);

template <>
MIPRUNER_DEVICE float from_float<float>(float x) {
  return x;
}

#if defined(__CUDACC__)

MIPRUNER_DEVICE float to_float(Half x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
  return result;
}

template <>
MIPRUNER_DEVICE Half from_float<Half>(float x) {
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
}

template <>
MIPRUNER_DEVICE BFloat16 from_float<BFloat16>(float x) {
  BFloat16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
}

#else

inline float to_float(Half x) { return ::emu::half_to_float(x.bits); }

template <>
inline Half from_float<Half>(float x) {
  return {::emu::float_to_half(x)};
}

template <>
inline BFloat16 from_float<BFloat16>(float x) {
  return {::emu::float_to_bfloat16(x)};
}

#endif

// Calls f with a value of the element type that `dtype` names: for_element(dtype, [&](auto zero) {
// using Element = decltype(zero); ... }).
template <class Function>
Status for_element(DataType dtype, Function f) {
  switch (dtype) {
    case DataType::kFloat32: return f(float{});
    case DataType::kFloat16: return f(Half{});
    case DataType::kBFloat16: return f(BFloat16{});
  }
  return error(StatusCode::kInvalidArgument, "unknown element type %d", static_cast<int>(dtype));
}

}  // namespace mipruner::cuda
