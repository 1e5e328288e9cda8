#include <limits>

#include "failure.h"
#include "options.h"

namespace mipruner::cli {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxTokens = int64_t{1} << 24;
constexpr double kMaxFloat = std::numeric_limits<float>::max();

int32_t to_int32(const Given& given, int64_t lowest, int64_t highest) {
  return static_cast<int32_t>(parse_integer(given, lowest, highest));
}

uint32_t to_token_count(const Given& given) {
  return static_cast<uint32_t>(parse_integer(given, 1, kMaxTokens));
}

void set_query(const Given& given, Options* options) {
  if (given.text == "message") {
    options->query = Query::kMessage;
  } else if (given.text == "all") {
    options->query = Query::kAll;
  } else {
    throw UsageError(join(given.name, ": got \"", given.text, "\", allowed is message or all"));
  }
}

void set_seed(const Given& given, Options* options) {
  options->seed = static_cast<uint32_t>(parse_integer(given, 0, 0xFFFFFFFE));
}

void set_bench(const Given& given, Options* options) {
  options->bench_repetitions = given.text.empty() ? 5 : to_int32(given, 1, 1000);
}

OptionSpec heading(const char* text) { return {nullptr, nullptr, nullptr, text, nullptr}; }

}  // namespace

const std::vector<OptionSpec>& option_table() {
  static const std::vector<OptionSpec> table = {
      heading("The model and the question"),
      {"model", "m", "FILE", "the language model, GGUF",
       [](const Given& given, Options* options) { options->model = parse_path(given); }},
      {"mmproj", nullptr, "FILE", "its image encoder and projector, GGUF",
       [](const Given& given, Options* options) { options->mmproj = parse_path(given); }},
      {"image", nullptr, "FILE", "an image (JPEG, PNG, BMP, ...); may be repeated",
       [](const Given& given, Options* options) { options->images.push_back(parse_path(given)); }},
      {"prompt", "p", "TEXT",
       "the question; answers once. Without it: a chat.\n"
       "Images go before the text, or where it says <__media__>",
       [](const Given& given, Options* options) { options->prompt = parse_text(given); }},
      {"system-prompt", "sys", "TEXT", "what the model is told first",
       [](const Given& given, Options* options) { options->system_prompt = parse_text(given); }},
      {"chat-template", nullptr, "NAME",
       "a template that llama.cpp has built in, or none: the text as it is.\n"
       "Default: the model's own",
       [](const Given& given, Options* options) { options->chat_template = given.text; }},

      heading("What is kept of an image"),
      {"keep", nullptr, "R",
       "a ratio in (0, 1], such as 0.25, or a count of 2 or more, such as 144,\n"
       "for each image, or each tile where the model cuts images into tiles.\n"
       "1 is everything. Default 0.25. May be repeated with --bench",
       [](const Given& given, Options* options) { options->keeps.push_back(parse_keep(given)); }},
      {"no-prune", nullptr, nullptr, "leave the images to llama.cpp's own functions",
       [](const Given&, Options* options) { options->prune = false; }},
      {"query", nullptr, "WHAT",
       "what rows are scored against: message, the user's words (default), or\n"
       "all, every text of the prompt",
       set_query},
      {"estimator", nullptr, "NAME", "specific (default), posterior, joint or cosine",
       [](const Given& given, Options* options) {
         options->select.estimator = parse_estimator(given);
       }},
      {"redundancy", nullptr, "X",
       "what a row shares with rows already chosen counts against it, X times;\n"
       "0, with --coverage 0: the most relevant rows. Default 1",
       [](const Given& given, Options* options) {
         options->select.redundancy = static_cast<float>(parse_number(given, 0, kMaxFloat));
       }},
      {"coverage", nullptr, "X",
       "0 to 1: the share of the kept rows that is spread evenly over the\n"
       "image, whatever they hold. Default 0.25",
       [](const Given& given, Options* options) {
         options->select.coverage = parse_number(given, 0, 1);
       }},
      {"mi-temperature", nullptr, "X", "divides the cosines of the mutual information; default 0.1",
       [](const Given& given, Options* options) {
         options->select.temperature = static_cast<float>(parse_positive_number(given));
       }},
      {"min-tokens", nullptr, "N", "images of at most N tokens are kept whole; default 0",
       [](const Given& given, Options* options) {
         options->select.min_tokens = to_int32(given, 0, kMaxInt32);
       }},

      heading("The machine"),
      {"threads", "t", "N", "default: as many as the machine has",
       [](const Given& given, Options* options) { options->n_threads = to_int32(given, 1, 1024); }},
      {"threads-batch", "tb", "N", "of encoder, selection and prefill; default: as -t",
       [](const Given& given, Options* options) {
         options->n_threads_batch = to_int32(given, 1, 1024);
       }},
      {"gpu-layers", "ngl", "N", "layers on the GPU, where llama.cpp has one; -1 (default): all",
       [](const Given& given, Options* options) {
         options->n_gpu_layers = to_int32(given, -1, kMaxInt32);
       }},
      {"no-mmproj-offload", nullptr, nullptr, "the image encoder stays on the CPU",
       [](const Given&, Options* options) { options->mmproj_on_gpu = false; }},
      {"ctx-size", "c", "N", "tokens that the model can see at once; default 4096",
       [](const Given& given, Options* options) { options->n_ctx = to_token_count(given); }},
      {"batch-size", "b", "N", "tokens in one call of llama_decode; default 2048",
       [](const Given& given, Options* options) { options->n_batch = to_token_count(given); }},
      {"ubatch-size", "ub", "N",
       "tokens in one step of the computation; default 512. Gemma 3 and others\n"
       "need an image's tokens in one step",
       [](const Given& given, Options* options) { options->n_ubatch = to_token_count(given); }},
      {"no-warmup", nullptr, nullptr,
       "leave out the trial run of the image encoder, and that of --bench",
       [](const Given&, Options* options) { options->warmup = false; }},

      heading("The answer"),
      {"n-predict", "n", "N", "tokens of an answer at most; default 512",
       [](const Given& given, Options* options) {
         options->n_predict = to_int32(given, 1, kMaxTokens);
       }},
      {"temp", nullptr, "X", "0 (default): always the most likely token; above: sampled",
       [](const Given& given, Options* options) {
         options->temperature = static_cast<float>(parse_number(given, 0, kMaxFloat));
       }},
      {"top-k", nullptr, "N", "sample among the N most likely; 0: all; default 40",
       [](const Given& given, Options* options) {
         options->top_k = to_int32(given, 0, kMaxInt32);
       }},
      {"top-p", nullptr, "X", "sample among those that hold X of the probability; default 0.95",
       [](const Given& given, Options* options) {
         options->top_p = static_cast<float>(parse_number(given, 0, 1));
       }},
      {"seed", nullptr, "N", "of the sampling; default: a different one each time", set_seed},

      heading("Looking at it"),
      {"bench", nullptr, "[N]",
       "time the prompt N times (default 5) without pruning and with each\n"
       "--keep, and print the medians",
       set_bench},
      {"dump-keep", nullptr, "FILE",
       "write what was kept and the scores as JSON; in a chat, of the last\n"
       "message that had images",
       [](const Given& given, Options* options) { options->dump_path = parse_path(given); }},
      {"verbose", "v", nullptr, "show the prompt with its template, and llama.cpp's own messages",
       [](const Given&, Options* options) { options->verbose = true; }},
      {"version", nullptr, nullptr, "print the version",
       [](const Given&, Options* options) { options->version = true; }},
      {"help", "h", nullptr, "print this",
       [](const Given&, Options* options) { options->help = true; }},
  };
  return table;
}

}  // namespace mipruner::cli
