// Whole prompts through the door, with the real selection behind it.
#include "mipruner_llama/eval_chunks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "gguf_bytes.h"
#include "scene.h"

namespace mipruner::llama {
namespace {

using fake::Batch;
using test::expect_error;
using test::expect_ok;
using test::gather;
using test::GgufBytes;
using test::Scene;
using Rows = std::vector<int32_t>;

constexpr llama_token kBos = 0, kRed = 2, kBlue = 3;

// A vocabulary of 16 words with rows of 4 columns; kRed and kBlue point where no other does.
std::vector<float> vocabulary() {
  std::vector<float> rows;
  for (int token = 0; token < 16; ++token) {
    const auto t = static_cast<float>(token);
    rows.insert(rows.end(), {0.1F, 0.1F, 1.0F, t / 16});
  }
  std::copy_n(std::vector<float>{5, 0, 0, 0}.begin(), 4, rows.begin() + 4 * kRed);
  std::copy_n(std::vector<float>{0, 5, 0, 0}.begin(), 4, rows.begin() + 4 * kBlue);
  return rows;
}

class EvalChunks : public testing::Test {
 protected:
  EvalChunks() {
    GgufBytes file;
    file.text("general.architecture", "llama");
    file.f32_tensor("token_embd.weight", {4, 16}, vocabulary());
    expect_ok(table_.open(test::source_of(file.build())));
    EXPECT_EQ(mipruner_init(nullptr, &pruner_), MIPRUNER_OK);
    options_.select.n_keep = 3;
    // The rows that a test plants are the most relevant ones.
    options_.select.redundancy = 0;
    options_.select.coverage = 0;
  }
  ~EvalChunks() override { mipruner_free(pruner_); }

  // -7 stays in after_ where the call fails.
  Status eval(Scene* scene, llama_pos n_past = 0) {
    after_ = -7;
    return eval_chunks(pruner_, table_, options_, &scene->vision, &scene->context, &scene->chunks,
                       n_past, 0, &after_, &reports_);
  }

  // Rows that point where the word does, among rows of noise around another direction.
  static void plant(mtmd_input_chunk* chunk, size_t width, const Rows& rows, llama_token word) {
    std::vector<float>& all = chunk->image.rows;
    for (size_t i = 0; i < all.size(); i += width) {
      all[i] *= 0.05F;
      all[i + 1] *= 0.05F;
      all[i + 3] += 4;
    }
    for (const int32_t row : rows) {
      float* at = all.data() + static_cast<size_t>(row) * width;
      std::fill(at, at + 4, 0.0F);
      at[word == kRed ? 0 : 1] = 3;
    }
  }

  void open_layout(const GgufBytes& file) {
    expect_ok(layout_.open(test::source_of(file.build())));
    options_.layout = &layout_;
  }

