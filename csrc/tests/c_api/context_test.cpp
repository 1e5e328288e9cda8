// Contexts and what is wrong with their parameters; what the library says about itself.
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>

#include "call.h"

namespace mipruner::tests {
namespace {

class BadContext : public testing::Test {
 protected:
  void expect_refused(int32_t status, std::initializer_list<const char*> parts) {
    mipruner_context* made = before;
    EXPECT_EQ(mipruner_init(&params, &made), status);
    EXPECT_EQ(made, nullptr);
    expect_parts(mipruner_last_error(nullptr), parts);
  }
  void expect_invalid(std::initializer_list<const char*> parts) {
    expect_refused(MIPRUNER_ERROR_INVALID_ARGUMENT, parts);
  }

  Context before;
  mipruner_context_params params = cpu_params();
};

TEST_F(BadContext, NowhereToPutIt) {
  EXPECT_EQ(mipruner_init(&params, nullptr), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"context: got NULL"});
}

TEST_F(BadContext, UnknownBackend) {
  params.backend = 3;
  expect_invalid({"backend: got 3", "0 to 2"});
  params.backend = -1;
  expect_invalid({"backend: got -1"});
}

TEST_F(BadContext, DeviceNegative) {
  params.device_id = -1;
  expect_invalid({"device_id: got -1"});
}

TEST_F(BadContext, ThreadsOutside) {
  params.n_threads = 0;
  expect_invalid({"n_threads: got 0", "1 to 1024"});
  params.n_threads = -4;
  expect_invalid({"n_threads: got -4"});
  params.n_threads = 1025;
  expect_invalid({"n_threads: got 1025"});
}

TEST_F(BadContext, ReservedUsed) {
  params.reserved = 1;
  expect_invalid({"reserved: got 1", "allowed is 0"});
}

TEST_F(BadContext, ParamsUnaligned) {
  mipruner_context* made = before;
  const auto address = reinterpret_cast<uintptr_t>(&params) + 4;
  EXPECT_EQ(mipruner_init(reinterpret_cast<const mipruner_context_params*>(address), &made),
            MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"params: got an address that is not aligned"});
  EXPECT_EQ(made, nullptr);
}

TEST(Contexts, OfNoParams) {
  mipruner_context* context = nullptr;
  ASSERT_EQ(mipruner_init(nullptr, &context), MIPRUNER_OK);
  EXPECT_STREQ(mipruner_last_error(context), "");
  EXPECT_EQ(select(context, related(12, 3, 8), mipruner_select_default_params()).status,
            MIPRUNER_OK);
  mipruner_free(context);
}

TEST(Contexts, FreeOfNull) { mipruner_free(nullptr); }

TEST(Contexts, AutoWorksOnHostMemory) {
  mipruner_context_params params = cpu_params();
  params.backend = MIPRUNER_BACKEND_AUTO;
  const Problem problem = related(30, 4, 16);
  expect_same_bits(select(Context(params), problem, mipruner_select_default_params()),
                   select(Context(), problem, mipruner_select_default_params()));
}

TEST(Contexts, HaveErrorsOfTheirOwn) {
  const Context good, bad;
  SelectCall call(related(12, 3, 8));
  call.visual = nullptr;
  EXPECT_LT(call.run(bad), 0);
  EXPECT_EQ(good.last_error(), "");
  expect_parts(bad.last_error(), {"visual: got NULL"});
  // Success leaves the last sentence where it is.
  call.visual = &call.visual_view;
  EXPECT_EQ(call.run(bad), MIPRUNER_OK);
  expect_parts(bad.last_error(), {"visual: got NULL"});
}

TEST(Contexts, CallsWithoutOneHaveAnErrorPerThread) {
  EXPECT_LT(mipruner_keep_count(-1, 0.5), 0);
  const char* const said = mipruner_last_error(nullptr);
  expect_parts(said, {"n: got -1"});
  const Context other;
  SelectCall call(related(12, 3, 8));
  call.visual = nullptr;
  EXPECT_LT(call.run(other), 0);
  expect_parts(said, {"n: got -1"});
}

// Scratch memory grows to the largest call and serves the smaller ones after it.
TEST(Contexts, ServeCallsOfAnySize) {
  const Context context;
  for (int64_t n_rows : {5, 300, 1, 40, 301, 2}) {
    const Problem problem = related(n_rows, 6, 20);
    mipruner_select_params params = mipruner_select_default_params();
    params.redundancy = 0.5f;
    expect_same_bits(select(context, problem, params), select(Context(), problem, params));
  }
}

TEST(Library, Versions) {
  EXPECT_STREQ(mipruner_version(), MIPRUNER_TESTS_VERSION);
  EXPECT_EQ(mipruner_abi_version(), MIPRUNER_ABI_VERSION);
}

TEST(Library, Supports) {
  for (int32_t dtype : {MIPRUNER_DTYPE_F32, MIPRUNER_DTYPE_F16, MIPRUNER_DTYPE_BF16}) {
    for (int32_t estimator = 0; estimator <= MIPRUNER_ESTIMATOR_COSINE; ++estimator) {
      EXPECT_TRUE(mipruner_supports(MIPRUNER_BACKEND_AUTO, dtype, estimator));
      EXPECT_TRUE(mipruner_supports(MIPRUNER_BACKEND_CPU, dtype, estimator));
    }
  }
}

TEST(Library, DoesNotSupportWhatItDoesNotKnow) {
  constexpr int32_t kCpu = MIPRUNER_BACKEND_CPU, kF32 = MIPRUNER_DTYPE_F32;
  for (int32_t backend : {-1, 3}) EXPECT_FALSE(mipruner_supports(backend, kF32, 1));
  for (int32_t dtype : {-1, 2, 29, 31}) EXPECT_FALSE(mipruner_supports(kCpu, dtype, 1));
  for (int32_t estimator : {-1, 5}) EXPECT_FALSE(mipruner_supports(kCpu, kF32, estimator));
}

TEST(Library, HasASentenceForEveryStatus) {
  std::set<std::string> sentences;
  for (int32_t status = MIPRUNER_ERROR_INTERNAL; status <= MIPRUNER_DEGENERATE; ++status) {
    sentences.insert(mipruner_status_str(status));
  }
  EXPECT_EQ(sentences.size(), 10u);
  for (int32_t status : {-8, 3, 1000000}) {
    EXPECT_STREQ(mipruner_status_str(status), "an unknown status");
  }
  EXPECT_EQ(sentences.count("an unknown status"), 0u);
}

}  // namespace
}  // namespace mipruner::tests
