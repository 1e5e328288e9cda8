#include "chat.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <utility>

#include "dump.h"
#include "failure.h"
#include "utf8.h"

namespace mipruner::cli {
namespace {

constexpr char kCommands[] =
    "/image FILE adds an image to the next message, /keep R says how much of images is kept,\n"
    "/clear forgets everything, /exit ends. Ctrl-C ends an answer.";

std::string trimmed(const std::string& text) {
  constexpr char kSpace[] = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

bool read_line(std::string* line) {
  if (isatty(STDIN_FILENO)) std::fputs("> ", stderr);
  if (std::getline(std::cin, *line)) return true;
  if (isatty(STDIN_FILENO)) std::fputs("\n", stderr);
  return false;
}

class Chat {
 public:
  Chat(Session* session, const Options& options, std::vector<Image> images, Log* log)
      : session_(session),
        options_(options),
        log_(log),
        images_(std::move(images)),
        conversation_(session, options, log) {}

  // False when the chat is over.
  bool handle(const std::string& line) {
    const size_t space = line.find_first_of(" \t");
    const std::string command = line.substr(0, space);
    const std::string rest = space == std::string::npos ? "" : trimmed(line.substr(space));
    if (command == "/exit" || command == "/quit") return false;
    if (command == "/image") {
      add_image(rest);
    } else if (command == "/keep") {
      set_keep(rest);
    } else if (command == "/clear") {
      conversation_.clear();
      images_.clear();
    } else if (!line.empty() && line[0] == '/') {
      throw Failure(join("there is no command ", command, "\n", kCommands));
    } else if (!line.empty()) {
      say(line);
    }
    return true;
  }

 private:
  void add_image(const std::string& file) {
    if (file.empty()) throw Failure("/image: needs the path of a file");
    if (!options_.dump_path.empty() && same_file(file, options_.dump_path)) {
      throw Failure(join("/image: ", file, " is the file of --dump-keep, allowed is another one"));
    }
    images_.push_back(load_image(session_->vision.get(), file, log_));
    std::fprintf(stderr, "%s goes with the next message\n", file.c_str());
  }

  void set_keep(const std::string& text) {
    if (!options_.prune) throw Failure("/keep: nothing is pruned, because of --no-prune");
    conversation_.set_keep(parse_keep({"/keep", text}));
  }

  void say(const std::string& message) {
    if (!is_utf8(message)) {
      throw Failure(join("got \"", printable(message), "\", allowed is text in UTF-8"));
    }
    InterruptScope interrupts;
    conversation_.say(message, images_, &interrupts);
    images_.clear();
  }

  Session* session_;
  const Options& options_;
  Log* log_;
  std::vector<Image> images_;  // for the next message
  Conversation conversation_;
};

}  // namespace

void chat(Session* session, const Options& options, std::vector<Image> images, Log* log) {
  Chat chat(session, options, std::move(images), log);
  std::fprintf(stderr, "%s\n", kCommands);
  for (std::string line; read_line(&line);) {
    try {
      if (!chat.handle(trimmed(line))) return;
    } catch (const std::runtime_error& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
  }
}

}  // namespace mipruner::cli
