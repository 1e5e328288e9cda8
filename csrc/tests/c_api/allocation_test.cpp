// A program whose memory runs out: the n-th allocation of a call fails, for every n in turn.
#include <gtest/gtest.h>

#include <tuple>

#include "call.h"
#include "failing_new.h"

namespace mipruner::tests {
namespace {

// Runs work() -> status with the n-th allocation failing; returns whether there were so many.
template <class Work>
bool fails_at(int64_t n, int32_t* status, const Work& work) {
  fail_allocation(n);
  *status = work();
  return stop_failing() >= n;
}

TEST(OutOfMemory, InInit) {
  int32_t status = 0;
  for (int64_t n = 1;; ++n) {
    mipruner_context* context = nullptr;
    const bool failed = fails_at(n, &status, [&] { return mipruner_init(nullptr, &context); });
    if (!failed) {
      EXPECT_GT(n, 1);
      EXPECT_EQ(status, MIPRUNER_OK);
      mipruner_free(context);
      return;
    }
    EXPECT_EQ(status, MIPRUNER_ERROR_OUT_OF_MEMORY);
    EXPECT_EQ(context, nullptr);
    expect_parts(mipruner_last_error(nullptr), {"out of memory"});
  }
}

// Some allocations can be done without: a thread that cannot be had leaves its work to the others,
// and sorting by score has a slower way.
void expect_no_harm(SelectCall* call, int32_t n_threads) {
  const Outcome expected = select(Context(), call->problem, call->select_params);
  int32_t status = 0;
  int64_t failures = 0;
  for (int64_t n = 1;; ++n) {
    const Context context(n_threads);
    const bool failed = fails_at(n, &status, [&] { return call->run(context); });
    if (status == MIPRUNER_ERROR_OUT_OF_MEMORY) {
      EXPECT_TRUE(failed);
      EXPECT_TRUE(call->outputs_untouched()) << n;
      expect_parts(context.last_error(), {"out of memory"});
      ++failures;
      // The context has come to no harm either.
      expect_same_bits(select(context, call->problem, call->select_params), expected);
      continue;
    }
    expect_same_bits(call->outcome(status), expected);
    if (!failed) break;
    EXPECT_TRUE(n_threads > 1 || call->select_params.order == MIPRUNER_ORDER_SCORE) << n;
    call->forget_outputs();
  }
  EXPECT_GE(failures, 2);
}

constexpr int32_t kAlways[] = {0, 5};

class OutOfMemoryInSelect : public testing::TestWithParam<std::tuple<float, int64_t, int32_t>> {
 protected:
  void prepare(SelectCall* call) const {
    call->select_params.redundancy = std::get<0>(GetParam());
    call->select_params.always_keep = kAlways;
    call->select_params.n_always_keep = std::get<1>(GetParam());
    call->select_params.order = std::get<2>(GetParam());
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, OutOfMemoryInSelect,
    testing::Combine(testing::Values(0.0f, 0.5f), testing::Values<int64_t>(0, 2),
                     testing::Values(MIPRUNER_ORDER_ASCENDING, MIPRUNER_ORDER_SCORE)));

TEST_P(OutOfMemoryInSelect, OneThread) {
  SelectCall call(related(40, 5, 16));
  prepare(&call);
  expect_no_harm(&call, 1);
}

TEST_P(OutOfMemoryInSelect, SeveralThreads) {
  SelectCall call(related(500, 300, 96));
  call.select_params.n_keep = 4;
  prepare(&call);
  expect_no_harm(&call, 3);
}

TEST(OutOfMemory, InAnImageThatIsKeptWhole) {
  SelectCall call(related(40, 5, 16));
  call.select_params.min_tokens = 40;
  call.scores_out = nullptr;
  int32_t status = 0;
  const Context context;
  EXPECT_TRUE(fails_at(1, &status, [&] { return call.run(context); }));
  EXPECT_EQ(status, MIPRUNER_ERROR_OUT_OF_MEMORY);
  EXPECT_TRUE(call.outputs_untouched());
}

// What has no context allocates nothing at all.
TEST(OutOfMemory, NowhereElse) {
  const int32_t src[] = {1, 2, 3}, idx[] = {0, 2};
  int32_t dst[2], status = 0;
  EXPECT_FALSE(fails_at(1, &status, [&] {
    mipruner_keep_count(-1, 0.5);
    mipruner_n_keep(nullptr, 100);
    mipruner_keep_hash(3, idx, 2);
    mipruner_gather_rows(dst, src, 3, 4, 0, idx, 2);
    return mipruner_gather_positions(dst, src, 1, 3, idx, 2);
  }));
  EXPECT_EQ(status, MIPRUNER_OK);
}

}  // namespace
}  // namespace mipruner::tests
