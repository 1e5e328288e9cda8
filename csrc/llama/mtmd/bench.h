// --bench: the same prompt without pruning and with each --keep.
#pragma once

#include "evaluate.h"

namespace mipruner::cli {

// Prints a table of medians to standard output. Throws Failure.
void bench(Session* session, const Options& options, const std::vector<Image>& images, Log* log);

}  // namespace mipruner::cli
