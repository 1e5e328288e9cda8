#include "bench.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "bench_table.h"
#include "clock.h"
#include "failure.h"
#include "generate.h"
#include "prompt.h"
#include "standard_output.h"

namespace mipruner::cli {
namespace {

constexpr int32_t kDecodedTokens = 16;

struct Variant {
  std::string name;
  std::optional<Keep> keep;  // none: llama.cpp's own functions
  std::vector<BenchRun> runs;
  std::vector<float> logits;  // of the prompt's last token
};

std::vector<Variant> make_variants(const Options& options) {
  std::vector<Variant> variants(1);
  variants[0].name = "unpruned";
  const std::vector<Keep> keeps = options.keeps.empty() ? std::vector<Keep>{Keep()} : options.keeps;
  for (const Keep& keep : keeps) {
    variants.emplace_back();
    variants.back().name = "keep " + keep.text;
    variants.back().keep = keep;
  }
  return variants;
}

class Bench {
 public:
  Bench(Session* session, const Options& options, const Prompt& prompt, Log* log)
      : session_(session), options_(options), prompt_(prompt), log_(log) {}

  BenchRun run(Variant* variant) {
    llama_context* context = session_->context.get();
    llama_memory_clear(llama_get_memory(context), true);
    Progress progress;
    BenchRun result;
    result.prompt = evaluate(*variant, &progress);
    // The size of what would be saved of this sequence: its cells' keys and values, and a few bytes
    // a cell of bookkeeping.
    result.kv_bytes = llama_state_seq_get_size(context, 0);
    const float* logits = llama_get_logits_ith(context, -1);
    const auto n_vocab = static_cast<size_t>(llama_vocab_n_tokens(session_->vocab()));
    variant->logits.assign(logits, logits + n_vocab);
    result.decode_ms = decode(&progress);
    return result;
  }

 private:
  Evaluation evaluate(const Variant& variant, Progress* progress) {
    if (!variant.keep) return evaluate_whole(session_, prompt_, progress, log_);
    return evaluate_pruned(session_, prompt_, with_keep(options_.select, *variant.keep), progress,
                           log_);
  }

  // Milliseconds a token.
  double decode(Progress* progress) {
    const int32_t room = session_->n_ctx() - progress->n_cells;
    const int32_t n = std::min({kDecodedTokens, options_.n_predict, room});
    const Sampler sampler = make_sampler(Options());
    std::vector<double> times;
    for (int32_t i = 0; i < n; ++i) {
      const llama_token token = llama_sampler_sample(sampler.get(), session_->context.get(), -1);
      const Clock clock;
      decode_token(session_, token, progress);
      llama_synchronize(session_->context.get());
      times.push_back(clock.ms());
    }
    return median(times);
  }

  Session* session_;
  const Options& options_;
  const Prompt& prompt_;
  Log* log_;
};

// Every variant in turn, and every other time in reverse, so that a machine that slows down or
// speeds up meets them all.
void run_all(Bench* bench, int32_t repetitions, std::vector<Variant>* variants) {
  for (int32_t repetition = 0; repetition < repetitions; ++repetition) {
    for (Variant& variant : *variants) variant.runs.push_back(bench->run(&variant));
    std::reverse(variants->begin(), variants->end());
  }
  if (repetitions % 2 == 1) std::reverse(variants->begin(), variants->end());
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string set_up_text(const Session& session, const Options& options) {
  char model[256] = "";
  llama_model_desc(session.model.get(), model, sizeof model);
  const auto millions =
      std::llround(static_cast<double>(llama_model_n_params(session.model.get())) / 1e6);
  return join("mipruner ", mipruner_version(), ", ", model, ", ", millions, " M parameters, ",
              llama_n_threads(session.context.get()), " threads (",
              llama_n_threads_batch(session.context.get()), " for the prompt), batch ",
              session.n_batch(), "/", llama_n_ubatch(session.context.get()), "\nmedians of ",
              options.bench_repetitions, " runs",
              options.warmup ? " after one that does not count" : "", "\n\n");
}

std::string remarks_text(const std::vector<Variant>& variants) {
  std::string text =
      "\nprefill: text and image rows through the language model, without encoding and selection; "
      "its image ms: the image rows alone\n"
      "decode: one token of the answer\n"
      "KV bytes: llama_state_seq_get_size() behind the prompt\n"
      "prompt speed-up: of encoding, selection and prefill together\n"
      "select / saved: selection as a part of the prefill time that it saves\n";
  for (const Variant& variant : variants) {
    const Evaluation& prompt = variant.runs.front().prompt;
    if (!variant.keep || prompt.n_tokens < prompt.n_tokens_full) continue;
    const bool same = same_bits(variant.logits, variants.front().logits);
    text += join(variant.name, ": the logits are ", same ? "bit for bit" : "NOT",
                 " those of llama.cpp's own functions\n");
  }
  return text;
}

}  // namespace

void bench(Session* session, const Options& options, const std::vector<Image>& images, Log* log) {
  const ChatFormat format(session->model.get(), options);
  const std::string text = format.render(place_images(*options.prompt, images.size()), true);
  const Prompt prompt = tokenize(*session, text, *options.prompt, options.query, images, true, log);
  std::vector<Variant> variants = make_variants(options);
  Bench bench(session, options, prompt, log);
  if (options.warmup) {
    for (Variant& variant : variants) bench.run(&variant);
  }
  run_all(&bench, options.bench_repetitions, &variants);

  BenchTable table;
  for (const Variant& variant : variants) table.add(variant.name, variant.runs);
  write_output(set_up_text(*session, options) + table.text() + remarks_text(variants));
}

}  // namespace mipruner::cli
