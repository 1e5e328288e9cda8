// The kernel table of one instruction set. MIPRUNER_LEVEL names it; the compiler flags make it.
#include "cpu/simd/kernels.h"

#if defined(__AVX512BF16__) || defined(MIPRUNER_EMULATE_AVX512)
#define MIPRUNER_BFLOAT16_PAIRS
#endif
#if defined(MIPRUNER_EMULATE_AVX512)
#define MIPRUNER_VECTOR_FLOATS 16
#endif

#include "cpu/simd/product.h"
#include "cpu/simd/rows.h"

#define MIPRUNER_JOIN_(a, b) a##b
#define MIPRUNER_JOIN(a, b) MIPRUNER_JOIN_(a, b)
#define MIPRUNER_TEXT_(a) #a
#define MIPRUNER_TEXT(a) MIPRUNER_TEXT_(a)

namespace mipruner::cpu {

const Kernels& MIPRUNER_JOIN(kernels_, MIPRUNER_LEVEL)() {
  static constexpr Product kFloats = {4, kPanel, stage_floats, pack_floats, multiply_floats};
#if defined(MIPRUNER_BFLOAT16_PAIRS)
  static constexpr Product kBFloat16s = {2, kPanel, stage_pairs, pack_pairs, multiply_pairs};
#else
  static constexpr Product kBFloat16s = kFloats;
#endif
  static constexpr Kernels kTable = {
      MIPRUNER_TEXT(MIPRUNER_LEVEL),
      kFloats,
      kBFloat16s,
      largest,
      scale,
      weigh,
      maximum,
      softmax,
      log_sum_exp,
      divergence,
      pointwise,
      add_scaled,
      keep_maximum,
      add_exp,
      add_redundancy,
      redundancy_sum,
      gains,
  };
  return kTable;
}

}  // namespace mipruner::cpu
