// The interactive chat: messages and commands from standard input.
#pragma once

#include "conversation.h"

namespace mipruner::cli {

// Until /exit or the end of the input. `images` go with the first message.
void chat(Session* session, const Options& options, std::vector<Image> images, Log* log);

}  // namespace mipruner::cli
