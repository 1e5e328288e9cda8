// The reader of GGUF headers: what right files say, and one sentence for each way to be wrong.
#include "mipruner_llama/gguf_header.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "support.h"

namespace mipruner::llama {
namespace {

using test::expect_error;
using test::expect_ok;
using test::GgufBytes;

Status read(const std::string& bytes, GgufHeader* header) {
  return header->read(test::source_of(bytes).get());
}

Status read(const GgufBytes& file) {
  GgufHeader header;
  return read(file.build(), &header);
}

GgufBytes small_file() {
  GgufBytes file;
  file.text("general.architecture", "llama").u32("llama.block_count", 2);
  file.f32_tensor("a.weight", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  file.f32_tensor("b.weight", {3}, {1, 2, 3});
  return file;
}

TEST(GgufHeader, SaysWhatTheFileSays) {
  GgufBytes file = small_file();
  file.u8("u8", 250).u16("u16", 65000).i32("i32", -7).u64("u64", UINT64_MAX);
  file.f32("f32", 0.25F).f64("f64", 1e300).i32s("i32s", {3, -1, 4}).texts("texts", {"a", "", "c"});
  for (const uint32_t version : {2U, 3U}) {
    file.version = version;
    GgufHeader header;
    expect_ok(read(file.build(), &header));
    EXPECT_EQ(header.version(), version);
    EXPECT_EQ(*header.find_string("general.architecture"), "llama");
    EXPECT_EQ(header.find_count("llama.block_count"), 2U);
    EXPECT_EQ(header.find_count("u8"), 250U);
    EXPECT_EQ(header.find_count("u16"), 65000U);
    EXPECT_EQ(header.find_count("u64"), UINT64_MAX);
    EXPECT_EQ(header.find_count("i32"), std::nullopt);  // negative
    EXPECT_EQ(header.find_float("f32"), 0.25);
    EXPECT_EQ(header.find_float("f64"), 1e300);
    EXPECT_EQ(*header.find_integers("i32s"), (std::vector<int64_t>{3, -1, 4}));
    EXPECT_TRUE(header.contains("texts"));
    EXPECT_FALSE(header.contains("none"));
    EXPECT_EQ(header.find_string("none"), nullptr);
    EXPECT_EQ(header.find_string("u8"), nullptr);
    EXPECT_EQ(header.find_count("general.architecture"), std::nullopt);
  }
}

TEST(GgufHeader, TensorsAreFoundWhereTheyLie) {
  for (const uint32_t alignment : {32U, 64U, 1U}) {
    GgufBytes file;
    file.alignment = alignment;
    file.u32("general.alignment", alignment);
    file.f32_tensor("a.weight", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
    file.f32_tensor("b.weight", {3}, {1, 2, 3});
    const std::string bytes = file.build();
    GgufHeader header;
    expect_ok(read(bytes, &header));
    const GgufTensor* tensor = header.find_tensor("b.weight");
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->ne, (std::array<int64_t, 4>{3, 1, 1, 1}));
    EXPECT_EQ(tensor->type, 0);
    EXPECT_EQ(tensor->offset, bytes.size() - 12);  // it is the last
    EXPECT_EQ(header.find_tensor("a.weight")->ne, (std::array<int64_t, 4>{4, 2, 1, 1}));
    EXPECT_EQ(header.find_tensor("c.weight"), nullptr);
  }
}

TEST(GgufHeader, LongValuesAreSkipped) {
  GgufBytes file = small_file();
  file.text("template", std::string(100000, 'x')).text("short", std::string(4096, 'y'));
  file.i32s("types", std::vector<int32_t>(5000, 1)).u8("after", 9);
  file.start_array("scores", 6, 3).raw(std::string(12, '\0'));
  GgufHeader header;
  expect_ok(read(file.build(), &header));
  EXPECT_TRUE(header.contains("template"));
  EXPECT_EQ(header.find_string("template"), nullptr);
  EXPECT_EQ(header.find_string("short")->size(), 4096U);
  EXPECT_EQ(header.find_integers("types"), nullptr);
  EXPECT_EQ(header.find_integers("scores"), nullptr);
  EXPECT_EQ(header.find_count("after"), 9U);
}

TEST(GgufHeader, EveryTruncationIsAnError) {
  GgufBytes file = small_file();
  file.texts("texts", {"one", "two"}).i32s("i32s", {1, 2, 3}).f64("f64", 1);
  const std::string bytes = file.build();
  GgufHeader header;
  expect_ok(read(bytes, &header));
  const size_t data = header.find_tensor("a.weight")->offset;
  for (size_t length = 0; length < data; ++length) {
    SCOPED_TRACE(length);
    expect_error(read(bytes.substr(0, length), &header), {"model.gguf: ", "allowed"});
    EXPECT_EQ(header.find_tensor("a.weight"), nullptr);  // nothing is left of the one before
    EXPECT_FALSE(header.contains("general.architecture"));
  }
  // What lies behind the header is not this reader's business, but b.weight must not start there.
  expect_error(read(bytes.substr(0, data + 4), &header), {"\"b.weight\" got offset 32"});
}

TEST(GgufHeader, TheStartIsChecked) {
  GgufBytes file = small_file();
  file.magic = "GGML";
  expect_error(read(file),
               {"model.gguf: got a file that starts with \"GGML\", allowed is \"GGUF\""});
  file.magic = "\x01\nAB";
  expect_error(read(file), {"starts with \"??AB\""});
  file.magic = "GGUF";
  for (const uint32_t version : {0U, 1U, 4U}) {
    file.version = version;
    const std::string found = "got GGUF version " + std::to_string(version) + ", allowed are 2";
    expect_error(read(file), {found.c_str()});
  }
  file.version = 3U << 24;
  expect_error(read(file), {"got a big-endian file, allowed are little-endian ones"});
}

TEST(GgufHeader, LyingCountsAreRefusedAtOnce) {
  for (const uint64_t lie : {uint64_t{1000}, uint64_t{1} << 40, UINT64_MAX}) {
    const std::string got = "got " + std::to_string(lie) + " ";
    GgufBytes file = small_file();
    file.n_pairs = lie;
    expect_error(read(file), {got.c_str(), "key-value pairs at 24, allowed are at most 15"});
    file = small_file();
    file.n_tensors = lie;
    expect_error(read(file), {got.c_str(), "tensors at 24, allowed are at most 8"});
  }
  GgufBytes file = small_file();
  file.n_pairs = 3;  // one too many: the first tensor is read as a pair
  expect_error(read(file), {"model.gguf: "});
  file = small_file();
  file.n_tensors = 3;
  expect_error(read(file), {"model.gguf: "});
}

TEST(GgufHeader, LyingLengthsAreRefusedAtOnce) {
  for (const uint64_t lie : {uint64_t{5000}, uint64_t{1} << 62, UINT64_MAX}) {
    SCOPED_TRACE(lie);
    const std::string length(reinterpret_cast<const char*>(&lie), sizeof lie);
    GgufBytes text;
    text.start("long", 8).raw(length + "abc");
    expect_error(read(text), {"a string got ", std::to_string(lie).c_str(), "allowed are at most"});
    GgufBytes key;
    key.raw(length + "abc").n_pairs = 1;
    key.raw(std::string(16, ' '));
    expect_error(read(key), {"a key got ", std::to_string(lie).c_str()});
    for (const uint32_t type : {0U, 4U, 8U, 12U}) {
      GgufBytes array;
      array.start_array("array", type, lie).raw("abcdefgh");
      const std::string got = "got " + std::to_string(lie) + " elements of an array at ";
      expect_error(read(array), {got.c_str(), "allowed are at most"});
    }
  }
}

TEST(GgufHeader, StringsInAnArrayAreChecked) {
  GgufBytes file;
  const uint64_t lie = 100;
  file.start_array("texts", 8, 2).raw(std::string(8, '\0'));
  file.raw(std::string(reinterpret_cast<const char*>(&lie), sizeof lie));
  expect_error(read(file), {"an array of strings got 100 bytes", "the 0 bytes left"});
}

TEST(GgufHeader, TypesAreChecked) {
  for (const uint32_t type : {13U, 255U, UINT32_MAX}) {
    GgufBytes file;
    file.start("key", type).raw(std::string(16, '\0'));
    const std::string got = "\"key\" got type " + std::to_string(type);
    expect_error(read(file), {got.c_str(), "allowed are 0 to 12"});
    GgufBytes array;
    array.start_array("key", type, 1).raw(std::string(16, '\0'));
    expect_error(read(array), {got.c_str()});
  }
  GgufBytes nested;
  nested.start_array("key", 9, 1).raw(std::string(32, '\0'));
  expect_error(read(nested), {"\"key\" got type 9", "in arrays not 9"});
}

TEST(GgufHeader, NamesAreChecked) {
  GgufBytes file = small_file();
  file.u8("key", 1).u8("key", 2);
  expect_error(read(file), {"got the key \"key\" twice, allowed is once"});
  file = small_file();
  file.f32_tensor("a.weight", {1}, {1});
  expect_error(read(file), {"got the tensor \"a.weight\" twice"});
  file = small_file();
  file.u8("", 1);
  expect_error(read(file), {"a key got an empty string"});
  file = small_file();
  file.f32_tensor("", {1}, {1});
  expect_error(read(file), {"a tensor's name got an empty string"});
  file = small_file();
  file.u8(std::string(65536, 'k'), 1);
  expect_error(read(file), {"a key got 65536 bytes", "at most 65535"});
  // Names of the file come into messages short and clean.
  file = small_file();
  file.start("bad\n\x1b[31m" + std::string(100, 'n'), 99).raw(std::string(16, '\0'));
  expect_error(read(file), {"\"bad??[31mnnnn", "nnn...\" got type 99"});
}

TEST(GgufHeader, AlignmentIsChecked) {
  for (const uint32_t alignment : {0U, 3U, 48U, 1U << 21, UINT32_MAX}) {
    GgufBytes file = small_file();
    file.u32("general.alignment", alignment);
    const std::string got = "general.alignment got " + std::to_string(alignment);
    expect_error(read(file), {got.c_str(), "powers of two up to 1048576"});
  }
  GgufBytes file = small_file();
  file.text("general.alignment", "32");
  expect_error(read(file), {"general.alignment got another type"});
}

TEST(GgufHeader, ShapesAreChecked) {
  const int64_t huge = int64_t{1} << 40;
  const std::vector<std::vector<int64_t>> wrong = {
      {-1}, {4, -2}, {huge, huge}, {huge, 0, huge, huge}, {INT64_MAX, 2}, {2, 2, INT64_MAX / 2}};
  for (const std::vector<int64_t>& shape : wrong) {
    SCOPED_TRACE(shape[0]);
    GgufBytes file;
    file.tensor("t", shape, 0, "data");
    // A dimension of 0 makes the product 0 whatever follows.
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
      expect_ok(read(file));
    } else {
      expect_error(read(file), {"the tensor \"t\" got the dimensions", "fewer than 2^63"});
    }
  }
  GgufBytes five;
  five.tensor("t", {1, 1, 1, 1, 1}, 0, "data");
  expect_error(read(five), {"\"t\" got 5 dimensions, allowed are at most 4"});
  GgufBytes negative;
  negative.tensor("t", {1}, -3, "data");
  expect_error(read(negative), {"\"t\" got type -3"});
  GgufBytes scalar;
  scalar.tensor("t", {}, 0, "data");
  expect_ok(read(scalar));
}

TEST(GgufHeader, OffsetsAreChecked) {
  for (const uint64_t offset : {uint64_t{16}, uint64_t{64}, uint64_t{1} << 63, UINT64_MAX}) {
    GgufBytes file;
    file.tensor("t", {8}, 0, std::string(32, 'd'), offset);
    const std::string got = "\"t\" got offset " + std::to_string(offset);
    expect_error(read(file), {got.c_str(), "allowed are multiples of 32 up to 32"});
  }
}

TEST(GgufHeader, MemoryIsBounded) {
  // 100,000 keys of 200 bytes: a file of 21 MB that a reader which keeps all would keep.
  GgufBytes keys;
  for (int i = 0; i < 100000; ++i) {
    keys.u8(std::to_string(i) + std::string(200, 'k'), 1);
  }
  expect_error(read(keys), {"more than 16777216 bytes of names and values"});
  GgufBytes strings;
  for (int i = 0; i < 5000; ++i) strings.text(std::to_string(i), std::string(4096, 's'));
  expect_error(read(strings), {"more than 16777216 bytes of names and values"});
}

// A source that claims to be large and holds zeros but for its beginning.
class SparseSource final : public ByteSource {
 public:
  SparseSource(std::string start, uint64_t size)
      : ByteSource("sparse.gguf"), start_(std::move(start)), size_(size) {}
  uint64_t size() const override { return size_; }
  bool read(uint64_t offset, void* out, size_t count) override {
    if (offset > size_ || count > size_ - offset) return false;
    std::memset(out, 0, count);
    if (offset < start_.size()) {
      std::memcpy(out, start_.data() + offset, std::min(count, start_.size() - offset));
    }
    return true;
  }

