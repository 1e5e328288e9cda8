// --dump-keep: what was kept of each image, as JSON for plots.
#pragma once

#include <string>
#include <vector>

#include "evaluate.h"

namespace mipruner::cli {

// Refuses options.dump_path before anything is loaded for it: throws UsageError where it is a file
// that is read or that standard output or error goes to, Failure where it could not be written.
void check_dump(const Options& options);

// Whether two paths lead to one file, by links or another spelling too, also before there is one.
bool same_file(const std::string& one, const std::string& other);

std::string dump_json(const Session& session, const Prompt& prompt, const std::string& message,
                      const std::vector<Image>& images, const Evaluation& evaluation);

// The file at `path` has all of `text` or, after a Failure, what it had before.
void write_atomically(const std::string& path, const std::string& text);

}  // namespace mipruner::cli
