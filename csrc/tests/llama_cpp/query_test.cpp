// What is kept depends on the question, and on nothing that changes from run to run.
#include <algorithm>

#include "check.h"
#include "graph.h"

namespace llama_checks {
namespace {

using mipruner::llama::EvalOptions;
using mipruner::llama::ImageReport;

class Query : public EveryKind {
 protected:
  ImageReport report(const Prompt& prompt, const EvalOptions& options) {
    std::vector<ImageReport> reports;
    evaluate_pruned(vlm, prompt, options, &reports);
    return reports.at(0);
  }
};

TEST_P(Query, AnotherQuestionKeepsOtherRows) {
  const ImageReport one = report(chunks(), options_keeping(n_keep));
  const ImageReport other =
      report(chunks("<__media__> How many trees stand by the river?"), options_keeping(n_keep));
  EXPECT_NE(one.kept, other.kept);
  EXPECT_NE(one.keep_hash, other.keep_hash);
}

TEST_P(Query, TheSameQuestionKeepsTheSameRows) {
  const ImageReport once = report(chunks(), options_keeping(n_keep));
  const ImageReport again = report(chunks(), options_keeping(n_keep));
  EXPECT_EQ(once.kept, again.kept);
  EXPECT_EQ(once.scores, again.scores);
  EXPECT_EQ(once.keep_hash, again.keep_hash);
  // Compared across processes by the caller.
  RecordProperty("keep_hash", std::to_string(once.keep_hash));
}

TEST_P(Query, ByDefaultItIsTheTextWithoutControlTokens) {
  const Prompt prompt = chunks();
  const std::vector<llama_token> words = text_tokens(vlm, prompt);
  EvalOptions options = options_keeping(n_keep);
  const ImageReport by_default = report(prompt, options);
  options.query = words.data();
  options.n_query = words.size();
  const ImageReport by_name = report(prompt, options);
  EXPECT_EQ(by_default.kept, by_name.kept);
  EXPECT_EQ(by_default.scores, by_name.scores);
}

TEST_P(Query, TheHostsOwnQueryWins) {
  const Prompt prompt = chunks();
  const std::vector<llama_token> words = vlm.tokens("trees by the river");
  EvalOptions options = options_keeping(n_keep);
  const ImageReport by_default = report(prompt, options);
  options.query = words.data();
  options.n_query = words.size();
  EXPECT_NE(report(prompt, options).kept, by_default.kept);
}

// ---- rows that are structure ----

class Structure : public Query {
 protected:
  Structure() { EXPECT_TRUE(layout.open(folder_of(kind.name) + "/mmproj.gguf").ok()); }

  EvalOptions keeping(int32_t count) {
    EvalOptions options = options_keeping(count);
    options.layout = &layout;
    return options;
  }
  std::vector<int32_t> breaks() const {
    std::vector<int32_t> rows;
    for (int32_t y = 1; kind.has_breaks && y < kind.ny; ++y) rows.push_back(y * (kind.nx + 1) - 1);
    return rows;
  }

  mipruner::llama::RowLayout layout;
};

TEST_P(Structure, IsFoundAndKept) {
  const ImageReport found = report(chunks(), keeping(n_keep));
  EXPECT_EQ(found.structural, breaks());
  EXPECT_EQ(found.n_keep, n_keep);
  EXPECT_TRUE(std::includes(found.kept.begin(), found.kept.end(), found.structural.begin(),
                            found.structural.end()));
  EXPECT_EQ(found.reason, "");
  const ImageReport without = report(chunks(), options_keeping(n_keep));
  EXPECT_EQ(without.kept == found.kept, !kind.has_breaks);
}

// The breaks are the one learned row of the file, so all of them have the same embedding.
TEST_P(Structure, StandsWhereTheEmbeddingsSay) {
  const Prompt prompt = chunks();
  evaluate_pruned(vlm, prompt, options_keeping(n_keep));
  const std::vector<float> rows = encode(vlm, prompt[1]);
  const auto width = static_cast<std::ptrdiff_t>(llama_model_n_embd_inp(vlm.model()));
  std::vector<int32_t> repeated;
  for (int32_t i = 0; i < kind.n_rows(); ++i) {
    for (int32_t j = 0; j < kind.n_rows(); ++j) {
      if (i == j || !std::equal(rows.begin() + i * width, rows.begin() + (i + 1) * width,
                                rows.begin() + j * width)) {
        continue;
      }
      repeated.push_back(i);
      break;
    }
  }
  EXPECT_EQ(repeated, breaks());
}

using Breaks = Structure;

TEST_P(Breaks, MoreThanMayBeKeptAreAnError) {
  llama_pos after = -7;
  vlm.clear();
  const Prompt prompt = chunks();
  const mipruner::llama::Status status =
      mipruner::llama::eval_chunks(vlm.pruner(), vlm.table(), keeping(kind.ny - 2), vlm.vision(),
                                   vlm.context(), prompt.get(), 0, 0, &after, nullptr);
  EXPECT_TRUE(refused(status, {"n_keep", "14", "15"}));
  EXPECT_EQ(after, -7);
  EXPECT_EQ(report(prompt, keeping(kind.ny - 1)).kept, breaks());
}

INSTANTIATE_TEST_SUITE_P(, Structure, ::testing::ValuesIn(kKinds), name_of);
INSTANTIATE_TEST_SUITE_P(, Breaks, ::testing::Values(kind_of("pixtral")), name_of);

INSTANTIATE_TEST_SUITE_P(, Query, ::testing::ValuesIn(kKinds), name_of);

}  // namespace
}  // namespace llama_checks
