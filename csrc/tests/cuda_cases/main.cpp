// Random cases of the CUDA kernels, run by the emulator and compared with the CPU backend.
//
//   cuda_cases [--order 0|1|2] [--seed S] [--count N] [--only OPERATION]
//
// Case number i of a seed is the same in every run, whatever the count. Every device buffer has its
// exact size, so a build with the checker or with AddressSanitizer sees the first byte too many.
// Exits with 1 and names the first case that fails.
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/cuda_cases/cases.h"

namespace mipruner::cases {
namespace {

struct Operation {
  const char* name;
  Verdict (*check)(Random& random);
};

constexpr Operation kOperations[] = {{"top_k", check_top_k},
                                     {"select_top_k", check_select_top_k},
                                     {"gather_rows", check_gather},
                                     {"normalize", check_normalize},
                                     {"mutual_information", check_mutual_information},
                                     {"select", check_select},
                                     {"greedy", check_greedy},
                                     {"select_varlen", check_select_varlen}};

constexpr int64_t kOperationCount = sizeof(kOperations) / sizeof(kOperations[0]);

int run(int order, int64_t seed, int64_t count, const char* only) {
  for (int64_t i = 0; i < count; ++i) {
    const Operation& operation = kOperations[i % kOperationCount];
    if (*only && std::strcmp(only, operation.name) != 0) continue;
    Random random(static_cast<uint64_t>(seed * 1000003 + i));
    set_thread_order(order, static_cast<uint32_t>(seed + i));
    const Verdict verdict = operation.check(random);
    if (verdict.ok()) continue;
    std::printf("case %lld of seed %lld, order %d: %s\n", static_cast<long long>(i),
                static_cast<long long>(seed), order, verdict.trouble.c_str());
    return 1;
  }
  std::printf("%lld cases passed\n", static_cast<long long>(count));
  return 0;
}

}  // namespace
}  // namespace mipruner::cases

int main(int argc, char** argv) {
  int order = 0;
  int64_t seed = 1;
  int64_t count = 300;
  const char* only = "";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--order") order = std::atoi(argv[i + 1]);
    if (name == "--seed") seed = std::atoll(argv[i + 1]);
    if (name == "--count") count = std::atoll(argv[i + 1]);
    if (name == "--only") only = argv[i + 1];
  }
  return mipruner::cases::run(order, seed, count, only);
}
