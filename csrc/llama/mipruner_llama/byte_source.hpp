// Where the bytes of a GGUF file come from: a file, or memory for hosts that have it there already.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "mipruner_llama/status.hpp"

namespace mipruner::llama {

class ByteSource {
 public:
  explicit ByteSource(std::string name) : name_(std::move(name)) {}
  virtual ~ByteSource() = default;
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  // What messages call it: the path.
  const std::string& name() const { return name_; }
  virtual uint64_t size() const = 0;
  // Copies [offset, offset + count) to out. False where that is not all there, or unreadable.
  virtual bool read(uint64_t offset, void* out, size_t count) = 0;

 private:
  std::string name_;
};

class MemorySource final : public ByteSource {
 public:
  // The bytes must outlive the source.
  MemorySource(const void* data, size_t size, std::string name)
      : ByteSource(std::move(name)), data_(static_cast<const char*>(data)), size_(size) {}

  uint64_t size() const override { return size_; }

  bool read(uint64_t offset, void* out, size_t count) override {
    if (offset > size_ || count > size_ - offset) return false;
    if (count > 0) std::memcpy(out, data_ + offset, count);
    return true;
  }

 private:
  const char* data_;
  size_t size_;
};

// Plain reads rather than a memory map: a mapped file that another program shortens would end the
// process with SIGBUS, a short read is an error like any other.
class FileSource final : public ByteSource {
 public:
  static Status open(const std::string& path, std::unique_ptr<ByteSource>* source) {
    std::error_code code;
    const std::filesystem::file_status status = std::filesystem::status(path, code);
    if (!std::filesystem::exists(status)) {
      return invalid(path + ": got " + reason(code, "no such file") + ", allowed is a GGUF file");
    }
    // A pipe would wait for ever, and a directory opens but cannot be read.
    if (!std::filesystem::is_regular_file(status)) {
      const char* kind = std::filesystem::is_directory(status) ? "a directory" : "a special file";
      return invalid(path + ": got " + kind + ", allowed is a GGUF file");
    }
    const uint64_t size = std::filesystem::file_size(path, code);
    if (code) return unreadable(path, code.message());
    std::ifstream stream;
    stream.rdbuf()->pubsetbuf(nullptr, 0);  // the readers above bring their own buffers
    errno = 0;
    stream.open(path, std::ios::binary);
    if (!stream) return unreadable(path, errno != 0 ? std::strerror(errno) : "it cannot be opened");
    source->reset(new FileSource(path, std::move(stream), size));
    return {};
  }

  uint64_t size() const override { return size_; }

  bool read(uint64_t offset, void* out, size_t count) override {
    if (offset > size_ || count > size_ - offset) return false;
    if (offset > static_cast<uint64_t>(std::numeric_limits<std::streamoff>::max())) return false;
    stream_.clear();
    stream_.seekg(static_cast<std::streamoff>(offset));
    stream_.read(static_cast<char*>(out), static_cast<std::streamsize>(count));
    return stream_.good() && static_cast<size_t>(stream_.gcount()) == count;
  }

 private:
  FileSource(std::string path, std::ifstream stream, uint64_t size)
      : ByteSource(std::move(path)), stream_(std::move(stream)), size_(size) {}

  static std::string reason(const std::error_code& code, const char* otherwise) {
    return code ? code.message() : otherwise;
  }

  static Status unreadable(const std::string& path, const std::string& why) {
    return invalid(path + ": got a file that cannot be read (" + why +
                   "), allowed is a readable GGUF file");
  }

  std::ifstream stream_;
  uint64_t size_;
};

}  // namespace mipruner::llama
