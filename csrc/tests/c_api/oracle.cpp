#include "oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace mipruner::tests {
namespace {

using Vector = std::vector<double>;
using Table = std::vector<Vector>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Rows of unit length; those that are not finite come out empty.
Table unit_rows(const Rows& rows) {
  Table units;
  for (int64_t i = 0; i < rows.n_rows(); ++i) {
    const auto begin = rows.values().begin() + i * rows.n_cols();
    Vector row(begin, begin + rows.n_cols());
    const double squares = std::inner_product(row.begin(), row.end(), row.begin(), 0.0);
    if (!std::isfinite(squares)) row.clear();
    for (double& x : row) x /= std::max(std::sqrt(squares), 1e-12);
    units.push_back(row);
  }
  return units;
}

Table finite_only(const Table& rows) {
  Table finite;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(finite),
               [](const Vector& row) { return !row.empty(); });
  return finite;
}

Table cosines(const Table& a, const Table& b) {
  Table table;
  for (const Vector& row : a) {
    table.emplace_back();
    for (const Vector& column : b) {
      table.back().push_back(std::inner_product(row.begin(), row.end(), column.begin(), 0.0));
    }
  }
  return table;
}

Table divided(Table table, double divisor) {
  for (Vector& row : table) {
    for (double& x : row) x /= divisor;
  }
  return table;
}

Table transposed(const Table& table) {
  Table result(table.empty() ? 0 : table[0].size());
  for (const Vector& row : table) {
    for (size_t j = 0; j < row.size(); ++j) result[j].push_back(row[j]);
  }
  return result;
}

double log_sum_exp(const Vector& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

Vector row_log_sums(const Table& table) {
  Vector sums;
  for (const Vector& row : table) sums.push_back(log_sum_exp(row));
  return sums;
}

// Row i less shift[i].
Table shifted(Table table, const Vector& shift) {
  for (size_t i = 0; i < table.size(); ++i) {
    for (double& x : table[i]) x -= shift[i];
  }
  return table;
}

// ---- the estimators, on the finite rows: logits [n, m] to relevance [n] ----

Vector specific(const Table& logits) {
  const auto n = static_cast<double>(logits.size());
  Vector scores;
  if (logits[0].size() == 1) {
    const double whole = log_sum_exp(transposed(logits)[0]);
    for (const Vector& row : logits) scores.push_back(row[0] - whole + std::log(n));
    return scores;
  }
  const Table log_p = shifted(logits, row_log_sums(logits));
  const Vector log_prior = row_log_sums(transposed(log_p));
  for (const Vector& row : log_p) {
    double sum = 0;
    for (size_t j = 0; j < row.size(); ++j) {
      sum += std::exp(row[j]) * (row[j] - log_prior[j] + std::log(n));
    }
    scores.push_back(sum);
  }
  return scores;
}

Vector posterior(const Table& logits) {
  const auto n = static_cast<double>(logits.size());
  const auto m = static_cast<double>(logits[0].size());
  const Table columns = transposed(logits);
  const Table log_p = transposed(shifted(columns, row_log_sums(columns)));
  Vector scores;
  for (const Vector& row : log_p) {
    double sum = 0;
    for (double x : row) sum += std::exp(x) * (x + std::log(n));
    scores.push_back(sum / m);
  }
  return scores;
}

Vector joint(const Table& logits) {
  const double whole = log_sum_exp(row_log_sums(logits));
  const Table log_p = shifted(logits, Vector(logits.size(), whole));
  const Vector rows = row_log_sums(log_p);
  const Vector columns = row_log_sums(transposed(log_p));
  Vector scores;
  for (size_t i = 0; i < log_p.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < columns.size(); ++j) {
      sum += std::exp(log_p[i][j]) * (log_p[i][j] - rows[i] - columns[j]);
    }
    scores.push_back(sum);
  }
  return scores;
}

Vector relevance(const Table& visual, const Table& text, const Task& task) {
  if (text.empty() || visual.empty()) return Vector(visual.size(), 0.0);
  const Table similarities = cosines(visual, text);
  const Table logits = divided(similarities, task.temperature);
  switch (task.estimator) {
    case MIPRUNER_ESTIMATOR_POSTERIOR: return posterior(logits);
    case MIPRUNER_ESTIMATOR_JOINT: return joint(logits);
    case MIPRUNER_ESTIMATOR_COSINE: break;
    default: return specific(logits);
  }
  Vector scores;
  for (const Vector& row : similarities) {
    scores.push_back(*std::max_element(row.begin(), row.end()));
  }
  return scores;
}

// r_ik = max(0, P(v_k | v_i) log[N P(v_k | v_i)]), the softmax over k other than i.
Table redundancies(const Table& visual, double temperature) {
  const size_t n = visual.size();
  Table table = divided(cosines(visual, visual), temperature);
  for (size_t i = 0; i < n; ++i) table[i][i] = -kInfinity;
  table = shifted(table, row_log_sums(table));
  for (size_t i = 0; i < n; ++i) {
    for (double& x : table[i]) {
      x = std::isinf(x) ? 0.0 : std::max(0.0, std::exp(x) * (x + std::log(double(n))));
    }
  }
  return table;
}

