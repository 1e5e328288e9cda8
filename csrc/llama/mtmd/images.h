// Image files, decoded.
#pragma once

#include <mtmd.h>

#include <string>
#include <vector>

#include "log.h"

namespace mipruner::cli {

struct Image {
  std::string file;
  mtmd::bitmap bitmap;
};

// Throws Failure for what is not an image or cannot be read. The file may be a pipe.
Image load_image(const mtmd_context* vision, const std::string& file, Log* log);
std::vector<Image> load_images(const mtmd_context* vision, const std::vector<std::string>& files,
                               Log* log);

}  // namespace mipruner::cli
