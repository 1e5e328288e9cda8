// The log callback.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "call.h"

namespace mipruner::tests {
namespace {

struct Lines {
  struct Line {
    int32_t level;
    std::string text;
  };
  std::vector<Line> lines;

  static void add(int32_t level, const char* text, void* data) {
    static_cast<Lines*>(data)->lines.push_back({level, text});
  }
};

class Log : public testing::Test {
 protected:
  ~Log() override { mipruner_log_set(nullptr, nullptr); }

  static int32_t warn(mipruner_context* context) {
    SelectCall call(related(20, 4, 8));
    call.text_view.n_rows = 1;
    const std::vector<float> zeros(8);
    call.text_view.data = zeros.data();
    return call.run(context);
  }

  Lines lines;
};

TEST_F(Log, GetsLines) {
  mipruner_log_set(Lines::add, &lines);
  const Context context;
  ASSERT_EQ(lines.lines.size(), 1u);
  EXPECT_EQ(lines.lines[0].level, 1);
  expect_parts(lines.lines[0].text, {"mipruner", mipruner_version(), "1 threads"});
  EXPECT_EQ(warn(context), MIPRUNER_DEGENERATE);
  ASSERT_EQ(lines.lines.size(), 2u);
  EXPECT_EQ(lines.lines[1].level, 3);
  for (const Lines::Line& line : lines.lines) {
    EXPECT_EQ(line.text.find('\n'), line.text.size() - 1);
  }
}

TEST_F(Log, WarnsOfRowsThatAreNotFinite) {
  mipruner_log_set(Lines::add, &lines);
  std::vector<double> values = related(20, 4, 8).visual.values();
  values[0] = HUGE_VAL;
  EXPECT_EQ(select(Context(), {Rows(values, 20, 8), related(20, 4, 8).text},
                   mipruner_select_default_params())
                .status,
            MIPRUNER_DEGENERATE);
  expect_parts(lines.lines.back().text, {"1 of 20 visual rows hold NaN or Inf"});
}

TEST_F(Log, ByDefaultWarningsGoToStderr) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(warn(Context()), MIPRUNER_DEGENERATE);
  const std::string printed = testing::internal::GetCapturedStderr();
  expect_parts(printed, {"no visual row says more about the text than another"});
  EXPECT_EQ(printed.find('\n'), printed.size() - 1);  // and not what level 1 says
}

TEST_F(Log, NullBringsTheDefaultBack) {
  mipruner_log_set(Lines::add, &lines);
  mipruner_log_set(nullptr, &lines);
  testing::internal::CaptureStderr();
  EXPECT_EQ(warn(Context()), MIPRUNER_DEGENERATE);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
  EXPECT_TRUE(lines.lines.empty());
}

TEST_F(Log, SaysNothingOfWhatIsInOrder) {
  mipruner_log_set(Lines::add, &lines);
  const Context context;
  lines.lines.clear();
  EXPECT_EQ(select(context, related(20, 4, 8), mipruner_select_default_params()).status,
            MIPRUNER_OK);
  EXPECT_TRUE(lines.lines.empty());
}

}  // namespace
}  // namespace mipruner::tests