// ---- choosing ----

// Takes the largest of the values that are not yet taken, and notes by how much it won: not at all
// is an honest tie, which goes to the lower index.
size_t take_best(const Vector& values, std::vector<bool>* taken, double* margin) {
  size_t best = values.size();
  for (size_t i = 0; i < values.size(); ++i) {
    if (!(*taken)[i] && (best == values.size() || values[i] > values[best])) best = i;
  }
  (*taken)[best] = true;
  for (size_t i = 0; i < values.size(); ++i) {
    if ((*taken)[i] || values[i] == values[best]) continue;
    *margin = std::min(*margin, values[best] - values[i]);
  }
  return best;
}

// The positions, of n, that coverage takes of `count` before anything is compared: of each of equal
// runs one, at a place that jumps by the golden ratio from run to run.
std::vector<size_t> covered_positions(double coverage, size_t count, size_t n) {
  std::vector<size_t> positions;
  const auto runs = static_cast<size_t>(std::floor(coverage * static_cast<double>(count) + 0.5));
  for (size_t j = 0; j < runs; ++j) {
    const size_t begin = j * n / runs, end = (j + 1) * n / runs;
    const uint64_t place = (j * 2654435769u + 0x80000000u) % 0x100000000u;
    positions.push_back(begin + place * (end - begin) / 0x100000000u);
  }
  return positions;
}

// Positions of the chosen ones among `visual`, at most all of them.
std::vector<size_t> choose(const Table& visual, const Vector& scores, bool text_free, size_t count,
                           const Task& task, double* margin) {
  std::vector<bool> taken(visual.size(), false);
  std::vector<size_t> chosen;
  if (count >= visual.size()) {
    chosen.resize(visual.size());
    std::iota(chosen.begin(), chosen.end(), size_t{0});
    return chosen;
  }
  chosen = covered_positions(task.coverage, count, visual.size());
  for (size_t position : chosen) taken[position] = true;
  Vector gains = scores;
  double ignored = kInfinity;  // who of those chosen was better than whom does not matter
  if (task.redundancy == 0) {
    while (chosen.size() < count) {
      const bool last = chosen.size() + 1 == count;
      chosen.push_back(take_best(gains, &taken, last ? margin : &ignored));
    }
    return chosen;
  }
  const Table table = redundancies(visual, task.temperature);
  const auto discount = [&](size_t position) {
    for (size_t i = 0; i < gains.size(); ++i) gains[i] -= task.redundancy * table[i][position];
  };
  std::for_each(chosen.begin(), chosen.end(), discount);
  while (chosen.size() < count) {
    Vector ranking = gains;
    if (text_free && chosen.empty()) {
      for (size_t k = 0; k < ranking.size(); ++k) {
        ranking[k] = 0;
        for (const Vector& row : table) ranking[k] += row[k];
      }
    }
    const size_t best = take_best(ranking, &taken, margin);
    chosen.push_back(best);
    discount(best);
  }
  return chosen;
}

bool contains(const std::vector<int32_t>& list, int32_t row) {
  return std::find(list.begin(), list.end(), row) != list.end();
}

}  // namespace

Expected expected_selection(const Problem& problem, const Task& task) {
  const Table units = unit_rows(problem.visual);
  const Table text = finite_only(unit_rows(problem.text));
  const Vector finite_scores = relevance(finite_only(units), text, task);
  Expected expected = {Vector(units.size(), -kInfinity), task.always_keep, kInfinity};
  std::vector<int32_t> candidates, last_resort;
  Vector candidate_scores;
  Table candidate_rows;
  size_t next_finite = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    const auto row = static_cast<int32_t>(i);
    const bool finite = !units[i].empty();
    if (finite) expected.scores[i] = finite_scores[next_finite++];
    if (contains(task.always_keep, row)) continue;
    if (!finite) {
      last_resort.push_back(row);
      continue;
    }
    candidates.push_back(row);
    candidate_rows.push_back(units[i]);
    candidate_scores.push_back(expected.scores[i]);
  }
  // With redundancy the others are chosen among themselves: so is their relevance.
  if (task.redundancy > 0) candidate_scores = relevance(candidate_rows, text, task);
  const size_t wanted = static_cast<size_t>(task.keep) - task.always_keep.size();
  for (size_t position :
       choose(candidate_rows, candidate_scores, text.empty(), wanted, task, &expected.margin)) {
    expected.kept.push_back(candidates[position]);
  }
  for (int32_t row : last_resort) {
    if (static_cast<int64_t>(expected.kept.size()) < task.keep) expected.kept.push_back(row);
  }
  std::sort(expected.kept.begin(), expected.kept.end());
  return expected;
}

}  // namespace mipruner::tests