 private:
  std::string start_;
  uint64_t size_;
};

TEST(GgufHeader, TimeIsBounded) {
  const uint64_t terabyte = uint64_t{1} << 40;
  GgufBytes bytes;
  bytes.start_array("array", 0, terabyte / 2);
  SparseSource array(bytes.build(), terabyte);
  GgufHeader header;
  expect_error(header.read(&array),
               {"got 549755813888 elements of an array", "allowed are at most 268435"});
  GgufBytes text;
  const uint64_t length = terabyte / 2;
  text.start("text", 8).raw({reinterpret_cast<const char*>(&length), sizeof length});
  SparseSource string(text.build(), terabyte);
  expect_error(header.read(&string), {"a string", "a header that ends within 268435456 bytes"});
}

TEST(GgufHeader, ADiskThatFailsIsAnError) {
  GgufHeader header;
  const auto source = test::source_of(small_file().build());
  source->is_broken = true;
  expect_error(header.read(source.get()), {"model.gguf: reading at 0 failed"});
}

// A vocabulary is read past in blocks, not word by word, and long values not at all.
TEST(GgufHeader, AVocabularyTakesFewReads) {
  GgufBytes file = small_file();
  std::vector<std::string> words;
  for (int i = 0; i < 150000; ++i) words.push_back("word" + std::to_string(i));
  file.texts("tokenizer.ggml.tokens", words).text("template", std::string(10 << 20, 'x'));
  file.u8("last", 1);
  const auto source = test::source_of(file.build());
  GgufHeader header;
  expect_ok(header.read(source.get()));
  EXPECT_EQ(header.find_count("last"), 1U);
  const uint64_t without_template = source->size() - (10 << 20);
  EXPECT_GT(without_template, uint64_t{2} << 20);
  EXPECT_LE(source->n_reads, static_cast<int>(without_template >> 16) + 3);
}

// Random damage never does more than fail.
TEST(GgufHeader, RandomDamage) {
  GgufBytes file = small_file();
  file.texts("texts", {"one", "two"}).i32s("i32s", {1, 2, 3}).f64("f64", 1);
  const std::string whole = file.build();
  std::mt19937 random(7);
  int n_errors = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    std::string bytes = whole;
    const auto draw = [&](size_t below) {
      return std::uniform_int_distribution<size_t>(0, below - 1)(random);
    };
    for (size_t n = 1 + draw(4); n > 0; --n) {
      bytes[draw(bytes.size())] = static_cast<char>(draw(256));
    }
    if (draw(4) == 0) bytes.resize(draw(bytes.size()));
    GgufHeader header;
    const Status status = read(bytes, &header);
    if (status.ok()) continue;
    ++n_errors;
    ASSERT_EQ(status.message.rfind("model.gguf: ", 0), 0U) << status.message;
  }
  EXPECT_GT(n_errors, 5000);
  EXPECT_LT(n_errors, 19000);
}

}  // namespace
}  // namespace mipruner::llama
