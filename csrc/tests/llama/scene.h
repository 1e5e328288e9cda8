// A model, its vision part and a prompt, all fake, for the tests of decoding.
#pragma once

#include <gtest/gtest.h>

#include <random>

#include "fake.h"
#include "support.h"

namespace test {

struct Scene {
  explicit Scene(bool is_mrope = false, int32_t n_planes = 0) {
    model.n_embd = 4;
    model.n_planes = n_planes;
    model.rope = is_mrope ? LLAMA_ROPE_TYPE_MROPE : LLAMA_ROPE_TYPE_NORM;
    model.vocab.n_tokens = 16;
    model.vocab.control = {0, 1};
    vision.is_mrope = is_mrope;
  }
  // The context points into the scene.
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;
  ~Scene() {
    EXPECT_TRUE(context.is_causal) << "attention was left non-causal";
    EXPECT_EQ(context.violations, std::vector<std::string>{});
  }

  size_t width() const { return static_cast<size_t>(llama_model_n_embd_inp(&model)); }

  void add_text(const std::vector<llama_token>& tokens) {
    mtmd_input_chunk chunk;
    chunk.tokens = tokens;
    chunks.entries.push_back(chunk);
  }

  mtmd_input_chunk& add_media(mtmd_input_chunk_type type, fake::Layout layout, uint32_t nx,
                              uint32_t ny) {
    mtmd_input_chunk chunk;
    chunk.type = type;
    chunk.image.layout = layout;
    chunk.image.nx = nx;
    chunk.image.ny = ny;
    chunk.image.rows.resize(chunk.image.n_rows() * width());
    std::normal_distribution<float> normal;
    for (float& value : chunk.image.rows) value = normal(random);
    chunks.entries.push_back(chunk);
    return chunks.entries.back();
  }

  mtmd_input_chunk& add_image(uint32_t nx, uint32_t ny) {
    const fake::Layout layout = vision.is_mrope ? fake::Layout::kGrid : fake::Layout::kSequence;
    return add_media(MTMD_INPUT_CHUNK_TYPE_IMAGE, layout, nx, ny);
  }

  std::mt19937 random{11};
  llama_model model;
  llama_context context{&model};
  mtmd_context vision;
  mtmd_input_chunks chunks;
};

// Rows `kept` of an image, one after the other.
inline std::vector<float> gather(const std::vector<float>& rows, size_t width,
                                 const std::vector<int32_t>& kept) {
  std::vector<float> out;
  for (const int32_t row : kept) {
    const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * width);
    out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(width));
  }
  return out;
}

}  // namespace test
