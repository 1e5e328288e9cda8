#include "by_hand.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

namespace llama_checks {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

ImageBatch gather(const Vlm& vlm, const Kind& kind, const std::vector<float>& embeddings,
                  const std::vector<int32_t>& kept, llama_pos n_past) {
  const size_t width = static_cast<size_t>(llama_model_n_embd_inp(vlm.model()));
  const size_t n_kept = kept.size();
  ImageBatch batch;
  batch.positions.assign(kind.m_rope ? 4 * n_kept : n_kept, 0);
  for (size_t i = 0; i < n_kept; ++i) {
    const auto row = embeddings.begin() + static_cast<std::ptrdiff_t>(width) * kept[i];
    batch.rows.insert(batch.rows.end(), row, row + static_cast<std::ptrdiff_t>(width));
    if (kind.m_rope) {
      batch.positions[i] = n_past;
      batch.positions[n_kept + i] = n_past + kept[i] / kind.nx;
      batch.positions[2 * n_kept + i] = n_past + kept[i] % kind.nx;
    } else {
      batch.positions[i] = n_past + static_cast<llama_pos>(i);
    }
  }
  return batch;
}

// Rows [first, first + count) of an image in one call.
void decode_part(const Vlm& vlm, const ImageBatch& image, size_t n_rows, size_t first,
                 size_t count) {
  const size_t width = image.rows.size() / n_rows, sections = image.positions.size() / n_rows;
  std::vector<float> rows(
      image.rows.begin() + static_cast<std::ptrdiff_t>(first * width),
      image.rows.begin() + static_cast<std::ptrdiff_t>((first + count) * width));
  std::vector<llama_pos> positions;
  for (size_t section = 0; section < sections; ++section) {
    const auto begin =
        image.positions.begin() + static_cast<std::ptrdiff_t>(section * n_rows + first);
    positions.insert(positions.end(), begin, begin + static_cast<std::ptrdiff_t>(count));
  }
  std::vector<int32_t> ones(count, 1);
  llama_seq_id sequence = 0;
  std::vector<llama_seq_id*> sequences(count, &sequence);
  std::vector<int8_t> no_logits(count, 0);
  const llama_batch batch = {static_cast<int32_t>(count),
                             nullptr,
                             rows.data(),
                             positions.data(),
                             ones.data(),
                             sequences.data(),
                             no_logits.data()};
  const int32_t code = llama_decode(vlm.context(), batch);
  require(code == 0, "llama_decode returned " + std::to_string(code));
}

void decode_image(const Vlm& vlm, const Kind& kind, const ImageBatch& image, size_t n_rows,
                  size_t n_batch) {
  if (kind.non_causal) n_batch = n_rows;  // rows that see each other are decoded together
  llama_set_causal_attn(vlm.context(), !kind.non_causal);
  for (size_t first = 0; first < n_rows; first += n_batch) {
    decode_part(vlm, image, n_rows, first, std::min(n_batch, n_rows - first));
  }
  llama_set_causal_attn(vlm.context(), true);
}

}  // namespace

const std::vector<Kind> kKinds = {
    {"llava", 336, 300, 24, 24, false, false, false},
    {"qwen2vl", 420, 280, 15, 10, true, false, false},
    {"qwen25vl", 420, 280, 15, 10, true, false, false},
    {"qwen3vl", 320, 480, 10, 15, true, false, false},
    {"gemma3", 448, 448, 16, 16, false, true, false},
    {"pixtral", 168, 224, 12, 16, false, false, true},
};

const Kind& kind_of(const std::string& name) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return kind;
  }
  throw std::runtime_error("no kind is called " + name);
}

std::string folder_of(const std::string& name) {
  const char* models = std::getenv("MIPRUNER_LLAMA_MODELS");
  require(models != nullptr, "MIPRUNER_LLAMA_MODELS: not set, allowed is the folder of the models");
  return std::string(models) + "/" + name;
}

std::vector<float> encode(const Vlm& vlm, const mtmd_input_chunk* chunk) {
  require(mtmd_encode_chunk(vlm.vision(), chunk) == 0, "cannot encode an image");
  const float* rows = mtmd_get_output_embd(vlm.vision());
  return {rows, rows + mtmd_input_chunk_get_n_tokens(chunk) *
                           static_cast<size_t>(llama_model_n_embd_inp(vlm.model()))};
}

Outcome decode_by_hand(const Vlm& vlm, const Kind& kind, const Prompt& chunks,
                       const std::vector<std::vector<int32_t>>& kept, int32_t n_batch,
                       const Tamper& tamper) {
  vlm.clear();
  llama_pos n_past = 0;
  size_t n_images = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (!is_image(chunks[i])) {
      const bool is_last = i + 1 == chunks.size();
      const int32_t code = mtmd_helper_eval_chunk_single(vlm.vision(), vlm.context(), chunks[i],
                                                         n_past, 0, n_batch, is_last, &n_past);
      require(code == 0, "mtmd_helper_eval_chunk_single returned " + std::to_string(code));
      continue;
    }
    const std::vector<int32_t>& rows = kept.at(n_images++);
    ImageBatch image = gather(vlm, kind, encode(vlm, chunks[i]), rows, n_past);
    if (tamper) tamper(&image);
    decode_image(vlm, kind, image, rows.size(), static_cast<size_t>(n_batch));
    n_past += kind.advance(static_cast<int32_t>(rows.size()));
  }
  return outcome(vlm, chunks, n_past);
}

}  // namespace llama_checks