  mipruner_context* pruner_ = nullptr;
  TokenTable table_;
  RowLayout layout_;
  EvalOptions options_;
  llama_pos after_ = 0;
  std::vector<ImageReport> reports_;
};

TEST_F(EvalChunks, KeepsTheRowsThatTheQuestionNames) {
  Scene scene;
  scene.add_text({kBos, 7});
  plant(&scene.add_image(12, 1), 4, {2, 5, 11}, kRed);
  scene.add_text({kRed, kRed});
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 2 + 3 + 2);
  ASSERT_EQ(scene.context.batches.size(), 3U);
  EXPECT_EQ(scene.context.batches[0].tokens, (Rows{kBos, 7}));
  EXPECT_EQ(scene.context.batches[1].rows,
            gather(scene.chunks.entries[1].image.rows, 4, {2, 5, 11}));
  EXPECT_EQ(scene.context.batches[1].positions, (Rows{2, 3, 4}));
  EXPECT_EQ(scene.context.batches[2].tokens, (Rows{kRed, kRed}));
  EXPECT_EQ(scene.context.batches[2].positions, (Rows{5, 6}));
  EXPECT_EQ(scene.context.batches[2].outputs, (std::vector<int8_t>{0, 1}));
  EXPECT_EQ(scene.context.cache[0].size(), 7U);
}

TEST_F(EvalChunks, ReportsWhatItDid) {
  Scene scene;
  scene.add_text({kRed});
  plant(&scene.add_image(12, 1), 4, {2, 5, 11}, kRed);
  reports_.resize(5);
  expect_ok(eval(&scene));
  ASSERT_EQ(reports_.size(), 1U);  // replaced
  const ImageReport& report = reports_[0];
  EXPECT_EQ(report.chunk, 1U);
  EXPECT_EQ(report.n_rows, 12);
  EXPECT_EQ(report.n_keep, 3);
  EXPECT_EQ(report.nx, 12);
  EXPECT_EQ(report.ny, 1);
  EXPECT_EQ(report.kept, (Rows{2, 5, 11}));
  EXPECT_EQ(report.keep_hash, mipruner_keep_hash(12, report.kept.data(), 3));
  ASSERT_EQ(report.scores.size(), 12U);
  EXPECT_GT(report.scores[5], report.scores[4]);
  EXPECT_EQ(report.status, MIPRUNER_OK);
  EXPECT_EQ(report.structural, Rows{});
  EXPECT_EQ(report.reason, "");
  EXPECT_GE(report.encode_ms, 0);
  EXPECT_GE(report.select_ms, 0);
  EXPECT_GE(report.decode_ms, 0);
  EXPECT_EQ(scene.context.n_synchronized, 1);  // decode_ms would end too early
}

TEST_F(EvalChunks, SaysHowManyKeptRowsAreNotFinite) {
  for (const int32_t n_finite : {12, 3, 2, 0}) {
    Scene scene;
    scene.add_text({kRed});
    mtmd_input_chunk& chunk = scene.add_image(12, 1);
    plant(&chunk, 4, {2, 5, 11}, kRed);
    std::vector<float>& all = chunk.image.rows;
    for (size_t row = static_cast<size_t>(n_finite); row < 12; ++row) {
      all[4 * row + 2] = row % 2 == 0 ? std::nanf("") : -INFINITY;
    }
    reports_.resize(1);
    expect_ok(eval(&scene));
    const int32_t n_lost = std::max(0, 3 - n_finite);
    EXPECT_EQ(reports_.at(0).n_keep, 3);
    EXPECT_EQ(reports_.at(0).reason,
              n_lost == 0 ? "" : std::to_string(n_lost) + " of 3 kept rows hold NaN or Inf");
  }
}

TEST_F(EvalChunks, SaysItWhereAllRowsAreKept) {
  options_.select.n_keep = 12;
  Scene scene;
  scene.add_text({kRed});
  mtmd_input_chunk& chunk = scene.add_image(12, 1);
  chunk.image.rows[4] = INFINITY;
  reports_.resize(1);
  expect_ok(eval(&scene));
  EXPECT_EQ(reports_.at(0).status, MIPRUNER_KEPT_ALL);
  EXPECT_EQ(reports_.at(0).reason, "1 of 12 kept rows hold NaN or Inf");
}

TEST_F(EvalChunks, WithoutReportsNothingWaits) {
  Scene scene;
  scene.add_text({kRed});
  scene.add_image(12, 1);
  expect_ok(eval_chunks(pruner_, table_, options_, &scene.vision, &scene.context, &scene.chunks, 0,
                        0, &after_, nullptr));
  EXPECT_EQ(after_, 4);
  EXPECT_EQ(scene.context.n_synchronized, 0);
}

TEST_F(EvalChunks, MropeGoesOnAfterTheWholeImage) {
  Scene scene(/*is_mrope=*/true);
  scene.add_text({kBos});
  plant(&scene.add_image(4, 3), 4, {0, 6, 11}, kRed);
  scene.add_text({kRed});
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 1 + 4 + 1);
  EXPECT_EQ(scene.context.batches[1].positions, (Rows{1, 1, 1, 1, 2, 3, 1, 3, 4, 0, 0, 0}));
  EXPECT_EQ(scene.context.batches[2].positions, Rows{5});
  EXPECT_EQ(reports_.at(0).nx, 4);
  EXPECT_EQ(reports_.at(0).ny, 3);
}

