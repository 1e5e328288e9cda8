#include "images.h"

#include <mtmd-helper.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "failure.h"

namespace mipruner::cli {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 28;

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// llama.cpp's own function asks for the length first, which a pipe does not have.
std::vector<unsigned char> read_file(const std::string& path) {
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  std::vector<unsigned char> bytes;
  size_t n_read = 0;
  while (file && !std::feof(file.get()) && !std::ferror(file.get())) {
    if (n_read > kMaxBytes) throw Failure(join("cannot load the image ", path, ": above 256 MiB"));
    bytes.resize(n_read + (size_t{1} << 20));
    n_read += std::fread(bytes.data() + n_read, 1, bytes.size() - n_read, file.get());
  }
  if (!file || std::ferror(file.get())) {
    throw Failure(join("cannot load the image ", path, ": ", std::strerror(errno)));
  }
  bytes.resize(n_read);
  return bytes;
}

}  // namespace

Image load_image(const mtmd_context* vision, const std::string& file, Log* log) {
  // Opening a folder works on Linux, and its length is then the largest number there is.
  std::error_code trouble;
  if (std::filesystem::is_directory(file, trouble)) {
    throw Failure(join("cannot load the image ", file, ": it is a folder"));
  }
  const std::vector<unsigned char> bytes = read_file(file);
  log->start();
  const mtmd_helper_bitmap_wrapper loaded = mtmd_helper_bitmap_init_from_buf(
      vision, bytes.data(), bytes.size(), false, mtmd_helper_init_opt_default());
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
