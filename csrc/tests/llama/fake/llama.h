// The part of llama.cpp's interface that the door uses, for tests. See fake.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct llama_vocab;
struct llama_model;
struct llama_context;
struct llama_memory_i;

typedef struct llama_memory_i* llama_memory_t;
typedef int32_t llama_pos;
typedef int32_t llama_token;
typedef int32_t llama_seq_id;

enum llama_rope_type {
  LLAMA_ROPE_TYPE_NONE = -1,
  LLAMA_ROPE_TYPE_NORM = 0,
  LLAMA_ROPE_TYPE_NEOX = 2,
  LLAMA_ROPE_TYPE_MROPE = 8,
  LLAMA_ROPE_TYPE_IMROPE = 40
};

typedef struct llama_batch {
  int32_t n_tokens;
  llama_token* token;
  float* embd;
  llama_pos* pos;
  int32_t* n_seq_id;
  llama_seq_id** seq_id;
  int8_t* logits;
} llama_batch;

uint32_t llama_n_batch(const struct llama_context* ctx);
uint32_t llama_n_ubatch(const struct llama_context* ctx);
uint32_t llama_n_seq_max(const struct llama_context* ctx);
const struct llama_model* llama_get_model(const struct llama_context* ctx);
llama_memory_t llama_get_memory(const struct llama_context* ctx);
bool llama_memory_seq_rm(llama_memory_t mem, llama_seq_id seq_id, llama_pos p0, llama_pos p1);

const struct llama_vocab* llama_model_get_vocab(const struct llama_model* model);
enum llama_rope_type llama_model_rope_type(const struct llama_model* model);
int32_t llama_model_n_embd(const struct llama_model* model);
int32_t llama_model_n_embd_inp(const struct llama_model* model);
int32_t llama_vocab_n_tokens(const struct llama_vocab* vocab);
bool llama_vocab_is_control(const struct llama_vocab* vocab, llama_token token);

int32_t llama_decode(struct llama_context* ctx, struct llama_batch batch);
void llama_set_causal_attn(struct llama_context* ctx, bool causal_attn);
void llama_synchronize(struct llama_context* ctx);

#ifdef __cplusplus
}
#endif
