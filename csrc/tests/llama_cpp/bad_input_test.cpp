// What does not fit is an error with a sentence, and the context serves on.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "check.h"

namespace llama_checks {
namespace {

namespace fs = std::filesystem;
using mipruner::llama::EvalOptions;
using mipruner::llama::ImageReport;
using mipruner::llama::RowLayout;
using mipruner::llama::Status;
using mipruner::llama::TokenTable;

// ---- prompts ----

class BadPrompt : public ::testing::Test {
 protected:
  // Evaluates and expects an error with these words, and that nothing has happened.
  void expect_refused(Vlm& vlm, const TokenTable& table, const EvalOptions& options,
                      const Prompt& prompt, const std::vector<std::string>& words) {
    vlm.clear();
    llama_pos n_past = 0, after = -7;
    std::vector<ImageReport> reports(3);
    const Status status =
        mipruner::llama::eval_chunks(vlm.pruner(), table, options, vlm.vision(), vlm.context(),
                                     prompt.get(), n_past, 0, &after, &reports);
    EXPECT_TRUE(refused(status, words));
    EXPECT_EQ(after, -7);
    EXPECT_EQ(reports.size(), 3U);
    EXPECT_EQ(llama_memory_seq_pos_max(llama_get_memory(vlm.context()), 0), -1);
  }
};

// llama.cpp itself ends the process here. The number is known before any work: none is done.
TEST_F(BadPrompt, MoreRowsThanOneUbatchHoldsWithoutCausalAttention) {
  const Kind& kind = kind_of("gemma3");
  int n_tensors = 0;
  const auto count = [](ggml_tensor*, bool, void* counter) {
    ++*static_cast<int*>(counter);
    return false;
  };
  Vlm vlm(folder_of(kind.name), {2048, 1024, 64}, {count, &n_tensors});
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  expect_refused(vlm, vlm.table(), options_keeping(65), prompt, {"n_ubatch", "65", "64"});
  expect_refused(vlm, vlm.table(), options_keeping_all(), prompt, {"n_ubatch", "256", "64"});
  EXPECT_EQ(n_tensors, 0);

  std::vector<ImageReport> reports;
  const Outcome pruned = evaluate_pruned(vlm, prompt, options_keeping(64), &reports);
  EXPECT_GT(n_tensors, 0);
  Vlm untroubled(folder_of(kind.name), {2048, 1024, 64});
  EXPECT_TRUE(same(pruned, evaluate_pruned(untroubled, prompt, options_keeping(64))));
  EXPECT_TRUE(same(pruned, decode_by_hand(vlm, kind, prompt, {reports[0].kept}, 1024)));
}

// The same one level below, and attention is causal again afterwards.
TEST_F(BadPrompt, DecodeImageRefusesThemToo) {
  const Kind& kind = kind_of("gemma3");
  Vlm vlm(folder_of(kind.name), {2048, 1024, 64});
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  const Outcome before = evaluate_pruned(vlm, prompt, options_keeping(64));
  const std::vector<float> rows = encode(vlm, prompt[1]);
  std::vector<int32_t> kept(65);
  for (size_t i = 0; i < kept.size(); ++i) kept[i] = static_cast<int32_t>(i);
  llama_pos after = -7;
  const Status status =
      mipruner::llama::decode_image(vlm.vision(), vlm.context(), prompt[1], rows.data(),
                                    kept.data(), 65, before.n_past, 0, 1024, &after);
  EXPECT_TRUE(refused(status, {"n_ubatch"}));
  EXPECT_EQ(after, -7);
  EXPECT_TRUE(same(before, evaluate_pruned(vlm, prompt, options_keeping(64))));
}

TEST_F(BadPrompt, ANBatchAboveTheContexts) {
  const Kind& kind = kind_of("llava");
  Vlm vlm(folder_of(kind.name), {2048, 128, 128});
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  expect_refused(vlm, vlm.table(), options_keeping(200, 129), prompt, {"n_batch", "129", "128"});
  expect_refused(vlm, vlm.table(), options_keeping(200, 0), prompt, {"n_batch", "0"});
  evaluate_pruned(vlm, prompt, options_keeping(200, 128));
}

TEST_F(BadPrompt, MoreRowsThanTheKvCacheHolds) {
  const Kind& kind = kind_of("llava");
  Vlm vlm(folder_of(kind.name), {256, 256, 256});
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  expect_refused(vlm, vlm.table(), options_keeping(400, 256), prompt, {"llama_decode", "KV cache"});
  Vlm untroubled(folder_of(kind.name), {256, 256, 256});
  EXPECT_TRUE(same(evaluate_pruned(vlm, prompt, options_keeping(100, 256)),
                   evaluate_pruned(untroubled, prompt, options_keeping(100, 256))));
}

TEST_F(BadPrompt, ATableOfAnotherWidth) {
  const Kind& kind = kind_of("llava");
  Vlm vlm(folder_of(kind.name));
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  TokenTable narrow;
  ASSERT_TRUE(narrow.open(folder_of("llava_narrow") + "/model.gguf").ok());
  expect_refused(vlm, narrow, options_keeping(100), prompt, {"table", "128", "256"});
  expect_refused(vlm, TokenTable(), options_keeping(100), prompt, {"table"});
}

TEST_F(BadPrompt, ContextsOfTwoModels) {
  const Kind& kind = kind_of("llava");
  Vlm llava(folder_of("llava")), qwen(folder_of("qwen2vl"));
  const Prompt prompt = llava.tokenize(kPrompt, {kind.image(1)});
  llama_pos after = -7;
  const Status status = mipruner::llama::eval_chunks(
      llava.pruner(), qwen.table(), options_keeping(100), llava.vision(), qwen.context(),
      prompt.get(), 0, 0, &after, nullptr);
  EXPECT_TRUE(refused(status, {"M-RoPE"}));
  EXPECT_EQ(after, -7);
}

TEST_F(BadPrompt, QueriesThatAreNone) {
  const Kind& kind = kind_of("llava");
  Vlm vlm(folder_of(kind.name));
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  const std::vector<llama_token> beyond = {5, 1000000};
  EvalOptions options = options_keeping(100);
  options.query = beyond.data();
  options.n_query = beyond.size();
  expect_refused(vlm, vlm.table(), options, prompt, {"1000000"});
  options.query = nullptr;
  expect_refused(vlm, vlm.table(), options, prompt, {"query"});
  // An image alone has no words, and without redundancy nothing to choose by.
  const Prompt silent = vlm.tokenize("<__media__>", {kind.image(1)});
  options = options_keeping(100);
  options.select.redundancy = 0;
  expect_refused(vlm, vlm.table(), options, silent, {"query"});
}

// ---- files ----

TEST(BadPair, AProjectorOfAnotherWidthIsRefusedByLlamaCpp) {
  const std::string folder = folder_of("llava_mismatched");
  try {
    const Vlm vlm(folder);
    FAIL() << "accepted";
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(error.what(), "cannot load " + folder + "/mmproj.gguf");
  }
}

class BadFile : public ::testing::Test {
 protected:
  BadFile() : folder_(fs::temp_directory_path() / ("mipruner-bad-" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~BadFile() override { fs::remove_all(folder_); }

  std::string copy_of(const std::string& model, uintmax_t size) const {
    const fs::path path = folder_ / "truncated.gguf";
    fs::copy_file(folder_of(model) + "/model.gguf", path, fs::copy_options::overwrite_existing);
    fs::resize_file(path, size);
    return path.string();
  }
  std::string written(const std::string& content) const {
    const fs::path path = folder_ / "written.gguf";
    std::ofstream(path) << content;
    return path.string();
  }

  // The table refuses the file, with its path and these words, and stays what it was.
  static void expect_refused(const std::string& path, const std::string& word) {
    TokenTable table;
    const Status status = table.open(path);
    EXPECT_TRUE(refused(status, {path, word}));
    EXPECT_FALSE(table.is_open());
    RowLayout layout;
    EXPECT_FALSE(layout.open(path).ok()) << path;
  }

  const fs::path folder_;
};

TEST_F(BadFile, NoFile) { expect_refused((folder_ / "absent.gguf").string(), "No such file"); }

TEST_F(BadFile, ADirectory) { expect_refused(folder_.string(), "irectory"); }

TEST_F(BadFile, NotGguf) {
  expect_refused(written(""), "");
  expect_refused(written("GGU"), "");
  expect_refused(written("{\"json\": true, \"and\": \"long enough for a header\"}"), "GGUF");
}

TEST_F(BadFile, ATruncatedModel) {
  const uintmax_t whole = fs::file_size(folder_of("llava") + "/model.gguf");
  // In the header's counts, in its keys, in the vocabulary, in the tensors' data.
  for (const uintmax_t size :
       {uintmax_t{4}, uintmax_t{12}, uintmax_t{100}, uintmax_t{20000}, whole / 8, whole - 1}) {
    SCOPED_TRACE(size);
    TokenTable table;
    const Status status = table.open(copy_of("llava", size));
    // The last byte belongs to another tensor, which the table has no need of.
    if (size == whole - 1) continue;
    EXPECT_FALSE(status.ok());
    EXPECT_FALSE(status.message.empty());
    EXPECT_FALSE(table.is_open());
  }
}

TEST_F(BadFile, WithoutATokenTable) {
  TokenTable table;
  for (const char* file : {"/mmproj.gguf", "/vocabulary.gguf"}) {
    const Status status = table.open(folder_of("llava") + file);
    EXPECT_TRUE(refused(status, {"token_embd.weight"})) << file;
  }
  RowLayout layout;
  const Status status = layout.open(folder_of("llava") + "/model.gguf");
  EXPECT_TRUE(refused(status, {"clip.projector_type"}));
}

// Root reads everything, so the file is opened by a process that is nobody.
TEST_F(BadFile, OneThatMayNotBeRead) {
  const std::string path = copy_of("llava", 1000);
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  const auto open_as_nobody = [&] {
    if (getuid() == 0 && setuid(65534) != 0) std::exit(3);
    TokenTable table;
    const Status status = table.open(path);
    std::fprintf(stderr, "%s\n", status.message.c_str());
    std::exit(status.ok() ? 1 : 0);
  };
  EXPECT_EXIT(open_as_nobody(), ::testing::ExitedWithCode(0), "Permission denied");
}

TEST_F(BadFile, AnErrorLeavesAnOpenTableAsItWas) {
  TokenTable table;
  ASSERT_TRUE(table.open(folder_of("llava") + "/model.gguf").ok());
  const int64_t rows = table.rows();
  EXPECT_FALSE(table.open(written("not a model")).ok());
  EXPECT_EQ(table.rows(), rows);
  const llama_token token = 7;
  std::vector<float> row(static_cast<size_t>(table.columns()));
  EXPECT_TRUE(table.read(&token, 1, row.data()).ok());
}

}  // namespace
}  // namespace llama_checks
