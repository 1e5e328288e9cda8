// The abort callback: asked between pieces of work on the calling thread, and obeyed every time.
#include <gtest/gtest.h>

#include <thread>
#include <tuple>

#include "call.h"

namespace mipruner::tests {
namespace {

// Says stop when asked for the `limit`th time. 0: never.
struct Asked {
  int64_t limit = 0;
  int64_t count = 0;
  bool elsewhere = false;  // whether it was ever another thread that asked
  std::thread::id caller = std::this_thread::get_id();

  static bool ask(void* data) {
    auto& self = *static_cast<Asked*>(data);
    if (std::this_thread::get_id() != self.caller) self.elsewhere = true;
    return ++self.count == self.limit;
  }
};

mipruner_context_params asking(Asked* asked, mipruner_context_params params = cpu_params()) {
  params.abort_callback = Asked::ask;
  params.abort_user_data = asked;
  return params;
}

// Stops the call at the 1st question, at the 2nd, .. until it gets through; beyond the first
// `each`, in longer and longer steps. Returns how often it was stopped.
int64_t stop_everywhere(SelectCall* call, const mipruner_context_params& params, int64_t each) {
  Asked asked;
  const Context context(asking(&asked, params));
  const Outcome expected = select(Context(params), call->problem, call->select_params);
  int64_t stopped = 0;
  for (int64_t limit = 1;; limit += 1 + std::max<int64_t>(0, limit - each) / 4) {
    asked.count = 0;
    asked.limit = limit;
    const int32_t status = call->run(context);
    EXPECT_FALSE(asked.elsewhere);
    if (status != MIPRUNER_ERROR_ABORTED) {
      EXPECT_LT(asked.count, limit);
      expect_same_bits(call->outcome(status), expected);
      return stopped;
    }
    // Once it was told to stop it asks no more.
    EXPECT_EQ(asked.count, limit);
    EXPECT_TRUE(call->outputs_untouched()) << limit;
    expect_parts(context.last_error(), {"abort", "callback"});
    if (testing::Test::HasFailure()) return stopped;
    ++stopped;
  }
}

constexpr int32_t kAlways[] = {3, 60, 99};

class Aborting : public testing::TestWithParam<std::tuple<int32_t, float, int64_t>> {
 protected:
  void prepare(SelectCall* call) const {
    call->select_params.estimator = std::get<0>(GetParam());
    call->select_params.redundancy = std::get<1>(GetParam());
    call->select_params.always_keep = kAlways;
    call->select_params.n_always_keep = std::get<2>(GetParam());
    call->select_params.n_keep = 20;
  }
};

INSTANTIATE_TEST_SUITE_P(All, Aborting,
                         testing::Combine(testing::Range<int32_t>(MIPRUNER_ESTIMATOR_SPECIFIC,
                                                                  MIPRUNER_ESTIMATOR_COSINE + 1),
                                          testing::Values(0.0f, 0.5f),
                                          testing::Values<int64_t>(0, 3)));

TEST_P(Aborting, OneThreadAtEveryQuestion) {
  SelectCall call(related(100, 9, 24));
  prepare(&call);
  EXPECT_GE(stop_everywhere(&call, cpu_params(), 400), 5);
}

// Enough work for three threads; so many words that they are taken in several tiles.
TEST_P(Aborting, SeveralThreads) {
  SelectCall call(related(500, 300, 96));
  prepare(&call);
  EXPECT_GE(stop_everywhere(&call, cpu_params(3), 12), 5);
}

TEST(AbortingWithoutText, AtEveryQuestion) {
  SelectCall call(related(100, 0, 24));
  call.select_params.redundancy = 1;
  EXPECT_GE(stop_everywhere(&call, cpu_params(), 400), 20);
}

// Similarities that do not fit are worked out again and again: other loops.
TEST(AbortingWithLittleMemory, AtEveryQuestion) {
  SelectCall call(related(150, 9, 24));
  call.select_params.redundancy = 0.5f;
  call.select_params.n_keep = 12;
  mipruner_context_params params = cpu_params();
  const uint64_t enough = select(Context(), call.problem, call.select_params).result.workspace;
  params.max_workspace = enough - 130 * 150 * sizeof(float);
  EXPECT_GE(stop_everywhere(&call, params, 400), 20);
}

TEST(AbortCallback, IsNotAskedWhereThereIsNoWork) {
  Asked asked;
  asked.limit = 1;
  const Context context(asking(&asked));
  SelectCall call(related(20, 4, 8));
  call.select_params.keep_ratio = 1;
  call.scores_out = nullptr;
  EXPECT_EQ(call.run(context), MIPRUNER_KEPT_ALL);
  EXPECT_EQ(asked.count, 0);
}

TEST(AbortCallback, IsAskedWithTheUsersData) {
  Asked asked;
  const Context context(asking(&asked));
  EXPECT_EQ(select(context, related(20, 4, 8), mipruner_select_default_params()).status,
            MIPRUNER_OK);
  EXPECT_GT(asked.count, 0);
}

}  // namespace
}  // namespace mipruner::tests
