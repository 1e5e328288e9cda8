// mipruner-mtmd: questions about images with llama.cpp and a part of the image tokens.
#include <cstdio>
#include <exception>

#include "bench.h"
#include "chat.h"
#include "dump.h"
#include "failure.h"
#include "standard_output.h"

namespace mipruner::cli {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2 };

void run(const Options& options) {
  if (!options.dump_path.empty()) check_dump(options);
  Log log(options.verbose);
  const std::unique_ptr<Session> session = load_session(options, &log);
  std::vector<Image> images = load_images(session->vision.get(), options.images, &log);
  if (options.bench_repetitions > 0) {
    bench(session.get(), options, images, &log);
  } else if (options.prompt) {
    Conversation(session.get(), options, &log).say(*options.prompt, images, nullptr);
  } else {
    chat(session.get(), options, std::move(images), &log);
  }
}

int main_or_throw(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  if (options.help) {
    write_output(help_text());
  } else if (options.version) {
    write_output(join("mipruner-mtmd ", mipruner_version(), "\n"));
  } else {
    run(options);
  }
  return kDone;
}

int fail(ExitCode code, const char* sentence) {
  std::fprintf(stderr, "mipruner-mtmd: %s\n", sentence);
  return code;
}

}  // namespace
}  // namespace mipruner::cli

int main(int argc, char** argv) {
  using namespace mipruner::cli;
  ignore_closed_pipes();
  try {
    return main_or_throw(argc, argv);
  } catch (const ClosedPipe&) {
    end_by_closed_pipe();
  } catch (const UsageError& error) {
    const int code = fail(kUsage, error.what());
    std::fputs("mipruner-mtmd --help says what is allowed\n", stderr);
    return code;
  } catch (const std::bad_alloc&) {
    return fail(kFailed, "there is not enough memory");
  } catch (const std::exception& error) {
    return fail(kFailed, error.what());
  }
}
