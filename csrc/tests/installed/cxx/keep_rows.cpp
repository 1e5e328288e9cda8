// Keeps the 3 most relevant of 8 rows and prints them: visual row i points along axis i, the two
// words along 2 and 5. Then what a call that is not allowed throws, and the library's version.
#include <cstdio>
#include <vector>

#include "mipruner/mipruner.hpp"

#if !__has_include("mipruner_llama.hpp")
#error the headers for hosts of llama.cpp are not beside mipruner.hpp
#endif

int32_t abi_of_the_c_header();
mipruner::Context new_context();

int main() {
  constexpr int kRows = 8;
  std::vector<float> image(kRows * kRows), words(2 * kRows);
  for (int i = 0; i < kRows; ++i) image[static_cast<size_t>(i * kRows + i)] = 1;
  words[2] = words[kRows + 5] = 1;
  const mipruner_view visual = mipruner::rows_of(image, kRows);
  const mipruner_view text = mipruner::rows_of(words, kRows);
  mipruner_select_params params = mipruner_select_default_params();
  params.n_keep = 3;
  params.redundancy = 0;
  params.coverage = 0;

  mipruner::Context context = new_context();
  for (const int32_t row : context.select(visual, text, params).kept) std::printf("%d ", row);
  std::printf("%s\n", mipruner_version());
  try {
    params.temperature = 0;
    context.select(visual, text, params);
  } catch (const mipruner::Error& error) {
    std::printf("%d %s\n", error.status(), error.what());
  }
  return mipruner_abi_version() == abi_of_the_c_header() ? 0 : 1;
}
