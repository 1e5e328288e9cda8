#include "images.h"

#include <mtmd-helper.h>

#include <filesystem>
#include <utility>

#include "failure.h"

namespace mipruner::cli {

Image load_image(const mtmd_context* vision, const std::string& file, Log* log) {
  // Opening a folder works on Linux, and its length is then the largest number there is.
  std::error_code trouble;
  if (std::filesystem::is_directory(file, trouble)) {
    throw Failure(join("cannot load the image ", file, ": it is a folder"));
  }
  log->start();
  const mtmd_helper_bitmap_wrapper loaded = mtmd_helper_bitmap_init_from_file(
      vision, file.c_str(), false, mtmd_helper_init_opt_default());
  Image image{file, mtmd::bitmap(loaded.bitmap)};
  const mtmd_helper::video_ptr video(loaded.video_ctx);
  if (!loaded.bitmap) throw Failure(join("cannot load the image ", file, log->last_reason()));
  if (video || mtmd_bitmap_is_audio(loaded.bitmap)) {
    throw Failure(join("cannot load the image ", file, ": it is audio or video"));
  }
  return image;
}

std::vector<Image> load_images(const mtmd_context* vision, const std::vector<std::string>& files,
                               Log* log) {
  std::vector<Image> images;
  for (const std::string& file : files) images.push_back(load_image(vision, file, log));
  return images;
}

}  // namespace mipruner::cli
