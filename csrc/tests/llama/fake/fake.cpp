#include "fake.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "mtmd-helper.h"

namespace {

// ---- ggml ----

float half_to_float(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const float sign = (half & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 31) return sign * (mantissa != 0 ? NAN : INFINITY);
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

uint16_t load_half(const char* from) {
  uint16_t half = 0;
  std::memcpy(&half, from, sizeof half);
  return half;
}

void halves_to_float(const void* x, float* y, int64_t k) {
  const char* from = static_cast<const char*>(x);
  for (int64_t i = 0; i < k; ++i) y[i] = half_to_float(load_half(from + 2 * i));
}

// Blocks of a float16 scale and 32 signed bytes.
void q8_0_to_float(const void* x, float* y, int64_t k) {
  const char* block = static_cast<const char*>(x);
  for (int64_t i = 0; i < k; i += 32, block += 34) {
    const float scale = half_to_float(load_half(block));
    for (int64_t j = 0; j < 32; ++j) {
      y[i + j] = scale * static_cast<float>(static_cast<signed char>(block[2 + j]));
    }
  }
}

// ---- what llama.cpp says of a batch's positions ----

bool accepts(const llama_context& context, const llama_batch& batch, llama_seq_id sequence) {
  const bool is_mrope =
      context.model->rope == LLAMA_ROPE_TYPE_MROPE || context.model->rope == LLAMA_ROPE_TYPE_IMROPE;
  const auto cached = context.cache.find(sequence);
  llama_pos last = -1;
  if (cached != context.cache.end() && !cached->second.empty()) {
    last = *std::max_element(cached->second.begin(), cached->second.end());
  }
  for (int32_t i = 0; i < batch.n_tokens; ++i) {
    if (is_mrope && (batch.token != nullptr ? batch.pos[i] <= last : batch.pos[i] < last)) {
      return false;
    }
    if (!is_mrope && batch.pos[i] != last + 1) return false;
    last = batch.pos[i];
  }
  return true;
}

size_t sections_of(const llama_context& context, const llama_batch& batch) {
  const bool is_mrope =
      context.model->rope == LLAMA_ROPE_TYPE_MROPE || context.model->rope == LLAMA_ROPE_TYPE_IMROPE;
  return batch.embd != nullptr && is_mrope ? 4 : 1;
}

void record(llama_context* context, const llama_batch& batch) {
  const auto n = static_cast<size_t>(batch.n_tokens);
  fake::Batch seen;
  seen.is_causal = context->is_causal;
  if (batch.token != nullptr) seen.tokens.assign(batch.token, batch.token + n);
  if (batch.embd != nullptr) {
    const auto width = static_cast<size_t>(llama_model_n_embd_inp(context->model));
    seen.rows.assign(batch.embd, batch.embd + n * width);
  }
  seen.positions.assign(batch.pos, batch.pos + n * sections_of(*context, batch));
  seen.outputs.assign(batch.logits, batch.logits + n);
  for (size_t i = 0; i < n; ++i) {
    if (batch.n_seq_id[i] != 1) context->violations.push_back("n_seq_id");
    seen.sequences.push_back(batch.seq_id[i][0]);
  }
  if (batch.seq_id[n] != nullptr) context->violations.push_back("seq_id is not terminated");
  context->batches.push_back(std::move(seen));
}

mtmd_decoder_pos position_of(const mtmd_image_tokens& image, uint32_t start, uint32_t i) {
  mtmd_decoder_pos at = {};
  const bool is_frame =
      image.layout == fake::Layout::kFramed && (i == 0 || i + 1 == image.n_rows());
  if (image.layout == fake::Layout::kSequence || is_frame) {
    at.t = at.x = at.y = start + i;
#ifndef FAKE_OLD_MTMD
    at.z = start + i;
#endif
  } else if (image.layout == fake::Layout::kGrid) {
    at.t = start;
    at.x = start + i % image.nx;
    at.y = start + i / image.nx;
  } else {
    at.t = start + i;
    at.x = (i - 1) / (image.nx + 1);
    at.y = (i - 1) % (image.nx + 1);
#ifndef FAKE_OLD_MTMD
    at.z = image.index;
#endif
  }
  return at;
}

// A batch of one sequence, with the memory behind it.
struct OwnBatch {
  std::vector<llama_token> tokens;
  std::vector<float> rows;
  std::vector<llama_pos> positions;
  llama_seq_id sequence = 0;
  bool wants_last = false;

  int32_t decode(llama_context* context, size_t n) {
    std::vector<int32_t> counts(n, 1);
    std::vector<llama_seq_id*> sequences(n + 1, &sequence);
    sequences[n] = nullptr;
    std::vector<int8_t> outputs(n, 0);
    outputs[n - 1] = wants_last ? 1 : 0;
    llama_batch batch = {};
    batch.n_tokens = static_cast<int32_t>(n);
    batch.token = tokens.empty() ? nullptr : tokens.data();
    batch.embd = rows.empty() ? nullptr : rows.data();
    batch.pos = positions.data();
    batch.n_seq_id = counts.data();
    batch.seq_id = sequences.data();
    batch.logits = outputs.data();
    return llama_decode(context, batch);
  }
};

int32_t eval_text(llama_context* context, const mtmd_input_chunk& chunk, llama_pos n_past,
                  llama_seq_id sequence, size_t n_batch, bool logits_last, llama_pos* new_n_past) {
  for (size_t first = 0; first < chunk.tokens.size(); first += n_batch) {
    const size_t n = std::min(n_batch, chunk.tokens.size() - first);
    OwnBatch batch;
    batch.sequence = sequence;
    batch.wants_last = logits_last && first + n == chunk.tokens.size();
    for (size_t i = 0; i < n; ++i) {
      batch.tokens.push_back(chunk.tokens[first + i]);
      batch.positions.push_back(n_past++);
    }
    const int32_t code = batch.decode(context, n);
    if (code != 0) return code;
    *new_n_past += static_cast<llama_pos>(n);
  }
  return 0;
}

// Images and audio: all rows, as the helper without pruning decodes them.
int32_t eval_media(mtmd_context* vision, llama_context* context, const mtmd_input_chunk& chunk,
                   llama_pos n_past, llama_seq_id sequence, size_t n_batch, llama_pos* new_n_past) {
  if (const int32_t code = mtmd_encode_chunk(vision, &chunk); code != 0) return code;
  const auto width = static_cast<size_t>(llama_model_n_embd_inp(context->model));
  const size_t n_rows = mtmd_input_chunk_get_n_tokens(&chunk);
  const bool is_image = chunk.type == MTMD_INPUT_CHUNK_TYPE_IMAGE;
  const bool is_non_causal = is_image && vision->is_non_causal;
  if (is_non_causal) llama_set_causal_attn(context, false);
  int32_t code = 0;
  for (size_t first = 0; code == 0 && first < n_rows; first += n_batch) {
    const size_t n = std::min(n_batch, n_rows - first);
    OwnBatch batch;
    batch.sequence = sequence;
    batch.positions.resize(n * (vision->is_mrope ? 4 : 1));
    batch.rows.assign(vision->output.begin() + static_cast<std::ptrdiff_t>(first * width),
                      vision->output.begin() + static_cast<std::ptrdiff_t>((first + n) * width));
    for (size_t i = 0; i < n; ++i) {
      const auto row = static_cast<uint32_t>(first + i);
      batch.positions[i] = n_past + static_cast<llama_pos>(row);
      if (!vision->is_mrope) continue;
      const mtmd_decoder_pos at = position_of(chunk.image, static_cast<uint32_t>(n_past), row);
      batch.positions[i] = static_cast<llama_pos>(at.t);
      batch.positions[n + i] = static_cast<llama_pos>(at.y);
      batch.positions[2 * n + i] = static_cast<llama_pos>(at.x);
#ifndef FAKE_OLD_MTMD
      batch.positions[3 * n + i] = static_cast<llama_pos>(at.z);
#endif
    }
    code = batch.decode(context, n);
  }
  if (is_non_causal) llama_set_causal_attn(context, true);
  if (code == 0) *new_n_past = n_past + mtmd_input_chunk_get_n_pos(&chunk);
  return code;
}

}  // namespace

extern "C" {

const ggml_type_traits* ggml_get_type_traits(ggml_type type) {
  static const ggml_type_traits kNone = {"none", 0, 0, nullptr};
  static const ggml_type_traits kF32 = {"f32", 1, 4, nullptr};
  static const ggml_type_traits kF16 = {"f16", 1, 2, halves_to_float};
  static const ggml_type_traits kQ8_0 = {"q8_0", 32, 34, q8_0_to_float};
  static const ggml_type_traits kI8 = {"i8", 1, 1, nullptr};
  switch (static_cast<int>(type)) {
    case GGML_TYPE_F32: return &kF32;
    case GGML_TYPE_F16: return &kF16;
    case GGML_TYPE_Q8_0: return &kQ8_0;
    case GGML_TYPE_I8: return &kI8;
    default: return &kNone;
  }
}

uint32_t llama_n_batch(const llama_context* ctx) { return ctx->n_batch; }
uint32_t llama_n_ubatch(const llama_context* ctx) { return ctx->n_ubatch; }
uint32_t llama_n_seq_max(const llama_context* ctx) { return ctx->n_seq_max; }
const llama_model* llama_get_model(const llama_context* ctx) { return ctx->model; }
llama_memory_t llama_get_memory(const llama_context* ctx) {
  return const_cast<llama_memory_i*>(&ctx->memory);
}

bool llama_memory_seq_rm(llama_memory_t mem, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
  std::vector<llama_pos>& cached = mem->owner->cache[seq_id];
  const auto is_removed = [=](llama_pos at) { return at >= p0 && (p1 < 0 || at < p1); };
  cached.erase(std::remove_if(cached.begin(), cached.end(), is_removed), cached.end());
  return true;
}

const llama_vocab* llama_model_get_vocab(const llama_model* model) { return &model->vocab; }
llama_rope_type llama_model_rope_type(const llama_model* model) { return model->rope; }
int32_t llama_model_n_embd(const llama_model* model) { return model->n_embd; }
int32_t llama_model_n_embd_inp(const llama_model* model) {
  return model->n_embd * (1 + model->n_planes);
}
int32_t llama_vocab_n_tokens(const llama_vocab* vocab) { return vocab->n_tokens; }
bool llama_vocab_is_control(const llama_vocab* vocab, llama_token token) {
  return vocab->control.count(token) > 0;
}

int32_t llama_decode(llama_context* ctx, llama_batch batch) {
  const auto n = static_cast<uint32_t>(batch.n_tokens);
  if (batch.n_tokens < 1) return -1;
  if (n > ctx->n_batch) ctx->violations.push_back("more rows than n_batch");
  if (!ctx->is_causal && n > ctx->n_ubatch) {
    ctx->violations.push_back("non-causal attention over more rows than n_ubatch");
  }
  const bool fails = static_cast<int>(ctx->batches.size()) == ctx->fail_at;
  record(ctx, batch);
  if (fails) return ctx->fail_code;
  const llama_seq_id sequence = batch.seq_id[0][0];
  if (!accepts(*ctx, batch, sequence)) return -1;
  std::vector<llama_pos>& cached = ctx->cache[sequence];
  cached.insert(cached.end(), batch.pos, batch.pos + batch.n_tokens);
  return 0;
}

void llama_set_causal_attn(llama_context* ctx, bool causal_attn) { ctx->is_causal = causal_attn; }
void llama_synchronize(llama_context* ctx) { ++ctx->n_synchronized; }

#ifdef FAKE_OLD_MTMD
bool mtmd_decode_use_non_causal(mtmd_context* ctx) { return ctx->is_non_causal; }
mtmd_decoder_pos mtmd_image_tokens_get_decoder_pos(const mtmd_image_tokens* tokens, size_t i) {
  return position_of(*tokens, 0, static_cast<uint32_t>(i));
}
#else
bool mtmd_decode_use_non_causal(const mtmd_context* ctx, const mtmd_input_chunk* chunk) {
  const bool is_audio = chunk != nullptr && chunk->type == MTMD_INPUT_CHUNK_TYPE_AUDIO;
  return ctx->is_non_causal && !is_audio;
}
mtmd_decoder_pos mtmd_image_tokens_get_decoder_pos(const mtmd_image_tokens* tokens, llama_pos pos_0,
                                                   size_t i) {
  return position_of(*tokens, static_cast<uint32_t>(pos_0), static_cast<uint32_t>(i));
}
#endif

bool mtmd_decode_use_mrope(const mtmd_context* ctx) { return ctx->is_mrope; }

size_t mtmd_input_chunks_size(const mtmd_input_chunks* chunks) { return chunks->entries.size(); }
const mtmd_input_chunk* mtmd_input_chunks_get(const mtmd_input_chunks* chunks, size_t idx) {
  return &chunks->entries.at(idx);
}

mtmd_input_chunk_type mtmd_input_chunk_get_type(const mtmd_input_chunk* chunk) {
  return chunk->type;
}

const llama_token* mtmd_input_chunk_get_tokens_text(const mtmd_input_chunk* chunk,
                                                    size_t* n_tokens_output) {
  *n_tokens_output = chunk->tokens.size();
  return chunk->tokens.data();
}

const mtmd_image_tokens* mtmd_input_chunk_get_tokens_image(const mtmd_input_chunk* chunk) {
  return chunk->type == MTMD_INPUT_CHUNK_TYPE_IMAGE ? &chunk->image : nullptr;
}

size_t mtmd_input_chunk_get_n_tokens(const mtmd_input_chunk* chunk) {
  return chunk->type == MTMD_INPUT_CHUNK_TYPE_TEXT ? chunk->tokens.size() : chunk->image.n_rows();
}

llama_pos mtmd_input_chunk_get_n_pos(const mtmd_input_chunk* chunk) {
  const bool is_grid =
      chunk->type == MTMD_INPUT_CHUNK_TYPE_IMAGE && chunk->image.layout == fake::Layout::kGrid;
  if (is_grid) return static_cast<llama_pos>(std::max(chunk->image.nx, chunk->image.ny));
  return static_cast<llama_pos>(mtmd_input_chunk_get_n_tokens(chunk));
}

int32_t mtmd_encode_chunk(mtmd_context* ctx, const mtmd_input_chunk* chunk) {
  if (ctx->n_encoded++ == ctx->fail_at) return ctx->fail_code;
  ctx->output = chunk->image.rows;
  return 0;
}

float* mtmd_get_output_embd(mtmd_context* ctx) {
  return ctx->gives_no_output ? nullptr : ctx->output.data();
}

int32_t mtmd_helper_eval_chunk_single(mtmd_context* ctx, llama_context* lctx,
                                      const mtmd_input_chunk* chunk, llama_pos n_past,
                                      llama_seq_id seq_id, int32_t n_batch, bool logits_last,
                                      llama_pos* new_n_past) {
  const auto step = static_cast<size_t>(n_batch);
  if (chunk->type == MTMD_INPUT_CHUNK_TYPE_TEXT) {
    return eval_text(lctx, *chunk, n_past, seq_id, step, logits_last, new_n_past);
  }
  return eval_media(ctx, lctx, *chunk, n_past, seq_id, step, new_n_past);
}

}  // extern "C"
