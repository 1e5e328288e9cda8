// The prompt through the model, with or without pruning, and how long that took.
#pragma once

#include <string>
#include <vector>

#include "images.h"
#include "session.h"

namespace mipruner::cli {

// A prompt in llama.cpp's chunks: text and images in turn.
struct Prompt {
  mtmd::input_chunks_ptr chunks;
  std::vector<llama_token> query;  // of the user's message; empty: every text of the prompt

  size_t size() const { return mtmd_input_chunks_size(chunks.get()); }
  const mtmd_input_chunk* chunk(size_t i) const { return mtmd_input_chunks_get(chunks.get(), i); }
};

// How far the chat has got. Cells differ from positions under M-RoPE.
struct Progress {
  llama_pos n_past = 0;
  int32_t n_cells = 0;
  bool is_first() const { return n_cells == 0; }
};

struct Evaluation {
  int32_t n_tokens = 0;       // decoded
  int32_t n_tokens_full = 0;  // without pruning
  int32_t n_image_tokens = 0;
  int32_t n_image_tokens_full = 0;
  double encode_ms = 0;
  double select_ms = 0;
  double prefill_ms = 0;                   // text and image rows through the language model
  double image_ms = 0;                     // the image rows' part of it
  std::vector<llama::ImageReport> images;  // one a chunk; empty without pruning
};

// `text` is the rendered prompt, `message` the user's part of it.
Prompt tokenize(const Session& session, const std::string& text, const std::string& message,
                Query query, const std::vector<Image>& images, bool is_first, Log* log);

// Both advance `progress`, and throw Failure with `progress` and the model's memory as they were.
Evaluation evaluate_pruned(Session* session, const Prompt& prompt,
                           const mipruner_select_params& select, Progress* progress, Log* log);
Evaluation evaluate_whole(Session* session, const Prompt& prompt, Progress* progress, Log* log);

// The image among those given to tokenize() that a chunk was made from; -1 for text.
int32_t image_of_chunk(const mtmd_input_chunk* chunk);

}  // namespace mipruner::cli
