// The token embeddings that a model's graph starts from, seen from within it.
#pragma once

#include <string>
#include <vector>

#include "vlm.h"

namespace llama_checks {

// Decodes the tokens and returns what the first layer got, [count, n_embd]: the rows of the table,
// scaled where the graph scales them.
std::vector<float> graph_embeddings(const std::string& model,
                                    const std::vector<llama_token>& tokens);

// The tokens of a prompt's text, without control tokens.
std::vector<llama_token> text_tokens(const Vlm& vlm, const Prompt& chunks);

}  // namespace llama_checks
