// exp and log of vectors, to about one unit in the last place.
#pragma once

#include "cpu/simd/vector.h"

namespace mipruner::cpu {
namespace {

// exp(x) for x <= 1 or so. Below -87 it stays at exp(-87), a number that adds nothing to a sum that
// holds exp(0) and whose logarithm is still finite. NaN gives an unspecified finite number.
MIPRUNER_INLINE Floats exp_of(Floats x) {
  x = maximum_of(x, broadcast(-87.0f));
  // x = n ln 2 + r with |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to an integer, whose value then
  // sits in the low bits of the sum.
  const Floats shifted = x * 1.44269504088896341f + 12582912.0f;
  const Floats n = shifted - 12582912.0f;
  // ln 2 in two parts: the first has so few bits that its product with n is exact.
  Floats r = x - n * 0.693359375f;
  r = r + n * 2.12194440054690581e-4f;
  // The Taylor series up to r^7 / 7!: the next term is below 2^-27.
  Floats p = broadcast(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const Words exponent = (as_words(shifted) - 0x4b400000u + 127u) << 23;
  return p * as_floats(exponent);
}

// log(x) for normal x > 0; relative accuracy holds around 1 too.
MIPRUNER_INLINE Floats log_of(Floats x) {
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) makes the exponent
  // field count in that interval.
  const Words bits = as_words(x);
  const Words offset = bits - 0x3f3504f3u;
  const Ints exponent = reinterpret_cast<Ints>(offset) >> 23;
  const Floats m = as_floats(bits - (reinterpret_cast<Words>(exponent) << 23));
  // log m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172: the next term, s^11 / 11, is below
  // 2^-31.
  const Floats s = (m - 1.0f) / (m + 1.0f);
  const Floats z = s * s;
  Floats p = broadcast(2.0f / 9);
  p = p * z + 2.0f / 7;
  p = p * z + 2.0f / 5;
  p = p * z + 2.0f / 3;
  const Floats e = __builtin_convertvector(exponent, Floats);
  // e ln 2 in two parts, the smaller first, so that e = 0 adds nothing at all.
  return (p * z * s + e * -2.12194440054690581e-4f) + 2.0f * s + e * 0.693359375f;
}

MIPRUNER_INLINE float log_of(float x) { return log_of(broadcast(x))[0]; }

}  // namespace
}  // namespace mipruner::cpu
