// Keeping every row must be mtmd_helper_eval_chunks(), bit for bit.
#include "check.h"

namespace llama_checks {
namespace {

using KeepAll = EveryKind;

// The door decodes an image that is not causal in one call; the helper splits it by n_batch, which
// gives other numbers.
std::vector<int32_t> batch_sizes(const Kind& kind) {
  if (kind.non_causal) return {1024, kind.n_rows()};
  return {1024, 48};
}

TEST_P(KeepAll, IsTheUnprunedHelperBitForBit) {
  const Prompt prompt = chunks();
  bool equal = true;
  for (const int32_t n_batch : batch_sizes(kind)) {
    const Outcome unpruned = evaluate_unpruned(vlm, prompt, n_batch);
    std::vector<mipruner::llama::ImageReport> reports;
    const Outcome all = evaluate_pruned(vlm, prompt, options_keeping_all(n_batch), &reports);
    equal = equal && same(unpruned, all);
    EXPECT_TRUE(same(unpruned, all)) << "n_batch " << n_batch;
    ASSERT_EQ(reports.size(), 1U);
    EXPECT_EQ(reports[0].n_rows, kind.n_rows());
    EXPECT_EQ(reports[0].n_keep, kind.n_rows());
    RecordProperty("rows", reports[0].n_rows);
    RecordProperty("n_past_all", all.n_past);
  }
  RecordProperty("equal_at_keep_1", equal ? "yes" : "no");
}

TEST_P(KeepAll, DependsOnTheImage) {
  const Outcome one = evaluate_pruned(vlm, chunks(), options_keeping_all());
  const Prompt other = vlm.tokenize(kPrompt, {kind.image(2)});
  EXPECT_FALSE(same_logits(one.logits, evaluate_unpruned(vlm, other, 1024).logits));
}

INSTANTIATE_TEST_SUITE_P(, KeepAll, ::testing::ValuesIn(kKinds), name_of);

}  // namespace
}  // namespace llama_checks
