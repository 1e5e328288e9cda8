// --dump-keep: what was kept of each image, as JSON for plots.
#pragma once

#include <string>
#include <vector>

#include "evaluate.h"

namespace mipruner::cli {

// Throws Failure where `path` could not be written, so that no answer is waited for in vain.
void check_dump_path(const std::string& path);

std::string dump_json(const Session& session, const Prompt& prompt, const std::string& message,
                      const std::vector<Image>& images, const Evaluation& evaluation);

// The file at `path` has all of `text` or, after a Failure, what it had before.
void write_atomically(const std::string& path, const std::string& text);

}  // namespace mipruner::cli
