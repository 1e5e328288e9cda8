// mipruner_select's arguments, each of them wrong in turn. Structs of other versions:
// versions_test.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "call.h"

namespace mipruner::tests {
namespace {

constexpr int64_t kTooMany = int64_t{1} << 31;

class SelectBadInput : public testing::Test {
 protected:
  void expect_invalid(std::initializer_list<const char*> parts) {
    expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT, parts);
  }
  void expect_status(int32_t status, std::initializer_list<const char*> parts) {
    expect_refused(context, call, status, parts);
  }
  // The same address, a byte further on.
  template <class T>
  static T* unaligned(T* pointer) {
    return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(pointer) + 1);
  }

  Context context;
  SelectCall call{related(12, 3, 8)};
  mipruner_view& visual = call.visual_view;
  mipruner_view& text = call.text_view;
  mipruner_select_params& params = call.select_params;
};

TEST_F(SelectBadInput, NothingIsWrongBefore) {
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  EXPECT_FALSE(call.outputs_untouched());
}

// ---- NULL ----

TEST_F(SelectBadInput, ContextNull) {
  EXPECT_EQ(call.run(nullptr), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"context: got NULL"});
  EXPECT_TRUE(call.outputs_untouched());
}

TEST_F(SelectBadInput, VisualNull) {
  call.visual = nullptr;
  expect_invalid({"visual: got NULL"});
}

TEST_F(SelectBadInput, VisualDataNull) {
  visual.data = nullptr;
  expect_invalid({"visual.data: got NULL", "12 rows"});
}

TEST_F(SelectBadInput, TextDataNull) {
  text.data = nullptr;
  expect_invalid({"text.data: got NULL", "3 rows"});
}

TEST_F(SelectBadInput, TextNullWithoutRedundancy) {
  call.text = nullptr;
  params.redundancy = 0;
  expect_invalid({"redundancy: got 0 without text"});
}

TEST_F(SelectBadInput, TextOfNoRowsWithoutRedundancy) {
  text.n_rows = 0;
  params.redundancy = 0;
  expect_invalid({"redundancy: got 0 without text"});
}

TEST_F(SelectBadInput, IndicesNull) {
  call.idx_out = nullptr;
  expect_invalid({"idx_out: got NULL"});
}

TEST_F(SelectBadInput, AlwaysKeepNull) {
  params.n_always_keep = 2;
  expect_invalid({"always_keep: got NULL", "n_always_keep 2"});
}

TEST_F(SelectBadInput, WhatMayBeNull) {
  const Outcome all = select(context, call.problem, params);
  call.params = nullptr;
  call.scores_out = nullptr;
  call.result_out = nullptr;
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  EXPECT_EQ(call.indices.first(3), all.kept);
  EXPECT_TRUE(call.indices.untouched(3));
  EXPECT_TRUE(call.scores.untouched());
}

// ---- sizes ----

TEST_F(SelectBadInput, VisualRowsNegative) {
  visual.n_rows = -1;
  expect_invalid({"visual.n_rows: got -1", "0 to 2147483647"});
}

TEST_F(SelectBadInput, TextRowsNegative) {
  text.n_rows = -5;
  expect_invalid({"text.n_rows: got -5"});
}

TEST_F(SelectBadInput, VisualRowsBeyondInt32) {
  visual.n_rows = kTooMany;
  expect_invalid({"visual.n_rows: got 2147483648"});
}

TEST_F(SelectBadInput, TextRowsBeyondInt32) {
  text.n_rows = kTooMany;
  expect_invalid({"text.n_rows: got 2147483648"});
}

TEST_F(SelectBadInput, VisualColumnsZero) {
  visual.n_cols = 0;
  expect_invalid({"visual.n_cols: got 0", "1 to"});
}

TEST_F(SelectBadInput, VisualColumnsNegative) {
  visual.n_cols = -8;
  expect_invalid({"visual.n_cols: got -8"});
}

