// Views in device memory, with the emulated CUDA backend, whose device memory is the program's own.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "call.h"

namespace mipruner::tests {
namespace {

mipruner_context_params cuda_params() {
  mipruner_context_params params = mipruner_context_default_params();
  params.backend = MIPRUNER_BACKEND_CUDA;
  return params;
}

// A call on views that count as device memory.
class DeviceCall : public SelectCall {
 public:
  explicit DeviceCall(const Problem& given) : SelectCall(given) {
    visual_view.memory = text_view.memory = MIPRUNER_MEMORY_DEVICE;
  }
};

void expect_close(const std::vector<float>& scores, const std::vector<float>& expected) {
  float largest = 0;
  for (float score : expected) {
    if (std::isfinite(score)) largest = std::max(largest, std::fabs(score));
  }
  ASSERT_EQ(scores.size(), expected.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isinf(expected[i])) {
      EXPECT_EQ(scores[i], expected[i]) << i;
    } else {
      EXPECT_NEAR(scores[i], expected[i], 1e-5f * largest + 2e-6f) << i;
    }
  }
}

constexpr int32_t kAlways[] = {41, 0, 0};

struct Case {
  int32_t estimator;
  float redundancy;
  double coverage;
  int64_t n_always_keep;
  int32_t dtype;
  int32_t order;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int32_t estimator = 1; estimator <= MIPRUNER_ESTIMATOR_COSINE; ++estimator) {
    for (float redundancy : {0.0f, 0.5f}) {
      for (int64_t n_always_keep : {0, 3}) {
        const int32_t dtype = redundancy > 0 ? MIPRUNER_DTYPE_F32 : MIPRUNER_DTYPE_F16;
        const int32_t order = n_always_keep > 0 ? MIPRUNER_ORDER_SCORE : MIPRUNER_ORDER_ASCENDING;
        const double coverage = estimator % 2 == 0 ? 0.5 : 0.0;
        all.push_back({estimator, redundancy, coverage, n_always_keep, dtype, order});
      }
    }
  }
  all.push_back(
      {MIPRUNER_ESTIMATOR_SPECIFIC, 0.5f, 1.0, 3, MIPRUNER_DTYPE_BF16, MIPRUNER_ORDER_SCORE});
  return all;
}

class OnDevice : public testing::TestWithParam<Case> {
 protected:
  void prepare(SelectCall* call) const {
    call->select_params.estimator = GetParam().estimator;
    call->select_params.redundancy = GetParam().redundancy;
    call->select_params.coverage = GetParam().coverage;
    call->select_params.always_keep = kAlways;
    call->select_params.n_always_keep = GetParam().n_always_keep;
    call->select_params.order = GetParam().order;
    call->select_params.n_keep = 9;
  }
  const Context context{cuda_params()};
};

INSTANTIATE_TEST_SUITE_P(All, OnDevice, testing::ValuesIn(cases()));

TEST_P(OnDevice, SelectIsAsOnTheCpu) {
  const Problem problem = related(42, 6, 40, 3, GetParam().dtype, 56);
  DeviceCall device(problem);
  SelectCall host(problem);
  prepare(&device);
  prepare(&host);
  const Outcome expected = host.outcome(host.run(Context()));
  const int32_t status = device.run(context);
  ASSERT_GE(status, 0) << context.last_error();
  const Outcome outcome = device.outcome(status);
  EXPECT_EQ(outcome.status, expected.status);
  EXPECT_EQ(outcome.kept, expected.kept);
  EXPECT_EQ(outcome.result.keep_hash, expected.result.keep_hash);
  expect_close(outcome.scores, expected.scores);
}

class Device : public testing::Test {
 protected:
  const Context context{cuda_params()};
  const Problem problem = related(42, 6, 40, 3);
  DeviceCall call{problem};
  Guarded<int64_t> indices{42};

  int32_t run_async() {
    return mipruner_select_async(context, call.visual, call.text, call.params, indices.data(), 42,
                                 call.scores_out);
  }
  void expect_async_refused(int32_t status, std::initializer_list<const char*> parts) {
    EXPECT_EQ(run_async(), status);
    expect_parts(context.last_error(), parts);
    EXPECT_TRUE(indices.untouched());
    EXPECT_TRUE(call.scores.untouched());
    call.forget_outputs();
  }
  void expect_async(const std::vector<int32_t>& kept) {
    const auto count = static_cast<int64_t>(kept.size());
    EXPECT_EQ(indices.first(count), std::vector<int64_t>(kept.begin(), kept.end()));
    EXPECT_TRUE(indices.untouched(count));
  }
};

