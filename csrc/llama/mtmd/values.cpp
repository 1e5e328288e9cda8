#include "values.h"

#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>

#include "failure.h"
#include "utf8.h"

namespace mipruner::cli {
namespace {

struct EstimatorName {
  const char* name;
  int32_t value;
};

constexpr EstimatorName kEstimators[] = {{"specific", MIPRUNER_ESTIMATOR_SPECIFIC},
                                         {"posterior", MIPRUNER_ESTIMATOR_POSTERIOR},
                                         {"joint", MIPRUNER_ESTIMATOR_JOINT},
                                         {"cosine", MIPRUNER_ESTIMATOR_COSINE}};

[[noreturn]] void refuse(const Given& given, const std::string& allowed) {
  throw UsageError(join(given.name, ": got \"", printable(given.text), "\", allowed is ", allowed));
}

// The whole text must be the number: "12x" is none.
template <typename Number>
bool read_all(const std::string& text, Number* number) {
  const char* end = text.data() + text.size();
  const auto [stop, trouble] = std::from_chars(text.data(), end, *number);
  return trouble == std::errc() && stop == end;
}

bool is_digits(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

Keep parse_keep(const Given& given) {
  Keep keep;
  keep.text = given.text;
  // "1" is everything and not one row: whoever writes --keep 1 means a ratio of 1.
  if (is_digits(given.text) && given.text != "1") {
    if (read_all(given.text, &keep.count) && keep.count > 1) return keep;
  } else if (read_all(given.text, &keep.ratio) && keep.ratio > 0 && keep.ratio <= 1) {
    return keep;
  }
  refuse(given, "a ratio in (0, 1], such as 0.25, or a count of 2 or more, such as 144");
}

int32_t parse_estimator(const Given& given) {
  for (const EstimatorName& estimator : kEstimators) {
    if (given.text == estimator.name) return estimator.value;
  }
  refuse(given, "one of specific, posterior, joint and cosine");
}

int64_t parse_integer(const Given& given, int64_t lowest, int64_t highest) {
  int64_t value = 0;
  if (read_all(given.text, &value) && value >= lowest && value <= highest) return value;
  refuse(given, join("a whole number from ", lowest, " to ", highest));
}

double parse_number(const Given& given, double lowest, double highest) {
  double value = 0;
  if (read_all(given.text, &value) && value >= lowest && value <= highest) return value;
  const bool bounded = highest < std::numeric_limits<float>::max();
  refuse(given, bounded ? join("a number from ", lowest, " to ", highest)
                        : join("a number of at least ", lowest));
}

double parse_positive_number(const Given& given) {
  double value = 0;
  if (read_all(given.text, &value) && static_cast<float>(value) > 0 &&
      value <= std::numeric_limits<float>::max()) {
    return value;
  }
  refuse(given, "a number above 0");
}

std::string parse_path(const Given& given) {
  if (given.text.empty()) refuse(given, "the path of a file");
  return given.text;
}

std::string parse_text(const Given& given) {
  if (!is_utf8(given.text)) refuse(given, "text in UTF-8");
  return given.text;
}

mipruner_select_params with_keep(mipruner_select_params params, const Keep& keep) {
  params.keep_ratio = keep.ratio;
  params.n_keep = keep.count;
  return params;
}

}  // namespace mipruner::cli
