// Structs of programs compiled against an older or a newer header.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "call.h"

namespace mipruner::tests {
namespace {

// A struct as a newer header might have it: what we know, then more.
template <class T>
class Newer {
 public:
  Newer(const T& known, size_t size, unsigned char tail = 0) : bytes_(size, tail) {
    std::memcpy(bytes_.data(), &known, sizeof known);
    as_known()->struct_size = size;
  }
  T* as_known() { return reinterpret_cast<T*>(bytes_.data()); }
  unsigned char& byte(size_t i) { return bytes_[i]; }

 private:
  std::vector<unsigned char> bytes_;
};

class Versions : public testing::Test {
 protected:
  Context context;
  SelectCall call{related(12, 3, 8)};
  mipruner_select_params& params = call.select_params;
};

TEST_F(Versions, SelectParamsOfThePast) {
  for (size_t size : {size_t{0}, size_t{8}, sizeof params - 1}) {
    params.struct_size = size;
    const std::string given = "got " + std::to_string(size);
    expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT,
                   {"params.struct_size: ", given.c_str(), "64 and 72 to 4096", "_init"});
  }
}

// Without coverage, whatever comes behind it in memory.
TEST_F(Versions, SelectParamsOfTheFirstRelease) {
  params.n_keep = 5;
  for (float redundancy : {0.0f, 1.0f}) {
    params.struct_size = sizeof params;
    params.redundancy = redundancy;
    params.coverage = 1;
    const Outcome covered = select(context, call.problem, params);
    params.coverage = 0;
    const Outcome then = select(context, call.problem, params);
    EXPECT_NE(covered.kept, then.kept);
    params.struct_size = 64;
    for (double behind : {0.0, 1.0, std::nan("")}) {
      params.coverage = behind;
      expect_same_bits(select(context, call.problem, params), then);
    }
  }
}

// Compiled against the first header and linked to this library: its choice by relevance alone.
TEST_F(Versions, DefaultsOfTheFirstRelease) {
  const Outcome then = select(context, call.problem, params_by_relevance());
  EXPECT_NE(select(context, call.problem, params).kept, then.kept);
  mipruner_select_params_init(&params, 64);
  expect_same_bits(select(context, call.problem, params), then);
}

TEST_F(Versions, SelectParamsThatAreGarbage) {
  params.struct_size = 4097;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT, {"params.struct_size: got 4097"});
  params.struct_size = ~size_t{0};
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT,
                 {"params.struct_size: got 184467"});
}

TEST_F(Versions, SelectParamsOfTheFuture) {
  params.n_keep = 5;
  const Outcome now = select(context, call.problem, params);
  for (size_t size : {sizeof params + 1, sizeof params + 8, size_t{4096}}) {
    Newer<mipruner_select_params> newer(params, size);
    expect_same_bits(select(context, call.problem, *newer.as_known()), now);
  }
}

// As the header promises: nothing asked for is ever ignored.
TEST_F(Versions, SelectParamsThatAskForTheFuture) {
  for (size_t byte : {sizeof params, size_t{75}, size_t{79}}) {
    Newer<mipruner_select_params> newer(params, 80);
    newer.byte(byte) = 1;
    call.params = newer.as_known();
    const std::string which = "byte " + std::to_string(byte);
    expect_refused(context, call, MIPRUNER_ERROR_NOT_SUPPORTED,
                   {"params: ", which.c_str(), "ABI 1", "72 bytes"});
  }
}

TEST_F(Versions, ContextParamsOfThePast) {
  mipruner_context_params past = cpu_params();
  mipruner_context* made = context;
  past.struct_size = sizeof past - 1;
  EXPECT_EQ(mipruner_init(&past, &made), MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"params.struct_size: got 47", "48 to 4096"});
  EXPECT_EQ(made, nullptr);
}

TEST_F(Versions, ContextParamsOfTheFuture) {
  Newer<mipruner_context_params> newer(cpu_params(3), 4096);
  mipruner_context* made = nullptr;
  EXPECT_EQ(mipruner_init(newer.as_known(), &made), MIPRUNER_OK);
  mipruner_free(made);
  newer.byte(4095) = 255;
  EXPECT_EQ(mipruner_init(newer.as_known(), &made), MIPRUNER_ERROR_NOT_SUPPORTED);
  expect_parts(mipruner_last_error(nullptr), {"params: byte 4095 is set"});
  EXPECT_EQ(made, nullptr);
}

