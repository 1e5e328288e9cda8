// mipruner in llama.cpp: prompts with images in which only the rows that matter for the question
// reach the decoder.
//
// Header-only C++17. The host compiles it against its own llama.cpp (llama.h, ggml.h, mtmd.h,
// mtmd-helper.h) and links libmipruner, which itself knows nothing of llama.cpp. It needs a
// llama.cpp of May 2026 or later.
//
//     namespace pruned = mipruner::llama;
//     mipruner_context* pruner = nullptr;
//     if (mipruner_init(nullptr, &pruner) < 0) ...;       // mipruner_last_error(NULL) says why
//     pruned::TokenTable table;                           // the embeddings of the question's words
//     pruned::Status status = table.open("model.gguf");
//     pruned::RowLayout layout;                           // rows that the model cannot do without
//     if (status.ok()) status = layout.open("mmproj.gguf");
//     pruned::EvalOptions options;
//     options.select.keep_ratio = 0.25;
//     options.layout = &layout;
//     llama_pos n_past = 0;                               // chunks come from mtmd_tokenize()
//     if (status.ok())
//       status = pruned::eval_chunks(pruner, table, options, vision, context, chunks,
//                                    n_past, 0, &n_past, nullptr);
//     if (!status.ok()) std::fprintf(stderr, "%s\n", status.message.c_str());
//
// What it does to positions is in positions.hpp, what it must keep in row_layout.hpp. No function
// throws on bad input (std::bad_alloc aside): each returns a Status with a sentence that names the
// argument or the file, what was given and what is allowed.
//
// Kept rows depend on the question, so that a cache keyed by the image alone would be wrong:
// ImageReport::keep_hash belongs into the key.
#pragma once

#include "mipruner_llama/decode_image.hpp"
#include "mipruner_llama/eval_chunks.hpp"
#include "mipruner_llama/gguf_header.hpp"
#include "mipruner_llama/positions.hpp"
#include "mipruner_llama/row_layout.hpp"
#include "mipruner_llama/status.hpp"
#include "mipruner_llama/token_table.hpp"
