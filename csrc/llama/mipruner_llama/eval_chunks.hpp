// A whole prompt with images, pruned: takes the place of mtmd_helper_eval_chunks().
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"
#include "mipruner/mipruner.h"
#include "mipruner_llama/compat.hpp"
#include "mipruner_llama/decode_image.hpp"
#include "mipruner_llama/row_layout.hpp"
#include "mipruner_llama/status.hpp"
#include "mipruner_llama/token_table.hpp"
#include "mtmd-helper.h"
#include "mtmd.h"

namespace mipruner::llama {

struct EvalOptions {
  // keep_ratio or n_keep hold for each image chunk on its own: models that cut an image into tiles
  // have a chunk for each. always_keep holds for every image, next to the structural rows. The
  // order is always ascending.
  mipruner_select_params select = mipruner_select_default_params();
  // The question's tokens. NULL: those of all text chunks, without control tokens. Without any,
  // rows are chosen by redundancy, which must be > 0 then, as it is by default, and coverage.
  const llama_token* query = nullptr;
  size_t n_query = 0;
  // NULL: no row is structural. Right only for projectors known to have none.
  const RowLayout* layout = nullptr;
  int32_t n_batch = 512;    // tokens of one llama_decode(), 1 to the context's
  bool logits_last = true;  // of the last text token, as mtmd_helper_eval_chunks() has it
};

struct ImageReport {
  size_t chunk = 0;  // its index among the chunks
  int32_t n_rows = 0;
  int32_t n_keep = 0;
  int32_t nx = 0, ny = 0;           // the grid; n_rows and 1 where libmtmd does not say
  int32_t status = MIPRUNER_OK;     // of the selection; warnings are above 0
  uint64_t keep_hash = 0;           // belongs into the key of a prefix cache
  std::vector<int32_t> kept;        // ascending
  std::vector<float> scores;        // [n_rows] nats; empty where nothing was scored
  std::vector<int32_t> structural;  // rows kept for the layout's sake
  // Why the layout had everything kept, and how many kept rows hold NaN or Inf; else empty.
  std::string reason;
  double encode_ms = 0, select_ms = 0, decode_ms = 0;
};

namespace detail {

inline double milliseconds_since(std::chrono::steady_clock::time_point start) {
  const auto passed = std::chrono::steady_clock::now() - start;
  return std::chrono::duration<double, std::milli>(passed).count();
}

// Everything that stays the same from chunk to chunk.
struct Evaluation {
  mipruner_context* pruner = nullptr;
  const EvalOptions* options = nullptr;
  mtmd_context* vision = nullptr;
  llama_context* context = nullptr;
  const mtmd_input_chunks* chunks = nullptr;
  llama_seq_id sequence = 0;
  bool wants_reports = false;
  std::vector<float> query;  // [n_query, n_embd]
  int64_t n_query = 0;

