// What all cases share: random numbers, device buffers of exact size, elements of any dtype.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/operations.h"
#include "cpu/backend.h"
#include "cpu/simd/kernels.h"
#include "cuda/backend.h"
#include "emu/runtime.h"

namespace mipruner::cases {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline void set_thread_order(int order, uint32_t seed) {
  emu::options().order = static_cast<emu::Order>(order);
  emu::options().seed = seed;
}

// Another order than the one before.
inline void next_thread_order() {
  set_thread_order((static_cast<int>(emu::options().order) + 1) % 3, emu::options().seed + 1);
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t below(int64_t n) {
    return static_cast<int64_t>(engine_() % static_cast<uint64_t>(std::max<int64_t>(n, 1)));
  }
  bool one_in(int64_t n) { return below(n) == 0; }
  float normal() { return std::normal_distribution<float>()(engine_); }
  template <class T>
  T any_of(std::initializer_list<T> list) {
    return list.begin()[below(static_cast<int64_t>(list.size()))];
  }

 private:
  std::mt19937_64 engine_;
};

// Device memory of `count` elements. Starts `shift` elements into an allocation that ends with the
// last of them, so that rows can be misaligned and the end still be exact.
template <class T>
class Buffer {
 public:
  Buffer(int64_t count, const char* name, int64_t shift = 0)
      : count_(static_cast<size_t>(count)),
        all_(static_cast<T*>(
            emu::global_alloc(static_cast<size_t>(count + shift) * sizeof(T), name))),
        data_(all_ + shift) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { emu::global_free(all_); }
  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  size_t count_;
  T* all_;
  T* data_;
};

using Bytes = Buffer<unsigned char>;

// What went wrong, or nothing.
struct Verdict {
  std::string trouble;
  bool ok() const { return trouble.empty(); }
};

template <class... A>
Verdict trouble(const char* format, A... values) {
  char text[512];
  std::snprintf(text, sizeof(text), format, values...);
  return {text};
}

// ---- elements of any dtype ----

inline float read_element(const void* data, DataType dtype, int64_t i) {
  if (dtype == DataType::kFloat32) return static_cast<const float*>(data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  if (dtype == DataType::kFloat16) return emu::half_to_float(bits);
  const uint32_t wide = uint32_t{bits} << 16;
  float x;
  std::memcpy(&x, &wide, sizeof(x));
  return x;
}

inline void write_element(void* data, DataType dtype, int64_t i, float x) {
  if (dtype == DataType::kFloat32) {
    static_cast<float*>(data)[i] = x;
  } else {
    static_cast<uint16_t*>(data)[i] =
        dtype == DataType::kFloat16 ? emu::float_to_half(x) : emu::float_to_bfloat16(x);
  }
}

// One random case of each operation.
Verdict check_top_k(Random& random);
Verdict check_select_top_k(Random& random);
Verdict check_gather(Random& random);
Verdict check_normalize(Random& random);
Verdict check_mutual_information(Random& random);
Verdict check_select(Random& random);
Verdict check_greedy(Random& random);
Verdict check_select_varlen(Random& random);

// Scores of all kinds: normal, tied, infinite, not a number.
float any_score(Random& random, int kind);

}  // namespace mipruner::cases
