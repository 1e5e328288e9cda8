// Feeds the kept rows of an encoded image to the decoder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"
#include "mipruner/mipruner.h"
#include "mipruner_llama/compat.hpp"
#include "mipruner_llama/positions.hpp"
#include "mipruner_llama/status.hpp"
#include "mtmd.h"

namespace mipruner::llama {

namespace detail {

// Attention is causal again when the scope ends, however it ends.
class NonCausalScope {
 public:
  NonCausalScope(llama_context* context, bool is_needed) : context_(is_needed ? context : nullptr) {
    if (context_ != nullptr) llama_set_causal_attn(context_, false);
  }
  ~NonCausalScope() {
    if (context_ != nullptr) llama_set_causal_attn(context_, true);
  }
  NonCausalScope(const NonCausalScope&) = delete;
  NonCausalScope& operator=(const NonCausalScope&) = delete;

 private:
  llama_context* context_;
};

// llama.cpp ends the process where a batch exceeds the context's n_batch.
inline Status check_batch_size(const llama_context* context, int32_t n_batch) {
  const auto most = static_cast<int64_t>(llama_n_batch(context));
  if (n_batch >= 1 && n_batch <= most) return {};
  return invalid("n_batch: got " + std::to_string(n_batch) + ", allowed are 1 to " +
                 std::to_string(most) + ", the context's n_batch");
}

inline Status check_sequence(const llama_context* context, llama_seq_id sequence) {
  const auto n = static_cast<int64_t>(llama_n_seq_max(context));
  if (sequence >= 0 && sequence < n) return {};
  return invalid("seq_id: got " + std::to_string(sequence) + ", allowed are 0 to " +
                 std::to_string(n - 1) + ", below the context's n_seq_max");
}

// Without causal attention all rows must be decoded at once, and llama.cpp ends the process where
// they are more than n_ubatch.
inline Status check_non_causal(const llama_context* context, int64_t n_kept) {
  const auto most = static_cast<int64_t>(llama_n_ubatch(context));
  if (n_kept <= most) return {};
  return invalid("n_kept: got " + std::to_string(n_kept) + " rows of an image with non-causal " +
                 "attention, allowed are at most the context's n_ubatch, " + std::to_string(most));
}

inline Status decode_failure(int32_t code, const std::string& what) {
  const char* meaning = "a failure inside llama.cpp";
  if (code == 1) meaning = "no room in the KV cache: a larger n_ctx or fewer rows";
  if (code == 2) meaning = "aborted by its callback";
  if (code == -1) meaning = "an invalid batch";
  return error(code == 2 ? MIPRUNER_ERROR_ABORTED : MIPRUNER_ERROR_BACKEND,
               what + ": llama_decode returned " + std::to_string(code) + " (" + meaning + ")");
}

inline Status plan_positions(mtmd_context* vision, const mtmd_input_chunk* chunk,
                             const int32_t* kept, int32_t n_kept, llama_pos n_past,
                             PositionPlan* plan) {
  if (!mtmd_decode_use_mrope(vision)) return plan_renumbered(n_kept, n_past, plan);
  const mtmd_image_tokens* tokens = mtmd_input_chunk_get_tokens_image(chunk);
  const int32_t n_pos = mtmd_input_chunk_get_n_pos(chunk);
  const Status status = check_advance(n_past, n_pos);  // before n_past is added to anything
  if (!status.ok()) return status;
  std::vector<SectionPosition> original(static_cast<size_t>(n_kept));
  for (size_t i = 0; i < original.size(); ++i) {
    original[i] = row_position(tokens, n_past, static_cast<size_t>(kept[i]), 0);
  }
  return plan_original(original, n_pos, n_past, plan);
}

// Decodes rows [first, first + count) of the kept ones. llama_batch_init() has room for one
// position a row only, so the batch is put together here.
inline int32_t decode_rows(llama_context* context, const float* embeddings, int64_t n_rows,
                           const int32_t* kept, int32_t first, int32_t count,
                           const PositionPlan& plan, llama_seq_id sequence) {
  const auto width = static_cast<size_t>(llama_model_n_embd_inp(llama_get_model(context)));
  const auto n = static_cast<size_t>(count);
  std::vector<float> rows(n * width);  // [count, width]
  const int32_t code = mipruner_gather_rows(rows.data(), embeddings, n_rows, width * sizeof(float),
                                            0, kept + first, count);
  if (code < 0) return -1;  // cannot be: check_kept() saw the indices
  std::vector<llama_pos> positions;
  batch_positions(plan, first, count, &positions);
  std::vector<int32_t> n_sequences(n, 1);
  std::vector<llama_seq_id*> sequences(n + 1, &sequence);
  sequences[n] = nullptr;
  std::vector<int8_t> is_output(n, 0);
  llama_batch batch = {};
  batch.n_tokens = count;
  batch.embd = rows.data();
  batch.pos = positions.data();
  batch.n_seq_id = n_sequences.data();
  batch.seq_id = sequences.data();
  batch.logits = is_output.data();
  return llama_decode(context, batch);
}

}  // namespace detail

// Decodes the rows `kept` of an encoded image chunk; takes the place of
// mtmd_helper_decode_image_chunk(), which cannot leave rows out.
//
//   embeddings  [rows of the chunk, llama_model_n_embd_inp()], from mtmd_get_output_embd()
//   kept        n_kept row indices, ascending; all rows: as without pruning, to the bit
//   n_batch     rows of one llama_decode(), 1 to the context's; where the model wants the image
//               without causal attention all rows go at once, and may be at most n_ubatch
//   new_n_past  n_past + n_kept, or under M-RoPE n_past plus the n_pos of the whole chunk;
//               untouched after an error
//
// Arguments are checked before anything is decoded. Where llama_decode() fails half-way, the rows
// before stay in the KV cache, as they do with the function it stands for.
inline Status decode_image(mtmd_context* vision, llama_context* context,
                           const mtmd_input_chunk* chunk, const float* embeddings,
                           const int32_t* kept, int32_t n_kept, llama_pos n_past,
                           llama_seq_id seq_id, int32_t n_batch, llama_pos* new_n_past) {
  const std::pair<const void*, const char*> required[] = {{vision, "mtmd_context"},
                                                          {context, "llama_context"},
                                                          {chunk, "chunk"},
                                                          {embeddings, "embeddings"},
                                                          {new_n_past, "new_n_past"}};
  for (const auto& [pointer, name] : required) {
    if (pointer == nullptr) return invalid(std::string(name) + ": got NULL");
  }
  if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_IMAGE) {
    return invalid("chunk: got a text or audio chunk, allowed is an image chunk");
  }
  const auto n_rows = static_cast<int64_t>(mtmd_input_chunk_get_n_tokens(chunk));
  const bool is_non_causal = detail::use_non_causal(vision, chunk, 0);
  PositionPlan plan;
  Status status = detail::check_batch_size(context, n_batch);
  if (status.ok()) status = detail::check_sequence(context, seq_id);
  if (status.ok()) status = check_kept(kept, n_kept, n_rows);
  if (status.ok() && is_non_causal) status = detail::check_non_causal(context, n_kept);
  if (status.ok()) {
    status = detail::plan_positions(vision, chunk, kept, n_kept, n_past, &plan);
  }
  if (!status.ok()) return status;

  const detail::NonCausalScope scope(context, is_non_causal);
  const int32_t step = is_non_causal ? n_kept : n_batch;
  for (int32_t first = 0; first < n_kept; first += step) {
    const int32_t count = std::min(step, n_kept - first);
    const int32_t code =
        detail::decode_rows(context, embeddings, n_rows, kept, first, count, plan, seq_id);
    if (code != 0) {
      return detail::decode_failure(code, "rows " + std::to_string(first) + " to " +
                                              std::to_string(first + count - 1) + " of " +
                                              std::to_string(n_kept));
    }
  }
  *new_n_past = n_past + plan.advance;
  return {};
}

}  // namespace mipruner::llama
