// Carves typed arrays out of one block of scratch memory, or only measures how large it must be.
//
// An operation describes its scratch memory once, in a function that takes a Layout; with a null
// base that function measures, with a real one it hands out the arrays. The two can therefore not
// disagree. Sizes that no machine has do not wrap around: they measure as kTooMuch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace mipruner {

class Layout {
 public:
  explicit Layout(void* base = nullptr) : base_(static_cast<char*>(base)) {}

  static constexpr size_t kTooMuch = size_t{1} << 60;

  template <class T>
  T* take(int64_t count) {
    constexpr size_t kAlignment = 64;  // one cache line, and the widest vector
    T* array = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    const size_t bytes = std::min(static_cast<size_t>(count), kTooMuch / sizeof(T)) * sizeof(T);
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    used_ = std::min(used_, kTooMuch);
    return array;
  }

  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace mipruner