  const llama_model* model() const { return llama_get_model(context); }
  int64_t n_embd() const { return llama_model_n_embd(model()); }
};

inline bool is_image(const mtmd_input_chunk* chunk) {
  return mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_IMAGE;
}

inline Status from_mipruner(int32_t code, const mipruner_context* pruner) {
  return error(code, mipruner_last_error(pruner));
}

inline Status in_chunk(size_t index, Status status) {
  if (!status.ok()) status.message = "chunk " + std::to_string(index) + ": " + status.message;
  return status;
}

// The table, the model and the mmproj must belong together.
inline Status check_models(const TokenTable& table, const Evaluation& run) {
  if (!table.is_open()) return invalid("table: got one that is not open, allowed is an open one");
  if (table.columns() != run.n_embd()) {
    return invalid("table: got rows of " + std::to_string(table.columns()) +
                   " columns, allowed are the model's " + std::to_string(run.n_embd()));
  }
  const auto n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(run.model()));
  if (table.rows() < n_vocab) {
    return invalid("table: got " + std::to_string(table.rows()) +
                   " rows, allowed are at least the model's " + std::to_string(n_vocab) +
                   " tokens");
  }
  if (run.options->layout != nullptr) {
    const Status status = run.options->layout->check_width(llama_model_n_embd_inp(run.model()));
    if (!status.ok()) return status;
  }
  const llama_rope_type rope = llama_model_rope_type(run.model());
  const bool is_mrope = rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE;
  if (mtmd_decode_use_mrope(run.vision) != is_mrope) {
    return invalid(std::string("mtmd_context: got one for a model ") +
                   (is_mrope ? "without" : "with") + " M-RoPE, allowed is one made for this model");
  }
  return {};
}

// The tokens that stand for the question.
inline std::vector<llama_token> query_tokens(const Evaluation& run) {
  const EvalOptions& options = *run.options;
  if (options.query != nullptr) return {options.query, options.query + options.n_query};
  std::vector<llama_token> tokens;
  const llama_vocab* vocab = llama_model_get_vocab(run.model());
  for (size_t i = 0; i < mtmd_input_chunks_size(run.chunks); ++i) {
    const mtmd_input_chunk* chunk = mtmd_input_chunks_get(run.chunks, i);
    if (mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_TEXT) continue;
    size_t n = 0;
    const llama_token* text = mtmd_input_chunk_get_tokens_text(chunk, &n);
    for (size_t j = 0; j < n; ++j) {
      if (!llama_vocab_is_control(vocab, text[j])) tokens.push_back(text[j]);
    }
  }
  return tokens;
}

inline Status read_query(const TokenTable& table, Evaluation* run) {
  const std::vector<llama_token> tokens = query_tokens(*run);
  run->n_query = static_cast<int64_t>(tokens.size());
  run->query.resize(tokens.size() * static_cast<size_t>(table.columns()));
  return table.read(tokens.data(), tokens.size(), run->query.data());
}

// What can be known of an image before it is encoded.
inline Status check_image(const Evaluation& run, const mtmd_input_chunk* chunk) {
  const auto n_rows = static_cast<int64_t>(mtmd_input_chunk_get_n_tokens(chunk));
  int64_t n_keep = mipruner_n_keep(&run.options->select, n_rows);
  if (n_keep < 0) return from_mipruner(static_cast<int32_t>(n_keep), nullptr);
  const RowLayout* layout = run.options->layout;
  if (layout != nullptr && layout->keeps_everything()) n_keep = n_rows;
  if (n_keep < n_rows && run.n_query == 0 && !(run.options->select.redundancy > 0)) {
    return invalid("query: got no tokens but control tokens, allowed are some that say what to " +
                   std::string("look for, or a redundancy above 0"));
  }
  return use_non_causal(run.vision, chunk, 0) ? check_non_causal(run.context, n_keep) : Status{};
}

inline Status check_chunks(const Evaluation& run) {
  for (size_t i = 0; i < mtmd_input_chunks_size(run.chunks); ++i) {
    const mtmd_input_chunk* chunk = mtmd_input_chunks_get(run.chunks, i);
    const Status status = is_image(chunk) ? check_image(run, chunk) : Status{};
    if (!status.ok()) return in_chunk(i, status);
  }
  return {};
}

inline Status encode(const Evaluation& run, const mtmd_input_chunk* chunk, const float** rows,
                     ImageReport* report) {
  const auto start = std::chrono::steady_clock::now();
  const int32_t code = mtmd_encode_chunk(run.vision, chunk);
  if (code != 0) {
    return error(MIPRUNER_ERROR_BACKEND,
                 "encoding the image: mtmd_encode_chunk returned " + std::to_string(code));
  }
  *rows = mtmd_get_output_embd(run.vision);
  if (*rows == nullptr) {
    return error(MIPRUNER_ERROR_BACKEND, "encoding the image: mtmd_get_output_embd returned NULL");
  }
  report->encode_ms = milliseconds_since(start);
  return {};
}

inline Grid measure_grid(const Evaluation& run, const mtmd_input_chunk* chunk, int32_t n_rows) {
  if (!mtmd_decode_use_mrope(run.vision)) return {n_rows, 1};  // what libmtmd says there
  const mtmd_image_tokens* tokens = mtmd_input_chunk_get_tokens_image(chunk);
  std::vector<SectionPosition> rows(static_cast<size_t>(n_rows));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = row_position(tokens, 0, i, 0);
  return grid_of(rows);
}

inline Status find_structure(const Evaluation& run, const float* rows, ImageStructure* structure,
                             const ImageReport& report) {
  if (run.options->layout == nullptr) return {};
  EncodedImage image;
  image.rows = rows;
  image.n_rows = report.n_rows;
  image.stride = llama_model_n_embd_inp(run.model());
  image.has_grid = mtmd_decode_use_mrope(run.vision);
  image.nx = report.nx;
  image.ny = report.ny;
  return run.options->layout->find(image, structure);
}

inline void keep_every_row(ImageReport* report) {
  report->status = MIPRUNER_KEPT_ALL;
  report->kept.resize(static_cast<size_t>(report->n_rows));
  std::iota(report->kept.begin(), report->kept.end(), 0);
}

// Chooses report->kept.
inline Status select(const Evaluation& run, const float* rows, const ImageStructure& structure,
                     ImageReport* report) {
  mipruner_select_params params = run.options->select;
  std::vector<int32_t> always = structure.rows;
  if (params.always_keep != nullptr && params.n_always_keep > 0) {
    always.insert(always.end(), params.always_keep, params.always_keep + params.n_always_keep);
  }
  params.always_keep = always.empty() ? nullptr : always.data();
  params.n_always_keep = static_cast<int64_t>(always.size());
  params.order = MIPRUNER_ORDER_ASCENDING;
  const int32_t n_keep = mipruner_n_keep(&params, report->n_rows);
  if (n_keep < 0) return from_mipruner(n_keep, nullptr);
  if (structure.rows.size() > static_cast<size_t>(n_keep)) {
    return invalid("n_keep: got " + std::to_string(n_keep) + " of " +
                   std::to_string(report->n_rows) + " rows, allowed are at least the " +
                   std::to_string(structure.rows.size()) +
                   " that the model cannot do without (row breaks, begin and end)");
  }
  const bool can_score = run.n_query > 0 || params.redundancy > 0;
  if (n_keep == report->n_rows && !can_score) {
    keep_every_row(report);
    return {};
  }
  const mipruner_view visual = {rows,
                                report->n_rows,
                                run.n_embd(),
                                llama_model_n_embd_inp(run.model()),
                                MIPRUNER_DTYPE_F32,
                                MIPRUNER_MEMORY_HOST};
  const mipruner_view text = {run.query.data(),   run.n_query,         run.n_embd(), 0,
                              MIPRUNER_DTYPE_F32, MIPRUNER_MEMORY_HOST};
  report->kept.resize(static_cast<size_t>(n_keep));
  if (run.wants_reports) report->scores.resize(static_cast<size_t>(report->n_rows));
  report->status = mipruner_select(run.pruner, &visual, run.n_query > 0 ? &text : nullptr, &params,
                                   report->kept.data(), n_keep,
                                   run.wants_reports ? report->scores.data() : nullptr, nullptr);
  return report->status < 0 ? from_mipruner(report->status, run.pruner) : Status{};
}

// Adds to report->reason how many of the kept rows hold NaN or Inf: nothing is known of them, and
// with too few others they are kept all the same.
inline void note_not_finite(const float* rows, int64_t width, int64_t stride, ImageReport* report) {
  const auto count =
      std::count_if(report->kept.begin(), report->kept.end(), [=](const int32_t row) {
        const float* at = rows + row * stride;
        return !std::all_of(at, at + width, [](const float value) { return std::isfinite(value); });
      });
  if (count == 0) return;
  report->reason += (report->reason.empty() ? "" : "; ") + std::to_string(count) + " of " +
                    std::to_string(report->kept.size()) + " kept rows hold NaN or Inf";
}

inline Status choose_rows(const Evaluation& run, const mtmd_input_chunk* chunk, const float* rows,
                          ImageReport* report) {
  const auto start = std::chrono::steady_clock::now();
  const Grid grid = measure_grid(run, chunk, report->n_rows);
  report->nx = grid.nx;
  report->ny = grid.ny;
  ImageStructure structure;
  Status status = find_structure(run, rows, &structure, *report);
  if (!status.ok()) return status;
  if (structure.keep_all) {
    keep_every_row(report);
  } else {
    status = select(run, rows, structure, report);
    if (!status.ok()) return status;
  }
  report->structural = std::move(structure.rows);
  report->reason = std::move(structure.reason);
  report->n_keep = static_cast<int32_t>(report->kept.size());
  report->keep_hash = mipruner_keep_hash(report->n_rows, report->kept.data(), report->n_keep);
  report->select_ms = milliseconds_since(start);
  if (run.wants_reports) {
    note_not_finite(rows, run.n_embd(), llama_model_n_embd_inp(run.model()), report);
  }
  return {};
}

inline Status eval_image(const Evaluation& run, size_t index, llama_pos* n_past,
                         ImageReport* report) {
  const mtmd_input_chunk* chunk = mtmd_input_chunks_get(run.chunks, index);
  report->chunk = index;
  report->n_rows = static_cast<int32_t>(mtmd_input_chunk_get_n_tokens(chunk));
  const float* rows = nullptr;
  Status status = encode(run, chunk, &rows, report);
  if (status.ok()) status = choose_rows(run, chunk, rows, report);
  if (!status.ok()) return status;
  const auto start = std::chrono::steady_clock::now();
  status = decode_image(run.vision, run.context, chunk, rows, report->kept.data(), report->n_keep,
                        *n_past, run.sequence, run.options->n_batch, n_past);
  if (run.wants_reports) llama_synchronize(run.context);
  report->decode_ms = milliseconds_since(start);
  return status;
}

inline Status eval_other(const Evaluation& run, size_t index, bool wants_logits,
                         llama_pos* n_past) {
  llama_pos after = *n_past;  // the helper adds to it for text and sets it for audio
  const int32_t code = mtmd_helper_eval_chunk_single(
      run.vision, run.context, mtmd_input_chunks_get(run.chunks, index), *n_past, run.sequence,
      run.options->n_batch, wants_logits, &after);
  if (code != 0) return decode_failure(code, "decoding text or audio");
  *n_past = after;
  return {};
}

inline Status eval_all(const Evaluation& run, llama_pos* n_past,
                       std::vector<ImageReport>* reports) {
  const size_t n_chunks = mtmd_input_chunks_size(run.chunks);
  for (size_t i = 0; i < n_chunks; ++i) {
    Status status;
    if (is_image(mtmd_input_chunks_get(run.chunks, i))) {
      ImageReport report;
      status = eval_image(run, i, n_past, &report);
      reports->push_back(std::move(report));
    } else {
      status = eval_other(run, i, run.options->logits_last && i + 1 == n_chunks, n_past);
    }
    if (!status.ok()) return in_chunk(i, std::move(status));
  }
  return {};
}

}  // namespace detail

