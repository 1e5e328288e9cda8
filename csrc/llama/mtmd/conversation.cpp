#include "conversation.h"

#include <cstdio>

#include "dump.h"
#include "failure.h"
#include "standard_output.h"

namespace mipruner::cli {
namespace {

// One line a file: tiles are added up.
void report_images(const Prompt& prompt, const std::vector<Image>& images,
                   const Evaluation& evaluation) {
  for (size_t i = 0; i < images.size(); ++i) {
    int32_t n_rows = 0;
    int32_t n_keep = 0;
    int32_t n_tiles = 0;
    std::string reason;
    for (const llama::ImageReport& report : evaluation.images) {
      if (image_of_chunk(prompt.chunk(report.chunk)) != static_cast<int32_t>(i)) continue;
      n_rows += report.n_rows;
      n_keep += report.n_keep;
      ++n_tiles;
      if (!report.reason.empty()) reason = ": " + report.reason;
    }
    if (n_tiles == 0) continue;
    const std::string tiles = n_tiles > 1 ? join(" in ", n_tiles, " tiles") : "";
    std::fprintf(stderr, "%s: %d of %d tokens kept%s%s\n", images[i].file.c_str(), n_keep, n_rows,
                 tiles.c_str(), reason.c_str());
  }
}

const char* explain(Stop stop) {
  switch (stop) {
    case Stop::kEnd: return "";
    case Stop::kLength: return ", cut off (--n-predict)";
    case Stop::kContext: return ", cut off: the context is full (--ctx-size, or /clear in a chat)";
    case Stop::kInterrupt: return ", stopped";
  }
  return "";
}

void report_prompt(const Evaluation& evaluation) {
  std::fprintf(stderr, "prompt: %d tokens", evaluation.n_tokens);
  if (evaluation.n_image_tokens_full > 0) {
    std::fprintf(stderr, " of %d, encoding %.1f ms, selection %.2f ms", evaluation.n_tokens_full,
                 evaluation.encode_ms, evaluation.select_ms);
  }
  std::fprintf(stderr, ", prefill %.1f ms\n", evaluation.prefill_ms);
}

void report_answer(const Answer& answer) {
  std::fprintf(stderr, "answer: %d tokens, %.1f ms each%s\n", answer.n_tokens,
               answer.n_tokens > 0 ? answer.ms / answer.n_tokens : 0.0, explain(answer.stop));
}

}  // namespace

Conversation::Conversation(Session* session, const Options& options, Log* log)
    : session_(session),
      options_(options),
      log_(log),
      format_(session->model.get(), options),
      sampler_(make_sampler(options)),
      select_(with_keep(options.select, options.keeps.empty() ? Keep() : options.keeps.front())) {
  if (!format_.note().empty()) std::fprintf(stderr, "%s\n", format_.note().c_str());
}

void Conversation::set_keep(const Keep& keep) { select_ = with_keep(select_, keep); }

void Conversation::clear() {
  llama_memory_clear(llama_get_memory(session_->context.get()), true);
  llama_sampler_reset(sampler_.get());
  progress_ = {};
}

void Conversation::say(const std::string& message, const std::vector<Image>& images,
                       InterruptScope* interrupts) {
  const std::string text =
      format_.render(place_images(message, images.size()), progress_.is_first());
  if (options_.verbose) std::fprintf(stderr, "prompt text: %s\n", text.c_str());
  const Prompt prompt =
      tokenize(*session_, text, message, options_.query, images, progress_.is_first(), log_);
  if (!images.empty() && options_.query == Query::kMessage && prompt.query.empty()) {
    std::fputs("the message has no words: images are scored against the whole prompt\n", stderr);
  }
  const Evaluation evaluation = evaluate(prompt);
  if (!options_.dump_path.empty() && !images.empty()) {
    write_atomically(options_.dump_path, dump_json(*session_, prompt, message, images, evaluation));
  }
  report_images(prompt, images, evaluation);
  report_prompt(evaluation);
  report_answer(answer(interrupts));
}

Evaluation Conversation::evaluate(const Prompt& prompt) {
  return options_.prune ? evaluate_pruned(session_, prompt, select_, &progress_, log_)
                        : evaluate_whole(session_, prompt, &progress_, log_);
}

Answer Conversation::answer(InterruptScope* interrupts) {
  const auto interrupted = [interrupts] { return interrupts && interrupts->requested(); };
  const Answer answer =
      generate(session_, sampler_.get(), options_.n_predict, &progress_, write_output, interrupted);
  write_output("\n");
  return answer;
}

}  // namespace mipruner::cli
