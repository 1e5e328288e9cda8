#include "c_api/budget.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "c_api/failure.h"
#include "c_api/params.h"

namespace mipruner::c_api {

int64_t keep_count(int64_t n, double ratio) {
  // A statement of its own, so that no compiler fuses it with the sum: Python rounds twice.
  const double product = ratio * static_cast<double>(n);
  const double rounded = std::floor(product + 0.5);
  if (rounded >= 0x1p63) return n;  // a number that no int64_t is
  return std::min(n, std::max<int64_t>(1, static_cast<int64_t>(rounded)));
}

int64_t count_kept(const mipruner_select_params& params, int64_t n) {
  if (n <= params.min_tokens) return n;
  return params.n_keep > 0 ? std::min<int64_t>(params.n_keep, n) : keep_count(n, params.keep_ratio);
}

Status read_always_keep(const mipruner_select_params& params, int64_t n, int64_t most,
                        std::vector<int64_t>* rows) {
  for (int64_t i = 0; i < params.n_always_keep; ++i) {
    const int32_t row = params.always_keep[i];
    if (row < 0 || row >= n) {
      return invalid("always_keep: got row %d, allowed are 0 to %lld", row,
                     static_cast<long long>(n - 1));
    }
  }
  rows->assign(params.always_keep, params.always_keep + params.n_always_keep);
  std::sort(rows->begin(), rows->end());
  rows->erase(std::unique(rows->begin(), rows->end()), rows->end());
  const auto count = static_cast<int64_t>(rows->size());
  if (count > most) {
    return invalid("always_keep: got %lld rows, allowed are at most the %lld that are kept",
                   static_cast<long long>(count), static_cast<long long>(most));
  }
  return {};
}

namespace {

Status check_keep_count(int64_t n, double ratio) {
  if (n < 0) return invalid("n: got %lld, allowed is 0 or more", static_cast<long long>(n));
  if (!(ratio > 0 && ratio <= 1)) {
    return invalid("ratio: got %g, allowed is a number in (0, 1]", ratio);
  }
  return {};
}

Status check_n_keep(const mipruner_select_params* given, int64_t n,
                    mipruner_select_params* params) {
  if (Status status = read_params(given, params); !status.ok()) return status;
  if (n < 0 || n > std::numeric_limits<int32_t>::max()) {
    return invalid("n_rows: got %lld, allowed are 0 to 2^31 - 1", static_cast<long long>(n));
  }
  return {};
}

}  // namespace
}  // namespace mipruner::c_api

extern "C" {

int64_t mipruner_keep_count(int64_t n, double ratio) {
  using namespace mipruner::c_api;
  const mipruner::Status status = check_keep_count(n, ratio);
  return status.ok() ? keep_count(n, ratio) : report(nullptr, status);
}

int32_t mipruner_n_keep(const mipruner_select_params* params, int64_t n_rows) {
  using namespace mipruner::c_api;
  mipruner_select_params known;
  const mipruner::Status status = check_n_keep(params, n_rows, &known);
  return status.ok() ? static_cast<int32_t>(count_kept(known, n_rows)) : report(nullptr, status);
}

}  // extern "C"
