// What eval_chunks must do, written out a second time without the door and without llama.cpp's
// helpers for images: each kind's positions follow from its grid.
#pragma once

#include <algorithm>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "vlm.h"

namespace llama_checks {

// A kind of model as python_tests/llama_cpp/tiny_gguf writes it, and the pictures it is shown.
struct Kind {
  const char* name;
  uint32_t width, height;  // of the pictures
  int32_t nx, ny;          // rows across and down, without breaks
  bool m_rope;             // positions in three dimensions
  bool non_causal;         // within an image
  bool has_breaks;         // a row behind every line of the image but the last

  int32_t n_rows() const { return nx * ny + (has_breaks ? ny - 1 : 0); }
  // By how much an image with n_kept rows moves n_past.
  llama_pos advance(int32_t n_kept) const { return m_rope ? std::max(nx, ny) : n_kept; }
  Image image(uint32_t seed) const { return draw_image(width, height, seed); }
};

extern const std::vector<Kind> kKinds;
const Kind& kind_of(const std::string& name);
inline void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

// The folder of a model: a kind's name or another one's.
std::string folder_of(const std::string& name);

// One image's rows on their way into the decoder.
struct ImageBatch {
  std::vector<float> rows;           // [n_rows, n_embd_inp]
  std::vector<llama_pos> positions;  // [4 or 1, n_rows]
};
using Tamper = std::function<void(ImageBatch*)>;

// Decodes a prompt on an empty context. kept: the rows of each image, ascending. tamper: applied to
// every image, to see whether a comparison would notice.
Outcome decode_by_hand(const Vlm& vlm, const Kind& kind, const Prompt& chunks,
                       const std::vector<std::vector<int32_t>>& kept, int32_t n_batch,
                       const Tamper& tamper = nullptr);

// The embeddings of an image chunk, [n_rows, n_embd_inp].
std::vector<float> encode(const Vlm& vlm, const mtmd_input_chunk* chunk);

}  // namespace llama_checks
