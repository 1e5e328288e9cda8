#include "generate.h"

#include <algorithm>

#include "clock.h"
#include "failure.h"

namespace mipruner::cli {

Sampler make_sampler(const Options& options) {
  llama_sampler* chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
  if (options.temperature > 0) {
    if (options.top_k > 0) llama_sampler_chain_add(chain, llama_sampler_init_top_k(options.top_k));
    if (options.top_p < 1)
      llama_sampler_chain_add(chain, llama_sampler_init_top_p(options.top_p, 1));
    llama_sampler_chain_add(chain, llama_sampler_init_temp(options.temperature));
    const uint32_t seed = options.seed.value_or(LLAMA_DEFAULT_SEED);
    llama_sampler_chain_add(chain, llama_sampler_init_dist(seed));
  } else {
    llama_sampler_chain_add(chain, llama_sampler_init_greedy());
  }
  return Sampler(chain);
}

std::string piece_of(const llama_vocab* vocab, llama_token token) {
  const auto write = [&](std::string* text) {
    return llama_token_to_piece(vocab, token, text->data(), static_cast<int32_t>(text->size()), 0,
                                false);
  };
  std::string text(64, '\0');
  int32_t length = write(&text);
  if (length < 0) {
    text.resize(static_cast<size_t>(-length));
    length = write(&text);
  }
  text.resize(static_cast<size_t>(std::max(length, 0)));
  return text;
}

void decode_token(Session* session, llama_token token, Progress* progress) {
  llama_pos position = progress->n_past;
  int32_t n_sequences = 1;
  llama_seq_id sequence = 0;
  llama_seq_id* sequences = &sequence;
  int8_t wants_logits = 1;
  const llama_batch batch = {1,          &token,       nullptr, &position, &n_sequences,
                             &sequences, &wants_logits};
  const int32_t code = llama_decode(session->context.get(), batch);
  if (code != 0) throw Failure(join("decoding the answer failed with code ", code));
  ++progress->n_past;
  ++progress->n_cells;
}

Answer generate(Session* session, llama_sampler* sampler, int32_t n_predict, Progress* progress,
                const std::function<void(const std::string&)>& write,
                const std::function<bool()>& interrupted) {
  Answer answer;
  const Clock clock;
  const auto stopped = [&](Stop stop) {
    answer.stop = stop;
    answer.ms = clock.ms();
    return answer;
  };
  for (;;) {
    if (interrupted()) return stopped(Stop::kInterrupt);
    if (answer.n_tokens == n_predict) return stopped(Stop::kLength);
    const llama_token token = llama_sampler_sample(sampler, session->context.get(), -1);
    if (llama_vocab_is_eog(session->vocab(), token)) return stopped(Stop::kEnd);
    write(piece_of(session->vocab(), token));
    ++answer.n_tokens;
    if (progress->n_cells >= session->n_ctx()) return stopped(Stop::kContext);
    decode_token(session, token, progress);
  }
}

}  // namespace mipruner::cli
