// Contexts, and calls of mipruner_select whose every argument a test can replace.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "guarded.h"
#include "mipruner/mipruner.h"
#include "rows.h"

namespace mipruner::tests {

class Context {
 public:
  explicit Context(const mipruner_context_params& params);
  explicit Context(int32_t n_threads = 1);  // on the CPU
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { mipruner_free(context_); }

  operator mipruner_context*() const { return context_; }  // NOLINT: stands for it everywhere
  std::string last_error() const { return mipruner_last_error(context_); }

 private:
  mipruner_context* context_ = nullptr;
};

mipruner_context_params cpu_params(int32_t n_threads = 1);

// The defaults, but without redundancy and coverage: the top K by relevance.
mipruner_select_params params_by_relevance();

struct Outcome {
  int32_t status;
  std::vector<int32_t> kept;
  std::vector<float> scores;
  mipruner_result result;
};

// A call that works as it is: a quarter of the rows of `problem`.
class SelectCall {
 public:
  explicit SelectCall(Problem given);
  SelectCall(const SelectCall&) = delete;
  SelectCall& operator=(const SelectCall&) = delete;

  int32_t run(mipruner_context* context);
  bool outputs_untouched();
  // What a successful run wrote.
  Outcome outcome(int32_t status);
  // Outputs as new.
  void forget_outputs();

  Problem problem;
  mipruner_view visual_view, text_view;
  mipruner_select_params select_params;
  Guarded<int32_t> indices{0};
  Guarded<float> scores{0};
  Guarded<mipruner_result> result{1};
  // The arguments.
  const mipruner_view* visual = &visual_view;
  const mipruner_view* text = &text_view;
  const mipruner_select_params* params = &select_params;
  int32_t* idx_out = nullptr;
  int32_t idx_cap = 0;
  float* scores_out = nullptr;
  mipruner_result* result_out = nullptr;
};

// Runs a call that has to succeed, and has to leave the memory beside its outputs alone.
Outcome select(mipruner_context* context, const Problem& problem,
               const mipruner_select_params& params);
// The same without text.
Outcome select_without_text(mipruner_context* context, const Problem& problem,
                            const mipruner_select_params& params);

void expect_same_bits(const Outcome& a, const Outcome& b);

// The status, a sentence with all of `parts`, and nothing written; the context works as before.
void expect_refused(mipruner_context* context, SelectCall& call, int32_t status,
                    std::initializer_list<const char*> parts);

void expect_parts(const std::string& sentence, std::initializer_list<const char*> parts);

}  // namespace mipruner::tests
