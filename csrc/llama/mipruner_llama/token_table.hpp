// The embeddings of tokens, straight from the model's GGUF file.
//
// llama.cpp has no public way to ask for them. The rows are bitwise those that the model's own
// graph starts from, scaled where the graph scales the embeddings of tokens but not those of
// images, so that both can be compared.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"
#include "mipruner_llama/byte_source.hpp"
#include "mipruner_llama/gguf_header.hpp"
#include "mipruner_llama/status.hpp"
#include "mipruner_llama/tensor_rows.hpp"

namespace mipruner::llama {

namespace detail {

// What the graphs of these architectures multiply tokens with, and images not:
//   gemma3, gemma3n, gemma4, gemma-embedding   sqrt(n_embd)
//   Granite with DeepStack                     its embedding_scale
// gemma, gemma2 and Granite without DeepStack scale both kinds of row: neither is scaled here.
inline float token_scale(const GgufHeader& header, int64_t columns) {
  const std::string* architecture = header.find_string("general.architecture");
  if (architecture == nullptr) return 1.0F;  // a later shard of a split model
  for (const char* name : {"gemma3", "gemma3n", "gemma4", "gemma-embedding"}) {
    if (*architecture == name) return std::sqrt(static_cast<float>(columns));
  }
  const std::vector<int64_t>* mapping = header.find_integers(*architecture + ".deepstack_mapping");
  bool has_deepstack = header.find_count(*architecture + ".n_deepstack_layers").value_or(0) > 0;
  if (mapping != nullptr) {
    for (const int64_t plane : *mapping) has_deepstack = has_deepstack || plane >= 0;
  }
  const double scale = header.find_float(*architecture + ".embedding_scale").value_or(0.0);
  return has_deepstack && scale != 0.0 ? static_cast<float>(scale) : 1.0F;
}

}  // namespace detail

class TokenTable {
 public:
  // path: the model's file; of a split model the shard that holds token_embd.weight. In a shard
  // that does not name the architecture the scale is unknown and taken to be 1, which changes no
  // selection: that compares directions. After an error the table is as before.
  Status open(const std::string& path) {
    std::unique_ptr<ByteSource> source;
    const Status status = FileSource::open(path, &source);
    return status.ok() ? open(std::shared_ptr<ByteSource>(std::move(source))) : status;
  }

  // The same for bytes from elsewhere.
  Status open(std::shared_ptr<ByteSource> source) {
    if (source == nullptr) return invalid("source: got NULL, allowed is a source of bytes");
    GgufHeader header;
    TensorRows rows;
    Status status = header.read(source.get());
    if (status.ok()) status = rows.open(std::move(source), header, "token_embd.weight");
    if (!status.ok()) return status;
    rows_ = std::move(rows);
    scale_ = detail::token_scale(header, rows_.columns());
    return {};
  }

  bool is_open() const { return rows() > 0; }
  int64_t columns() const { return rows_.columns(); }  // n_embd
  int64_t rows() const { return rows_.rows(); }        // tokens of the vocabulary; 0: not open
  float scale() const { return scale_; }

  // out: [count, columns()], untouched after an error. Not from two threads at once.
  Status read(const llama_token* tokens, size_t count, float* out) const {
    if (!is_open()) return invalid("table: got one that is not open, allowed is an open one");
    if (count > 0 && (tokens == nullptr || out == nullptr)) {
      return invalid(std::string(tokens == nullptr ? "tokens" : "out") + ": got NULL, allowed is " +
                     "memory for " + std::to_string(count) + " rows");
    }
    for (size_t i = 0; i < count; ++i) {
      if (tokens[i] < 0 || tokens[i] >= rows()) {
        return invalid("tokens[" + std::to_string(i) + "]: got " + std::to_string(tokens[i]) +
                       ", allowed are 0 to " + std::to_string(rows() - 1) + " in " + rows_.file());
      }
    }
    std::vector<char> raw;
    for (size_t i = 0; i < count; ++i) {
      if (!rows_.read_raw(tokens[i], &raw)) {
        return invalid(rows_.file() + ": got no bytes for token " + std::to_string(tokens[i]) +
                       ", allowed is a file that does not change while it is open");
      }
    }
    rows_.to_float(raw, count, out);
    const size_t values = count * static_cast<size_t>(columns());
    for (size_t i = 0; scale_ != 1.0F && i < values; ++i) out[i] *= scale_;
    return {};
  }

 private:
  TensorRows rows_;
  float scale_ = 1.0F;
};

}  // namespace mipruner::llama
