// Of glibc 2.36. libstdc++.a links it for std::random_device, which nothing here uses.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

extern "C" __attribute__((visibility("hidden"))) uint32_t arc4random() {
  uint32_t value = 0;
  if (getentropy(&value, sizeof value) != 0) std::abort();  // as glibc's does
  return value;
}
