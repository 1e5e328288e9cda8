#include "bench_table.h"

#include <algorithm>
#include <cstdio>

namespace mipruner::cli {
namespace {

const std::vector<std::string> kHeader = {
    "variant",          "image tokens",    "prompt tokens", "encode ms", "select ms",
    "prefill ms",       "its image ms",    "decode ms",     "KV bytes",  "image speed-up",
    "prefill speed-up", "prompt speed-up", "select / saved"};

std::string number(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string line_of(const std::vector<std::string>& cells, const std::vector<size_t>& widths) {
  std::string line = "|";
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string padding(widths[i] - cells[i].size(), ' ');
    // Names to the left, numbers to the right.
    line += " " + (i == 0 ? cells[i] + padding : padding + cells[i]) + " |";
  }
  return line + "\n";
}

std::string rule_of(const std::vector<size_t>& widths) {
  std::string line = "|";
  for (size_t i = 0; i < widths.size(); ++i) {
    line += std::string(widths[i] + 1, '-') + (i == 0 ? "-|" : ":|");
  }
  return line + "\n";
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

BenchTable::Medians BenchTable::medians_of(const std::vector<BenchRun>& runs) {
  const auto of = [&runs](auto value) {
    std::vector<double> values;
    for (const BenchRun& run : runs) values.push_back(value(run));
    return median(std::move(values));
  };
  return {of([](const BenchRun& run) { return run.prompt.encode_ms; }),
          of([](const BenchRun& run) { return run.prompt.select_ms; }),
          of([](const BenchRun& run) { return run.prompt.prefill_ms; }),
          of([](const BenchRun& run) { return run.prompt.image_ms; }),
          of([](const BenchRun& run) { return run.decode_ms; })};
}

void BenchTable::add(const std::string& name, const std::vector<BenchRun>& runs) {
  const Medians medians = medians_of(runs);
  const bool is_baseline = rows_.empty();
  if (is_baseline) baseline_ = medians;
  const double saved = baseline_.prefill_ms - medians.prefill_ms;
  const Evaluation& prompt = runs.front().prompt;
  // Where everything is kept, what seems saved is noise.
  const bool has_saved = saved > 0 && prompt.n_tokens < prompt.n_tokens_full;
  const auto speed_up = [is_baseline](double before, double now) {
    return is_baseline || !(now > 0) ? "-" : number("%.2fx", before / now);
  };
  rows_.push_back({name, std::to_string(prompt.n_image_tokens), std::to_string(prompt.n_tokens),
                   number("%.1f", medians.encode_ms),
                   is_baseline ? "-" : number("%.2f", medians.select_ms),
                   number("%.1f", medians.prefill_ms), number("%.1f", medians.image_ms),
                   number("%.2f", medians.decode_ms), std::to_string(runs.front().kv_bytes),
                   speed_up(baseline_.image_ms, medians.image_ms),
                   speed_up(baseline_.prefill_ms, medians.prefill_ms),
                   speed_up(baseline_.prompt_ms(), medians.prompt_ms()),
                   has_saved ? number("%.2f %%", 100 * medians.select_ms / saved) : "-"});
}

std::string BenchTable::text() const {
  std::vector<size_t> widths;
  for (size_t column = 0; column < kHeader.size(); ++column) {
    size_t width = kHeader[column].size();
    for (const std::vector<std::string>& row : rows_) width = std::max(width, row[column].size());
    widths.push_back(width);
  }
  std::string text = line_of(kHeader, widths) + rule_of(widths);
  for (const std::vector<std::string>& row : rows_) text += line_of(row, widths);
  return text;
}

}  // namespace mipruner::cli
