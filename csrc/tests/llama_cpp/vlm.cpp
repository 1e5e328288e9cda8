#include "vlm.h"

#include <algorithm>
#include <stdexcept>

namespace llama_checks {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

llama_context_ptr make_context(llama_model* model, const ContextLimits& limits,
                               const Observer& observer) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = limits.n_ctx;
  params.n_batch = limits.n_batch;
  params.n_ubatch = limits.n_ubatch;
  params.n_threads = params.n_threads_batch = 1;
  params.cb_eval = observer.callback;
  params.cb_eval_user_data = observer.user_data;
  return llama_context_ptr(llama_init_from_model(model, params));
}

mtmd::context_ptr load_vision(const std::string& path, const llama_model* model) {
  mtmd_context_params params = mtmd_context_params_default();
  params.use_gpu = false;
  params.print_timings = false;
  params.n_threads = 1;
  params.warmup = false;
  return mtmd::context_ptr(mtmd_init_from_file(path.c_str(), model, params));
}

}  // namespace

Vlm::Vlm(const std::string& folder, const ContextLimits& limits, const Observer& observer) {
  const std::string model_path = folder + "/model.gguf", vision_path = folder + "/mmproj.gguf";
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  model_.reset(llama_model_load_from_file(model_path.c_str(), params));
  require(model_ != nullptr, "cannot load " + model_path);
  context_ = make_context(model_.get(), limits, observer);
  require(context_ != nullptr, "cannot make a context of " + model_path);
  vision_ = load_vision(vision_path, model_.get());
  require(vision_ != nullptr, "cannot load " + vision_path);
  mipruner_context* pruner = nullptr;
  require(mipruner_init(nullptr, &pruner) == MIPRUNER_OK, mipruner_last_error(nullptr));
  pruner_.reset(pruner);
  const mipruner::llama::Status status = table_.open(model_path);
  require(status.ok(), status.message);
}

void Vlm::clear() const { llama_memory_clear(llama_get_memory(context()), true); }

Prompt Vlm::tokenize(const std::string& prompt, const std::vector<Image>& images,
                     bool add_special) const {
  mtmd::bitmaps bitmaps;
  for (const Image& image : images) {
    bitmaps.entries.emplace_back(image.width, image.height, image.pixels.data());
  }
  const mtmd_input_text text = {prompt.c_str(), prompt.size(), add_special, true};
  Prompt chunks;
  std::vector<const mtmd_bitmap*> pointers = bitmaps.c_ptr();
  require(mtmd_tokenize(vision(), chunks.get(), &text, pointers.data(), pointers.size()) == 0,
          "cannot tokenize: " + prompt);
  return chunks;
}

std::vector<llama_token> Vlm::tokens(const std::string& text) const {
  std::vector<llama_token> tokens(text.size() + 8);
  const int32_t count =
      llama_tokenize(vocab(), text.c_str(), static_cast<int32_t>(text.size()), tokens.data(),
                     static_cast<int32_t>(tokens.size()), false, false);
  require(count >= 0, "cannot tokenize: " + text);
  tokens.resize(static_cast<size_t>(count));
  return tokens;
}

std::vector<float> Vlm::logits() const {
  const float* last = llama_get_logits_ith(context(), -1);
  require(last != nullptr, "the last token has no logits");
  return {last, last + llama_vocab_n_tokens(vocab())};
}

std::vector<uint8_t> Vlm::state() const {
  std::vector<uint8_t> state(llama_state_seq_get_size(context(), 0));
  const size_t written = llama_state_seq_get_data(context(), state.data(), state.size(), 0);
  require(written == state.size(), "the state was not saved whole");
  return state;
}

void Vlm::restore(const std::vector<uint8_t>& state) const {
  const size_t read = llama_state_seq_set_data(context(), state.data(), state.size(), 0);
  require(read == state.size(), "the state was not restored whole");
}

void Vlm::decode(llama_token token, llama_pos position) const {
  int32_t one = 1;
  int8_t wanted = 1;
  llama_seq_id sequence = 0;
  llama_seq_id* sequences[] = {&sequence};
  const llama_batch batch = {1, &token, nullptr, &position, &one, sequences, &wanted};
  const int32_t code = llama_decode(context(), batch);
  require(code == 0, "llama_decode returned " + std::to_string(code));
}

Continuation generate(const Vlm& vlm, llama_pos n_past, size_t count) {
  Continuation continuation;
  std::vector<float> logits = vlm.logits();
  for (size_t i = 0; i < count; ++i) {
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    continuation.tokens.push_back(static_cast<llama_token>(best));
    vlm.decode(continuation.tokens.back(), n_past + static_cast<llama_pos>(i));
    logits = vlm.logits();
    continuation.logits.push_back(logits);
  }
  return continuation;
}

bool is_image(const mtmd_input_chunk* chunk) {
  return mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_IMAGE;
}

Outcome outcome(const Vlm& vlm, const Prompt& chunks, llama_pos n_past) {
  constexpr llama_token kAnyToken = 300;
  if (is_image(chunks[chunks.size() - 1])) vlm.decode(kAnyToken, n_past);
  return {n_past, vlm.logits(), vlm.state()};
}

Outcome evaluate_unpruned(const Vlm& vlm, const Prompt& chunks, int32_t n_batch) {
  vlm.clear();
  llama_pos n_past = 0;
  const int32_t code = mtmd_helper_eval_chunks(vlm.vision(), vlm.context(), chunks.get(), 0, 0,
                                               n_batch, true, &n_past);
  require(code == 0, "mtmd_helper_eval_chunks returned " + std::to_string(code));
  return outcome(vlm, chunks, n_past);
}

Outcome evaluate_pruned(Vlm& vlm, const Prompt& chunks, const mipruner::llama::EvalOptions& options,
                        std::vector<mipruner::llama::ImageReport>* reports) {
  vlm.clear();
  llama_pos n_past = 0;
  const mipruner::llama::Status status =
      mipruner::llama::eval_chunks(vlm.pruner(), vlm.table(), options, vlm.vision(), vlm.context(),
                                   chunks.get(), 0, 0, &n_past, reports);
  require(status.ok(), status.message);
  return outcome(vlm, chunks, n_past);
}

}  // namespace llama_checks
