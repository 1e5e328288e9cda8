// The medians of a benchmark as a table.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "evaluate.h"

namespace mipruner::cli {

struct BenchRun {
  Evaluation prompt;
  double decode_ms = 0;  // a token
  size_t kv_bytes = 0;
};

double median(std::vector<double> values);  // 0 of none

// The first row is what the others are compared with.
class BenchTable {
 public:
  void add(const std::string& name, const std::vector<BenchRun>& runs);
  std::string text() const;  // Markdown, aligned

 private:
  struct Medians {
    double encode_ms, select_ms, prefill_ms, image_ms, decode_ms;
    double prompt_ms() const { return encode_ms + select_ms + prefill_ms; }
  };
  static Medians medians_of(const std::vector<BenchRun>& runs);

  Medians baseline_ = {};
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace mipruner::cli
