#include "dump.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "failure.h"
#include "generate.h"
#include "json.h"

namespace mipruner::cli {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& target) {
  return target.has_parent_path() ? target.parent_path() : fs::path(".");
}

[[noreturn]] void refuse(const std::string& path, const char* reason) {
  throw Failure(join("--dump-keep: cannot write ", path, ": ", reason));
}

// A file beside the target that goes away unless it takes the target's place.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& target) : name_(target + ".XXXXXX") {
    const int descriptor = mkstemp(name_.data());
    if (descriptor < 0) return;
    // mkstemp lets only the owner read; a new file of the user's is as the umask says.
    const mode_t mask = umask(0);
    umask(mask);
    fchmod(descriptor, 0666 & ~mask);
    file_ = fdopen(descriptor, "w");
  }
  ~TemporaryFile() {
    if (file_) std::fclose(file_);
    if (!name_.empty()) unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  bool write(const std::string& text) {
    if (!file_) return false;
    const bool written = std::fwrite(text.data(), 1, text.size(), file_) == text.size();
    const bool flushed = std::fflush(file_) == 0 && fsync(fileno(file_)) == 0;
    return written && flushed;
  }
  bool replace(const std::string& target) {
    if (std::rename(name_.c_str(), target.c_str()) != 0) return false;
    name_.clear();
    return true;
  }

 private:
  std::string name_;
  std::FILE* file_ = nullptr;
};

std::string query_json(const llama_vocab* vocab, const Prompt& prompt) {
  std::string pieces;
  for (const llama_token token : prompt.query) {
    if (!pieces.empty()) pieces += ", ";
    pieces += json_string(piece_of(vocab, token));
  }
  return join("{\"tokens\": ", json_array(prompt.query), ", \"pieces\": [", pieces, "]}");
}

std::string image_json(const Prompt& prompt, const std::vector<Image>& images,
                       const llama::ImageReport& report) {
  const int32_t image = image_of_chunk(prompt.chunk(report.chunk));
  const std::string& file = images[static_cast<size_t>(image)].file;
  return join(
      "    {\"file\": ", json_string(file), ", \"image\": ", image, ", \"n_rows\": ", report.n_rows,
      ", \"n_keep\": ", report.n_keep, ", \"nx\": ", report.nx, ", \"ny\": ", report.ny,
      ", \"keep_hash\": ", json_hex(report.keep_hash), ", \"reason\": ", json_string(report.reason),
      ",\n     \"structural\": ", json_array(report.structural),
      ",\n     \"kept\": ", json_array(report.kept),
      ",\n     \"scores\": ", json_array(report.scores), "}");
}

// An answer redirected into the file would be lost, too.
bool is_stream(int descriptor, const std::string& path) {
  struct stat stream, file;
  return fstat(descriptor, &stream) == 0 && stat(path.c_str(), &file) == 0 &&
         stream.st_dev == file.st_dev && stream.st_ino == file.st_ino;
}

void check_apart(const Options& options, const char* option, const std::string& file) {
  if (!same_file(options.dump_path, file)) return;
  throw UsageError(join("--dump-keep: ", options.dump_path, " is read as ", option,
                        ", allowed is another file"));
}

void check_path(const std::string& path) {
  std::error_code trouble;
  const fs::file_status status = fs::symlink_status(path, trouble);
  // The new file takes the place of the old one, which would be the end of a device, and of a link,
  // /dev/stdout for one.
  if (fs::exists(status) && !fs::is_regular_file(status)) refuse(path, "it is not a plain file");
  if (access(folder_of(path).c_str(), W_OK | X_OK) != 0) refuse(path, std::strerror(errno));
}

}  // namespace

void check_dump(const Options& options) {
  check_path(options.dump_path);
  for (const std::string& file : options.images) check_apart(options, "--image", file);
  for (const std::string& file : files_of_model(options.model)) {
    check_apart(options, "--model", file);
  }
  check_apart(options, "--mmproj", options.mmproj);
  if (is_stream(STDOUT_FILENO, options.dump_path) || is_stream(STDERR_FILENO, options.dump_path)) {
    throw UsageError(join("--dump-keep: ", options.dump_path,
                          " is where standard output or error goes, allowed is another file"));
  }
}

bool same_file(const std::string& one, const std::string& other) {
  std::error_code trouble;
  if (fs::exists(one, trouble) && fs::exists(other, trouble)) {
    return fs::equivalent(one, other, trouble);
  }
  const fs::path real = fs::weakly_canonical(fs::absolute(one, trouble), trouble);
  return !trouble && real == fs::weakly_canonical(fs::absolute(other, trouble), trouble);
}

std::string dump_json(const Session& session, const Prompt& prompt, const std::string& message,
                      const std::vector<Image>& images, const Evaluation& evaluation) {
  std::string entries;
  for (const llama::ImageReport& report : evaluation.images) {
    if (!entries.empty()) entries += ",\n";
    entries += image_json(prompt, images, report);
  }
  return join("{\n  \"mipruner\": ", json_string(mipruner_version()),
              ",\n  \"message\": ", json_string(message),
              ",\n  \"query\": ", query_json(session.vocab(), prompt),
              ",\n  \"prompt_tokens\": ", evaluation.n_tokens,
              ",\n  \"prompt_tokens_without_pruning\": ", evaluation.n_tokens_full,
              ",\n  \"images\": [\n", entries, "\n  ]\n}\n");
}

void write_atomically(const std::string& path, const std::string& text) {
  check_path(path);  // again: a chat may be hours old
  TemporaryFile file(path);
  if (!file.write(text) || !file.replace(path)) refuse(path, std::strerror(errno));
}

}  // namespace mipruner::cli
