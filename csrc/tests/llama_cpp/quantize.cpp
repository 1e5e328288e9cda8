// quantize IN OUT q4_K|q6_K: a model with its token table in that type, by llama.cpp itself.
#include <llama.h>

#include <cstdio>
#include <cstring>

int main(int argc, char** argv) {
  if (argc != 4 || (std::strcmp(argv[3], "q4_K") != 0 && std::strcmp(argv[3], "q6_K") != 0)) {
    std::fprintf(stderr, "usage: quantize IN OUT q4_K|q6_K\n");
    return 2;
  }
  const bool is_q4 = std::strcmp(argv[3], "q4_K") == 0;
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.nthread = 1;
  params.ftype = is_q4 ? LLAMA_FTYPE_MOSTLY_Q4_K_M : LLAMA_FTYPE_MOSTLY_Q6_K;
  params.token_embedding_type = is_q4 ? GGML_TYPE_Q4_K : GGML_TYPE_Q6_K;
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  if (llama_model_quantize(argv[1], argv[2], &params) != 0) {
    std::fprintf(stderr, "quantize: llama.cpp cannot quantize %s\n", argv[1]);
    return 1;
  }
  return 0;
}
