// A pruned context is a context: it can be saved, restored, cut back and continued.
#include "check.h"

namespace llama_checks {
namespace {

using mipruner::llama::ImageReport;

constexpr size_t kTokens = 8;

using Reuse = EveryKind;

void expect_same(const Continuation& a, const Continuation& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.logits.size(), b.logits.size());
  for (size_t i = 0; i < a.logits.size(); ++i) {
    EXPECT_TRUE(same_logits(a.logits[i], b.logits[i])) << "after token " << i;
  }
}

// The saved state has no logits: both go on with the tokens that were chosen before.
Continuation replay(const Vlm& vlm, llama_pos n_past, const std::vector<llama_token>& tokens) {
  Continuation continuation{tokens, {}};
  for (size_t i = 0; i < tokens.size(); ++i) {
    vlm.decode(tokens[i], n_past + static_cast<llama_pos>(i));
    continuation.logits.push_back(vlm.logits());
  }
  return continuation;
}

TEST_P(Reuse, ASavedStateContinuesTheSame) {
  const Outcome pruned = evaluate_pruned(vlm, chunks(), options_keeping(n_keep));
  const Continuation expected = generate(vlm, pruned.n_past, kTokens);

  vlm.clear();
  vlm.restore(pruned.state);
  expect_same(replay(vlm, pruned.n_past, expected.tokens), expected);

  const Vlm another(folder_of(kind.name));
  another.restore(pruned.state);
  expect_same(replay(another, pruned.n_past, expected.tokens), expected);
}

// As a server does: what stays of a prompt is its prefix up to the end of the image, and the
// question after it is evaluated again.
TEST_P(Reuse, ACachedPrefixGivesTheAnswerOfAFreshRun) {
  const Prompt prompt = chunks();
  const Outcome pruned = evaluate_pruned(vlm, prompt, options_keeping(n_keep));
  const Continuation fresh = generate(vlm, pruned.n_past, kTokens);

  const mtmd_input_chunk* question = prompt[prompt.size() - 1];
  ASSERT_FALSE(is_image(question));
  llama_pos n_past = pruned.n_past - mtmd_input_chunk_get_n_pos(question);
  ASSERT_TRUE(llama_memory_seq_rm(llama_get_memory(vlm.context()), 0, n_past, -1));
  ASSERT_EQ(mtmd_helper_eval_chunk_single(vlm.vision(), vlm.context(), question, n_past, 0, 1024,
                                          true, &n_past),
            0);
  EXPECT_EQ(n_past, pruned.n_past);
  EXPECT_TRUE(same_logits(vlm.logits(), pruned.logits));
  expect_same(generate(vlm, n_past, kTokens), fresh);
}

TEST_P(Reuse, ASecondTurnFollows) {
  const Outcome first = evaluate_pruned(vlm, chunks(), options_keeping(n_keep));
  const Prompt turn =
      vlm.tokenize(" And this one? <__media__> Is it larger?", {kind.image(2)}, false);
  llama_pos n_past = first.n_past;
  std::vector<ImageReport> reports;
  const mipruner::llama::Status status =
      mipruner::llama::eval_chunks(vlm.pruner(), vlm.table(), options_keeping(n_keep), vlm.vision(),
                                   vlm.context(), turn.get(), n_past, 0, &n_past, &reports);
  ASSERT_TRUE(status.ok()) << status.message;
  ASSERT_EQ(reports.size(), 1U);
  EXPECT_EQ(n_past, llama_memory_seq_pos_max(llama_get_memory(vlm.context()), 0) + 1);
  EXPECT_EQ(generate(vlm, n_past, kTokens).tokens.size(), kTokens);
}

INSTANTIATE_TEST_SUITE_P(, Reuse, ::testing::ValuesIn(kKinds), name_of);

}  // namespace
}  // namespace llama_checks
