// The moves in host memory that follow a selection: rows, positions, and the hash of what is kept.
#include "c_api/gather.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "c_api/hash.h"
#include "c_api/pointer.h"
#include "mipruner/mipruner.h"

namespace mipruner::c_api {
namespace {

constexpr int64_t kLargestCount = std::numeric_limits<int32_t>::max();
constexpr int64_t kLargestBytes = PTRDIFF_MAX;

Status check_index_list(const int32_t* idx, int32_t n_idx, int64_t n) {
  for (int32_t i = 0; i < n_idx; ++i) {
    if (idx[i] >= 0 && idx[i] < n) continue;
    return invalid("idx: got %d, allowed are 0 to %lld", idx[i], static_cast<long long>(n - 1));
  }
  return {};
}

bool ascends(const int32_t* idx, int32_t n_idx) {
  return std::adjacent_find(idx, idx + n_idx, std::greater_equal<int32_t>()) == idx + n_idx;
}

bool overlap(const void* dst, size_t dst_bytes, const void* src, size_t src_bytes) {
  if (dst_bytes == 0 || src_bytes == 0) return false;
  const auto to = reinterpret_cast<uintptr_t>(dst);
  const auto from = reinterpret_cast<uintptr_t>(src);
  return to < from ? from - to < dst_bytes : to - from < src_bytes;
}

// In place, an ascending list only ever reads at or behind where it writes.
Status check_in_place(const void* dst, const void* src, const int32_t* idx, int32_t n_idx) {
  if (dst == src && ascends(idx, n_idx)) return {};
  return invalid(
      "dst: got memory that overlaps src, allowed is src itself with ascending idx, or other "
      "memory");
}

Status gather(GatherArguments a, void* dst, const int32_t* idx) {
  if (Status s = check_gather_arguments(&a); !s.ok()) return s;
  if (Status s = check_pointer("idx", idx, a.n_idx > 0); !s.ok()) return s;
  if (Status s = check_index_list(idx, a.n_idx, a.n_rows); !s.ok()) return s;
  if (overlap(a)) {
    if (Status s = check_in_place(dst, a.src, idx, a.n_idx); !s.ok()) return s;
  }
  if (a.row_bytes == 0) return {};
  for (int32_t i = 0; i < a.n_idx; ++i) {
    std::memmove(static_cast<char*>(dst) + static_cast<size_t>(i) * a.row_bytes,
                 static_cast<const char*>(a.src) + static_cast<size_t>(idx[i]) * a.src_stride,
                 a.row_bytes);
  }
  return {};
}

Status check_sections(int32_t n_sections, int64_t n, int32_t n_idx) {
  if (n < 0 || n > kLargestCount) {
    return invalid("n: got %lld, allowed are 0 to 2^31 - 1", static_cast<long long>(n));
  }
  if (n_idx < 0) return invalid("n_idx: got %d, allowed is 0 or more", n_idx);
  const int64_t most = kLargestBytes / static_cast<int64_t>(sizeof(int32_t)) /
                       std::max({n, int64_t{n_idx}, int64_t{1}});
  if (n_sections >= 0 && n_sections <= most) return {};
  return invalid("n_sections: got %d, allowed are 0 to %lld", n_sections,
                 static_cast<long long>(std::min(most, kLargestCount)));
}

Status check_positions(const int32_t* dst, const int32_t* src, int32_t n_sections, int64_t n,
                       const int32_t* idx, int32_t n_idx) {
  if (Status s = check_sections(n_sections, n, n_idx); !s.ok()) return s;
  const bool moves = n_sections > 0 && n_idx > 0;
  if (Status s = check_pointer("dst", dst, moves); !s.ok()) return s;
  if (Status s = check_pointer("src", src, moves && n > 0); !s.ok()) return s;
  if (Status s = check_pointer("idx", idx, n_idx > 0); !s.ok()) return s;
  if (Status s = check_index_list(idx, n_idx, n); !s.ok()) return s;
  const size_t element = static_cast<size_t>(n_sections) * sizeof(int32_t);
  if (!overlap(dst, element * static_cast<size_t>(n_idx), src, element * static_cast<size_t>(n))) {
    return {};
  }
  return check_in_place(dst, src, idx, n_idx);
}

}  // namespace

Status check_gather_arguments(GatherArguments* a) {
  if (a->n_rows < 0 || a->n_rows > kLargestCount) {
    return invalid("n_rows: got %lld, allowed are 0 to 2^31 - 1",
                   static_cast<long long>(a->n_rows));
  }
  if (a->n_idx < 0) return invalid("n_idx: got %d, allowed is 0 or more", a->n_idx);
  if (a->src_stride == 0) a->src_stride = a->row_bytes;
  const auto count = static_cast<size_t>(std::max({a->n_rows, int64_t{a->n_idx}, int64_t{1}}));
  const size_t most = static_cast<size_t>(kLargestBytes) / count;
  if (a->row_bytes > most) {
    return invalid("row_bytes: got %zu, allowed are 0 to %zu", a->row_bytes, most);
  }
  if (a->src_stride < a->row_bytes || a->src_stride > most) {
    return invalid("src_stride: got %zu, allowed are 0 and %zu to %zu", a->src_stride, a->row_bytes,
                   most);
  }
  const bool moves = a->n_idx > 0 && a->row_bytes > 0;
  if (moves && !a->dst) return invalid("dst: got NULL, allowed is memory for the rows of idx");
  if (moves && !a->src && a->n_rows > 0)
    return invalid("src: got NULL, allowed is readable memory");
  return {};
}

bool overlap(const GatherArguments& a) {
  if (a.n_rows == 0) return false;
  const size_t src_bytes = static_cast<size_t>(a.n_rows - 1) * a.src_stride + a.row_bytes;
  return overlap(a.dst, static_cast<size_t>(a.n_idx) * a.row_bytes, a.src, src_bytes);
}

}  // namespace mipruner::c_api

extern "C" {

int32_t mipruner_gather_rows(void* dst, const void* src, int64_t n_rows, size_t row_bytes,
                             size_t src_stride, const int32_t* idx, int32_t n_idx) {
  using namespace mipruner::c_api;
  return report(nullptr, gather({dst, src, n_rows, row_bytes, src_stride, n_idx}, dst, idx));
}

int32_t mipruner_gather_positions(int32_t* dst, const int32_t* src, int32_t n_sections, int64_t n,
                                  const int32_t* idx, int32_t n_idx) {
  using namespace mipruner::c_api;
  const mipruner::Status status = check_positions(dst, src, n_sections, n, idx, n_idx);
  if (!status.ok()) return report(nullptr, status);
  for (int64_t section = 0; section < n_sections; ++section) {
    for (int32_t i = 0; i < n_idx; ++i) dst[section * n_idx + i] = src[section * n + idx[i]];
  }
  return MIPRUNER_OK;
}

uint64_t mipruner_keep_hash(int64_t n_rows, const int32_t* idx, int32_t n_idx) {
  if (n_idx < 0 || (n_idx > 0 && !idx)) return 0;
  return mipruner::c_api::hash_of_kept(n_rows, idx, n_idx);
}

}  // extern "C"
