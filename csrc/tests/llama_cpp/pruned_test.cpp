// A subset of the rows: the right ones, in the right places, and a model that goes on from there.
#include <numeric>

#include "check.h"
#include "graph.h"

namespace llama_checks {
namespace {

using mipruner::llama::ImageReport;

class Pruned : public EveryKind {
 protected:
  Outcome evaluate(const Prompt& prompt, int32_t n_batch = 1024) {
    reports.clear();
    return evaluate_pruned(vlm, prompt, options_keeping(n_keep, n_batch), &reports);
  }
  llama_pos n_text(const Prompt& prompt) const {
    llama_pos count = 0;
    for (size_t i = 0; i < prompt.size(); ++i) {
      if (!is_image(prompt[i])) count += mtmd_input_chunk_get_n_pos(prompt[i]);
    }
    return count;
  }

  std::vector<ImageReport> reports;
};

TEST_P(Pruned, KeepsSomeRowsAscending) {
  evaluate(chunks());
  ASSERT_EQ(reports.size(), 1U);
  const ImageReport& report = reports[0];
  EXPECT_EQ(report.n_rows, kind.n_rows());
  EXPECT_EQ(report.n_keep, n_keep);
  ASSERT_EQ(report.kept.size(), static_cast<size_t>(n_keep));
  EXPECT_EQ(report.scores.size(), static_cast<size_t>(kind.n_rows()));
  EXPECT_GE(report.kept.front(), 0);
  EXPECT_LT(report.kept.back(), kind.n_rows());
  for (size_t i = 1; i < report.kept.size(); ++i) EXPECT_LT(report.kept[i - 1], report.kept[i]);
  EXPECT_EQ(report.keep_hash, mipruner_keep_hash(report.n_rows, report.kept.data(), n_keep));
}

TEST_P(Pruned, MovesNPastByTheRightAmount) {
  const Prompt prompt = chunks();
  const Outcome pruned = evaluate(prompt);
  EXPECT_EQ(pruned.n_past, n_text(prompt) + kind.advance(n_keep));
  llama_memory_t memory = llama_get_memory(vlm.context());
  EXPECT_EQ(llama_memory_seq_pos_min(memory, 0), 0);
  EXPECT_EQ(llama_memory_seq_pos_max(memory, 0), pruned.n_past - 1);
  RecordProperty("kept", reports[0].n_keep);
  RecordProperty("n_past_kept", pruned.n_past);
}

TEST_P(Pruned, IsDecodedAsByHand) {
  const Prompt prompt = chunks();
  for (const int32_t n_batch : {1024, 40}) {
    const Outcome pruned = evaluate(prompt, n_batch);
    const Outcome by_hand = decode_by_hand(vlm, kind, prompt, {reports[0].kept}, n_batch);
    EXPECT_TRUE(same(pruned, by_hand)) << "n_batch " << n_batch;
  }
}

// The comparison above would notice a wrong row and, where they are free, a wrong position.
TEST_P(Pruned, TheComparisonByHandIsSharp) {
  const Prompt prompt = chunks();
  const Outcome pruned = evaluate(prompt);
  std::vector<int32_t> others = reports[0].kept;
  others.back() = others.back() + 1 < kind.n_rows() ? others.back() + 1 : others.back() - 1;
  EXPECT_FALSE(
      same_logits(pruned.logits, decode_by_hand(vlm, kind, prompt, {others}, 1024).logits));
  if (!kind.m_rope) return;  // llama.cpp itself refuses any other positions
  const Outcome moved =
      decode_by_hand(vlm, kind, prompt, {reports[0].kept}, 1024, [&](ImageBatch* image) {
        for (size_t i = 0; i < reports[0].kept.size(); ++i) {
          std::swap(image->positions[reports[0].kept.size() + i],
                    image->positions[2 * reports[0].kept.size() + i]);
        }
      });
  EXPECT_FALSE(same_logits(pruned.logits, moved.logits));
}

// Scored are the first n_embd columns of each row, against the model's own token embeddings.
TEST_P(Pruned, KeepsWhatTheLibrarySelects) {
  const Prompt prompt = chunks();
  evaluate(prompt);
  const std::vector<float> embeddings = encode(vlm, prompt[1]);
  const auto columns = static_cast<size_t>(llama_model_n_embd(vlm.model()));
  const size_t width = embeddings.size() / static_cast<size_t>(kind.n_rows());
  std::vector<float> rows;
  for (size_t row = 0; row < static_cast<size_t>(kind.n_rows()); ++row) {
    const auto begin = embeddings.begin() + static_cast<std::ptrdiff_t>(row * width);
    rows.insert(rows.end(), begin, begin + static_cast<std::ptrdiff_t>(columns));
  }
  const std::vector<float> words = graph_embeddings(kind.name, text_tokens(vlm, prompt));
  const mipruner_view visual = {rows.data(), kind.n_rows(),      static_cast<int64_t>(columns),
                                0,           MIPRUNER_DTYPE_F32, MIPRUNER_MEMORY_HOST};
  const mipruner_view text = {words.data(),
                              static_cast<int64_t>(words.size() / columns),
                              static_cast<int64_t>(columns),
                              0,
                              MIPRUNER_DTYPE_F32,
                              MIPRUNER_MEMORY_HOST};
  std::vector<int32_t> kept(static_cast<size_t>(n_keep));
  std::vector<float> scores(static_cast<size_t>(kind.n_rows()));
  const mipruner_select_params params = options_keeping(n_keep).select;
  ASSERT_EQ(mipruner_select(vlm.pruner(), &visual, &text, &params, kept.data(), n_keep,
                            scores.data(), nullptr),
            MIPRUNER_OK);
  EXPECT_EQ(kept, reports[0].kept);
  EXPECT_EQ(scores, reports[0].scores);
}

TEST_P(Pruned, Generates) {
  const Outcome pruned = evaluate(chunks());
  const size_t count = 8;
  const Continuation continuation = generate(vlm, pruned.n_past, count);
  RecordProperty("generated", static_cast<int>(continuation.tokens.size()));
  ASSERT_EQ(continuation.tokens.size(), count);
  for (const std::vector<float>& logits : continuation.logits) {
    EXPECT_TRUE(same_logits(logits, logits)) << "must be finite";
  }
  EXPECT_FALSE(same_logits(continuation.logits[0], continuation.logits[1]));
}

INSTANTIATE_TEST_SUITE_P(, Pruned, ::testing::ValuesIn(kKinds), name_of);

// ---- rows that carry further planes ----

TEST(DeepStack, PlanesTravelWithTheirRow) {
  const Kind& kind = kind_of("qwen3vl");
  Vlm vlm(folder_of(kind.name));
  const Prompt prompt = vlm.tokenize(kPrompt, {kind.image(1)});
  const auto columns = static_cast<size_t>(llama_model_n_embd(vlm.model()));
  const auto width = static_cast<size_t>(llama_model_n_embd_inp(vlm.model()));
  ASSERT_EQ(width, 3 * columns);
  std::vector<ImageReport> reports;
  const Outcome pruned = evaluate_pruned(vlm, prompt, options_keeping(50), &reports);
  const auto by_hand = [&](const Tamper& tamper) {
    return decode_by_hand(vlm, kind, prompt, {reports[0].kept}, 1024, tamper);
  };
  EXPECT_TRUE(same(pruned, by_hand(nullptr)));
  const Outcome without_planes = by_hand([&](ImageBatch* image) {
    for (size_t i = 0; i < image->rows.size(); ++i) {
      if (i % width >= columns) image->rows[i] = 0;
    }
  });
  EXPECT_FALSE(same_logits(pruned.logits, without_planes.logits));
  const Outcome planes_of_another_row = by_hand([&](ImageBatch* image) {
    const auto row = image->rows.begin();
    std::swap_ranges(row + static_cast<std::ptrdiff_t>(columns),
                     row + static_cast<std::ptrdiff_t>(width),
                     row + static_cast<std::ptrdiff_t>(width + columns));
  });
  EXPECT_FALSE(same_logits(pruned.logits, planes_of_another_row.logits));
}

}  // namespace
}  // namespace llama_checks
