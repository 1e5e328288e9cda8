#pragma once

#include <cstdint>

namespace mipruner::c_api {

// FNV-1a over n and the indices, each as 8 bytes, the lowest first.
template <class Index>
uint64_t hash_of_kept(int64_t n, const Index* indices, int64_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&hash](int64_t value) {
    for (int byte = 0; byte < 8; ++byte) {
      hash = (hash ^ (static_cast<uint64_t>(value) >> (8 * byte) & 0xff)) * 0x100000001b3u;
    }
  };
  add(n);
  for (int64_t i = 0; i < count; ++i) add(static_cast<int64_t>(indices[i]));
  return hash;
}

}  // namespace mipruner::c_api
