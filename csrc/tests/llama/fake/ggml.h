// The part of ggml's interface that the door uses, for tests: a few types, with the identifiers
// that files use. Their conversions are in fake.cpp.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ggml_type {
  GGML_TYPE_F32 = 0,
  GGML_TYPE_F16 = 1,
  GGML_TYPE_Q8_0 = 8,
  GGML_TYPE_I8 = 24,    // has no conversion to float
  GGML_TYPE_COUNT = 32  // 4 and 5 are types that ggml once had; the others are left out here
};

typedef void (*ggml_to_float_t)(const void* x, float* y, int64_t k);

struct ggml_type_traits {
  const char* type_name;
  int64_t blck_size;
  size_t type_size;
  ggml_to_float_t to_float;
};

const struct ggml_type_traits* ggml_get_type_traits(enum ggml_type type);

#ifdef __cplusplus
}
#endif
