// What is opened must be a readable file, and what is read must be there.
#include "mipruner_llama/byte_source.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

namespace mipruner::llama {
namespace {

using test::expect_error;
using test::expect_ok;

TEST(ByteSource, AFileIsReadAnywhere) {
  const test::Folder folder;
  std::unique_ptr<ByteSource> source;
  expect_ok(FileSource::open(folder.write("a.gguf", "0123456789"), &source));
  EXPECT_EQ(source->size(), 10U);
  EXPECT_EQ(source->name(), folder.path("a.gguf"));
  std::string out(3, ' ');
  EXPECT_TRUE(source->read(7, out.data(), 3));
  EXPECT_EQ(out, "789");
  EXPECT_FALSE(source->read(8, out.data(), 3));
  EXPECT_TRUE(source->read(0, out.data(), 3));  // a read that failed spoils none after it
  EXPECT_EQ(out, "012");
  EXPECT_TRUE(source->read(10, out.data(), 0));
  EXPECT_FALSE(source->read(11, out.data(), 0));
  EXPECT_FALSE(source->read(UINT64_MAX, out.data(), 2));
}

TEST(ByteSource, MemoryIsReadAnywhere) {
  MemorySource source("0123456789", 10, "memory");
  std::string out(3, ' ');
  EXPECT_TRUE(source.read(7, out.data(), 3));
  EXPECT_EQ(out, "789");
  EXPECT_FALSE(source.read(8, out.data(), 3));
  EXPECT_FALSE(source.read(UINT64_MAX, out.data(), 2));
}

TEST(ByteSource, AFileThatWasShortenedGivesNoBytes) {
  const test::Folder folder;
  std::unique_ptr<ByteSource> source;
  expect_ok(FileSource::open(folder.write("a.gguf", "0123456789"), &source));
  ASSERT_EQ(truncate(folder.path("a.gguf").c_str(), 5), 0);
  std::string out(8, ' ');
  EXPECT_FALSE(source->read(0, out.data(), 8));
  EXPECT_TRUE(source->read(0, out.data(), 5));
}

TEST(ByteSource, WhatIsNoReadableFileIsRefused) {
  const test::Folder folder;
  std::unique_ptr<ByteSource> source;
  expect_error(FileSource::open(folder.path("b.gguf"), &source),
               {"b.gguf: got ", "o such file", "allowed is a GGUF file"});
  expect_error(FileSource::open("", &source), {"o such file"});
  expect_error(FileSource::open(folder.path("."), &source), {"/.: got a directory"});
  ASSERT_EQ(mkfifo(folder.path("pipe").c_str(), 0600), 0);
  expect_error(FileSource::open(folder.path("pipe"), &source), {"pipe: got a special file"});
  EXPECT_EQ(source, nullptr);
}

TEST(ByteSource, AFileWithoutPermissionIsRefused) {
  const test::Folder folder;
  const std::string path = folder.write("a.gguf", "GGUF");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  std::unique_ptr<ByteSource> source;
  const Status status = FileSource::open(path, &source);
  if (geteuid() == 0) {
    expect_ok(status);  // nothing is forbidden to root
  } else {
    expect_error(status, {"a.gguf: got a file that cannot be read", "ermission"});
  }
}

}  // namespace
}  // namespace mipruner::llama
