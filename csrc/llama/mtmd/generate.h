// The answer, token by token.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "evaluate.h"

namespace mipruner::cli {

struct SamplerDeleter {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using Sampler = std::unique_ptr<llama_sampler, SamplerDeleter>;

Sampler make_sampler(const Options& options);

enum class Stop { kEnd, kLength, kContext, kInterrupt };

struct Answer {
  int32_t n_tokens = 0;
  double ms = 0;
  Stop stop = Stop::kEnd;
};

// Continues what was evaluated, handing each piece of text to `write`, until the model ends,
// n_predict or the context is reached, or `interrupted` says so. Throws Failure.
Answer generate(Session* session, llama_sampler* sampler, int32_t n_predict, Progress* progress,
                const std::function<void(const std::string&)>& write,
                const std::function<bool()>& interrupted);

std::string piece_of(const llama_vocab* vocab, llama_token token);

// One token behind all that was decoded; its logits are then the last.
void decode_token(Session* session, llama_token token, Progress* progress);

}  // namespace mipruner::cli
