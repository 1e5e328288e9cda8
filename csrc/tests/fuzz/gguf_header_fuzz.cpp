// libFuzzer: any bytes as a GGUF file. What opens as a table of token embeddings must give its
// rows, and as a mmproj file must sort out an image; whatever does not must say so.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "mipruner_llama/gguf_header.hpp"
#include "mipruner_llama/row_layout.hpp"
#include "mipruner_llama/token_table.hpp"

namespace {

using namespace mipruner::llama;

// Says which expectation failed, and ends as a crash does, which libFuzzer keeps the input of.
void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

void require_sentence(const Status& status) {
  require(status.code == MIPRUNER_ERROR_INVALID_ARGUMENT, "an error has its code");
  require(status.message.rfind("fuzz: ", 0) == 0, "an error names the file");
  require(status.message.size() < 1000, "an error is a sentence");
  for (const char c : status.message) require(c >= ' ' && c <= '~', "an error is clean text");
}

void read_rows(const TokenTable& table, size_t size) {
  const auto columns = static_cast<size_t>(table.columns());
  require(columns <= 64 * size, "a table is no larger than its file can hold");
  std::vector<float> out(2 * columns, 1.0F);
  const auto last = static_cast<llama_token>(table.rows() - 1);
  const llama_token inside[] = {0, last};
  require(table.read(inside, 2, out.data()).ok(), "the first and the last row are there");
  const std::vector<float> before = out;
  for (const llama_token outside : {-1, last == INT32_MAX - 1 ? INT32_MAX : last + 1}) {
    const llama_token tokens[] = {0, outside};
    require(!table.read(tokens, 2, out.data()).ok(), "rows beyond the last are refused");
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const bool is_same = out[i] == before[i] || (std::isnan(out[i]) && std::isnan(before[i]));
    require(is_same, "an error writes nothing");
  }
}

void sort_out_image(const RowLayout& layout) {
  constexpr int64_t kRows = 12, kStride = 8;
  const std::vector<float> rows(kRows * kStride, 0.5F);
  ImageStructure structure;
  require(layout.find({rows.data(), kRows, kStride, true, 3, 2}, &structure).ok(), "find");
  require(!structure.keep_all || structure.rows.empty(), "all, or some");
  int32_t lowest = 0;
  for (const int32_t row : structure.rows) {
    require(row >= lowest && row < kRows, "structural rows ascend and exist");
    lowest = row + 1;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto source = std::make_shared<MemorySource>(data, size, "fuzz");
  GgufHeader header;
  const Status status = header.read(source.get());
  if (!status.ok()) require_sentence(status);
  TokenTable table;
  const Status opened = table.open(source);
  require(status.ok() || !opened.ok(), "without a header there is no table");
  if (opened.ok()) {
    read_rows(table, size);
  } else {
    require_sentence(opened);
  }
  RowLayout layout;
  const Status is_mmproj = layout.open(source);
  if (is_mmproj.ok()) {
    sort_out_image(layout);
  } else {
    require_sentence(is_mmproj);
  }
  return 0;
}
