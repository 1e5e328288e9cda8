// The command line: one table (option_table.cpp) is what the parser and --help both read.
#pragma once

#include <mipruner/mipruner.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "values.h"

namespace mipruner::cli {

enum class Query { kMessage, kAll };  // what the image's rows are scored against

struct Options {
  Options() { mipruner_select_params_init(&select, sizeof select); }

  std::string model;
  std::string mmproj;
  std::vector<std::string> images;
  std::optional<std::string> prompt;
  std::string system_prompt;
  std::optional<std::string> chat_template;  // a name that llama.cpp knows, or "none"

  std::vector<Keep> keeps;        // empty: the default
  mipruner_select_params select;  // everything but how much is kept
  Query query = Query::kMessage;
  bool prune = true;

  int32_t n_threads = 0;        // 0: as many as the machine has
  int32_t n_threads_batch = 0;  // 0: as n_threads
  int32_t n_gpu_layers = -1;    // below 0: all
  bool mmproj_on_gpu = true;
  uint32_t n_ctx = 4096;
  uint32_t n_batch = 2048;
  uint32_t n_ubatch = 512;

  int32_t n_predict = 512;
  float temperature = 0;
  int32_t top_k = 40;
  float top_p = 0.95f;
  std::optional<uint32_t> seed;

  int32_t bench_repetitions = 0;  // 0: no benchmark
  bool warmup = true;
  std::string dump_path;  // empty: none is written
  bool verbose = false;
  bool help = false;
  bool version = false;
};

struct OptionSpec {
  const char* name;    // "ctx-size", for --ctx-size; nullptr for a heading
  const char* dashed;  // the spelling behind a single dash, "c" or "ub"; nullptr for none
  const char*
      value;  // what stands for the value in the help; nullptr: takes none; "[...]": optional
  const char* help;  // lines are broken here as they are printed
  void (*apply)(const Given& given, Options* options);
};

const std::vector<OptionSpec>& option_table();

// Throws UsageError. Leaves out nothing that can be said before a file is opened.
Options parse_options(int argc, char** argv);

std::string help_text();

}  // namespace mipruner::cli