// ---- mipruner_select ----

TEST_F(Device, WithoutText) {
  call.text = nullptr;
  call.select_params.redundancy = 1;
  const Outcome expected = select_without_text(Context(), problem, call.select_params);
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  EXPECT_EQ(call.outcome(MIPRUNER_OK).kept, expected.kept);
}

TEST_F(Device, WithoutTextBesideRowsThatAreNotFinite) {
  std::vector<double> values = problem.visual.values();
  values[0] = std::nan("");
  values[7 * 40] = std::nan("");
  const Problem spoilt = {Rows(values, 42, 40), Rows({}, 0, 40)};
  DeviceCall device(spoilt);
  device.select_params.redundancy = 1;
  device.select_params.always_keep = kAlways;
  device.select_params.n_always_keep = 3;
  const Outcome expected = select(Context(), spoilt, device.select_params);
  EXPECT_EQ(device.run(context), MIPRUNER_DEGENERATE);
  const Outcome outcome = device.outcome(MIPRUNER_DEGENERATE);
  EXPECT_EQ(outcome.kept, expected.kept);
  EXPECT_EQ(outcome.scores, expected.scores);
  EXPECT_EQ(outcome.result.n_not_finite, 2);
}

TEST_F(Device, AllRows) {
  call.select_params.keep_ratio = 1;
  EXPECT_EQ(call.run(context), MIPRUNER_KEPT_ALL);
  EXPECT_EQ(call.result[0].n_not_finite, 0);
  call.forget_outputs();
  call.scores_out = nullptr;
  EXPECT_EQ(call.run(context), MIPRUNER_KEPT_ALL);
  EXPECT_EQ(call.result[0].n_not_finite, -1);
}

TEST_F(Device, HostViewsAreWorkedOnByTheCpu) {
  call.select_params.redundancy = 0.5f;
  expect_same_bits(select(context, problem, call.select_params),
                   select(Context(), problem, call.select_params));
}

TEST_F(Device, MaxWorkspaceIsExact) {
  call.select_params.redundancy = 0;  // which makes do with less
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  const uint64_t workspace = call.result[0].workspace;
  for (uint64_t bytes : {workspace, workspace - 1}) {
    call.forget_outputs();
    mipruner_context_params params = cuda_params();
    params.max_workspace = bytes;
    const Context limited(params);
    EXPECT_EQ(call.run(limited), bytes == workspace ? MIPRUNER_OK : MIPRUNER_ERROR_OUT_OF_MEMORY);
    EXPECT_EQ(call.outputs_untouched(), bytes < workspace);
  }
}

TEST_F(Device, TextInOtherMemory) {
  call.text_view.memory = MIPRUNER_MEMORY_HOST;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT,
                 {"text: got device cpu", "visual, cuda"});
  call.text_view.memory = MIPRUNER_MEMORY_DEVICE;
  call.visual_view.memory = MIPRUNER_MEMORY_HOST;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT,
                 {"text: got device cuda", "visual, cpu"});
}

TEST_F(Device, UnknownMemory) {
  call.visual_view.memory = 2;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT, {"visual.memory: got 2"});
}

// ---- mipruner_select_async ----

TEST_F(Device, AsyncIsAsSelect) {
  for (float redundancy : {0.0f, 0.5f}) {
    call.select_params.redundancy = redundancy;
    call.select_params.coverage = 0.5;
    EXPECT_EQ(call.run(context), MIPRUNER_OK);
    const Outcome expected = call.outcome(MIPRUNER_OK);
    call.forget_outputs();
    indices = Guarded<int64_t>(42);
    EXPECT_EQ(run_async(), MIPRUNER_OK);
    expect_async(expected.kept);
    EXPECT_EQ(call.scores.first(42), expected.scores);
    EXPECT_TRUE(call.scores.untouched(42));
  }
}

TEST_F(Device, AsyncWithoutScores) {
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  const std::vector<int32_t> kept = call.outcome(MIPRUNER_OK).kept;
  call.forget_outputs();
  call.scores_out = nullptr;
  EXPECT_EQ(run_async(), MIPRUNER_OK);
  expect_async(kept);
}

TEST_F(Device, AsyncOfAllRows) {
  call.select_params.keep_ratio = 1;
  EXPECT_EQ(run_async(), MIPRUNER_KEPT_ALL);
  for (int64_t i = 0; i < 42; ++i) EXPECT_EQ(indices[i], i);
}

