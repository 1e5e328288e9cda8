// Reading a source of bytes front to back, without trusting what it says of itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "mipruner_llama/byte_source.hpp"
#include "mipruner_llama/status.hpp"

namespace mipruner::llama::detail {

// Bytes that a header may take: bounds the time that a file can cost.
inline constexpr uint64_t kMaxHeader = uint64_t{1} << 28;

// A name out of the file, fit for a message: short, and without control characters.
inline std::string printable(const std::string& text) {
  constexpr size_t kLongest = 64;
  std::string shown = text.substr(0, kLongest);
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return "\"" + shown + (text.size() > kLongest ? "...\"" : "\"");
}

// Bytes that are not there are an error that says what they were to be.
class SourceReader {
 public:
  explicit SourceReader(ByteSource* source)
      : source_(source), size_(source->size()), end_(std::min(size_, kMaxHeader)) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return end_ - position_; }

  Status fail(const std::string& text) const { return invalid(source_->name() + ": " + text); }

  Status need(uint64_t count, const std::string& what) const {
    if (count <= remaining()) return {};
    if (end_ < size_) {
      return fail(what + " got " + std::to_string(count) + " bytes at " +
                  std::to_string(position_) + ", allowed is a header that ends within " +
                  std::to_string(kMaxHeader) + " bytes");
    }
    return fail(what + " got " + std::to_string(count) + " bytes at " + std::to_string(position_) +
                " in a file of " + std::to_string(size_) + ", allowed are at most the " +
                std::to_string(remaining()) + " bytes left");
  }

  // `smallest`: the bytes that one of them takes at least.
  Status need_items(uint64_t count, uint64_t smallest, const std::string& what) const {
    const uint64_t most = remaining() / smallest;
    if (count <= most) return {};
    return fail("got " + std::to_string(count) + " " + what + " at " + std::to_string(position_) +
                ", allowed are at most " + std::to_string(most) + " in what is left of the header");
  }

  Status skip(uint64_t count, const std::string& what) {
    const Status status = need(count, what);
    if (status.ok()) position_ += count;
    return status;
  }

  Status read(void* out, uint64_t count, const std::string& what) {
    Status status = need(count, what);
    if (!status.ok()) return status;
    char* to = static_cast<char*>(out);
    while (count > 0) {
      if (!refill()) return fail("reading at " + std::to_string(position_) + " failed");
      const uint64_t in_buffer = position_ - buffer_start_;
      const uint64_t part = std::min<uint64_t>(count, filled_ - in_buffer);
      std::memcpy(to, buffer_.data() + in_buffer, part);
      to += part;
      position_ += part;
      count -= part;
    }
    return {};
  }

  // T is an integer or a floating-point type; the file and the machine are little-endian.
  template <class T>
  Status read_value(T* out, const char* what) {
    return take(out) ? Status{} : read(out, sizeof(T), what);
  }

  // Skips a string whose length is in the buffer; false where it is not, or reaches too far. A
  // vocabulary is 150,000 strings, and the long way would take several times as long.
  bool skip_near_string() {
    uint64_t length = 0;
    if (!take(&length)) return false;
    if (length > remaining()) {
      position_ -= sizeof length;
      return false;
    }
    position_ += length;
    return true;
  }

  Status read_string(std::string* out, uint64_t longest, const char* what) {
    uint64_t length = 0;
    Status status = read_value(&length, what);
    if (status.ok()) status = need(length, what);
    if (!status.ok()) return status;
    if (length > longest) {
      return fail(std::string(what) + " got " + std::to_string(length) + " bytes at " +
                  std::to_string(position_) + ", allowed are at most " + std::to_string(longest));
    }
    out->resize(length);
    return read(out->data(), length, what);
  }

 private:
  // A value that is in the buffer already.
  template <class T>
  bool take(T* out) {
    if (position_ < buffer_start_ || position_ + sizeof(T) > buffer_start_ + filled_) return false;
    std::memcpy(out, buffer_.data() + (position_ - buffer_start_), sizeof(T));
    position_ += sizeof(T);
    return true;
  }

  // Brings the byte at position_ into the buffer.
  bool refill() {
    if (position_ >= buffer_start_ && position_ < buffer_start_ + filled_) return true;
    filled_ = 0;
    buffer_start_ = position_;
    const uint64_t count = std::min<uint64_t>(kBuffer, end_ - position_);
    if (buffer_.empty()) buffer_.resize(kBuffer);
    if (!source_->read(position_, buffer_.data(), count)) return false;
    filled_ = count;
    return true;
  }

  static constexpr uint64_t kBuffer = 1 << 16;

  ByteSource* source_;
  uint64_t size_;
  uint64_t end_;  // of what a header may use
  uint64_t position_ = 0;
  uint64_t buffer_start_ = 0;
  uint64_t filled_ = 0;
  std::vector<char> buffer_;
};

}  // namespace mipruner::llama::detail
