// Images at the start, at the end, in the middle, and two of them.
#include "check.h"

namespace llama_checks {
namespace {

using mipruner::llama::EvalOptions;
using mipruner::llama::ImageReport;

class Places : public EveryKind {
 protected:
  // The others write tokens of their own there.
  bool may_be_first() const { return is("llava") || is("pixtral"); }
  bool may_be_last() const { return is("llava"); }
  bool is(const std::string& name) const { return name == kind.name; }

  // Pruned as by hand, and unpruned as the helper.
  void check(const Prompt& prompt, size_t n_images) {
    std::vector<ImageReport> reports;
    const Outcome pruned = evaluate_pruned(vlm, prompt, options_keeping(n_keep), &reports);
    ASSERT_EQ(reports.size(), n_images);
    std::vector<std::vector<int32_t>> kept;
    for (const ImageReport& report : reports) {
      kept.push_back(report.kept);
      ASSERT_LT(report.chunk, prompt.size());
      EXPECT_TRUE(is_image(prompt[report.chunk]));
    }
    EXPECT_TRUE(same(pruned, decode_by_hand(vlm, kind, prompt, kept, 1024)));
    EXPECT_TRUE(same(evaluate_unpruned(vlm, prompt, 1024),
                     evaluate_pruned(vlm, prompt, options_keeping_all())));
  }
};

TEST_P(Places, ImageFirst) {
  const Prompt prompt = vlm.tokenize("<__media__> what is to be seen?", {kind.image(1)}, false);
  EXPECT_EQ(is_image(prompt[0]), may_be_first());
  check(prompt, 1);
}

TEST_P(Places, ImageLast) {
  const Prompt prompt = vlm.tokenize("what is to be seen? <__media__>", {kind.image(1)});
  EXPECT_EQ(is_image(prompt[prompt.size() - 1]), may_be_last());
  check(prompt, 1);
}

TEST_P(Places, ImageInTheMiddle) {
  check(vlm.tokenize("before <__media__> and after", {kind.image(1)}), 1);
}

TEST_P(Places, TwoImages) {
  const Prompt prompt =
      vlm.tokenize("One is <__media__> and two is <__media__>. Which has the circle?",
                   {kind.image(1), kind.image(2)});
  check(prompt, 2);
  std::vector<ImageReport> reports;
  evaluate_pruned(vlm, prompt, options_keeping(n_keep), &reports);
  EXPECT_LT(reports[0].chunk, reports[1].chunk);
  EXPECT_NE(reports[0].kept, reports[1].kept) << "the images are not told apart";
  EXPECT_NE(reports[0].keep_hash, reports[1].keep_hash);
}

TEST_P(Places, TwoImagesWithNothingBetween) {
  check(vlm.tokenize("Compare: <__media__><__media__> how?", {kind.image(1), kind.image(2)}), 2);
}

INSTANTIATE_TEST_SUITE_P(, Places, ::testing::ValuesIn(kKinds), name_of);

}  // namespace
}  // namespace llama_checks
