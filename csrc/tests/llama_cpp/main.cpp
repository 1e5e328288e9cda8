// Runs the checks; MIPRUNER_LLAMA_MODELS names the folder of their models.
#include <gtest/gtest.h>
#include <llama.h>
#include <mtmd-helper.h>

#include <cstdio>

namespace {

void print_errors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  llama_log_set(print_errors, nullptr);
  mtmd_helper_log_set(print_errors, nullptr);
  llama_backend_init();
  const int code = RUN_ALL_TESTS();
  llama_backend_free();
  return code;
}
