// Tensor-core products. A warp multiplies A [16, 16] by B [16, 8] and adds to D [16, 8], each lane
// holding these elements (group = lane / 4, pair = 2 * (lane % 4)):
//   a[0], a[1]: rows group, group + 8 at columns pair, pair + 1;  a[2], a[3]: the same at pair + 8
//   b0, b1:     column group at rows pair, pair + 1 and pair + 8, pair + 9
//   d[0..1], d[2..3]: rows group and group + 8 at columns pair, pair + 1
#pragma once

#include "cuda/common/copy.h"
#include "cuda/common/device.h"
#include "cuda/common/elements.h"

namespace mipruner::cuda {

#if defined(__CUDACC__)

// Four 8x8 matrices of 16-bit elements: lane 8 * m + i names row i of matrix m (16 bytes, aligned);
// r[m] gets elements pair, pair + 1 of row `group` of matrix m.
MIPRUNER_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

template <class Element>
MIPRUNER_DEVICE void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
MIPRUNER_DEVICE void mma_16816<BFloat16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
MIPRUNER_DEVICE void mma_16816<Half>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                     uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, ::emu::Site site = ::emu::Site::here()) {
  ::emu::load_matrices(site, r, row);
}

template <class Element>
inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                      ::emu::Site site = ::emu::Site::here()) {
  static_assert(std::is_same_v<Element, Half> || std::is_same_v<Element, BFloat16>);
  constexpr auto decode = [](uint16_t bits) { return to_float(Element{bits}); };
  ::emu::multiply_matrices(site, d, a, b0, b1, decode);
}

#endif

}  // namespace mipruner::cuda
