// What reaches llama_decode() of an image's kept rows.
#include "mipruner_llama/decode_image.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "mtmd-helper.h"
#include "scene.h"

namespace mipruner::llama {
namespace {

using fake::Batch;
using test::expect_error;
using test::expect_ok;
using test::gather;
using test::Scene;
using Rows = std::vector<int32_t>;

// Decodes rows `kept` of the scene's first chunk; -7 stays where it fails.
Status decode(Scene* scene, const Rows& kept, llama_pos n_past, int32_t n_batch, llama_pos* after) {
  *after = -7;
  const mtmd_input_chunk& chunk = scene->chunks.entries.at(0);
  return decode_image(&scene->vision, &scene->context, &chunk, chunk.image.rows.data(), kept.data(),
                      static_cast<int32_t>(kept.size()), n_past, 0, n_batch, after);
}

void fill_cache(Scene* scene, int32_t n_past) {
  for (llama_pos at = 0; at < n_past; ++at) scene->context.cache[0].push_back(at);
}

TEST(DecodeImage, OneDimensionIsRenumbered) {
  Scene scene;
  scene.add_image(6, 1);
  fill_cache(&scene, 5);
  llama_pos after = 0;
  expect_ok(decode(&scene, {0, 2, 5}, 5, 512, &after));
  EXPECT_EQ(after, 8);
  ASSERT_EQ(scene.context.batches.size(), 1U);
  const Batch& batch = scene.context.batches[0];
  EXPECT_EQ(batch.positions, (Rows{5, 6, 7}));
  EXPECT_EQ(batch.rows, gather(scene.chunks.entries[0].image.rows, 4, {0, 2, 5}));
  EXPECT_EQ(batch.outputs, (std::vector<int8_t>{0, 0, 0}));
  EXPECT_EQ(batch.sequences, (Rows{0, 0, 0}));
  EXPECT_TRUE(batch.is_causal);
}

TEST(DecodeImage, MropeKeepsPositionsAndAdvancesByTheWholeImage) {
  Scene scene(/*is_mrope=*/true);
  scene.add_image(3, 2);
  fill_cache(&scene, 7);
  llama_pos after = 0;
  expect_ok(decode(&scene, {1, 5}, 7, 512, &after));
  EXPECT_EQ(after, 10);  // max(3, 2)
  ASSERT_EQ(scene.context.batches.size(), 1U);
  EXPECT_EQ(scene.context.batches[0].positions, (Rows{7, 7, 7, 8, 8, 9, 0, 0}));
}

TEST(DecodeImage, MropeSubBatchesHaveTheirOwnStride) {
  Scene scene(/*is_mrope=*/true);
  scene.add_image(3, 3);
  llama_pos after = 0;
  expect_ok(decode(&scene, {0, 2, 4, 5, 8}, 0, 2, &after));
  EXPECT_EQ(after, 3);
  ASSERT_EQ(scene.context.batches.size(), 3U);
  EXPECT_EQ(scene.context.batches[0].positions, (Rows{0, 0, 0, 0, 0, 2, 0, 0}));
  EXPECT_EQ(scene.context.batches[1].positions, (Rows{0, 0, 1, 1, 1, 2, 0, 0}));
  EXPECT_EQ(scene.context.batches[2].positions, (Rows{0, 2, 2, 0}));
  EXPECT_EQ(scene.context.batches[2].rows, gather(scene.chunks.entries[0].image.rows, 4, {8}));
}

#ifndef FAKE_OLD_MTMD  // which knew no HunyuanVL
TEST(DecodeImage, FramedImagesKeepAllFourSections) {
  Scene scene(/*is_mrope=*/true);
  mtmd_input_chunk& chunk =
      scene.add_media(MTMD_INPUT_CHUNK_TYPE_IMAGE, fake::Layout::kFramed, 3, 2);
  chunk.image.index = 1;
  llama_pos after = 0;
  fill_cache(&scene, 4);
  expect_ok(decode(&scene, {0, 6, 8, 9}, 4, 512, &after));
  EXPECT_EQ(after, 4 + 10);
  // Begin; row 1 column 1; the second newline; end.
  EXPECT_EQ(scene.context.batches[0].positions,
            (Rows{4, 10, 12, 13, 4, 1, 3, 13, 4, 1, 1, 13, 4, 1, 1, 13}));
}
#endif

TEST(DecodeImage, WholeRowsWithDeepStackPlanes) {
  Scene scene(/*is_mrope=*/true, /*n_planes=*/2);
  scene.add_image(2, 2);
  llama_pos after = 0;
  expect_ok(decode(&scene, {1, 2}, 0, 512, &after));
  EXPECT_EQ(scene.width(), 12U);
  EXPECT_EQ(scene.context.batches[0].rows, gather(scene.chunks.entries[0].image.rows, 12, {1, 2}));
}

TEST(DecodeImage, AllRowsGiveTheBatchesOfTheHelper) {
  for (const bool is_mrope : {false, true}) {
    for (const int32_t n_batch : {1, 3, 4, 12, 512}) {
      SCOPED_TRACE(std::to_string(is_mrope) + " " + std::to_string(n_batch));
      Scene ours(is_mrope), theirs(is_mrope);
      ours.add_image(4, 3);
      theirs.add_image(4, 3);
      Rows all(12);
      std::iota(all.begin(), all.end(), 0);
      llama_pos after = 0, expected = 0;
      expect_ok(decode(&ours, all, 0, n_batch, &after));
      ASSERT_EQ(
          mtmd_helper_eval_chunk_single(&theirs.vision, &theirs.context, &theirs.chunks.entries[0],
                                        0, 0, n_batch, false, &expected),
          0);
      EXPECT_EQ(after, expected);
      EXPECT_TRUE(ours.context.batches == theirs.context.batches);
    }
  }
}

TEST(DecodeImage, NonCausalAttentionTakesOneDecode) {
  Scene scene;
  scene.vision.is_non_causal = true;
  scene.context.n_ubatch = 4;
  scene.add_image(8, 1);
  llama_pos after = 0;
  expect_ok(decode(&scene, {1, 3, 5, 7}, 0, 2, &after));  // n_batch does not cut it
  EXPECT_EQ(after, 4);
  ASSERT_EQ(scene.context.batches.size(), 1U);
  EXPECT_FALSE(scene.context.batches[0].is_causal);
  EXPECT_TRUE(scene.context.is_causal);
}

TEST(DecodeImage, NonCausalAttentionOverMoreRowsThanUbatchIsRefused) {
  Scene scene;
  scene.vision.is_non_causal = true;
  scene.context.n_ubatch = 4;
  scene.add_image(8, 1);
  llama_pos after = 0;
  expect_error(decode(&scene, {0, 1, 3, 5, 7}, 0, 512, &after),
               {"n_kept: got 5 rows", "non-causal", "at most the context's n_ubatch, 4"});
  EXPECT_EQ(after, -7);
  EXPECT_TRUE(scene.context.batches.empty());
}

TEST(DecodeImage, AttentionIsCausalAgainAfterAFailure) {
  Scene scene;
  scene.vision.is_non_causal = true;
  scene.add_image(8, 1);
  scene.context.fail_at = 0;
  scene.context.fail_code = -3;
  llama_pos after = 0;
  expect_error(decode(&scene, {0, 1}, 0, 512, &after), {"llama_decode returned -3"},
               MIPRUNER_ERROR_BACKEND);
  EXPECT_FALSE(scene.context.batches.at(0).is_causal);
  EXPECT_TRUE(scene.context.is_causal);
}

TEST(DecodeImage, FailuresOfLlamaDecodeAreNamed) {
  const struct {
    int32_t code;
    int32_t status;
    const char* meaning;
  } cases[] = {{1, MIPRUNER_ERROR_BACKEND, "no room in the KV cache"},
               {2, MIPRUNER_ERROR_ABORTED, "aborted"},
               {-1, MIPRUNER_ERROR_BACKEND, "an invalid batch"},
               {-2, MIPRUNER_ERROR_BACKEND, "a failure inside llama.cpp"}};
  for (const auto& each : cases) {
    Scene scene;
    scene.add_image(6, 1);
    scene.context.fail_at = 1;
    scene.context.fail_code = each.code;
    llama_pos after = 0;
    const std::string returned = "llama_decode returned " + std::to_string(each.code);
    expect_error(decode(&scene, {0, 2, 3, 5}, 0, 2, &after),
                 {"rows 2 to 3 of 4", returned.c_str(), each.meaning}, each.status);
    EXPECT_EQ(after, -7);
    EXPECT_EQ(scene.context.batches.size(), 2U);
  }
}

TEST(DecodeImage, NoRowsDecodeNothing) {
  for (const bool is_mrope : {false, true}) {
    Scene scene(is_mrope);
    scene.vision.is_non_causal = !is_mrope;
    scene.add_image(4, 3);
    llama_pos after = 0;
    expect_ok(decode(&scene, {}, 9, 512, &after));
    EXPECT_EQ(after, is_mrope ? 13 : 9);
    EXPECT_TRUE(scene.context.batches.empty());
  }
}

TEST(DecodeImage, ArgumentsAreCheckedBeforeAnything) {
  Scene scene;
  scene.add_image(6, 1);
  scene.context.n_seq_max = 2;
  const mtmd_input_chunk* chunk = &scene.chunks.entries[0];
  const float* rows = chunk->image.rows.data();
  const Rows kept = {0, 2};
  llama_pos after = -7;
  mtmd_context* vision = &scene.vision;
  llama_context* context = &scene.context;
  const auto with = [&](int32_t n_kept, llama_pos n_past, llama_seq_id sequence, int32_t n_batch) {
    return decode_image(vision, context, chunk, rows, kept.data(), n_kept, n_past, sequence,
                        n_batch, &after);
  };
  expect_error(decode_image(nullptr, context, chunk, rows, kept.data(), 2, 0, 0, 8, &after),
               {"mtmd_context: got NULL"});
  expect_error(decode_image(vision, nullptr, chunk, rows, kept.data(), 2, 0, 0, 8, &after),
               {"llama_context: got NULL"});
  expect_error(decode_image(vision, context, nullptr, rows, kept.data(), 2, 0, 0, 8, &after),
               {"chunk: got NULL"});
  expect_error(decode_image(vision, context, chunk, nullptr, kept.data(), 2, 0, 0, 8, &after),
               {"embeddings: got NULL"});
  expect_error(decode_image(vision, context, chunk, rows, nullptr, 2, 0, 0, 8, &after),
               {"kept: got NULL"});
  expect_error(decode_image(vision, context, chunk, rows, kept.data(), 2, 0, 0, 8, nullptr),
               {"new_n_past: got NULL"});
  expect_error(with(7, 0, 0, 8), {"n_kept: got 7, allowed are 0 to the 6 rows"});
  expect_error(with(-1, 0, 0, 8), {"n_kept: got -1"});
  expect_error(with(2, -1, 0, 8), {"n_past: got -1"});
  expect_error(with(2, INT32_MAX, 0, 8), {"got 2 after n_past 2147483647"});
  expect_error(with(2, 0, -1, 8), {"seq_id: got -1, allowed are 0 to 1"});
  expect_error(with(2, 0, 2, 8), {"seq_id: got 2"});
  expect_error(with(2, 0, 0, 0), {"n_batch: got 0, allowed are 1 to 2048"});
  expect_error(with(2, 0, 0, 2049), {"n_batch: got 2049"});
  scene.add_text({2, 3});
  chunk = &scene.chunks.entries[1];
  expect_error(with(2, 0, 0, 8), {"chunk: got a text or audio chunk"});
  EXPECT_EQ(after, -7);
  EXPECT_TRUE(scene.context.batches.empty());
}

TEST(DecodeImage, OtherSequences) {
  Scene scene;
  scene.context.n_seq_max = 4;
  scene.add_image(6, 1);
  const Rows kept = {1, 4};
  llama_pos after = 0;
  const mtmd_input_chunk& chunk = scene.chunks.entries[0];
  expect_ok(decode_image(&scene.vision, &scene.context, &chunk, chunk.image.rows.data(),
                         kept.data(), 2, 0, 3, 512, &after));
  EXPECT_EQ(scene.context.batches[0].sequences, (Rows{3, 3}));
}

// Over random images and subsets: what was decoded, put together, is what was kept, where it was.
TEST(DecodeImage, RandomImages) {
  std::mt19937 random(99);
  const auto draw = [&](int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random);
  };
  for (int trial = 0; trial < 500; ++trial) {
    SCOPED_TRACE(trial);
    const bool is_mrope = draw(0, 1) == 1;
    Scene scene(is_mrope, draw(0, 2));
    const int32_t nx = draw(1, 9), ny = is_mrope ? draw(1, 9) : 1, n_past = draw(0, 30);
    scene.add_image(static_cast<uint32_t>(nx), static_cast<uint32_t>(ny));
    fill_cache(&scene, n_past);
    Rows kept;
    for (int32_t row = 0; row < nx * ny; ++row) {
      if (draw(0, 2) > 0) kept.push_back(row);
    }
    llama_pos after = 0;
    expect_ok(decode(&scene, kept, n_past, draw(1, 20), &after));
    EXPECT_EQ(after, n_past + (is_mrope ? std::max(nx, ny) : static_cast<int32_t>(kept.size())));
    std::vector<float> rows;
    Rows times, columns;
    for (const Batch& batch : scene.context.batches) {
      rows.insert(rows.end(), batch.rows.begin(), batch.rows.end());
      const auto n = static_cast<std::ptrdiff_t>(batch.outputs.size());
      times.insert(times.end(), batch.positions.begin(), batch.positions.begin() + n);
      const auto x = batch.positions.begin() + (is_mrope ? 2 * n : 0);
      columns.insert(columns.end(), x, x + n);
    }
    EXPECT_EQ(rows, gather(scene.chunks.entries[0].image.rows, scene.width(), kept));
    for (size_t i = 0; i < kept.size(); ++i) {
      EXPECT_EQ(times[i], is_mrope ? n_past : n_past + static_cast<int32_t>(i));
      EXPECT_EQ(columns[i], n_past + (is_mrope ? kept[i] % nx : static_cast<int32_t>(i)));
    }
  }
}

}  // namespace
}  // namespace mipruner::llama