TEST_F(EvalChunks, TheQuestionMayFollowTheImage) {
  for (const llama_token word : {kRed, kBlue}) {
    Scene scene;
    mtmd_input_chunk& image = scene.add_image(12, 1);
    plant(&image, 4, {1, 2, 3}, word);
    scene.add_text({word});
    expect_ok(eval(&scene));
    EXPECT_EQ(reports_.at(0).kept, (Rows{1, 2, 3}));
    EXPECT_EQ(reports_.at(0).chunk, 0U);
  }
}

TEST_F(EvalChunks, TheHostMayBringTheQuestion) {
  Scene scene;
  plant(&scene.add_image(12, 1), 4, {1, 2, 3}, kBlue);
  plant(&scene.add_image(12, 1), 4, {4, 5, 6}, kBlue);
  scene.add_text({kRed, kRed, kRed});  // would lead elsewhere
  const llama_token query = kBlue;
  options_.query = &query;
  options_.n_query = 1;
  expect_ok(eval(&scene));
  ASSERT_EQ(reports_.size(), 2U);
  EXPECT_EQ(reports_[0].kept, (Rows{1, 2, 3}));
  EXPECT_EQ(reports_[1].kept, (Rows{4, 5, 6}));
  EXPECT_EQ(after_, 9);
}

// Control tokens say nothing about the image: with or without them, the same rows and scores.
TEST_F(EvalChunks, ControlTokensAreNoQuestion) {
  std::vector<ImageReport> without;
  for (const bool has_control : {false, true}) {
    Scene scene;
    plant(&scene.add_image(12, 1), 4, {1, 2, 3}, kRed);
    scene.add_text(has_control ? Rows{0, 1, kRed, 1, 1} : Rows{kRed});
    expect_ok(eval(&scene));
    if (!has_control) without = reports_;
  }
  EXPECT_EQ(reports_.at(0).scores, without.at(0).scores);
}

TEST_F(EvalChunks, SeveralImagesKeepEachTheirOwn) {
  Scene scene;
  scene.add_text({kBos});
  plant(&scene.add_image(12, 1), 4, {0, 1, 2}, kRed);
  plant(&scene.add_image(20, 1), 4, {9, 10, 19}, kRed);
  scene.add_text({kRed});
  plant(&scene.add_image(6, 1), 4, {0, 1, 5}, kRed);
  expect_ok(eval(&scene, 0));
  EXPECT_EQ(after_, 1 + 3 + 3 + 1 + 3);
  ASSERT_EQ(reports_.size(), 3U);
  EXPECT_EQ(reports_[0].kept, (Rows{0, 1, 2}));
  EXPECT_EQ(reports_[1].kept, (Rows{9, 10, 19}));
  EXPECT_EQ(reports_[2].kept, (Rows{0, 1, 5}));
  EXPECT_EQ(reports_[2].chunk, 4U);
  EXPECT_EQ(scene.context.batches.back().positions, (Rows{8, 9, 10}));
}

TEST_F(EvalChunks, KeepingAllGivesTheBatchesOfTheHelper) {
  for (const bool is_mrope : {false, true}) {
    for (const int32_t n_batch : {1, 5, 512}) {
      SCOPED_TRACE(std::to_string(is_mrope) + " " + std::to_string(n_batch));
      Scene ours(is_mrope, 1), theirs(is_mrope, 1);
      for (Scene* scene : {&ours, &theirs}) {
        scene->add_text({kBos, 4, 5, 6, 7, 8});
        scene->add_image(4, 3);
        scene->add_text({kRed});
        scene->add_image(2, 5);
        scene->add_text({kBlue, 9});
      }
      options_.select.n_keep = 0;
      options_.select.keep_ratio = 1;
      options_.n_batch = n_batch;
      expect_ok(eval(&ours));
      llama_pos expected = 0;
      for (const mtmd_input_chunk& chunk : theirs.chunks.entries) {
        const bool is_last = &chunk == &theirs.chunks.entries.back();
        ASSERT_EQ(mtmd_helper_eval_chunk_single(&theirs.vision, &theirs.context, &chunk, expected,
                                                0, n_batch, is_last, &expected),
                  0);
      }
      EXPECT_EQ(after_, expected);
      EXPECT_TRUE(ours.context.batches == theirs.context.batches);
      EXPECT_TRUE(ours.context.cache == theirs.context.cache);
    }
  }
}

