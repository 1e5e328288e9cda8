// Memory that knows whether anything was written to it, or beside it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace mipruner::tests {

// `count` elements between two fences. Every byte starts with the same value.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count)
      : count_(static_cast<size_t>(count)), bytes_((count_ + 2 * kFence) * sizeof(T), kFill) {}

  T* data() { return reinterpret_cast<T*>(bytes_.data()) + kFence; }
  T& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return static_cast<int64_t>(count_); }
  std::vector<T> first(int64_t count) { return std::vector<T>(data(), data() + count); }

  // From element `begin` on, up to the end of the second fence; and the first fence.
  bool untouched(int64_t begin = 0) const {
    const size_t fence = kFence * sizeof(T);
    return is_fill(0, fence) &&
           is_fill(fence + static_cast<size_t>(begin) * sizeof(T), bytes_.size());
  }

 private:
  static constexpr size_t kFence = 16;
  static constexpr unsigned char kFill = 0xa5;

  bool is_fill(size_t begin, size_t end) const {
    return std::all_of(bytes_.begin() + static_cast<std::ptrdiff_t>(begin),
                       bytes_.begin() + static_cast<std::ptrdiff_t>(end),
                       [](unsigned char byte) { return byte == kFill; });
  }

  size_t count_;
  std::vector<unsigned char> bytes_;  // operator new aligns it for any T
};

}  // namespace mipruner::tests
