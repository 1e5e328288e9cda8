#include "c_api/params.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "c_api/pointer.h"

namespace mipruner::c_api {
namespace {

// The sizes of the first release. A later version appends members and leaves these numbers alone.
constexpr size_t kFirstContextParams = 48;
constexpr size_t kFirstSelectParams = 64;
constexpr size_t kFirstResult = 40;
static_assert(sizeof(mipruner_context_params) == kFirstContextParams);
static_assert(offsetof(mipruner_select_params, coverage) == kFirstSelectParams);
static_assert(sizeof(mipruner_select_params) == kFirstSelectParams + sizeof(double));
static_assert(sizeof(mipruner_result) == kFirstResult);

// No struct will grow beyond this: what says so is not a size but garbage.
constexpr size_t kLargestStruct = 4096;

constexpr int32_t kMostThreads = 1024;

// Measured by bench/quality/study.py; the same numbers as mi_pruner_cuda/defaults.py.
constexpr float kDefaultRedundancy = 1.0f;
constexpr double kDefaultCoverage = 0.25;

// A size that some version had, as far as this one can know: its own, the first release's, or a
// later version's. Two releases are all that there have been.
bool is_size(size_t size, size_t first, size_t own) {
  return size == first || (size >= own && size <= kLargestStruct);
}

Status check_size(const char* name, size_t given, size_t first, size_t own) {
  if (is_size(given, first, own)) return {};
  if (first == own) {
    return invalid(
        "%s.struct_size: got %zu, allowed are %zu to %zu; set it with the _init function", name,
        given, first, kLargestStruct);
  }
  return invalid(
      "%s.struct_size: got %zu, allowed are %zu and %zu to %zu; set it with the _init function",
      name, given, first, own, kLargestStruct);
}

template <class Params>
Status read_struct(const char* name, const Params* given, size_t first, Params* params) {
  const size_t size = given->struct_size;
  if (Status status = check_size(name, size, first, sizeof(Params)); !status.ok()) return status;
  const char* const bytes = reinterpret_cast<const char*>(given);
  for (size_t i = sizeof(Params); i < size; ++i) {
    if (bytes[i] == 0) continue;
    return error(StatusCode::kNotSupported,
                 "%s: byte %zu is set, but this library (ABI %d) knows only %zu bytes of it", name,
                 i, MIPRUNER_ABI_VERSION, sizeof(Params));
  }
  // What the caller's struct has no room for is zero: so its release worked, which had none of it.
  *params = {};
  std::memcpy(params, given, std::min(size, sizeof(Params)));
  params->struct_size = sizeof(Params);
  return {};
}

Status check_enumerator(const char* name, int32_t given, int32_t last) {
  if (given >= 0 && given <= last) return {};
  return invalid("%s: got %d, allowed are 0 to %d", name, given, last);
}

Status check(const mipruner_context_params& params) {
  if (Status status = check_enumerator("backend", params.backend, MIPRUNER_BACKEND_CUDA);
      !status.ok()) {
    return status;
  }
  if (params.device_id < 0) {
    return invalid("device_id: got %d, allowed is 0 or more", params.device_id);
  }
  if (params.n_threads < 1 || params.n_threads > kMostThreads) {
    return invalid("n_threads: got %d, allowed are 1 to %d", params.n_threads, kMostThreads);
  }
  if (params.reserved != 0) return invalid("reserved: got %d, allowed is 0", params.reserved);
  return {};
}

Status check_budget(const mipruner_select_params& params) {
  if (params.n_keep < 0) {
    return invalid("n_keep: got %d, allowed is 1 or more, or 0 to use keep_ratio", params.n_keep);
  }
  if (params.n_keep == 0 && !(params.keep_ratio > 0 && params.keep_ratio <= 1)) {
    return invalid("keep_ratio: got %g, allowed is a number in (0, 1]", params.keep_ratio);
  }
  if (params.min_tokens < 0) {
    return invalid("min_tokens: got %d, allowed is 0 or more", params.min_tokens);
  }
  return {};
}

// Temperature, redundancy and coverage are the core's to check.
Status check(const mipruner_select_params& params) {
  if (Status status = check_budget(params); !status.ok()) return status;
  if (Status status = check_enumerator("estimator", params.estimator, MIPRUNER_ESTIMATOR_COSINE);
      !status.ok()) {
    return status;
  }
  if (Status status = check_enumerator("order", params.order, MIPRUNER_ORDER_SCORE); !status.ok()) {
    return status;
  }
  if (params.n_always_keep < 0) {
    return invalid("n_always_keep: got %lld, allowed is 0 or more",
                   static_cast<long long>(params.n_always_keep));
  }
  if (params.n_always_keep > 0 && !params.always_keep) {
    return invalid("always_keep: got NULL with n_always_keep %lld, allowed is readable memory",
                   static_cast<long long>(params.n_always_keep));
  }
  return check_aligned("always_keep", params.always_keep, alignof(int32_t));
}

template <class Params>
Status read(const char* name, const Params* given, size_t first, Params* params) {
  if (!given) return {};
  if (Status status = check_aligned(name, given, alignof(Params)); !status.ok()) return status;
  if (Status status = read_struct(name, given, first, params); !status.ok()) return status;
  return check(*params);
}

// The defaults, as far as `size` reaches.
template <class Params>
void init(const Params& defaults, Params* params, size_t size, size_t first) {
  if (!params) return;
  if (!is_size(size, first, sizeof(Params))) {
    params->struct_size = 0;
    return;
  }
  std::memset(static_cast<void*>(params), 0, size);
  std::memcpy(static_cast<void*>(params), &defaults, std::min(size, sizeof(Params)));
  params->struct_size = size;
}

mipruner_context_params context_defaults() {
  mipruner_context_params params = {};
  params.struct_size = sizeof(params);
  params.backend = MIPRUNER_BACKEND_AUTO;
  params.n_threads = 1;
  return params;
}

// For a caller's struct of so many bytes. A program of the first release goes on keeping what it
// was tested with, the top K by relevance: it neither knows coverage nor that the library was
// replaced.
mipruner_select_params select_defaults(size_t size) {
  mipruner_select_params params = {};
  params.struct_size = sizeof(params);
  params.keep_ratio = 0.25;
  params.estimator = MIPRUNER_ESTIMATOR_DEFAULT;
  params.order = MIPRUNER_ORDER_ASCENDING;
  params.temperature = 0.1f;
  if (size == kFirstSelectParams) return params;
  params.redundancy = kDefaultRedundancy;
  params.coverage = kDefaultCoverage;
  return params;
}

}  // namespace

Status read_params(const mipruner_context_params* given, mipruner_context_params* params) {
  *params = context_defaults();
  return read("params", given, kFirstContextParams, params);
}

Status read_params(const mipruner_select_params* given, mipruner_select_params* params) {
  *params = select_defaults(sizeof *params);
  return read("params", given, kFirstSelectParams, params);
}

Status check_result(const mipruner_result* result) {
  if (!result) return {};
  if (Status s = check_aligned("result", result, alignof(mipruner_result)); !s.ok()) return s;
  return check_size("result", result->struct_size, kFirstResult, sizeof(mipruner_result));
}

void write_result(const mipruner_result& values, mipruner_result* result) {
  if (!result) return;
  const size_t size = result->struct_size;
  std::memcpy(result, &values, std::min(size, sizeof(values)));
  result->struct_size = size;
}

}  // namespace mipruner::c_api

extern "C" {

void mipruner_context_params_init(mipruner_context_params* params, size_t size) {
  using namespace mipruner::c_api;
  init(context_defaults(), params, size, kFirstContextParams);
}

void mipruner_select_params_init(mipruner_select_params* params, size_t size) {
  using namespace mipruner::c_api;
  init(select_defaults(size), params, size, kFirstSelectParams);
}

}  // extern "C"