TEST_F(EvalChunks, TextAloneIsText) {
  Scene scene;
  scene.add_text({kBos, 4, 5});
  scene.context.cache[0] = {0, 1};
  expect_ok(eval(&scene, 2));
  EXPECT_EQ(after_, 5);
  EXPECT_TRUE(reports_.empty());
  EXPECT_EQ(scene.context.batches.at(0).positions, (Rows{2, 3, 4}));
}

TEST_F(EvalChunks, NoChunksAreNothing) {
  Scene scene;
  expect_ok(eval(&scene, 4));
  EXPECT_EQ(after_, 4);
}

TEST_F(EvalChunks, LogitsOnlyWhereWanted) {
  options_.logits_last = false;
  Scene scene;
  scene.add_text({kBos, 4});
  expect_ok(eval(&scene));
  EXPECT_EQ(scene.context.batches.at(0).outputs, (std::vector<int8_t>{0, 0}));
  options_.logits_last = true;
  Scene first_is_not_last;
  first_is_not_last.add_text({kBos, kRed});
  first_is_not_last.add_image(12, 1);
  expect_ok(eval(&first_is_not_last));
  EXPECT_EQ(first_is_not_last.context.batches.at(0).outputs, (std::vector<int8_t>{0, 0}));
}

TEST_F(EvalChunks, AudioGoesThroughWhole) {
  Scene scene;
  scene.add_text({kRed});
  scene.add_media(MTMD_INPUT_CHUNK_TYPE_AUDIO, fake::Layout::kSequence, 9, 1);
  plant(&scene.add_image(12, 1), 4, {2, 5, 11}, kRed);
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 1 + 9 + 3);
  EXPECT_EQ(scene.context.batches.at(1).rows, scene.chunks.entries[1].image.rows);
  EXPECT_EQ(scene.context.batches.at(2).positions, (Rows{10, 11, 12}));
  ASSERT_EQ(reports_.size(), 1U);
  EXPECT_EQ(reports_[0].chunk, 2U);
}

TEST_F(EvalChunks, WithoutAQuestionRedundancyChooses) {
  Scene scene;
  scene.add_text({kBos, 1});  // control tokens alone
  scene.add_image(12, 1);
  expect_error(eval(&scene), {"chunk 1: query: got no tokens but control tokens", "redundancy"});
  EXPECT_EQ(after_, -7);
  EXPECT_TRUE(scene.context.batches.empty());
  EXPECT_EQ(scene.vision.n_encoded, 0);
  options_.select.redundancy = 0.5F;
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 2 + 3);
  EXPECT_EQ(reports_.at(0).kept.size(), 3U);
}

TEST_F(EvalChunks, ByDefaultNoQuestionIsNeeded) {
  options_ = {};
  EXPECT_GT(options_.select.coverage, 0);
  for (const int32_t n_keep : {3, 12}) {
    Scene scene;
    scene.add_image(12, 1);
    options_.select.n_keep = n_keep;
    expect_ok(eval(&scene));
    EXPECT_EQ(after_, n_keep);
    EXPECT_EQ(reports_.at(0).status, n_keep == 12 ? MIPRUNER_KEPT_ALL : MIPRUNER_OK);
    EXPECT_EQ(reports_.at(0).scores, std::vector<float>(12));
  }
}

TEST_F(EvalChunks, CoverageSpreadsRowsOverTheImage) {
  Scene scene;
  scene.add_text({kBos, kRed});
  plant(&scene.add_image(12, 1), 4, {0, 1, 2}, kRed);
  options_.select.coverage = 1;
  expect_ok(eval(&scene));
  EXPECT_EQ(reports_.at(0).kept, (std::vector<int32_t>{2, 4, 10}));
}

TEST_F(EvalChunks, WithoutAQuestionAllCanBeKept) {
  Scene scene;
  scene.add_image(12, 1);
  options_.select.n_keep = 12;
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 12);
  EXPECT_EQ(reports_.at(0).n_keep, 12);
  EXPECT_EQ(reports_.at(0).status, MIPRUNER_KEPT_ALL);
  EXPECT_TRUE(reports_.at(0).scores.empty());
}

