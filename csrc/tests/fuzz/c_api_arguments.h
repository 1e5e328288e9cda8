// Arguments for the C interface out of arbitrary bytes: mostly right, now and then as wrong as can
// be. What a right call may read is really there, and nothing behind it.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "mipruner/mipruner.h"

namespace mipruner::fuzz {

using Bytes = FuzzedDataProvider;

inline bool one_in(Bytes& bytes, int n) { return bytes.ConsumeIntegralInRange(1, n) == n; }

// From `lowest` to `highest`, but for one in sixteen.
template <class T>
T mostly(Bytes& bytes, T lowest, T highest) {
  return one_in(bytes, 16) ? bytes.ConsumeIntegral<T>()
                           : bytes.ConsumeIntegralInRange(lowest, highest);
}

// Numbers that look like one another and are not.
template <class T>
T odd_number(Bytes& bytes) {
  constexpr T kOdd[] = {T(-1.0),
                        T(0.0),
                        T(1e-45),
                        T(1e-20),
                        T(0.1),
                        T(0.5),
                        T(1.0),
                        T(1.5),
                        T(1e30),
                        std::numeric_limits<T>::infinity(),
                        std::numeric_limits<T>::quiet_NaN()};
  return one_in(bytes, 8) ? bytes.ConsumeFloatingPoint<T>() : bytes.PickValueInArray(kOdd);
}

// A struct of any version, `first` being the size of the first: as much of `known` as the size that
// it claims has room for, then zeros or garbage up to there, as far as a library may look. Its
// memory ends there.
template <class T>
class VersionedStruct {
 public:
  VersionedStruct(Bytes& bytes, const T& known, size_t first = sizeof(T)) {
    constexpr size_t kLargest = 4096;
    const size_t kSizes[] = {
        0,         8, first, sizeof(T) - 1, sizeof(T) + 1, sizeof(T) + 8, kLargest, kLargest + 1,
        ~size_t{0}};
    const bool usual = !one_in(bytes, 8);
    const size_t size = usual ? sizeof(T) : bytes.PickValueInArray(kSizes);
    memory_.assign(size > kLargest || size < first ? sizeof(T) : size, 0);
    std::memcpy(memory_.data(), &known, std::min(memory_.size(), sizeof known));
    // Garbage only behind what this version knows: a pointer of it is not the library's to doubt.
    if (!usual && bytes.ConsumeBool() && memory_.size() > sizeof known) memory_.back() = 1;
    std::memcpy(memory_.data(), &size, sizeof size);
    absent_ = one_in(bytes, 16);
    misplaced_ = one_in(bytes, 32);
  }

  // NULL now and then. An address beside the struct has to be refused before it is read from.
  T* get() {
    if (absent_) return nullptr;
    return reinterpret_cast<T*>(memory_.data() + (misplaced_ ? 1 : 0));
  }

 private:
  std::vector<unsigned char> memory_;
  bool absent_, misplaced_;
};

// A matrix that is there, or one that no call may believe in.
class Matrix {
 public:
  static constexpr int64_t kMostRows = 48;

  Matrix(Bytes& bytes, int64_t n_cols, int32_t dtype) {
    view_.n_rows = bytes.ConsumeIntegralInRange<int64_t>(0, kMostRows);
    view_.n_cols = n_cols;
    const int64_t gap = bytes.ConsumeIntegralInRange<int64_t>(0, 3);
    view_.row_stride = gap == 0 ? 0 : n_cols + gap - 1;
    view_.dtype = dtype;
    view_.memory = MIPRUNER_MEMORY_HOST;
    fill(bytes);
    view_.data = memory_.data();
    if (one_in(bytes, 8)) spoil(bytes);
  }

  const mipruner_view* view() const { return &view_; }

 private:
  void fill(Bytes& bytes) {
    const int64_t stride = view_.row_stride ? view_.row_stride : view_.n_cols;
    const int64_t elements = view_.n_rows ? (view_.n_rows - 1) * stride + view_.n_cols : 0;
    const bool wide = view_.dtype == MIPRUNER_DTYPE_F32;
    memory_.resize(static_cast<size_t>(elements * (wide ? 4 : 2)));
    const auto kind = bytes.ConsumeIntegralInRange(0, 3);
    std::minstd_rand random(bytes.ConsumeIntegral<uint8_t>());
    for (size_t i = 0; i < memory_.size(); ++i) {
      const auto any = static_cast<unsigned char>(random() >> 8);
      // All zeros; any bits, NaN and Inf among them; numbers of one size, the exponent's byte
      // fixed.
      const bool is_top = i % (wide ? 4 : 2) == (wide ? 3u : 1u);
      memory_[i] = kind == 0 ? 0 : kind == 1 ? any : is_top ? (any & 0x80) | 0x3f : any;
    }
    if (kind == 3 && view_.n_rows > 1) {  // rows that repeat
      const auto row = static_cast<size_t>(stride * (wide ? 4 : 2));
      for (size_t i = row; i < memory_.size(); ++i) memory_[i] = memory_[i - row];
    }
  }

  // Only so that what is missing cannot be read: the largest sizes would be right if the memory
  // were there, but ask for more scratch memory than the contexts allow.
  void spoil(Bytes& bytes) {
    constexpr int64_t kSizes[] = {-1,
                                  std::numeric_limits<int64_t>::min(),
                                  int64_t{1} << 22,
                                  (int64_t{1} << 31) - 1,
                                  int64_t{1} << 31,
                                  std::numeric_limits<int64_t>::max()};
    constexpr int64_t kStrides[] = {-1, std::numeric_limits<int64_t>::min(),
                                    std::numeric_limits<int64_t>::max()};
    switch (bytes.ConsumeIntegralInRange(0, 7)) {
      case 0: view_.n_rows = bytes.PickValueInArray(kSizes); break;
      case 1: view_.n_cols = bytes.PickValueInArray(kSizes); break;
      case 2: view_.row_stride = bytes.PickValueInArray(kStrides); break;
      case 3: view_.row_stride = bytes.ConsumeIntegralInRange<int64_t>(-1, view_.n_cols - 1); break;
      case 4: view_.data = nullptr; break;
      case 5: view_.data = memory_.empty() ? nullptr : &memory_[1]; break;
      case 6: view_.dtype = bytes.ConsumeIntegralInRange<int32_t>(2, 29); break;
      default: view_.memory = bytes.ConsumeIntegral<int32_t>(); break;
    }
  }

  mipruner_view view_ = {};
  std::vector<unsigned char> memory_;
};

}  // namespace mipruner::fuzz