TEST_F(Device, AsyncOfNoRows) {
  call.visual_view.n_rows = 0;
  EXPECT_EQ(run_async(), MIPRUNER_KEPT_ALL);
  EXPECT_TRUE(indices.untouched());
}

TEST_F(Device, AsyncOfHostMemory) {
  call.visual_view.memory = call.text_view.memory = MIPRUNER_MEMORY_HOST;
  expect_async_refused(MIPRUNER_ERROR_NOT_SUPPORTED, {"visual.memory: got host memory"});
}

TEST_F(Device, AsyncByScore) {
  call.select_params.order = MIPRUNER_ORDER_SCORE;
  expect_async_refused(MIPRUNER_ERROR_NOT_SUPPORTED, {"order: got 1", "ASCENDING"});
}

TEST_F(Device, AsyncAroundRowsThatAreAlwaysKept) {
  call.select_params.always_keep = kAlways;
  call.select_params.n_always_keep = 3;
  expect_async_refused(MIPRUNER_ERROR_NOT_SUPPORTED, {"always_keep: got 2 rows"});
}

TEST_F(Device, AsyncBadOutputs) {
  EXPECT_EQ(mipruner_select_async(context, call.visual, call.text, call.params, indices.data(), 9,
                                  nullptr),
            MIPRUNER_ERROR_BUFFER_TOO_SMALL);
  expect_parts(context.last_error(), {"idx_cap: got 9", "11 or more"});
  EXPECT_EQ(
      mipruner_select_async(context, call.visual, call.text, call.params, nullptr, 42, nullptr),
      MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(context.last_error(), {"idx_out: got NULL"});
  const auto half = reinterpret_cast<uintptr_t>(indices.data()) + 4;
  EXPECT_EQ(mipruner_select_async(context, call.visual, call.text, call.params,
                                  reinterpret_cast<int64_t*>(half), 42, nullptr),
            MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(context.last_error(), {"idx_out: got an address that is not aligned to 8 bytes"});
  EXPECT_TRUE(indices.untouched());
}

TEST_F(Device, AsyncWithinALimit) {
  mipruner_context_params params = cuda_params();
  params.max_workspace = 100;
  const Context limited(params);
  EXPECT_EQ(mipruner_select_async(limited, call.visual, call.text, call.params, indices.data(), 42,
                                  nullptr),
            MIPRUNER_ERROR_OUT_OF_MEMORY);
  expect_parts(limited.last_error(), {"max_workspace: got 100"});
  EXPECT_TRUE(indices.untouched());
}

// ---- mipruner_gather_rows_async ----

class GatherOnDevice : public testing::Test {
 protected:
  const Context context{cuda_params()};
  const std::vector<int32_t> src = {0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32};
  std::vector<int64_t> idx = {0, 2, 3};
  Guarded<int32_t> dst{6};

  void expect_refused(int32_t status, std::initializer_list<const char*> parts) {
    EXPECT_EQ(status, MIPRUNER_ERROR_INVALID_ARGUMENT);
    expect_parts(context.last_error(), parts);
    EXPECT_TRUE(dst.untouched());
  }
};

TEST_F(GatherOnDevice, PacksTheRows) {
  EXPECT_EQ(
      mipruner_gather_rows_async(context, dst.data(), src.data(), 4, 8, 12, idx.data(), 3, nullptr),
      MIPRUNER_OK);
  EXPECT_EQ(dst.first(6), (std::vector<int32_t>{0, 1, 20, 21, 30, 31}));
  EXPECT_TRUE(dst.untouched(6));
}

TEST_F(GatherOnDevice, RowsOutsideAreZero) {
  idx = {-1, 2, 4};
  EXPECT_EQ(
      mipruner_gather_rows_async(context, dst.data(), src.data(), 4, 8, 12, idx.data(), 3, nullptr),
      MIPRUNER_OK);
  EXPECT_EQ(dst.first(6), (std::vector<int32_t>{0, 0, 20, 21, 0, 0}));
}

TEST_F(GatherOnDevice, Nothing) {
  EXPECT_EQ(mipruner_gather_rows_async(context, nullptr, nullptr, 0, 8, 0, nullptr, 0, nullptr),
            MIPRUNER_OK);
  EXPECT_EQ(mipruner_gather_rows_async(context, nullptr, nullptr, 4, 0, 0, idx.data(), 3, nullptr),
            MIPRUNER_OK);
}

TEST_F(GatherOnDevice, OfWhatWasSelected) {
  const Problem problem = related(42, 6, 40, 3);
  DeviceCall call(problem);
  Guarded<int64_t> kept(11);
  ASSERT_EQ(
      mipruner_select_async(context, call.visual, call.text, call.params, kept.data(), 11, nullptr),
      MIPRUNER_OK);
  Guarded<float> rows(11 * 40);
  ASSERT_EQ(mipruner_gather_rows_async(context, rows.data(), call.visual_view.data, 42, 160, 0,
                                       kept.data(), 11, nullptr),
            MIPRUNER_OK);
  const auto* const visual = static_cast<const float*>(call.visual_view.data);
  for (int64_t i = 0; i < 11 * 40; ++i) EXPECT_EQ(rows[i], visual[kept[i / 40] * 40 + i % 40]);
  EXPECT_TRUE(rows.untouched(11 * 40));
}

TEST_F(GatherOnDevice, NullInTurn) {
  expect_refused(
      mipruner_gather_rows_async(context, nullptr, src.data(), 4, 8, 12, idx.data(), 3, nullptr),
      {"dst: got NULL"});
  expect_refused(
      mipruner_gather_rows_async(context, dst.data(), nullptr, 4, 8, 12, idx.data(), 3, nullptr),
      {"src: got NULL"});
  expect_refused(
      mipruner_gather_rows_async(context, dst.data(), src.data(), 4, 8, 12, nullptr, 3, nullptr),
      {"idx: got NULL"});
}

TEST_F(GatherOnDevice, SizesOutside) {
  expect_refused(mipruner_gather_rows_async(context, dst.data(), src.data(), -4, 8, 12, idx.data(),
                                            3, nullptr),
                 {"n_rows: got -4"});
  expect_refused(mipruner_gather_rows_async(context, dst.data(), src.data(), 4, 8, 12, idx.data(),
                                            -1, nullptr),
                 {"n_idx: got -1"});
  expect_refused(
      mipruner_gather_rows_async(context, dst.data(), src.data(), 4, 8, 7, idx.data(), 3, nullptr),
      {"src_stride: got 7"});
  expect_refused(mipruner_gather_rows_async(context, dst.data(), src.data(), 4, ~size_t{0}, 0,
                                            idx.data(), 3, nullptr),
                 {"row_bytes: got 18446744073709551615"});
}

TEST_F(GatherOnDevice, InPlace) {
  std::vector<int32_t> memory = src;
  expect_refused(mipruner_gather_rows_async(context, memory.data(), memory.data(), 4, 8, 12,
                                            idx.data(), 3, nullptr),
                 {"dst: got memory that overlaps src"});
  EXPECT_EQ(memory, src);
}

// ---- which backend ----

TEST(Backends, BothAreSupported) {
  EXPECT_TRUE(mipruner_supports(MIPRUNER_BACKEND_CUDA, MIPRUNER_DTYPE_BF16, 4));
  EXPECT_FALSE(mipruner_supports(MIPRUNER_BACKEND_CUDA, 2, 4));
}

TEST(Backends, AutoUsesTheDevice) {
  mipruner_context_params params = cuda_params();
  params.backend = MIPRUNER_BACKEND_AUTO;
  DeviceCall call(related(42, 6, 40, 3));
  EXPECT_EQ(call.run(Context(params)), MIPRUNER_OK);
}

TEST(Backends, TheCpuRefusesDeviceViews) {
  DeviceCall call(related(42, 6, 40, 3));
  const Context context;
  expect_refused(context, call, MIPRUNER_ERROR_NOT_SUPPORTED,
                 {"visual.memory: got device memory", "CPU alone"});
}

TEST(Backends, ADeviceThatIsNotThere) {
  for (int32_t backend : {MIPRUNER_BACKEND_CUDA, MIPRUNER_BACKEND_AUTO}) {
    mipruner_context_params params = cuda_params();
    params.backend = backend;
    params.device_id = 1;
    mipruner_context* made = nullptr;
    EXPECT_EQ(mipruner_init(&params, &made), MIPRUNER_ERROR_INVALID_ARGUMENT);
    expect_parts(mipruner_last_error(nullptr), {"device_id: got 1", "the 1 CUDA devices"});
    EXPECT_EQ(made, nullptr);
  }
}

}  // namespace
}  // namespace mipruner::tests