TEST_F(EvalChunks, WarningsOfTheSelectionAreReported) {
  mipruner_log_set([](int32_t, const char*, void*) {}, nullptr);
  Scene scene;
  mtmd_input_chunk& image = scene.add_image(12, 1);
  plant(&image, 4, {2, 5, 11}, kRed);
  image.image.rows[4 * 5] = NAN;
  scene.add_text({kRed});
  expect_ok(eval(&scene));
  mipruner_log_set(nullptr, nullptr);
  EXPECT_EQ(reports_.at(0).status, MIPRUNER_DEGENERATE);
  const Rows& kept = reports_.at(0).kept;
  EXPECT_FALSE(std::binary_search(kept.begin(), kept.end(), 5));
}

TEST_F(EvalChunks, OrderStaysAscending) {
  Scene scene;
  mtmd_input_chunk& image = scene.add_image(12, 1);
  plant(&image, 4, {2, 5, 11}, kRed);
  image.image.rows[4 * 2 + 2] = 1;  // points away a little, so that the later rows are better
  scene.add_text({kRed, 7});
  options_.select.order = MIPRUNER_ORDER_SCORE;
  expect_ok(eval(&scene));
  const ImageReport& report = reports_.at(0);
  EXPECT_EQ(report.kept, (Rows{2, 5, 11}));
  EXPECT_NE(report.scores[2], report.scores[11]);
}

TEST_F(EvalChunks, StructuralRowsSurvive) {
  GgufBytes file;
  file.text("clip.projector_type", "pixtral");
  const std::vector<float> row_break = {0, 0, -1, -1};
  file.f32_tensor("v.token_embd.img_break", {4}, row_break);
  open_layout(file);
  Scene scene;
  mtmd_input_chunk& image = scene.add_image(11, 1);
  plant(&image, 4, {0, 1, 9}, kRed);
  for (const int32_t row : {3, 7}) {
    std::copy(row_break.begin(), row_break.end(), image.image.rows.begin() + 4 * row);
  }
  scene.add_text({kRed});
  options_.select.n_keep = 4;
  const int32_t wanted = 10;
  options_.select.always_keep = &wanted;
  options_.select.n_always_keep = 1;
  expect_ok(eval(&scene));
  const ImageReport& report = reports_.at(0);
  EXPECT_EQ(report.structural, (Rows{3, 7}));
  EXPECT_EQ(report.n_keep, 4);
  for (const int32_t row : {3, 7, 10}) {
    EXPECT_TRUE(std::binary_search(report.kept.begin(), report.kept.end(), row)) << row;
  }
  options_.select.n_always_keep = 0;
  options_.select.n_keep = 1;
  expect_error(eval(&scene), {"chunk 0: n_keep: got 1 of 11 rows, allowed are at least the 2"});
}

TEST_F(EvalChunks, WhatTheLayoutCannotSortOutIsKeptWhole) {
  GgufBytes file;
  file.text("clip.projector_type", "deepseek4v");
  open_layout(file);
  Scene scene;
  scene.add_image(12, 1);
  scene.add_text({kRed});
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 13);
  EXPECT_EQ(reports_.at(0).n_keep, 12);
  EXPECT_EQ(reports_.at(0).reason, "deepseek4v: the text model reads the rows in blocks");
  // Known before anything is encoded.
  scene.vision.is_non_causal = true;
  scene.context.n_ubatch = 8;
  const int n_encoded = scene.vision.n_encoded;
  expect_error(eval(&scene), {"chunk 0: n_kept: got 12 rows", "n_ubatch, 8"});
  EXPECT_EQ(scene.vision.n_encoded, n_encoded);
}

