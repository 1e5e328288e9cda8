// The embeddings of tokens out of a GGUF file.
#include "mipruner_llama/token_table.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "support.h"

namespace mipruner::llama {
namespace {

using test::expect_error;
using test::expect_ok;
using test::GgufBytes;
using test::model;

constexpr const char* kName = "token_embd.weight";

GgufBytes small_model() {
  GgufBytes file = model("llama");
  file.f32_tensor("other.weight", {1}, {99}).f32_tensor(kName, {2, 3}, {0, 1, 10, 11, 20, 21});
  return file;
}

Status open(const GgufBytes& file, TokenTable* table) {
  return table->open(test::source_of(file.build()));
}

std::vector<float> rows_of(const TokenTable& table, const std::vector<llama_token>& tokens) {
  std::vector<float> rows(tokens.size() * static_cast<size_t>(table.columns()), NAN);
  expect_ok(table.read(tokens.data(), tokens.size(), rows.data()));
  return rows;
}

TEST(TokenTable, GivesRowsInTheOrderAskedFor) {
  TokenTable table;
  EXPECT_FALSE(table.is_open());
  expect_ok(open(small_model(), &table));
  EXPECT_TRUE(table.is_open());
  EXPECT_EQ(table.columns(), 2);
  EXPECT_EQ(table.rows(), 3);
  EXPECT_EQ(table.scale(), 1.0F);
  EXPECT_EQ(rows_of(table, {2, 0, 2}), (std::vector<float>{20, 21, 0, 1, 20, 21}));
  EXPECT_EQ(rows_of(table, {}), std::vector<float>{});
  expect_ok(table.read(nullptr, 0, nullptr));
}

TEST(TokenTable, IsReadFromAFile) {
  const test::Folder folder;
  const std::string path = folder.write("m.gguf", small_model().build());
  TokenTable table;
  expect_ok(table.open(path));
  EXPECT_EQ(rows_of(table, {1}), (std::vector<float>{10, 11}));
  expect_error(table.open(folder.path("none.gguf")), {"none.gguf: got ", "o such file"});
  expect_error(table.open(folder.path("")), {"got a directory"});
  EXPECT_EQ(rows_of(table, {1}), (std::vector<float>{10, 11}));  // still the first
  ASSERT_EQ(truncate(path.c_str(), 100), 0);
  float out[2] = {7, 7};
  const llama_token token = 1;
  expect_error(table.read(&token, 1, out), {"m.gguf: got no bytes for token 1"});
  EXPECT_EQ(out[0], 7);
}

TEST(TokenTable, HalfPrecision) {
  // 1, -2, the largest, and the smallest subnormal.
  const std::vector<uint16_t> halves = {0x3C00, 0xC000, 0x7BFF, 0x0001};
  GgufBytes file = model("llama");
  file.tensor(kName, {2, 2}, GGML_TYPE_F16, test::bytes_of(halves));
  TokenTable table;
  expect_ok(open(file, &table));
  EXPECT_EQ(rows_of(table, {1, 0}), (std::vector<float>{65504, std::ldexp(1.0F, -24), 1, -2}));
}

TEST(TokenTable, QuantizedRows) {
  // Two rows of two blocks: a scale of 0.5 and of 2 each, and bytes that count up.
  std::string data;
  std::vector<float> expected;
  for (int row = 0; row < 2; ++row) {
    for (const auto& [half, scale] : {std::pair<uint16_t, float>{0x3800, 0.5F}, {0x4000, 2.0F}}) {
      data.append(reinterpret_cast<const char*>(&half), 2);
      for (int i = 0; i < 32; ++i) {
        const int value = 8 * row + i - 20;
        data.push_back(static_cast<char>(value));
        expected.push_back(scale * static_cast<float>(value));
      }
    }
  }
  GgufBytes file = model("llama");
  file.tensor(kName, {64, 2}, GGML_TYPE_Q8_0, data);
  TokenTable table;
  expect_ok(open(file, &table));
  EXPECT_EQ(rows_of(table, {0, 1}), expected);
}

TEST(TokenTable, TokensAreCheckedBeforeAnythingIsWritten) {
  TokenTable table;
  std::vector<float> out(4, 7);
  const std::vector<llama_token> good = {0, 1};
  expect_error(table.read(good.data(), 2, out.data()), {"table: got one that is not open"});
  expect_ok(open(small_model(), &table));
  for (const llama_token bad : {-1, 3, INT32_MAX, INT32_MIN}) {
    const std::vector<llama_token> tokens = {0, bad};
    const std::string got = "tokens[1]: got " + std::to_string(bad) + ", allowed are 0 to 2";
    expect_error(table.read(tokens.data(), 2, out.data()), {got.c_str(), "model.gguf"});
  }
  expect_error(table.read(nullptr, 2, out.data()), {"tokens: got NULL"});
  expect_error(table.read(good.data(), 2, nullptr), {"out: got NULL"});
  EXPECT_EQ(out, (std::vector<float>{7, 7, 7, 7}));
}

TEST(TokenTable, ADiskThatFailsWritesNothing) {
  const auto source = test::source_of(small_model().build());
  TokenTable table;
  expect_ok(table.open(source));
  source->is_broken = true;
  std::vector<float> out(4, 7);
  const std::vector<llama_token> tokens = {0, 1};
  expect_error(table.read(tokens.data(), 2, out.data()), {"got no bytes for token 0"});
  EXPECT_EQ(out, (std::vector<float>{7, 7, 7, 7}));
}

float scale_of(GgufBytes file) {
  file.f32_tensor(kName, {9, 1}, std::vector<float>(9, 2));
  TokenTable table;
  expect_ok(open(file, &table));
  EXPECT_EQ(rows_of(table, {0}), std::vector<float>(9, 2 * table.scale()));
  return table.scale();
}

TEST(TokenTable, ScaleOfArchitecturesThatScaleTokensAlone) {
  for (const char* name : {"gemma3", "gemma3n", "gemma4", "gemma-embedding"}) {
    EXPECT_EQ(scale_of(model(name)), 3.0F) << name;  // sqrt(9)
  }
  for (const char* name : {"gemma", "gemma2", "llama", "qwen2vl", "gemma33", "minicpm"}) {
    EXPECT_EQ(scale_of(model(name)), 1.0F) << name;
  }
}

TEST(TokenTable, ScaleOfGraniteNeedsDeepStack) {
  const auto granite = [](const std::vector<int32_t>& mapping) {
    GgufBytes file = model("granite");
    file.f32("granite.embedding_scale", 12.0F);
    if (!mapping.empty()) file.i32s("granite.deepstack_mapping", mapping);
    return file;
  };
  EXPECT_EQ(scale_of(granite({-1, 0, -1, 1})), 12.0F);
  EXPECT_EQ(scale_of(granite({-1, -1})), 1.0F);  // names no plane
  EXPECT_EQ(scale_of(granite({})), 1.0F);        // scales images in the graph, too
  GgufBytes no_scale = model("granite");
  no_scale.i32s("granite.deepstack_mapping", {0});
  EXPECT_EQ(scale_of(no_scale), 1.0F);
  GgufBytes qwen = model("qwen3vl");
  qwen.u32("qwen3vl.n_deepstack_layers", 3);
  EXPECT_EQ(scale_of(qwen), 1.0F);
}

TEST(TokenTable, ATensorThatIsNotThereIsNamed) {
  GgufBytes file = model("llama");
  file.f32_tensor("other.weight", {1}, {1});
  TokenTable table;
  expect_error(open(file, &table), {"model.gguf: the tensor \"token_embd.weight\" is not there",
                                    "allowed is a file that holds it"});
  file.u16("split.count", 1);
  expect_error(open(file, &table), {"allowed is a file that holds it"});
  for (const uint16_t shards : {uint16_t{2}, uint16_t{3}}) {
    file = model("llama");
    file.u16("split.no", 0).u16("split.count", shards);
    const std::string another = "it is in another of the " + std::to_string(shards) + " files";
    expect_error(open(file, &table), {another.c_str(), "allowed is the one that holds it"});
  }
}

TEST(TokenTable, ShapesThatAreNoTableAreRefused) {
  const std::vector<std::vector<int64_t>> wrong = {
      {0, 4}, {4, 0}, {4, 4, 2}, {4, 4, 1, 3}, {(1 << 20) + 1, 1}, {1, int64_t{1} << 31}};
  for (const std::vector<int64_t>& shape : wrong) {
    GgufBytes file = model("llama");
    file.tensor(kName, shape, 0, std::string(64, '\0'));
    TokenTable table;
    expect_error(open(file, &table), {"\"token_embd.weight\" got the dimensions ", "columns and"});
  }
}

TEST(TokenTable, TypesThatCannotBeConvertedAreRefused) {
  TokenTable table;
  for (const int32_t type : {32, 1000, INT32_MAX}) {
    GgufBytes file = model("llama");
    file.tensor(kName, {4, 1}, type, std::string(64, '\0'));
    const std::string got = "got type " + std::to_string(type) + ", allowed are 0 to 31";
    expect_error(open(file, &table), {got.c_str()});
  }
  for (const int32_t type : {4, 24, 31}) {  // once a type, an integer, never one
    GgufBytes file = model("llama");
    file.tensor(kName, {4, 1}, type, std::string(64, '\0'));
    const std::string got = "got type " + std::to_string(type) + ", allowed are types that";
    expect_error(open(file, &table), {got.c_str()});
  }
  GgufBytes file = model("llama");
  file.tensor(kName, {33, 1}, GGML_TYPE_Q8_0, std::string(68, '\0'));
  expect_error(open(file, &table), {"got 33 columns, allowed are multiples of 32"});
  EXPECT_FALSE(table.is_open());
}

TEST(TokenTable, ATruncatedTableIsRefused) {
  const std::string bytes = small_model().build();
  TokenTable table;
  expect_ok(table.open(test::source_of(bytes)));
  expect_error(table.open(test::source_of(bytes.substr(0, bytes.size() - 1))),
               {"\"token_embd.weight\" got 24 bytes at ", "is it truncated?"});
  // 2^20 columns of 2^31 - 1 rows: 8 PB that the header claims.
  GgufBytes file = model("llama");
  file.tensor(kName, {1 << 20, INT32_MAX}, 0, std::string(64, '\0'));
  expect_error(open(file, &table), {"got 9007199250546688 bytes", "is it truncated?"});
  EXPECT_EQ(table.rows(), 3);
}

TEST(TokenTable, NoSource) {
  TokenTable table;
  expect_error(table.open(std::shared_ptr<ByteSource>()), {"source: got NULL"});
}

}  // namespace
}  // namespace mipruner::llama
