// A model of the real llama.cpp with its projector, and what the checks ask of it.
#pragma once

#include <llama-cpp.h>
#include <mtmd-helper.h>
#include <mtmd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "image.h"
#include "mipruner_llama.hpp"

namespace llama_checks {

struct ContextLimits {
  uint32_t n_ctx = 2048;
  uint32_t n_batch = 1024;
  uint32_t n_ubatch = 1024;
};

// Sees the tensors of every decode, as llama_context_params.cb_eval does.
struct Observer {
  ggml_backend_sched_eval_callback callback = nullptr;
  void* user_data = nullptr;
};

// The chunks of a prompt; mtmd's own class for them cannot be moved.
class Prompt {
 public:
  Prompt() : chunks_(mtmd_input_chunks_init()) {}
  size_t size() const { return mtmd_input_chunks_size(chunks_.get()); }
  const mtmd_input_chunk* operator[](size_t i) const {
    return mtmd_input_chunks_get(chunks_.get(), i);
  }
  mtmd_input_chunks* get() const { return chunks_.get(); }

 private:
  mtmd::input_chunks_ptr chunks_;
};

// Members are destroyed in the order that llama.cpp needs. Throws std::runtime_error.
class Vlm {
 public:
  // folder: holds model.gguf and mmproj.gguf
  explicit Vlm(const std::string& folder, const ContextLimits& limits = {},
               const Observer& observer = {});

  llama_context* context() const { return context_.get(); }
  mtmd_context* vision() const { return vision_.get(); }
  const llama_model* model() const { return model_.get(); }
  const llama_vocab* vocab() const { return llama_model_get_vocab(model_.get()); }
  const mipruner::llama::TokenTable& table() const { return table_; }
  mipruner::llama::TokenTable& table() { return table_; }
  mipruner_context* pruner() const { return pruner_.get(); }

  // Forgets every token.
  void clear() const;

  // "<__media__>" in the prompt stands for the next image.
  Prompt tokenize(const std::string& prompt, const std::vector<Image>& images,
                  bool add_special = true) const;
  std::vector<llama_token> tokens(const std::string& text) const;

  // Of the last token that was decoded with logits.
  std::vector<float> logits() const;
  // Every row of the KV cache with its positions, as llama.cpp saves it.
  std::vector<uint8_t> state() const;
  void restore(const std::vector<uint8_t>& state) const;

  // Decodes one token at a position, with logits.
  void decode(llama_token token, llama_pos position) const;

 private:
  struct FreePruner {
    void operator()(mipruner_context* pruner) const { mipruner_free(pruner); }
  };
  llama_model_ptr model_;
  llama_context_ptr context_;
  mtmd::context_ptr vision_;
  std::unique_ptr<mipruner_context, FreePruner> pruner_;
  mipruner::llama::TokenTable table_;
};

// What a prompt leaves behind.
struct Outcome {
  llama_pos n_past = 0;
  std::vector<float> logits;
  std::vector<uint8_t> state;
};

// Greedy decoding from an evaluated prompt on.
struct Continuation {
  std::vector<llama_token> tokens;
  std::vector<std::vector<float>> logits;  // after each token
};
Continuation generate(const Vlm& vlm, llama_pos n_past, size_t count);

// The outcome of chunks that were just evaluated up to n_past. An image at the end leaves no
// logits: then they are those of one more token.
Outcome outcome(const Vlm& vlm, const Prompt& chunks, llama_pos n_past);

bool is_image(const mtmd_input_chunk* chunk);

// mtmd_helper_eval_chunks() on an empty context: what the door is measured against.
Outcome evaluate_unpruned(const Vlm& vlm, const Prompt& chunks, int32_t n_batch);

// The door's eval_chunks() on an empty context. Throws where it fails.
Outcome evaluate_pruned(Vlm& vlm, const Prompt& chunks, const mipruner::llama::EvalOptions& options,
                        std::vector<mipruner::llama::ImageReport>* reports = nullptr);

}  // namespace llama_checks
