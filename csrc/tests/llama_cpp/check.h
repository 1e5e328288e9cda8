// What the tests compare and write down.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "by_hand.h"

namespace llama_checks {

inline constexpr const char* kPrompt = "Look at <__media__> and say: what colour is the circle?";

// A third of an image's rows, chosen with redundancy: neither a prefix nor a regular grid.
mipruner::llama::EvalOptions options_keeping(int32_t n_keep, int32_t n_batch = 1024);
mipruner::llama::EvalOptions options_keeping_all(int32_t n_batch = 1024);

// Bit for bit, and finite, so that two failures do not pass for equal.
::testing::AssertionResult same_logits(const std::vector<float>& a, const std::vector<float>& b);
::testing::AssertionResult same(const Outcome& a, const Outcome& b);

// An error whose sentence has these words.
::testing::AssertionResult refused(const mipruner::llama::Status& status,
                                   const std::vector<std::string>& words);

// Tests of this class run once for every kind.
class EveryKind : public ::testing::TestWithParam<Kind> {
 protected:
  EveryKind() : vlm(folder_of(GetParam().name)) {}
  Prompt chunks(const std::string& prompt = kPrompt) const {
    return vlm.tokenize(prompt, {kind.image(1)});
  }

  const Kind& kind = GetParam();
  const int32_t n_keep = kind.n_rows() / 3;
  Vlm vlm;
};

inline std::string name_of(const ::testing::TestParamInfo<Kind>& info) { return info.param.name; }

}  // namespace llama_checks
