// Independent contexts in many threads, beside the functions that need none. To be run under
// ThreadSanitizer; elsewhere it shows that results do not suffer.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "call.h"

namespace mipruner::tests {
namespace {

constexpr int kThreads = 6;

void run_together(const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

TEST(Threads, EachWithAContextOfItsOwn) {
  const Problem problem = related(300, 20, 64);
  mipruner_select_params params = mipruner_select_default_params();
  params.redundancy = 0.5f;
  params.n_keep = 20;
  const Outcome expected = select(Context(), problem, params);
  run_together([&](int i) {
    const Context context(1 + i % 3);
    for (int repeat = 0; repeat < 3; ++repeat) {
      expect_same_bits(select(context, problem, params), expected);
    }
  });
}

TEST(Threads, EachWithErrorsOfItsOwn) {
  run_together([](int i) {
    const Context context;
    SelectCall call(related(12, 3, 8));
    call.visual_view.n_rows = -1 - i;
    const std::string said = "visual.n_rows: got " + std::to_string(-1 - i);
    const std::string counted = "n: got " + std::to_string(-100 - i);
    for (int repeat = 0; repeat < 200; ++repeat) {
      EXPECT_EQ(call.run(context), MIPRUNER_ERROR_INVALID_ARGUMENT);
      EXPECT_LT(mipruner_keep_count(-100 - i, 0.5), 0);
      expect_parts(context.last_error(), {said.c_str()});
      expect_parts(mipruner_last_error(nullptr), {counted.c_str()});
    }
  });
}

TEST(Threads, FunctionsWithoutAContext) {
  const std::vector<int32_t> src = {10, 11, 12, 13, 14}, idx = {1, 3};
  run_together([&](int i) {
    for (int repeat = 0; repeat < 200; ++repeat) {
      int32_t dst[2] = {0, 0};
      EXPECT_EQ(mipruner_gather_rows(dst, src.data(), 5, 4, 0, idx.data(), 2), MIPRUNER_OK);
      EXPECT_EQ(mipruner_gather_positions(dst, src.data(), 1, 5, idx.data(), 2), MIPRUNER_OK);
      EXPECT_EQ(dst[1], 13);
      EXPECT_EQ(mipruner_keep_count(576 + i, 1.0), 576 + i);
      EXPECT_EQ(mipruner_n_keep(nullptr, 400), 100);
      EXPECT_NE(mipruner_keep_hash(5, idx.data(), 2), 0u);
      EXPECT_NE(mipruner_status_str(i), nullptr);
      EXPECT_TRUE(mipruner_supports(MIPRUNER_BACKEND_CPU, MIPRUNER_DTYPE_F32, 1));
      EXPECT_STREQ(mipruner_version(), MIPRUNER_TESTS_VERSION);
    }
  });
}

std::atomic<int> lines{0};
void count_line(int32_t /*level*/, const char* /*text*/, void* data) {
  ++*static_cast<std::atomic<int>*>(data);
}

TEST(Threads, SetTheLogWhileOthersWriteToIt) {
  mipruner_log_set(count_line, &lines);
  run_together([](int i) {
    for (int repeat = 0; repeat < 100; ++repeat) {
      if (i % 2 == 0) {
        mipruner_log_set(count_line, &lines);
      } else {
        const Context context;  // a line each
      }
    }
  });
  mipruner_log_set(nullptr, nullptr);
  EXPECT_EQ(lines, kThreads / 2 * 100);
}

// Nothing of a context belongs to the thread that made it.
TEST(Threads, PassAContextOn) {
  const Problem problem = related(100, 9, 24);
  const mipruner_select_params params = mipruner_select_default_params();
  const Outcome expected = select(Context(), problem, params);
  mipruner_context* context = nullptr;
  std::thread([&] { EXPECT_EQ(mipruner_init(nullptr, &context), MIPRUNER_OK); }).join();
  std::thread([&] { expect_same_bits(select(context, problem, params), expected); }).join();
  expect_same_bits(select(context, problem, params), expected);
  std::thread([&] { mipruner_free(context); }).join();
}

}  // namespace
}  // namespace mipruner::tests
