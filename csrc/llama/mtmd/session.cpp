#include "session.h"

#include <ggml-backend.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>
#include <vector>

#include "failure.h"

namespace mipruner::cli {
namespace {

int32_t generation_threads(const Options& options) {
  if (options.n_threads > 0) return options.n_threads;
  return static_cast<int32_t>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
}

int32_t batch_threads(const Options& options) {
  return options.n_threads_batch > 0 ? options.n_threads_batch : generation_threads(options);
}

// llama.cpp reports a file that is not there in several lines of its own source.
void check_file(const char* option, const std::string& path) {
  std::error_code trouble;
  const std::filesystem::file_status status = std::filesystem::status(path, trouble);
  if (!std::filesystem::exists(status)) throw Failure(join(option, ": there is no file ", path));
  if (std::filesystem::is_directory(status))
    throw Failure(join(option, ": ", path, " is a folder"));
  // A model is read in several parts, and some of them more than once.
  if (!std::filesystem::is_regular_file(status))
    throw Failure(join(option, ": ", path, " is a pipe or a device, allowed is a plain file"));
}

Owned<llama_model> load_model(const Options& options, Log* log) {
  check_file("--model", options.model);
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = options.n_gpu_layers;
  log->start();
  Owned<llama_model> model(llama_model_load_from_file(options.model.c_str(), params));
  if (!model) throw Failure(join("--model: cannot load ", options.model, log->reason()));
  return model;
}

Owned<llama_context> make_context(llama_model* model, const Options& options, Log* log) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = options.n_ctx;
  params.n_batch = options.n_batch;
  params.n_ubatch = options.n_ubatch;
  params.n_threads = generation_threads(options);
  params.n_threads_batch = batch_threads(options);
  log->start();
  Owned<llama_context> context(llama_init_from_model(model, params));
  if (!context) {
    throw Failure(
        join("cannot make a context of ", options.n_ctx, " tokens (--ctx-size)", log->reason()));
  }
  return context;
}

Owned<mtmd_context> load_vision(const llama_model* model, const Options& options, Log* log) {
  check_file("--mmproj", options.mmproj);
  mtmd_context_params params = mtmd_context_params_default();
  params.use_gpu = options.mmproj_on_gpu;
  params.print_timings = false;
  params.n_threads = batch_threads(options);
  params.warmup = options.warmup;
  log->start();
  Owned<mtmd_context> vision(mtmd_init_from_file(options.mmproj.c_str(), model, params));
  if (!vision) {
    throw Failure(
        join("--mmproj: cannot use ", options.mmproj, " with ", options.model, log->reason()));
  }
  if (!mtmd_support_vision(vision.get())) {
    throw Failure(join("--mmproj: ", options.mmproj, " has no image encoder"));
  }
  return vision;
}

Context make_pruner(const Options& options) {
  mipruner_context_params params = mipruner_context_default_params();
  params.n_threads = batch_threads(options);
  return Context(params);
}

void check(const char* option, const llama::Status& status) {
  if (!status.ok()) throw Failure(join(option, ": ", status.message));
}

// The embeddings of the words are in one of a split model's files.
void open_tokens(const std::string& path, llama::TokenTable* tokens) {
  llama::Status status;
  for (const std::string& file : files_of_model(path)) {
    status = tokens->open(file);
    if (status.ok()) return;
  }
  check("--model", status);
}

}  // namespace

std::vector<std::string> files_of_model(const std::string& path) {
  constexpr size_t kSuffix = sizeof("-00001-of-00003.gguf") - 1;
  const size_t prefix = path.size() > kSuffix ? path.size() - kSuffix : 0;
  int index = 0, count = 0, length = 0;
  std::sscanf(path.c_str() + prefix, "-%5d-of-%5d.gguf%n", &index, &count, &length);
  if (length != static_cast<int>(kSuffix)) return {path};
  std::vector<std::string> files;
  for (int i = 0; i < count; ++i) {
    std::vector<char> name(path.size() + 1);
    llama_split_path(name.data(), name.size(), path.substr(0, prefix).c_str(), i, count);
    files.emplace_back(name.data());
  }
  return files;
}

std::unique_ptr<Session> load_session(const Options& options, Log* log) {
  ggml_backend_load_all();
  llama_backend_init();
  auto session = std::make_unique<Session>();
  session->model = load_model(options, log);
  session->context = make_context(session->model.get(), options, log);
  session->vision = load_vision(session->model.get(), options, log);
  session->pruner = make_pruner(options);
  open_tokens(options.model, &session->tokens);
  check("--mmproj", session->layout.open(options.mmproj));
  return session;
}

}  // namespace mipruner::cli
