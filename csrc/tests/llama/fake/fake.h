// A scripted llama.cpp: tests fill these structs in, call the door, and look at what it did.
//
// It decodes nothing. It records every batch, refuses the positions that llama.cpp refuses, and
// where llama.cpp would end the process it notes a violation, which every test expects to be none.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "llama.h"
#include "mtmd.h"

namespace fake {

// What one llama_decode() got.
struct Batch {
  std::vector<llama_token> tokens;   // or
  std::vector<float> rows;           // [n, n_embd_inp]
  std::vector<llama_pos> positions;  // [sections, n]
  std::vector<llama_seq_id> sequences;
  std::vector<int8_t> outputs;
  bool is_causal = true;

  bool operator==(const Batch& other) const {
    return tokens == other.tokens && rows == other.rows && positions == other.positions &&
           sequences == other.sequences && outputs == other.outputs && is_causal == other.is_causal;
  }
};

enum class Layout { kGrid, kSequence, kFramed };  // of an image; kFramed is HunyuanVL's

}  // namespace fake

struct llama_vocab {
  int32_t n_tokens = 0;
  std::set<llama_token> control;
};

struct llama_model {
  int32_t n_embd = 0;
  int32_t n_planes = 0;  // DeepStack planes behind the main one
  llama_rope_type rope = LLAMA_ROPE_TYPE_NORM;
  llama_vocab vocab;
};

struct llama_context;

struct llama_memory_i {
  llama_context* owner = nullptr;
};

struct llama_context {
  explicit llama_context(const llama_model* its_model) : model(its_model) { memory.owner = this; }

  const llama_model* model;
  uint32_t n_batch = 2048;
  uint32_t n_ubatch = 512;
  uint32_t n_seq_max = 1;
  int fail_at = -1;       // the index of the llama_decode() that fails
  int32_t fail_code = 0;  // with this

  bool is_causal = true;
  int n_synchronized = 0;
  std::vector<fake::Batch> batches;
  std::map<llama_seq_id, std::vector<llama_pos>> cache;
  std::vector<std::string> violations;
  llama_memory_i memory;
};

struct mtmd_image_tokens {
  fake::Layout layout = fake::Layout::kSequence;
  uint32_t nx = 0;
  uint32_t ny = 0;
  uint32_t index = 0;       // of the image in the prompt
  std::vector<float> rows;  // what encoding gives, [n_rows, n_embd_inp]

  size_t n_rows() const {
    return layout == fake::Layout::kFramed ? (size_t{nx} + 1) * ny + 2 : size_t{nx} * ny;
  }
};

struct mtmd_input_chunk {
  mtmd_input_chunk_type type = MTMD_INPUT_CHUNK_TYPE_TEXT;
  std::vector<llama_token> tokens;
  mtmd_image_tokens image;  // audio keeps its rows here, too
};

struct mtmd_input_chunks {
  std::vector<mtmd_input_chunk> entries;
};

struct mtmd_context {
  bool is_mrope = false;
  bool is_non_causal = false;
  int fail_at = -1;       // the index of the mtmd_encode_chunk() that fails
  int32_t fail_code = 0;  // with this
  bool gives_no_output = false;
  int n_encoded = 0;
  std::vector<float> output;
};
