#include "evaluate.h"

#include <mtmd-helper.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <functional>

#include "clock.h"
#include "failure.h"
#include "prompt.h"

namespace mipruner::cli {
namespace {

constexpr llama_seq_id kSequence = 0;

std::vector<llama_token> query_tokens(const llama_vocab* vocab, const std::string& text) {
  const auto tokenize = [&](std::vector<llama_token>* tokens) {
    return llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens->data(),
                          static_cast<int32_t>(tokens->size()), false, false);
  };
  std::vector<llama_token> tokens;
  const int32_t needed = -tokenize(&tokens);
  tokens.resize(static_cast<size_t>(std::max(needed, 0)));
  if (tokenize(&tokens) < 0) throw Failure("the message is too long to be tokenized");
  return tokens;
}

bool is_image(const mtmd_input_chunk* chunk) {
  return mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_IMAGE;
}

int32_t n_tokens(const mtmd_input_chunk* chunk) {
  return static_cast<int32_t>(mtmd_input_chunk_get_n_tokens(chunk));
}

// How many tokens there are, and how many are decoded if an image of n rows keeps n_kept(n).
Evaluation count_tokens(const Prompt& prompt, const std::function<int32_t(int32_t)>& n_kept) {
  Evaluation count;
  for (size_t i = 0; i < prompt.size(); ++i) {
    const mtmd_input_chunk* chunk = prompt.chunk(i);
    const int32_t n = n_tokens(chunk);
    const int32_t kept = is_image(chunk) ? n_kept(n) : n;
    count.n_tokens_full += n;
    count.n_tokens += kept;
    if (!is_image(chunk)) continue;
    count.n_image_tokens_full += n;
    count.n_image_tokens += kept;
  }
  return count;
}

void check_room(const Session& session, const Progress& progress, int32_t n_new) {
  // One more cell for the first token of the answer.
  const int64_t needed = int64_t{progress.n_cells} + n_new + 1;
  if (needed <= session.n_ctx()) return;
  throw Failure(join("the prompt comes to ", n_new, " tokens",
                     progress.is_first() ? "" : join(" behind ", progress.n_cells, " of the chat"),
                     ", and --ctx-size is ", session.n_ctx(), ": ", needed, " are needed"));
}

// Takes back what a failed evaluation left in the model's memory.
void roll_back(Session* session, Progress* progress) {
  const llama_memory_t memory = llama_get_memory(session->context.get());
  if (llama_memory_seq_rm(memory, kSequence, progress->n_past, -1)) return;
  // Some memories, those of recurrent models for one, cannot forget a part.
  std::fputs("the model had to forget the whole chat\n", stderr);
  llama_memory_clear(memory, true);
  *progress = {};
}

// Runs `decode`, which advances a copy of `progress`, and times it all.
Evaluation measure(Session* session, Progress* progress, Evaluation evaluation,
                   const std::function<void(llama_pos*, Evaluation*)>& decode) {
  check_room(*session, *progress, evaluation.n_tokens);
  Progress after = *progress;
  const Clock clock;
  try {
    decode(&after.n_past, &evaluation);
  } catch (...) {
    roll_back(session, progress);
    throw;
  }
  llama_synchronize(session->context.get());
  evaluation.prefill_ms = clock.ms() - evaluation.encode_ms - evaluation.select_ms;
  after.n_cells += evaluation.n_tokens;
  *progress = after;
  return evaluation;
}

// llama.cpp would end the process where an image without causal attention does not fit in one step.
void check_one_step(const Session& session, const mtmd_input_chunk* chunk) {
  if (!mtmd_decode_use_non_causal(session.vision.get(), chunk)) return;
  const int32_t fits =
      std::min(session.n_batch(), static_cast<int32_t>(llama_n_ubatch(session.context.get())));
  if (n_tokens(chunk) <= fits) return;
  throw Failure(join("the image has ", n_tokens(chunk),
                     " tokens, which this model needs in one step, and ",
                     "--batch-size and --ubatch-size allow ", fits));
}

// An image has no logits, and without logits there is no first token of an answer.
void check_ends_in_text(const Prompt& prompt) {
  const size_t n = prompt.size();
  if (n == 0) throw Failure("the prompt is empty");
  if (is_image(prompt.chunk(n - 1))) {
    throw Failure("the prompt ends in an image: text is needed behind it");
  }
}

void check_llama(int32_t code, const char* what, const Log& log) {
  if (code != 0) throw Failure(join(what, " failed with code ", code, log.reason()));
}

void decode_whole_image(Session* session, const mtmd_input_chunk* chunk, llama_pos* n_past,
                        Evaluation* evaluation, const Log& log) {
  mtmd_context* vision = session->vision.get();
  check_one_step(*session, chunk);
  const Clock clock;
  check_llama(mtmd_encode_chunk(vision, chunk), "encoding the image", log);
  evaluation->encode_ms += clock.ms();
  const Clock decoding;
  check_llama(mtmd_helper_decode_image_chunk(vision, session->context.get(), chunk,
                                             mtmd_get_output_embd(vision), *n_past, kSequence,
                                             session->n_batch(), n_past, nullptr, nullptr),
              "decoding the image", log);
  llama_synchronize(session->context.get());
  evaluation->image_ms += decoding.ms();
}

// From the images to the whole. What a model cannot do without is kept on top of what was asked
// for, so that only now the numbers are known.
void add_up(Evaluation* evaluation) {
  const int32_t n_text = evaluation->n_tokens_full - evaluation->n_image_tokens_full;
  evaluation->n_image_tokens = 0;
  for (const llama::ImageReport& image : evaluation->images) {
    evaluation->n_image_tokens += image.n_keep;
    evaluation->encode_ms += image.encode_ms;
    evaluation->select_ms += image.select_ms;
    evaluation->image_ms += image.decode_ms;
  }
  evaluation->n_tokens = n_text + evaluation->n_image_tokens;
}

}  // namespace