TEST_F(SelectBadInput, VisualColumnsBeyondInt32) {
  visual.n_cols = kTooMany;
  visual.row_stride = 0;
  expect_invalid({"visual.n_cols: got 2147483648"});
}

TEST_F(SelectBadInput, VisualStrideBelowTheWidth) {
  visual.row_stride = 7;
  expect_invalid({"visual.row_stride: got 7", "8 to"});
}

TEST_F(SelectBadInput, VisualStrideNegative) {
  visual.row_stride = -8;
  expect_invalid({"visual.row_stride: got -8"});
}

TEST_F(SelectBadInput, TextStrideBelowTheWidth) {
  text.row_stride = 1;
  expect_invalid({"text.row_stride: got 1"});
}

TEST_F(SelectBadInput, VisualStrideThatNoMemoryHas) {
  visual.row_stride = std::numeric_limits<int64_t>::max();
  expect_invalid({"visual.row_stride: got 9223372036854775807"});
  visual.row_stride = std::numeric_limits<int64_t>::max() / 4 / 12 + 1;
  expect_invalid({"visual.row_stride: got 192153584101141163"});
}

TEST_F(SelectBadInput, CapacityTooSmall) {
  call.idx_cap = 2;
  expect_status(MIPRUNER_ERROR_BUFFER_TOO_SMALL, {"idx_cap: got 2", "3 or more"});
}

TEST_F(SelectBadInput, CapacityNegative) {
  call.idx_cap = -1;
  expect_status(MIPRUNER_ERROR_BUFFER_TOO_SMALL, {"idx_cap: got -1", "3 or more"});
}

TEST_F(SelectBadInput, CapacityExact) {
  call.idx_cap = 3;
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  EXPECT_TRUE(call.indices.untouched(3));
}

// The table of rows x words would have 2^64 bytes. Nothing is read before that is known.
TEST_F(SelectBadInput, TableThatNoMachineHolds) {
  visual.n_rows = text.n_rows = kTooMany - 1;
  visual.n_cols = text.n_cols = 1;
  visual.row_stride = text.row_stride = 1;
  params.n_keep = 1;
  params.redundancy = 0;
  expect_status(MIPRUNER_ERROR_OUT_OF_MEMORY, {"out of memory", "scratch memory"});
}

TEST_F(SelectBadInput, TableThatNoMachineHoldsBesideRowsKeptAnyway) {
  visual.n_rows = text.n_rows = kTooMany - 1;
  visual.n_cols = text.n_cols = 1;
  visual.row_stride = text.row_stride = 1;
  params.n_keep = 1;
  const int32_t last = std::numeric_limits<int32_t>::max() - 1;
  params.always_keep = &last;
  params.n_always_keep = 1;
  params.redundancy = 1;
  expect_status(MIPRUNER_ERROR_OUT_OF_MEMORY, {"out of memory"});
}

// ---- alignment ----

TEST_F(SelectBadInput, VisualDataUnaligned) {
  visual.data = unaligned(static_cast<const char*>(visual.data));
  expect_invalid({"visual.data: got an address that is not aligned", "4 bytes"});
}

TEST_F(SelectBadInput, VisualDataUnalignedForHalves) {
  visual.dtype = text.dtype = MIPRUNER_DTYPE_F16;
  visual.data = unaligned(static_cast<const char*>(visual.data));
  expect_invalid({"visual.data: got an address that is not aligned", "2 bytes"});
}

TEST_F(SelectBadInput, TextDataUnaligned) {
  text.data = unaligned(static_cast<const char*>(text.data));
  expect_invalid({"text.data: got an address that is not aligned"});
}

TEST_F(SelectBadInput, VisualUnaligned) {
  call.visual = unaligned(call.visual);
  expect_invalid({"visual: got an address that is not aligned to 8 bytes"});
}

TEST_F(SelectBadInput, TextUnaligned) {
  call.text = unaligned(call.text);
  expect_invalid({"text: got an address that is not aligned to 8 bytes"});
}