TEST_F(Versions, ResultOfThePast) {
  call.result[0].struct_size = 39;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT,
                 {"result.struct_size: got 39", "40 to 4096"});
  call.result[0].struct_size = 0;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT, {"result.struct_size: got 0"});
  call.result[0].struct_size = 5000;
  expect_refused(context, call, MIPRUNER_ERROR_INVALID_ARGUMENT, {"result.struct_size: got 5000"});
}

// Written as far as this library knows it; the rest is left alone, and so is the size.
TEST_F(Versions, ResultOfTheFuture) {
  Newer<mipruner_result> newer({}, 64, 0x5a);
  call.result_out = newer.as_known();
  EXPECT_EQ(call.run(context), MIPRUNER_OK);
  EXPECT_EQ(newer.as_known()->struct_size, 64u);
  EXPECT_EQ(newer.as_known()->n_keep, 3);
  for (size_t i = sizeof(mipruner_result); i < 64; ++i) EXPECT_EQ(newer.byte(i), 0x5a) << i;
}

// ---- defaults ----

TEST(Defaults, ContextParams) {
  const mipruner_context_params params = mipruner_context_default_params();
  EXPECT_EQ(params.struct_size, sizeof params);
  EXPECT_EQ(params.backend, MIPRUNER_BACKEND_AUTO);
  EXPECT_EQ(params.device_id, 0);
  EXPECT_EQ(params.n_threads, 1);
  EXPECT_EQ(params.reserved, 0);
  EXPECT_EQ(params.max_workspace, 0u);
  EXPECT_EQ(params.abort_callback, nullptr);
  EXPECT_EQ(params.abort_user_data, nullptr);
}

TEST(Defaults, SelectParams) {
  const mipruner_select_params params = mipruner_select_default_params();
  EXPECT_EQ(params.struct_size, sizeof params);
  EXPECT_EQ(params.keep_ratio, 0.25);
  EXPECT_EQ(params.n_keep, 0);
  EXPECT_EQ(params.min_tokens, 0);
  EXPECT_EQ(params.estimator, MIPRUNER_ESTIMATOR_DEFAULT);
  EXPECT_EQ(params.order, MIPRUNER_ORDER_ASCENDING);
  EXPECT_EQ(params.temperature, 0.1f);
  EXPECT_GT(params.redundancy, 0.0f);  // python_tests/test_c_api.py knows the numbers
  EXPECT_EQ(params.always_keep, nullptr);
  EXPECT_EQ(params.n_always_keep, 0);
  EXPECT_EQ(params.stream, nullptr);
  EXPECT_GT(params.coverage, 0.0);
}

// A program has room for the struct of its own header and no more: smaller in the first release,
// larger in a later one, whose members that this library does not know come out zero.
TEST(Defaults, OfOtherReleases) {
  for (int64_t size : {64, 96}) {
    Guarded<unsigned char> bytes(size);
    auto* const params = reinterpret_cast<mipruner_select_params*>(bytes.data());
    mipruner_select_params_init(params, static_cast<size_t>(size));
    EXPECT_EQ(params->struct_size, static_cast<size_t>(size));
    EXPECT_EQ(params->temperature, 0.1f);
    const bool is_first = size == 64;
    EXPECT_EQ(params->redundancy, is_first ? 0.0f : mipruner_select_default_params().redundancy);
    for (int64_t i = sizeof *params; i < size; ++i) EXPECT_EQ(bytes[i], 0) << i;
    EXPECT_TRUE(bytes.untouched(size));
  }
}

TEST(Defaults, OfASizeThatNeverWas) {
  for (size_t size :
       {size_t{0}, size_t{8}, size_t{63}, size_t{65}, size_t{71}, size_t{4097}, ~size_t{0}}) {
    Guarded<unsigned char> bytes(64);
    auto* const params = reinterpret_cast<mipruner_select_params*>(bytes.data());
    mipruner_select_params_init(params, size);
    EXPECT_EQ(params->struct_size, 0u);
    EXPECT_TRUE(bytes.untouched(8));
  }
  Guarded<unsigned char> bytes(48);
  auto* const params = reinterpret_cast<mipruner_context_params*>(bytes.data());
  mipruner_context_params_init(params, 47);
  EXPECT_EQ(params->struct_size, 0u);
  EXPECT_TRUE(bytes.untouched(8));
}

TEST(Defaults, InitOfNull) {
  mipruner_context_params_init(nullptr, sizeof(mipruner_context_params));
  mipruner_select_params_init(nullptr, sizeof(mipruner_select_params));
}

}  // namespace
}  // namespace mipruner::tests
