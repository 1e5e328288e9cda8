// Problems for relevance and selection, their solution by either backend, and what is asked of it.
#pragma once

#include <memory>

#include "tests/cuda_cases/cases.h"

namespace mipruner::cases {

// A problem in device memory, with everything that it points to.
struct Problem {
  SelectProblem select;
  std::unique_ptr<Bytes> visual;
  std::unique_ptr<Bytes> text;
  std::unique_ptr<Buffer<bool>> visual_mask;
  std::unique_ptr<Buffer<bool>> text_mask;
};

Problem any_problem(Random& random, bool may_be_empty);

// How many bytes of similarities may be stored: none of them, half, all, more than all.
int64_t any_similarity_bytes(Random& random, const SelectProblem& problem);

// Item b of a batch, alone.
SelectProblem item_of(const SelectProblem& problem, int64_t b);

std::string describe(const SelectProblem& problem);

struct Result {
  Status status;
  std::vector<int64_t> indices;
  std::vector<float> scores;
  uint64_t launches = 0;  // of kernels; on the CPU 0
};

Result select_on_device(const SelectProblem& problem);
Result select_on_cpu(const SelectProblem& problem);

// ---- what is wrong, or an empty string ----

// Scores agree within the tolerance of the numerical contract.
std::string compare_scores(const float* got, const float* want, int64_t rows, float temperature);

// The indices of a problem of one item are a greedy choice, given its scores, within the tolerance.
std::string check_indices(const SelectProblem& problem, const int64_t* indices,
                          const float* scores);

template <class T>
bool same_bits(const std::vector<T>& a, const T* b) {
  return a.empty() || std::memcmp(a.data(), b, a.size() * sizeof(T)) == 0;
}

// ---- tolerances ----

constexpr double kTolerance = 1e-5;  // of the largest score (METHOD, numerical contract)

// What float32 can resolve of a score at this temperature.
inline double resolution(float temperature) { return 1.2e-7 / double{temperature}; }

inline double largest_score(const float* scores, int64_t rows) {
  double largest = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (std::isfinite(scores[i])) largest = std::max(largest, std::fabs(double{scores[i]}));
  }
  return largest;
}

}  // namespace mipruner::cases
