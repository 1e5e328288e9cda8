#include "check.h"

#include <cmath>
#include <cstring>

namespace llama_checks {

mipruner::llama::EvalOptions options_keeping(int32_t n_keep, int32_t n_batch) {
  mipruner::llama::EvalOptions options;
  options.select = mipruner_select_default_params();
  options.select.n_keep = n_keep;
  options.select.redundancy = 0.5F;
  options.select.coverage = 0;
  options.n_batch = n_batch;
  return options;
}

mipruner::llama::EvalOptions options_keeping_all(int32_t n_batch) {
  mipruner::llama::EvalOptions options;
  options.select = mipruner_select_default_params();
  options.select.keep_ratio = 1.0;
  options.n_batch = n_batch;
  return options;
}

::testing::AssertionResult same_logits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.empty() || a.size() != b.size()) {
    return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " logits";
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure() << "logit " << i << ": " << a[i] << " and " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult same(const Outcome& a, const Outcome& b) {
  if (a.n_past != b.n_past) {
    return ::testing::AssertionFailure() << "n_past: " << a.n_past << " and " << b.n_past;
  }
  const ::testing::AssertionResult logits = same_logits(a.logits, b.logits);
  if (!logits) return logits;
  if (a.state.empty() || a.state != b.state) {
    return ::testing::AssertionFailure() << "the KV caches or their positions differ";
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult refused(const mipruner::llama::Status& status,
                                   const std::vector<std::string>& words) {
  if (status.ok()) return ::testing::AssertionFailure() << "accepted";
  for (const std::string& word : words) {
    if (status.message.find(word) != std::string::npos) continue;
    return ::testing::AssertionFailure() << '"' << status.message << "\" does not say " << word;
  }
  return ::testing::AssertionSuccess() << status.message;
}

}  // namespace llama_checks
