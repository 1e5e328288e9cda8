// The part of libmtmd's interface that the door uses, for tests. FAKE_OLD_MTMD gives the signatures
// that it had in early 2026: see compat.hpp of the door.
#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

enum mtmd_input_chunk_type {
  MTMD_INPUT_CHUNK_TYPE_TEXT,
  MTMD_INPUT_CHUNK_TYPE_IMAGE,
  MTMD_INPUT_CHUNK_TYPE_AUDIO
};

typedef struct mtmd_context mtmd_context;
typedef struct mtmd_image_tokens mtmd_image_tokens;
typedef struct mtmd_input_chunk mtmd_input_chunk;
typedef struct mtmd_input_chunks mtmd_input_chunks;

struct mtmd_decoder_pos {
  uint32_t t;
  uint32_t x;
  uint32_t y;
#ifndef FAKE_OLD_MTMD
  uint32_t z;
#endif
};

#ifdef FAKE_OLD_MTMD
bool mtmd_decode_use_non_causal(mtmd_context* ctx);
struct mtmd_decoder_pos mtmd_image_tokens_get_decoder_pos(const mtmd_image_tokens* tokens,
                                                          size_t i);
#else
bool mtmd_decode_use_non_causal(const mtmd_context* ctx, const mtmd_input_chunk* chunk);
struct mtmd_decoder_pos mtmd_image_tokens_get_decoder_pos(const mtmd_image_tokens* tokens,
                                                          llama_pos pos_0, size_t i);
#endif
bool mtmd_decode_use_mrope(const mtmd_context* ctx);

size_t mtmd_input_chunks_size(const mtmd_input_chunks* chunks);
const mtmd_input_chunk* mtmd_input_chunks_get(const mtmd_input_chunks* chunks, size_t idx);

enum mtmd_input_chunk_type mtmd_input_chunk_get_type(const mtmd_input_chunk* chunk);
const llama_token* mtmd_input_chunk_get_tokens_text(const mtmd_input_chunk* chunk,
                                                    size_t* n_tokens_output);
const mtmd_image_tokens* mtmd_input_chunk_get_tokens_image(const mtmd_input_chunk* chunk);
size_t mtmd_input_chunk_get_n_tokens(const mtmd_input_chunk* chunk);
llama_pos mtmd_input_chunk_get_n_pos(const mtmd_input_chunk* chunk);

int32_t mtmd_encode_chunk(mtmd_context* ctx, const mtmd_input_chunk* chunk);
float* mtmd_get_output_embd(mtmd_context* ctx);

#ifdef __cplusplus
}
#endif