#ifndef FAKE_OLD_MTMD  // which knew no HunyuanVL
TEST_F(EvalChunks, FramedImages) {
  GgufBytes file;
  file.text("clip.projector_type", "hunyuanvl");
  open_layout(file);
  Scene scene(/*is_mrope=*/true);
  scene.add_media(MTMD_INPUT_CHUNK_TYPE_IMAGE, fake::Layout::kFramed, 4, 2);
  scene.add_text({kRed});
  options_.select.n_keep = 6;
  expect_ok(eval(&scene));
  EXPECT_EQ(after_, 12 + 1);
  EXPECT_EQ(reports_.at(0).structural, (Rows{0, 5, 10, 11}));
  EXPECT_EQ(reports_.at(0).nx, 4);
  EXPECT_EQ(reports_.at(0).ny, 2);
}
#endif

TEST_F(EvalChunks, NonCausalImagesAreCheckedBeforeTheFirstChunk) {
  Scene scene;
  scene.vision.is_non_causal = true;
  scene.context.n_ubatch = 2;
  scene.add_text({kBos, kRed});
  scene.add_image(2, 1);
  scene.add_image(12, 1);
  expect_error(eval(&scene), {"chunk 2: n_kept: got 3 rows", "n_ubatch, 2"});
  EXPECT_TRUE(scene.context.batches.empty());
  EXPECT_EQ(scene.vision.n_encoded, 0);
  scene.context.n_ubatch = 3;
  expect_ok(eval(&scene));
  EXPECT_FALSE(scene.context.batches.at(1).is_causal);
  EXPECT_TRUE(scene.context.batches.at(0).is_causal);
}

TEST_F(EvalChunks, AFailureIsNamedAndTakenBack) {
  Scene scene;
  scene.add_text({kBos, kRed});
  scene.add_image(12, 1);
  scene.add_text({4});
  scene.context.cache[0] = {0, 1, 2};
  const auto before = scene.context.cache;
  const struct {
    int decode;
    const char* where;
  } cases[] = {{0, "chunk 0: decoding text"},
               {1, "chunk 1: rows 0 to 2 of 3"},
               {2, "chunk 2: decoding text"}};
  for (const auto& each : cases) {
    scene.context.batches.clear();
    scene.context.fail_at = each.decode;
    scene.context.fail_code = 1;
    reports_.assign(4, {});
    expect_error(eval(&scene, 3), {each.where, "llama_decode returned 1", "no room in the KV"},
                 MIPRUNER_ERROR_BACKEND);
    EXPECT_EQ(after_, -7);
    EXPECT_EQ(reports_.size(), 4U);
    EXPECT_TRUE(scene.context.cache == before);
  }
  scene.context.fail_at = -1;
  expect_ok(eval(&scene, 3));  // and so it can be tried again
  EXPECT_EQ(after_, 3 + 2 + 3 + 1);
}

TEST_F(EvalChunks, AnImageThatCannotBeEncoded) {
  Scene scene;
  scene.add_text({kBos, kRed});
  scene.add_image(12, 1);
  scene.vision.fail_at = 0;
  scene.vision.fail_code = 1;
  expect_error(eval(&scene), {"chunk 1: encoding the image: mtmd_encode_chunk returned 1"},
               MIPRUNER_ERROR_BACKEND);
  EXPECT_TRUE(scene.context.cache[0].empty());
  scene.vision.fail_at = -1;
  scene.vision.gives_no_output = true;
  expect_error(eval(&scene), {"mtmd_get_output_embd returned NULL"}, MIPRUNER_ERROR_BACKEND);
  EXPECT_EQ(after_, -7);
}

TEST_F(EvalChunks, WrongSelectionParametersAreFoundFirst) {
  Scene scene;
  scene.add_text({kBos, kRed});
  scene.add_image(12, 1);
  options_.select.n_keep = 0;
  options_.select.keep_ratio = 1.5;
  expect_error(eval(&scene), {"chunk 1: ", "keep_ratio", "1.5"});
  options_.select = mipruner_select_default_params();
  options_.select.struct_size = 3;
  expect_error(eval(&scene), {"chunk 1: ", "struct_size"});
  EXPECT_TRUE(scene.context.batches.empty());
}

TEST_F(EvalChunks, WhatOnlySelectionFindsIsReported) {
  Scene scene;
  scene.add_text({kRed});
  scene.add_image(12, 1);
  const int32_t row = 12;
  options_.select.always_keep = &row;
  options_.select.n_always_keep = 1;
  expect_error(eval(&scene), {"chunk 1: always_keep: got row 12, allowed are 0 to 11"});
  EXPECT_EQ(after_, -7);
  EXPECT_TRUE(scene.context.cache[0].empty());
}

