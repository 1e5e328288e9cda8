#include "graph.h"

#include <ggml-backend.h>

#include <cstring>
#include <stdexcept>

#include "by_hand.h"

namespace llama_checks {
namespace {

struct Capture {
  bool scaled = false;  // take the rows after the graph has scaled them
  std::vector<float> rows;
};

bool is_wanted(const ggml_tensor* tensor, bool scaled) {
  if (scaled) return std::strcmp(tensor->name, "inp_scaled") == 0;
  return tensor->op == GGML_OP_GET_ROWS && tensor->src[0] != nullptr &&
         std::strcmp(tensor->src[0]->name, "token_embd.weight") == 0;
}

bool observe(ggml_tensor* tensor, bool ask, void* user_data) {
  auto* capture = static_cast<Capture*>(user_data);
  if (!is_wanted(tensor, capture->scaled)) return !ask;
  if (ask) return true;
  const size_t before = capture->rows.size();
  capture->rows.resize(before + static_cast<size_t>(ggml_nelements(tensor)));
  ggml_backend_tensor_get(tensor, capture->rows.data() + before, 0, ggml_nbytes(tensor));
  return true;
}

}  // namespace

std::vector<float> graph_embeddings(const std::string& model,
                                    const std::vector<llama_token>& tokens) {
  Capture capture;
  capture.scaled = model.rfind("gemma3", 0) == 0;
  const Vlm vlm(folder_of(model), {}, {observe, &capture});
  constexpr size_t kBatch = 512;
  for (size_t first = 0; first < tokens.size(); first += kBatch) {
    std::vector<llama_token> part(
        tokens.begin() + static_cast<std::ptrdiff_t>(first),
        tokens.begin() + static_cast<std::ptrdiff_t>(std::min(first + kBatch, tokens.size())));
    vlm.clear();
    const llama_batch batch = llama_batch_get_one(part.data(), static_cast<int32_t>(part.size()));
    if (llama_decode(vlm.context(), batch) != 0) throw std::runtime_error("cannot decode tokens");
  }
  const auto columns = static_cast<size_t>(llama_model_n_embd(vlm.model()));
  if (capture.rows.size() != tokens.size() * columns) {
    throw std::runtime_error("saw " + std::to_string(capture.rows.size()) + " numbers, not " +
                             std::to_string(tokens.size() * columns));
  }
  return capture.rows;
}

std::vector<llama_token> text_tokens(const Vlm& vlm, const Prompt& chunks) {
  std::vector<llama_token> found;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (is_image(chunks[i])) continue;
    size_t count = 0;
    const llama_token* tokens = mtmd_input_chunk_get_tokens_text(chunks[i], &count);
    for (size_t k = 0; k < count; ++k) {
      if (!llama_vocab_is_control(vlm.vocab(), tokens[k])) found.push_back(tokens[k]);
    }
  }
  return found;
}

}  // namespace llama_checks
