#include "options.h"

#include <getopt.h>

#include <cstring>

#include "failure.h"

namespace mipruner::cli {
namespace {

// getopt's codes of the table's rows; below are the characters of the short options.
constexpr int kFirstCode = 1000;
constexpr size_t kHelpColumn = 30;

bool is_letter(const char* dashed) { return dashed && dashed[1] == '\0'; }
bool is_optional(const OptionSpec& spec) { return spec.value && spec.value[0] == '['; }

int argument_kind(const OptionSpec& spec) {
  if (!spec.value) return no_argument;
  return is_optional(spec) ? optional_argument : required_argument;
}

// What getopt_long_only() is given. A dashed spelling of several letters, as -ub, is a long option
// to it.
struct GetoptTables {
  std::string letters = ":";  // a missing value is told apart from an unknown option
  std::vector<option> words;
};

GetoptTables getopt_tables(const std::vector<OptionSpec>& table) {
  GetoptTables result;
  for (size_t i = 0; i < table.size(); ++i) {
    const OptionSpec& spec = table[i];
    if (!spec.name) continue;
    const int code = kFirstCode + static_cast<int>(i);
    result.words.push_back({spec.name, argument_kind(spec), nullptr, code});
    if (is_letter(spec.dashed)) {
      result.letters += spec.dashed;
      if (spec.value) result.letters += ':';
    } else if (spec.dashed) {
      result.words.push_back({spec.dashed, argument_kind(spec), nullptr, code});
    }
  }
  result.words.push_back({nullptr, 0, nullptr, 0});
  return result;
}

const OptionSpec* find_spec(const std::vector<OptionSpec>& table, int code) {
  for (size_t i = 0; i < table.size(); ++i) {
    const OptionSpec& spec = table[i];
    if (!spec.name) continue;
    if (code == kFirstCode + static_cast<int>(i)) return &spec;
    if (is_letter(spec.dashed) && code == spec.dashed[0]) return &spec;
  }
  return nullptr;
}

std::string spelling(const OptionSpec& spec) { return join("--", spec.name); }

// "--bench 7" as well as "--bench=7", which is all that getopt knows of optional values.
std::string optional_value(int argc, char** argv) {
  if (optarg) return optarg;
  if (optind >= argc || std::strspn(argv[optind], "0123456789") != std::strlen(argv[optind]))
    return "";
  return argv[optind++];
}

[[noreturn]] void refuse_option(const std::vector<OptionSpec>& table, int code, char** argv) {
  const OptionSpec* spec = find_spec(table, optopt);
  if (spec && code == ':') {
    throw UsageError(join(spelling(*spec), ": needs a value, ", spec->value));
  }
  if (spec) throw UsageError(join(spelling(*spec), ": takes no value"));
  // A letter within a group, as q in -vqh, has not moved optind on yet.
  if (optopt > 0 && optopt < kFirstCode) {
    throw UsageError(join("-", static_cast<char>(optopt), ": there is no such option"));
  }
  throw UsageError(join(argv[optind - 1], ": there is no such option, or several begin like this"));
}

Options read_arguments(int argc, char** argv) {
  const std::vector<OptionSpec>& table = option_table();
  const GetoptTables tables = getopt_tables(table);
  Options options;
  opterr = 0;  // our sentences instead of getopt's
  optind = 1;
  for (;;) {
    const int code =
        getopt_long_only(argc, argv, tables.letters.c_str(), tables.words.data(), nullptr);
    if (code == -1) break;
    if (code == '?' || code == ':') refuse_option(table, code, argv);
    const OptionSpec& spec = *find_spec(table, code);
    std::string text = optarg ? optarg : "";
    if (is_optional(spec)) text = optional_value(argc, argv);
    spec.apply({spelling(spec), text}, &options);
  }
  if (optind < argc) {
    throw UsageError(
        join("\"", argv[optind], "\" belongs to no option; an image needs --image, a question -p"));
  }
  return options;
}

void require(bool condition, const char* sentence) {
  if (!condition) throw UsageError(sentence);
}

void check_combination(const Options& options) {
  require(!options.model.empty(), "--model: missing; a GGUF file of a language model is needed");
  require(!options.mmproj.empty(),
          "--mmproj: missing; the GGUF file of the model's image encoder is needed");
  require(!options.prompt || !options.prompt->empty(), "--prompt: got \"\", allowed is any text");
  const bool bench = options.bench_repetitions > 0;
  require(options.keeps.size() < 2 || bench, "--keep: given more than once, which is for --bench");
  require(options.prune || options.keeps.empty(), "--keep and --no-prune exclude each other");
  require(options.prune || options.dump_path.empty(),
          "--dump-keep and --no-prune exclude each other: nothing is selected");
  if (!bench) return;
  require(options.prompt && !options.images.empty(), "--bench: needs --image and --prompt");
  require(options.prune, "--bench and --no-prune exclude each other: it times both");
  require(options.dump_path.empty(), "--bench and --dump-keep exclude each other");
}

// "  -c, --ctx-size N"
std::string synopsis(const OptionSpec& spec) {
  std::string text = "  ";
  if (spec.dashed) text += join("-", spec.dashed, ", ");
  text += spelling(spec);
  if (spec.value) text += join(" ", spec.value);
  return text;
}

void append_help(const OptionSpec& spec, std::string* text) {
  std::string line = synopsis(spec);
  std::istringstream help(spec.help);
  for (std::string part; std::getline(help, part); line.clear()) {
    if (line.size() + 2 > kHelpColumn && !line.empty()) {
      *text += line + "\n";
      line.clear();
    }
    line.resize(kHelpColumn, ' ');
    *text += line + part + "\n";
  }
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options = read_arguments(argc, argv);
  if (!options.help && !options.version) check_combination(options);
  return options;
}

std::string help_text() {
  std::string text =
      "Answers questions about images with llama.cpp, after dropping the image tokens that have\n"
      "little to do with the question.\n\n"
      "  mipruner-mtmd -m model.gguf --mmproj mmproj.gguf --image a.jpg -p \"question\" --keep "
      "0.25\n";
  for (const OptionSpec& spec : option_table()) {
    if (spec.name) {
      append_help(spec, &text);
    } else {
      text += join("\n", spec.help, ":\n");
    }
  }
  text +=
      "\nIn a chat: /image FILE, /keep R, /clear, /exit. Ctrl-C ends an answer, and the program "
      "where\n"
      "it waits for a message.\n"
      "\nThe answer, or the table of --bench, goes to standard output, everything else to "
      "standard\n"
      "error.\n"
      "\nExit codes: 0 done; 1 it could not be done (a file, an image, a prompt that is too "
      "long);\n"
      "2 the command line is wrong.\n";
  return text;
}

}  // namespace mipruner::cli
