// answer FOLDER OUT: answers questions about pictures, for comparison with transformers.
//
// Reads one request a line from standard input, fields separated by tabs:
//   IMAGE  PROMPT  N_KEEP  REDUNDANCY  QUERY
// with the image's place in the prompt marked <__media__> (coverage is 0), and writes for request i
//   OUT/i.rows     the image's embeddings, float32 [rows, n_embd]
//   OUT/i.logits   those of the first new token, float32
// and to standard output a line with the tokens of the prompt (-1 for the image), a tab, the kept
// rows, a tab, the answer.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include "by_hand.h"

namespace llama_checks {
namespace {

struct Request {
  std::string image, prompt, query;
  mipruner::llama::EvalOptions options;
};

Request parse(const std::string& line) {
  std::istringstream fields(line);
  Request request;
  std::string n_keep, redundancy;
  std::getline(fields, request.image, '\t');
  std::getline(fields, request.prompt, '\t');
  std::getline(fields, n_keep, '\t');
  std::getline(fields, redundancy, '\t');
  std::getline(fields, request.query, '\t');
  request.options.select = mipruner_select_default_params();
  request.options.select.n_keep = std::stoi(n_keep);
  request.options.select.redundancy = std::stof(redundancy);
  request.options.select.coverage = 0;
  return request;
}

Image read_image(const Vlm& vlm, const std::string& path) {
  const mtmd::bitmap bitmap(mtmd_helper_bitmap_init_from_file(vlm.vision(), path.c_str(), false,
                                                              mtmd_helper_init_opt_default())
                                .bitmap);
  if (!bitmap.ptr) throw std::runtime_error("cannot read " + path);
  return {bitmap.nx(), bitmap.ny(), {bitmap.data(), bitmap.data() + bitmap.n_bytes()}};
}

void write_floats(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void print_tokens(const Prompt& prompt) {
  for (size_t i = 0; i < prompt.size(); ++i) {
    size_t count = 0;
    const llama_token* tokens =
        is_image(prompt[i]) ? nullptr : mtmd_input_chunk_get_tokens_text(prompt[i], &count);
    if (tokens == nullptr) std::printf("-1 ");
    for (size_t k = 0; k < count; ++k) std::printf("%d ", tokens[k]);
  }
}

std::string say(const Vlm& vlm, llama_pos n_past) {
  std::string said;
  for (const llama_token token : generate(vlm, n_past, 4).tokens) {
    if (llama_vocab_is_eog(vlm.vocab(), token)) break;
    char piece[64];
    const int32_t size = llama_token_to_piece(vlm.vocab(), token, piece, sizeof piece, 0, false);
    said.append(piece, static_cast<size_t>(std::max(size, 0)));
  }
  return said;
}

void answer(Vlm& vlm, const Request& request, const std::string& out) {
  const Prompt prompt =
      vlm.tokenize(request.prompt, {read_image(vlm, request.image)}, /*add_special=*/true);
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (is_image(prompt[i])) write_floats(out + ".rows", encode(vlm, prompt[i]));
  }
  const std::vector<llama_token> query = vlm.tokens(request.query);
  mipruner::llama::EvalOptions options = request.options;
  options.query = query.data();
  options.n_query = query.size();
  std::vector<mipruner::llama::ImageReport> reports;
  const Outcome outcome = evaluate_pruned(vlm, prompt, options, &reports);
  write_floats(out + ".logits", outcome.logits);
  print_tokens(prompt);
  std::printf("\t");
  for (const int32_t row : reports.at(0).kept) std::printf("%d ", row);
  std::printf("\t%s\n", say(vlm, outcome.n_past).c_str());
}

}  // namespace
}  // namespace llama_checks

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: answer FOLDER OUT");
  const auto silent = [](ggml_log_level, const char*, void*) {};
  llama_log_set(silent, nullptr);
  mtmd_helper_log_set(silent, nullptr);
  llama_backend_init();
  llama_checks::Vlm vlm(argv[1]);
  std::string line;
  for (int i = 0; std::getline(std::cin, line); ++i) {
    llama_checks::answer(vlm, llama_checks::parse(line), argv[2] + ("/" + std::to_string(i)));
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "answer: %s\n", error.what());
  return 1;
}
