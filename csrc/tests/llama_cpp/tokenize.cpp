// tokenize MODEL: the token ids of each line of standard input, special tokens understood.
#include <llama-cpp.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize MODEL\n");
    return 2;
  }
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  const llama_model_ptr model(llama_model_load_from_file(argv[1], params));
  if (!model) {
    std::fprintf(stderr, "tokenize: cannot load %s\n", argv[1]);
    return 1;
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    std::vector<llama_token> tokens(line.size() + 8);
    const int32_t count = llama_tokenize(llama_model_get_vocab(model.get()), line.c_str(),
                                         static_cast<int32_t>(line.size()), tokens.data(),
                                         static_cast<int32_t>(tokens.size()), /*add_special=*/false,
                                         /*parse_special=*/true);
    for (int32_t i = 0; i < count; ++i) std::printf("%d ", tokens[static_cast<size_t>(i)]);
    std::printf("\n");
  }
  return 0;
}