Prompt tokenize(const Session& session, const std::string& text, const std::string& message,
                Query query, const std::vector<Image>& images, bool is_first, Log* log) {
  if (count_markers(text) != images.size()) {
    throw Failure(join("with its template and system prompt the message has the marker ",
                       mtmd_default_marker(), " ", count_markers(text),
                       " times, and images were given: ", images.size()));
  }
  std::vector<const mtmd_bitmap*> bitmaps;
  for (const Image& image : images) {
    // llama.cpp hands the name on to every chunk that it makes of the image.
    mtmd_bitmap_set_id(image.bitmap.ptr.get(), std::to_string(bitmaps.size()).c_str());
    bitmaps.push_back(image.bitmap.ptr.get());
  }
  Prompt prompt;
  prompt.chunks.reset(mtmd_input_chunks_init());
  const mtmd_input_text input = {text.c_str(), text.size(), is_first, true};
  log->start();
  const int32_t code = mtmd_tokenize(session.vision.get(), prompt.chunks.get(), &input,
                                     bitmaps.data(), bitmaps.size());
  check_llama(code, "preparing the prompt and its images", *log);
  check_ends_in_text(prompt);
  if (query == Query::kMessage) {
    prompt.query = query_tokens(session.vocab(), without_markers(message));
  }
  return prompt;
}

Evaluation evaluate_pruned(Session* session, const Prompt& prompt,
                           const mipruner_select_params& select, Progress* progress, Log* log) {
  const Evaluation count =
      count_tokens(prompt, [&select](int32_t n_rows) { return mipruner_n_keep(&select, n_rows); });
  llama::EvalOptions options;
  options.select = select;
  options.query = prompt.query.empty() ? nullptr : prompt.query.data();
  options.n_query = prompt.query.size();
  options.layout = &session->layout;
  options.n_batch = session->n_batch();
  log->start();
  return measure(session, progress, count, [&](llama_pos* n_past, Evaluation* evaluation) {
    const llama::Status status =
        llama::eval_chunks(session->pruner.get(), session->tokens, options, session->vision.get(),
                           session->context.get(), prompt.chunks.get(), *n_past, kSequence, n_past,
                           &evaluation->images);
    if (!status.ok()) throw Failure(status.message + log->reason());
    add_up(evaluation);
  });
}

// What mtmd_helper_eval_chunks() does, step by step, because it does not say how long each took.
Evaluation evaluate_whole(Session* session, const Prompt& prompt, Progress* progress, Log* log) {
  const Evaluation count = count_tokens(prompt, [](int32_t n_rows) { return n_rows; });
  log->start();
  return measure(session, progress, count, [&](llama_pos* n_past, Evaluation* evaluation) {
    for (size_t i = 0; i < prompt.size(); ++i) {
      const mtmd_input_chunk* chunk = prompt.chunk(i);
      if (is_image(chunk)) {
        decode_whole_image(session, chunk, n_past, evaluation, *log);
        continue;
      }
      const bool is_last = i + 1 == prompt.size();
      check_llama(
          mtmd_helper_eval_chunk_single(session->vision.get(), session->context.get(), chunk,
                                        *n_past, kSequence, session->n_batch(), is_last, n_past),
          "decoding the text", *log);
    }
  });
}

int32_t image_of_chunk(const mtmd_input_chunk* chunk) {
  if (!is_image(chunk)) return -1;
  const std::string name = mtmd_input_chunk_get_id(chunk);
  int32_t index = -1;
  std::from_chars(name.data(), name.data() + name.size(), index);
  return index;
}

}  // namespace mipruner::cli