TEST_F(EvalChunks, ModelsThatDoNotMatchAreRefused) {
  Scene scene;
  scene.add_text({kBos, kRed});
  scene.add_image(12, 1);
  scene.model.n_embd = 5;
  expect_error(eval(&scene), {"table: got rows of 4 columns, allowed are the model's 5"});
  scene.model.n_embd = 4;
  scene.model.vocab.n_tokens = 17;
  expect_error(eval(&scene), {"table: got 16 rows, allowed are at least the model's 17"});
  scene.model.vocab.n_tokens = 16;
  scene.model.rope = LLAMA_ROPE_TYPE_IMROPE;
  expect_error(eval(&scene), {"mtmd_context: got one for a model without M-RoPE"});
  scene.model.rope = LLAMA_ROPE_TYPE_NEOX;
  scene.vision.is_mrope = true;
  expect_error(eval(&scene), {"mtmd_context: got one for a model with M-RoPE"});
  scene.vision.is_mrope = false;
  GgufBytes file;
  file.text("clip.projector_type", "pixtral");
  file.f32_tensor("v.token_embd.img_break", {3}, {1, 2, 3});
  open_layout(file);
  expect_error(eval(&scene), {"layout: got learned rows of 3 columns"});
  table_ = TokenTable();
  expect_error(eval(&scene), {"table: got one that is not open"});
  EXPECT_EQ(after_, -7);
  EXPECT_TRUE(scene.context.batches.empty());
  EXPECT_EQ(scene.vision.n_encoded, 0);
}

TEST_F(EvalChunks, ArgumentsAreCheckedBeforeAnything) {
  Scene scene;
  scene.add_text({kBos, kRed});
  mtmd_context* v = &scene.vision;
  llama_context* c = &scene.context;
  const mtmd_input_chunks* chunks = &scene.chunks;
  llama_pos* out = &after_;
  after_ = -7;
  const auto with = [&](mipruner_context* pruner, mtmd_context* vision, llama_context* context,
                        const mtmd_input_chunks* given, llama_pos n_past, llama_seq_id sequence,
                        llama_pos* after) {
    return eval_chunks(pruner, table_, options_, vision, context, given, n_past, sequence, after,
                       nullptr);
  };
  expect_error(with(nullptr, v, c, chunks, 0, 0, out), {"mipruner_context: got NULL"});
  expect_error(with(pruner_, nullptr, c, chunks, 0, 0, out), {"mtmd_context: got NULL"});
  expect_error(with(pruner_, v, nullptr, chunks, 0, 0, out), {"llama_context: got NULL"});
  expect_error(with(pruner_, v, c, nullptr, 0, 0, out), {"chunks: got NULL"});
  expect_error(with(pruner_, v, c, chunks, 0, 0, nullptr), {"new_n_past: got NULL"});
  expect_error(with(pruner_, v, c, chunks, -1, 0, out), {"n_past: got -1"});
  expect_error(with(pruner_, v, c, chunks, 0, 1, out), {"seq_id: got 1, allowed are 0 to 0"});
  options_.n_batch = 0;
  expect_error(with(pruner_, v, c, chunks, 0, 0, out), {"n_batch: got 0"});
  options_.n_batch = 4096;
  expect_error(with(pruner_, v, c, chunks, 0, 0, out), {"n_batch: got 4096", "1 to 2048"});
  options_.n_batch = 512;
  options_.n_query = 2;
  expect_error(with(pruner_, v, c, chunks, 0, 0, out), {"query: got NULL"});
  const std::vector<llama_token> unknown = {kRed, 16};
  options_.query = unknown.data();
  expect_error(with(pruner_, v, c, chunks, 0, 0, out), {"tokens[1]: got 16, allowed are 0 to 15"});
  EXPECT_EQ(after_, -7);
  EXPECT_TRUE(scene.context.batches.empty());
}

}  // namespace
}  // namespace mipruner::llama
