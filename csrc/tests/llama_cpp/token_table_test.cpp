// The token table reads what the model itself starts from.
#include <cstring>
#include <numeric>

#include "check.h"
#include "graph.h"

namespace llama_checks {
namespace {

class TokenTable : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenTable, IsTheModelsOwnBitForBit) {
  const std::string model = GetParam();
  mipruner::llama::TokenTable table;
  const mipruner::llama::Status status = table.open(folder_of(model) + "/model.gguf");
  ASSERT_TRUE(status.ok()) << status.message;
  std::vector<llama_token> tokens(static_cast<size_t>(table.rows()));
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<float> ours(tokens.size() * static_cast<size_t>(table.columns()));
  const mipruner::llama::Status read = table.read(tokens.data(), tokens.size(), ours.data());
  ASSERT_TRUE(read.ok()) << read.message;
  const std::vector<float> theirs = graph_embeddings(model, tokens);
  ASSERT_EQ(ours.size(), theirs.size());
  ASSERT_GT(ours.size(), 0U);
  EXPECT_EQ(std::memcmp(ours.data(), theirs.data(), ours.size() * sizeof(float)), 0);
  RecordProperty("rows", static_cast<int>(tokens.size()));
}

INSTANTIATE_TEST_SUITE_P(, TokenTable,
                         ::testing::Values("llava", "llava_f16", "llava_bf16", "llava_q8_0",
                                           "llava_q4_K", "llava_q6_K", "gemma3", "gemma3_q8_0",
                                           "qwen2vl", "qwen3vl"),
                         [](const auto& test) { return test.param; });

// Each file stores the type that its name promises: otherwise the test above shows nothing.
TEST(TokenTableFiles, HaveTheTypesOfTheirNames) {
  const std::pair<const char*, ggml_type> expected[] = {
      {"llava", GGML_TYPE_F32},       {"llava_f16", GGML_TYPE_F16},
      {"llava_bf16", GGML_TYPE_BF16}, {"llava_q8_0", GGML_TYPE_Q8_0},
      {"llava_q4_K", GGML_TYPE_Q4_K}, {"llava_q6_K", GGML_TYPE_Q6_K},
  };
  for (const auto& [model, type] : expected) {
    const std::string path = folder_of(model) + "/model.gguf";
    gguf_context* file = gguf_init_from_file(path.c_str(), {true, nullptr});
    ASSERT_NE(file, nullptr) << path;
    const int64_t id = gguf_find_tensor(file, "token_embd.weight");
    ASSERT_GE(id, 0) << path;
    EXPECT_EQ(gguf_get_tensor_type(file, id), type) << path;
    gguf_free(file);
  }
}

}  // namespace
}  // namespace llama_checks
