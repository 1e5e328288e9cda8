// The text of an option, or of a chat command, to the value it stands for. A text that is not
// allowed is a UsageError with the option's name, what was given and what is allowed.
#pragma once

#include <mipruner/mipruner.h>

#include <cstdint>
#include <string>

namespace mipruner::cli {

struct Given {
  std::string name;  // as the user knows it: "--ctx-size"
  std::string text;
};

// How much of an image survives: a ratio, or, where count > 0, so many rows.
struct Keep {
  double ratio = 0.25;
  int32_t count = 0;
  std::string text = "0.25";  // as it was asked for
};

Keep parse_keep(const Given& given);
int32_t parse_estimator(const Given& given);
int64_t parse_integer(const Given& given, int64_t lowest, int64_t highest);
double parse_number(const Given& given, double lowest, double highest);
double parse_positive_number(const Given& given);
std::string parse_path(const Given& given);
std::string parse_text(const Given& given);  // UTF-8

// `params` with this much kept.
mipruner_select_params with_keep(mipruner_select_params params, const Keep& keep);

}  // namespace mipruner::cli
