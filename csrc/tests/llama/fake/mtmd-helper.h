// The part of libmtmd's helpers that the door uses, for tests.
#pragma once

#include "llama.h"
#include "mtmd.h"

#ifdef __cplusplus
extern "C" {
#endif

int32_t mtmd_helper_eval_chunk_single(mtmd_context* ctx, struct llama_context* lctx,
                                      const mtmd_input_chunk* chunk, llama_pos n_past,
                                      llama_seq_id seq_id, int32_t n_batch, bool logits_last,
                                      llama_pos* new_n_past);

#ifdef __cplusplus
}
#endif
