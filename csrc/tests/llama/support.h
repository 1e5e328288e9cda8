// What several of the door's tests need.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "gguf_bytes.h"
#include "mipruner_llama/byte_source.hpp"
#include "mipruner_llama/status.hpp"

namespace test {

// A source that owns its bytes.
class OwnedSource final : public mipruner::llama::ByteSource {
 public:
  explicit OwnedSource(std::string bytes)
      : ByteSource("model.gguf"),
        bytes_(std::move(bytes)),
        memory_(bytes_.data(), bytes_.size(), "model.gguf") {}
  uint64_t size() const override { return memory_.size(); }
  bool read(uint64_t offset, void* out, size_t count) override {
    ++n_reads;
    return !is_broken && memory_.read(offset, out, count);
  }

  bool is_broken = false;  // a disk that fails from now on
  int n_reads = 0;

 private:
  std::string bytes_;
  mipruner::llama::MemorySource memory_;
};

inline std::shared_ptr<OwnedSource> source_of(const std::string& bytes) {
  return std::make_shared<OwnedSource>(bytes);
}

// A folder of its own, gone after the test.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "mipruner-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string path(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

 private:
  std::filesystem::path path_;
};

// An error whose message has every one of these parts.
inline void expect_error(const mipruner::llama::Status& status,
                         std::initializer_list<const char*> parts,
                         int32_t code = MIPRUNER_ERROR_INVALID_ARGUMENT) {
  EXPECT_EQ(status.code, code) << status.message;
  EXPECT_FALSE(status.ok());
  for (const char* part : parts) {
    EXPECT_NE(status.message.find(part), std::string::npos)
        << "\"" << status.message << "\" does not say \"" << part << "\"";
  }
  EXPECT_EQ(status.message.find('\n'), std::string::npos) << status.message;
}

inline void expect_ok(const mipruner::llama::Status& status) {
  EXPECT_TRUE(status.ok()) << status.message;
}

}  // namespace test