TEST_F(SelectBadInput, ParamsUnaligned) {
  call.params = unaligned(call.params);
  expect_invalid({"params: got an address that is not aligned to 8 bytes"});
}

TEST_F(SelectBadInput, IndicesUnaligned) {
  call.idx_out = unaligned(call.idx_out);
  expect_invalid({"idx_out: got an address that is not aligned to 4 bytes"});
}

TEST_F(SelectBadInput, ScoresUnaligned) {
  call.scores_out = unaligned(call.scores_out);
  expect_invalid({"scores_out: got an address that is not aligned to 4 bytes"});
}

TEST_F(SelectBadInput, ResultUnaligned) {
  call.result_out = unaligned(call.result_out);
  expect_invalid({"result: got an address that is not aligned to 8 bytes"});
}

TEST_F(SelectBadInput, AlwaysKeepUnaligned) {
  const int32_t rows[2] = {0, 0};
  params.always_keep = unaligned(rows);
  params.n_always_keep = 1;
  expect_invalid({"always_keep: got an address that is not aligned to 4 bytes"});
}

// ---- enumerators ----

TEST_F(SelectBadInput, UnknownDtype) {
  visual.dtype = 2;
  expect_invalid({"visual.dtype: got 2", "0 (F32), 1 (F16) and 30 (BF16)"});
}

TEST_F(SelectBadInput, UnknownTextDtype) {
  text.dtype = -1;
  expect_invalid({"text.dtype: got -1"});
}

TEST_F(SelectBadInput, UnknownMemory) {
  visual.memory = 2;
  expect_invalid({"visual.memory: got 2", "0 to 1"});
}

TEST_F(SelectBadInput, UnknownTextMemory) {
  text.memory = -1;
  expect_invalid({"text.memory: got -1"});
}

TEST_F(SelectBadInput, UnknownEstimator) {
  params.estimator = 5;
  expect_invalid({"estimator: got 5", "0 to 4"});
  params.estimator = -1;
  expect_invalid({"estimator: got -1"});
}

TEST_F(SelectBadInput, UnknownOrder) {
  params.order = 2;
  expect_invalid({"order: got 2", "0 to 1"});
  params.order = -1;
  expect_invalid({"order: got -1"});
}

// ---- numbers ----

TEST_F(SelectBadInput, KeepCountNegative) {
  params.n_keep = -1;
  expect_invalid({"n_keep: got -1"});
}

TEST_F(SelectBadInput, KeepRatioOutside) {
  for (double ratio : {0.0, -0.5, 1.0000001, HUGE_VAL, -HUGE_VAL}) {
    params.keep_ratio = ratio;
    expect_invalid({"keep_ratio: got ", "(0, 1]"});
  }
  params.keep_ratio = std::nan("");
  expect_invalid({"keep_ratio: got nan"});
}

TEST_F(SelectBadInput, MinTokensNegative) {
  params.min_tokens = -3;
  expect_invalid({"min_tokens: got -3"});
}

TEST_F(SelectBadInput, TemperatureOutside) {
  for (float temperature : {0.0f, -0.1f, 1e-30f, HUGE_VALF}) {
    params.temperature = temperature;
    expect_invalid({"temperature: got ", "> 0"});
  }
  params.temperature = std::nanf("");
  expect_invalid({"temperature: got nan"});
}

TEST_F(SelectBadInput, RedundancyOutside) {
  for (float redundancy : {-0.5f, HUGE_VALF}) {
    params.redundancy = redundancy;
    expect_invalid({"redundancy: got ", ">= 0"});
  }
  params.redundancy = std::nanf("");
  expect_invalid({"redundancy: got nan"});
}

TEST_F(SelectBadInput, CoverageOutside) {
  for (double coverage : {-0.5, 1.0001, HUGE_VAL}) {
    params.coverage = coverage;
    expect_invalid({"coverage: got ", "allowed is [0, 1]"});
  }
  params.coverage = std::nan("");
  expect_invalid({"coverage: got nan"});
}

