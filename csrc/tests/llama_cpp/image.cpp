#include "image.h"

#include <random>

namespace llama_checks {

Image draw_image(uint32_t width, uint32_t height, uint32_t seed) {
  // mt19937 gives the same numbers everywhere; the standard's distributions do not.
  std::mt19937 random(seed);
  const auto below = [&](uint32_t end) { return static_cast<uint32_t>(random() % end); };
  Image image{width, height, std::vector<unsigned char>(size_t{width} * height * 3)};
  for (unsigned char& value : image.pixels) value = static_cast<unsigned char>(below(64));
  for (int shape = 0; shape < 12; ++shape) {
    const uint32_t side = 16 + below(width / 3);
    const uint32_t left = below(width), top = below(height);
    const uint32_t colour = below(1U << 24);
    for (uint32_t y = top; y < top + side && y < height; ++y) {
      for (uint32_t x = left; x < left + side && x < width; ++x) {
        unsigned char* pixel = &image.pixels[(size_t{y} * width + x) * 3];
        for (uint32_t i = 0; i < 3; ++i) pixel[i] = static_cast<unsigned char>(colour >> (8 * i));
      }
    }
  }
  return image;
}

}  // namespace llama_checks
