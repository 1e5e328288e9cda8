// Pictures to look at, drawn from nothing.
#pragma once

#include <cstdint>
#include <vector>

namespace llama_checks {

struct Image {
  uint32_t width = 0, height = 0;
  std::vector<unsigned char> pixels;  // [height, width, 3], RGB
};

// Coloured shapes on noise; another seed gives another picture.
Image draw_image(uint32_t width, uint32_t height, uint32_t seed);

}  // namespace llama_checks
