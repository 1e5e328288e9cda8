// The library without CUDA.
#include <gtest/gtest.h>

#include "call.h"

namespace mipruner::tests {
namespace {

TEST(CpuOnly, AContextForCuda) {
  mipruner_context_params params = mipruner_context_default_params();
  params.backend = MIPRUNER_BACKEND_CUDA;
  mipruner_context* made = nullptr;
  EXPECT_EQ(mipruner_init(&params, &made), MIPRUNER_ERROR_NOT_SUPPORTED);
  expect_parts(mipruner_last_error(nullptr), {"backend: got CUDA", "no CUDA kernels"});
  EXPECT_EQ(made, nullptr);
}

TEST(CpuOnly, SaysSo) {
  EXPECT_FALSE(mipruner_supports(MIPRUNER_BACKEND_CUDA, MIPRUNER_DTYPE_F32, 1));
}

// Whatever device is asked for: there is none to use.
TEST(CpuOnly, AutoIsTheCpu) {
  mipruner_context_params params = mipruner_context_default_params();
  params.device_id = 5;
  SelectCall call(related(12, 3, 8));
  call.visual_view.memory = call.text_view.memory = MIPRUNER_MEMORY_DEVICE;
  expect_refused(Context(params), call, MIPRUNER_ERROR_NOT_SUPPORTED,
                 {"visual.memory: got device memory", "CPU alone"});
}

}  // namespace
}  // namespace mipruner::tests
