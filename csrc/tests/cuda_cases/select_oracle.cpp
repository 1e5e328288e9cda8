// Is a selection what the method asks for, within the tolerance? Computed in double from the
// definition (METHOD, "Redundancy"), but for the relevance, which compare_scores has judged.
#include "tests/cuda_cases/select_problem.h"

namespace mipruner::cases {
namespace {

std::vector<double> unit_row(const SelectProblem& problem, int64_t i) {
  const MatrixView& visual = problem.relevance.visual;
  std::vector<double> row(static_cast<size_t>(visual.columns));
  double squares = 0;
  for (size_t k = 0; k < row.size(); ++k) {
    row[k] = double{
        read_element(visual.data, visual.dtype, i * visual.row_stride + static_cast<int64_t>(k))};
    squares += row[k] * row[k];
  }
  for (double& x : row) x /= std::max(std::sqrt(squares), 1e-12);
  return row;
}

// r[i * n + k] of the listed rows, in double.
std::vector<double> redundancy_table(const SelectProblem& problem,
                                     const std::vector<int64_t>& rows) {
  const size_t n = rows.size();
  std::vector<std::vector<double>> units;
  for (const int64_t i : rows) units.push_back(unit_row(problem, i));
  std::vector<double> table(n * n, 0.0);
  for (size_t i = 0; i < n && n > 1; ++i) {
    double sum = 0;
    for (size_t k = 0; k < n; ++k) {
      double q = 0;
      for (size_t d = 0; d < units[i].size(); ++d) q += units[i][d] * units[k][d];
      table[i * n + k] = q / double{problem.relevance.temperature};
      if (k != i) sum += std::exp(table[i * n + k]);
    }
    for (size_t k = 0; k < n; ++k) {
      const double log_p = table[i * n + k] - std::log(sum);
      const double r = std::exp(log_p) * (log_p + std::log(static_cast<double>(n)));
      table[i * n + k] = k == i ? 0.0 : std::max(0.0, r);
    }
  }
  return table;
}

// Greedy choice of as many rows as are kept, from the kept ones alone: first the covered ones, then
// at each step the best of them must be as good as the best of all, within the slack. Rows by their
// place in the list.
bool is_greedy_choice(const std::vector<double>& relevance, const std::vector<double>& table,
                      std::vector<bool> kept, const std::vector<size_t>& covered, double lambda,
                      bool text_free, double slack) {
  const size_t n = relevance.size();
  std::vector<double> gains = relevance;
  std::vector<bool> chosen(n, false);
  const auto count = static_cast<size_t>(std::count(kept.begin(), kept.end(), true));
  const auto choose = [&](size_t pick) {
    chosen[pick] = true;
    for (size_t i = 0; i < n; ++i) gains[i] -= lambda * table[i * n + pick];
  };
  for (const size_t pick : covered) choose(pick);
  for (size_t step = covered.size(); step < count; ++step) {
    std::vector<double> value = gains;
    if (text_free && step == 0) {
      for (size_t k = 0; k < n; ++k) {
        value[k] = 0;
        for (size_t i = 0; i < n; ++i) value[k] += table[i * n + k];
      }
    }
    double best = -1e300;
    size_t pick = n;
    for (size_t i = 0; i < n; ++i) {
      if (chosen[i]) continue;
      best = std::max(best, value[i]);
      if (kept[i] && (pick == n || value[i] > value[pick])) pick = i;
    }
    if (value[pick] < best - slack * (text_free && step == 0 ? static_cast<double>(n) : 1.0))
      return false;
    choose(pick);
  }
  return true;
}

// The places in a list of `rows` that coverage keeps of `wanted`, from the definition: one of each
// of equal runs, the golden ratio times the run's number deciding which.
std::vector<size_t> covered_places(double coverage, size_t wanted, size_t rows) {
  std::vector<size_t> places;
  if (wanted >= rows) return places;
  const auto count = static_cast<size_t>(std::floor(coverage * static_cast<double>(wanted) + 0.5));
  for (size_t j = 0; j < count; ++j) {
    const size_t begin = j * rows / count, end = (j + 1) * rows / count;
    const size_t place = (j * 2654435769 + (size_t{1} << 31)) % (size_t{1} << 32);
    places.push_back(begin + place * (end - begin) / (size_t{1} << 32));
  }
  return places;
}

// The rows of one item that count and those that are broken, read off the CPU's scores and the
// mask.
struct RowLists {
  std::vector<int64_t> finite;
  std::vector<int64_t> broken;
};

RowLists list_rows(const SelectProblem& problem, const float* scores) {
  RowLists lists;
  const MaskView& mask = problem.relevance.visual_mask;
  for (int64_t i = 0; i < problem.relevance.visual.rows; ++i) {
    if (mask.data && !mask.data[i * mask.row_stride]) continue;
    (std::isfinite(scores[i]) ? lists.finite : lists.broken).push_back(i);
  }
  return lists;
}

bool no_words(const SelectProblem& problem) {
  const MatrixView& text = problem.relevance.text;
  const MaskView& mask = problem.relevance.text_mask;
  for (int64_t j = 0; j < text.rows; ++j) {
    bool counts = !mask.data || mask.data[j * mask.row_stride];
    for (int64_t k = 0; k < text.columns; ++k) {
      const float x = read_element(text.data, text.dtype, j * text.row_stride + k);
      counts = counts && std::isfinite(x);
    }
    if (counts) return false;
  }
  return true;
}

// Where no redundancy has a say, which rows are kept is settled by the scores to the last bit, and
// of equal scores by the lower row: all of them without redundancy, else the first choice.
bool keeps_the_first(const float* scores, std::vector<int64_t> rows,
                     const std::vector<int64_t>& kept, size_t count) {
  std::stable_sort(rows.begin(), rows.end(),
                   [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  rows.resize(std::min(rows.size(), count));
  return std::all_of(rows.begin(), rows.end(),
                     [&](int64_t i) { return std::binary_search(kept.begin(), kept.end(), i); });
}

}  // namespace

std::string check_indices(const SelectProblem& problem, const int64_t* indices,
                          const float* scores) {
  const RowLists lists = list_rows(problem, scores);
  const auto width = static_cast<size_t>(std::min(problem.k, problem.relevance.visual.rows));
  const size_t finite = std::min(width, lists.finite.size());
  const size_t broken = std::min(width - finite, lists.broken.size());
  std::vector<int64_t> kept(indices, indices + finite + broken);
  for (size_t j = 1; j < kept.size(); ++j) {
    if (kept[j] <= kept[j - 1]) return "the indices do not ascend";
  }
  for (size_t j = kept.size(); j < width; ++j) {
    if (indices[j] != -1) return "a place left over is not -1";
  }
  for (size_t j = 0; j < broken; ++j) {
    if (!std::binary_search(kept.begin(), kept.end(), lists.broken[j]))
      return "the lowest broken rows are not kept";
  }
  std::vector<bool> chosen;
  std::vector<double> relevance;
  for (const int64_t i : lists.finite) {
    chosen.push_back(std::binary_search(kept.begin(), kept.end(), i));
    relevance.push_back(double{scores[i]});
  }
  if (static_cast<size_t>(std::count(chosen.begin(), chosen.end(), true)) != finite)
    return "masked rows, or too few rows, are kept";
  if (finite == lists.finite.size()) return {};
  const std::vector<size_t> covered = covered_places(problem.coverage, finite, chosen.size());
  for (const size_t place : covered) {
    if (!chosen[place]) return "a covered row is not kept";
  }
  const double lambda = double{problem.redundancy};
  const bool text_free = lambda > 0 && no_words(problem);
  std::vector<int64_t> others = lists.finite;
  for (const size_t place : covered) others[place] = -1;
  others.erase(std::remove(others.begin(), others.end(), -1), others.end());
  size_t best = finite - covered.size();  // that scores alone decide on
  if (lambda > 0) best = covered.empty() && !text_free ? 1 : 0;
  if (!keeps_the_first(scores, others, kept, best))
    return "a row with one of the best scores is not kept";
  if (lambda == 0) return {};
  const std::vector<double> table = redundancy_table(problem, lists.finite);
  const double largest = largest_score(scores, problem.relevance.visual.rows);
  // Redundancies are of the order of log N.
  const double slack =
      kTolerance * (largest + lambda * 10.0) + 4 * resolution(problem.relevance.temperature);
  if (is_greedy_choice(relevance, table, chosen, covered, lambda, text_free, slack)) return {};
  return "a row that is not among the best is kept";
}

}  // namespace mipruner::cases