// Evaluates text and audio chunks as mtmd_helper_eval_chunks() does, and of every image the rows
// that matter for the question. keep_ratio 1 gives the logits of that function, to the bit.
//
//   pruner      from mipruner_init(); may be shared by calls, one thread at a time
//   table       of the model's file, or its shard that holds token_embd.weight
//   new_n_past  where the sequence goes on; untouched after an error
//   reports     NULL, or replaced by one entry per image chunk; untouched after an error
//
// All that can be known beforehand is checked before anything is decoded. After a later error what
// this call added to the sequence is removed from the KV cache again (recurrent models cannot).
inline Status eval_chunks(mipruner_context* pruner, const TokenTable& table,
                          const EvalOptions& options, mtmd_context* vision, llama_context* context,
                          const mtmd_input_chunks* chunks, llama_pos n_past, llama_seq_id seq_id,
                          llama_pos* new_n_past, std::vector<ImageReport>* reports) {
  const std::pair<const void*, const char*> required[] = {{pruner, "mipruner_context"},
                                                          {vision, "mtmd_context"},
                                                          {context, "llama_context"},
                                                          {chunks, "chunks"},
                                                          {new_n_past, "new_n_past"}};
  for (const auto& [pointer, name] : required) {
    if (pointer == nullptr) return invalid(std::string(name) + ": got NULL");
  }
  if (options.query == nullptr && options.n_query > 0) return invalid("query: got NULL");
  detail::Evaluation run;
  run.pruner = pruner;
  run.options = &options;
  run.vision = vision;
  run.context = context;
  run.chunks = chunks;
  run.sequence = seq_id;
  run.wants_reports = reports != nullptr;
  Status status = check_advance(n_past, 0);
  if (status.ok()) status = detail::check_batch_size(context, options.n_batch);
  if (status.ok()) status = detail::check_sequence(context, seq_id);
  if (status.ok()) status = detail::check_models(table, run);
  if (status.ok()) status = detail::read_query(table, &run);
  if (status.ok()) status = detail::check_chunks(run);
  if (!status.ok()) return status;

  std::vector<ImageReport> found;
  llama_pos after = n_past;
  status = detail::eval_all(run, &after, &found);
  if (!status.ok()) {
    llama_memory_seq_rm(llama_get_memory(context), seq_id, n_past, -1);
    return status;
  }
  *new_n_past = after;
  if (reports != nullptr) *reports = std::move(found);
  return {};
}

}  // namespace mipruner::llama