// ---- rows that are always kept ----

TEST_F(SelectBadInput, AlwaysKeepCountNegative) {
  params.n_always_keep = -1;
  expect_invalid({"n_always_keep: got -1"});
}

TEST_F(SelectBadInput, AlwaysKeepOutside) {
  for (int32_t row : {-1, 12, std::numeric_limits<int32_t>::max()}) {
    params.always_keep = &row;
    params.n_always_keep = 1;
    expect_invalid({"always_keep: got row ", std::to_string(row).c_str(), "0 to 11"});
  }
}

TEST_F(SelectBadInput, AlwaysKeepTooMany) {
  const int32_t rows[] = {0, 1, 2, 3};
  params.always_keep = rows;
  params.n_always_keep = 4;
  expect_invalid({"always_keep: got 4 rows", "at most the 3 that are kept"});
}

TEST_F(SelectBadInput, AlwaysKeepOfNoRows) {
  const int32_t row = 0;
  visual.n_rows = 0;
  params.always_keep = &row;
  params.n_always_keep = 1;
  expect_invalid({"always_keep: got row 0"});
}

// ---- views that do not go together ----

TEST_F(SelectBadInput, TextOfAnotherDtype) {
  text.dtype = MIPRUNER_DTYPE_BF16;
  expect_invalid({"text: got bfloat16", "float32"});
}

TEST_F(SelectBadInput, TextOfAnotherWidth) {
  text.n_cols = 7;
  expect_invalid({"text: got row width 7", "8"});
}

TEST_F(SelectBadInput, VisualInDeviceMemoryOfACpuContext) {
  visual.memory = MIPRUNER_MEMORY_DEVICE;
  expect_status(MIPRUNER_ERROR_NOT_SUPPORTED, {"visual.memory: got device memory"});
}

TEST_F(SelectBadInput, TextInDeviceMemoryOfACpuContext) {
  text.memory = MIPRUNER_MEMORY_DEVICE;
  expect_status(MIPRUNER_ERROR_NOT_SUPPORTED, {"text.memory: got device memory"});
}

// ---- the asynchronous functions, on the CPU ----

TEST_F(SelectBadInput, AsyncOnTheCpu) {
  Guarded<int64_t> indices(12);
  EXPECT_EQ(mipruner_select_async(context, &visual, &text, &params, indices.data(), 12,
                                  call.scores.data()),
            MIPRUNER_ERROR_NOT_SUPPORTED);
  expect_parts(context.last_error(), {"visual.memory: got host memory", "mipruner_select"});
  EXPECT_TRUE(indices.untouched());
  EXPECT_TRUE(call.outputs_untouched());
}

TEST_F(SelectBadInput, AsyncContextNull) {
  Guarded<int64_t> indices(12);
  EXPECT_EQ(mipruner_select_async(nullptr, &visual, &text, &params, indices.data(), 12, nullptr),
            MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"context: got NULL"});
  EXPECT_TRUE(indices.untouched());
}

TEST_F(SelectBadInput, GatherAsyncOnTheCpu) {
  const int32_t src[] = {1, 2};
  const int64_t idx = 1;
  Guarded<int32_t> dst(1);
  EXPECT_EQ(mipruner_gather_rows_async(context, dst.data(), src, 2, 4, 0, &idx, 1, nullptr),
            MIPRUNER_ERROR_NOT_SUPPORTED);
  expect_parts(context.last_error(), {"context: got one for the CPU"});
  EXPECT_EQ(mipruner_gather_rows_async(nullptr, dst.data(), src, 2, 4, 0, &idx, 1, nullptr),
            MIPRUNER_ERROR_INVALID_ARGUMENT);
  EXPECT_TRUE(dst.untouched());
}

}  // namespace
}  // namespace mipruner::tests
