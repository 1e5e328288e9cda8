// Everything that is loaded once: the model, its image encoder, and what choosing rows needs.
#pragma once

#include <llama.h>
#include <mtmd.h>

#include <memory>
#include <mipruner/mipruner.hpp>
#include <string>
#include <vector>

#include "log.h"
#include "mipruner_llama.hpp"
#include "options.h"

namespace mipruner::cli {

struct Deleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
  void operator()(mtmd_context* vision) const { mtmd_free(vision); }
};

template <typename T>
using Owned = std::unique_ptr<T, Deleter>;

// Members are freed in reverse order: contexts before the model that they refer to.
struct Session {
  Owned<llama_model> model;
  Owned<llama_context> context;
  Owned<mtmd_context> vision;
  Context pruner;
  llama::TokenTable tokens;
  llama::RowLayout layout;

  const llama_vocab* vocab() const { return llama_model_get_vocab(model.get()); }
  int32_t n_batch() const { return static_cast<int32_t>(llama_n_batch(context.get())); }
  int32_t n_ctx() const { return static_cast<int32_t>(llama_n_ctx(context.get())); }
};

// The files of a model that was split, "name-00001-of-00003.gguf" and so on; else the one file.
std::vector<std::string> files_of_model(const std::string& path);

// Throws Failure with the reason that llama.cpp logged.
std::unique_ptr<Session> load_session(const Options& options, Log* log);

}  // namespace mipruner::cli
