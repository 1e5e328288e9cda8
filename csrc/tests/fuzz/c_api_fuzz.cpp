// libFuzzer: any bytes as a sequence of calls of the C interface. A call that succeeds has to give
// what mipruner.h promises; one that fails has to say so and write nothing.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "c_api_arguments.h"
#include "tests/c_api/guarded.h"

namespace {

using namespace mipruner::fuzz;
using mipruner::tests::Guarded;

// Says which expectation failed, and ends as a crash does, which libFuzzer keeps the input of.
void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

void require_sentence(const char* sentence) {
  const size_t length = std::strlen(sentence);
  require(length > 0 && length < 256, "a failing call leaves a sentence");
  for (size_t i = 0; i < length; ++i) {
    require(sentence[i] >= ' ' && sentence[i] <= '~', "a sentence is one line of text");
  }
}

void require_line(int32_t level, const char* text, void* /*user_data*/) {
  require(level >= 1 && level <= 4, "log levels are 1 to 4");
  const char* const end = std::strchr(text, '\n');
  require(end && end[1] == '\0', "a log text is one line");
}

// ---- contexts ----

// Scratch memory for every call that is meant to work, and for none of those that are too large.
constexpr uint64_t kMostWorkspace = uint64_t{64} << 20;

bool countdown(void* data) {
  int& left = *static_cast<int*>(data);
  return left > 0 && --left == 0;
}

class Context {
 public:
  explicit Context(Bytes& bytes) {
    mipruner_context_params known = mipruner_context_default_params();
    known.backend = mostly<int32_t>(bytes, MIPRUNER_BACKEND_AUTO, MIPRUNER_BACKEND_CPU);
    known.device_id = mostly<int32_t>(bytes, 0, 1);
    known.n_threads = mostly<int32_t>(bytes, 1, 3);
    known.reserved = one_in(bytes, 32) ? 1 : 0;
    known.max_workspace = kMostWorkspace;
    if (one_in(bytes, 4)) known.max_workspace = bytes.ConsumeIntegralInRange<uint64_t>(1, 1 << 20);
    polls_ = bytes.ConsumeIntegralInRange(0, 60) - 30;
    known.abort_callback = bytes.ConsumeBool() ? countdown : nullptr;
    known.abort_user_data = &polls_;
    VersionedStruct<mipruner_context_params> params(bytes, known);
    // Without parameters there is no limit, and the largest sizes might be believed.
    if (!params.get()) return;
    const int32_t status = mipruner_init(params.get(), &context_);
    require((status < 0) == (context_ == nullptr), "a context or an error");
    if (status < 0) require_sentence(mipruner_last_error(nullptr));
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { mipruner_free(context_); }

  mipruner_context* get() const { return context_; }

 private:
  int polls_ = 0;
  mipruner_context* context_ = nullptr;
};

void require_error(const mipruner_context* context, int32_t status) {
  require(status >= MIPRUNER_ERROR_ABORTED,
          "errors have the codes of mipruner.h, none of them 'internal'");
  require(std::strcmp(mipruner_status_str(status), "an unknown status") != 0, "a known status");
  require_sentence(mipruner_last_error(context));
}

// ---- selection ----

class SelectParams {
 public:
  explicit SelectParams(Bytes& bytes)
      : struct_(bytes, make(bytes), offsetof(mipruner_select_params, coverage)) {}
  const mipruner_select_params* get() { return struct_.get(); }
  std::vector<int32_t> always_keep() { return get() ? always_keep_ : std::vector<int32_t>(); }

 private:
  mipruner_select_params make(Bytes& bytes) {
    mipruner_select_params known = mipruner_select_default_params();
    if (bytes.ConsumeBool()) known.keep_ratio = odd_number<double>(bytes);
    if (bytes.ConsumeBool()) known.n_keep = mostly<int32_t>(bytes, 0, 50);
    if (one_in(bytes, 4)) known.min_tokens = mostly<int32_t>(bytes, 0, 50);
    known.estimator = mostly<int32_t>(bytes, 0, MIPRUNER_ESTIMATOR_COSINE);
    known.order = mostly<int32_t>(bytes, 0, MIPRUNER_ORDER_SCORE);
    if (one_in(bytes, 4)) known.temperature = odd_number<float>(bytes);
    // Not the default else, which NULL stands for: a choice by relevance is work of another kind.
    known.redundancy = bytes.ConsumeBool() ? odd_number<float>(bytes) : 0;
    if (one_in(bytes, 3)) list_rows(bytes, &known);
    known.coverage = one_in(bytes, 3) ? odd_number<double>(bytes) : 0;
    return known;
  }

  void list_rows(Bytes& bytes, mipruner_select_params* known) {
    const auto count = bytes.ConsumeIntegralInRange<size_t>(0, 6);
    for (size_t i = 0; i < count; ++i) always_keep_.push_back(mostly<int32_t>(bytes, 0, 20));
    known->always_keep = one_in(bytes, 16) ? nullptr : always_keep_.data();
    known->n_always_keep = one_in(bytes, 16) ? -1 : static_cast<int64_t>(count);
  }

  std::vector<int32_t> always_keep_;
  VersionedStruct<mipruner_select_params> struct_;
};

struct SelectOutputs {
  explicit SelectOutputs(Bytes& bytes) : result(bytes, mipruner_result{}) {
    wants_scores = bytes.ConsumeBool();
    capacity = one_in(bytes, 8) ? bytes.ConsumeIntegralInRange<int32_t>(-1, 10) : kMost;
  }

  static constexpr int32_t kMost = static_cast<int32_t>(Matrix::kMostRows);
  Guarded<int32_t> indices{kMost};
  Guarded<float> scores{kMost};
  VersionedStruct<mipruner_result> result;
  bool wants_scores;
  int32_t capacity;
};

void require_rows(const std::vector<int32_t>& kept, int64_t n_rows, SelectParams& params) {
  std::vector<int32_t> rows = kept;
  std::sort(rows.begin(), rows.end());
  require(std::adjacent_find(rows.begin(), rows.end()) == rows.end(), "each row is kept once");
  require(rows.empty() || (rows.front() >= 0 && rows.back() < n_rows), "rows that exist are kept");
  for (int32_t row : params.always_keep()) {
    require(std::binary_search(rows.begin(), rows.end(), row), "always_keep is kept");
  }
}

void require_selection(int32_t status, int64_t n_rows, SelectParams& params,
                       SelectOutputs& outputs) {
  const int32_t n_keep = mipruner_n_keep(params.get(), n_rows);
  require(n_keep >= 0 && n_keep <= n_rows, "mipruner_n_keep tells how many are kept");
  require((status == MIPRUNER_KEPT_ALL) == (n_keep == n_rows),
          "status tells whether all were kept");
  const std::vector<int32_t> kept = outputs.indices.first(n_keep);
  require(outputs.indices.untouched(n_keep), "no index is written beyond the last");
  require_rows(kept, n_rows, params);
  const bool by_score = params.get() && params.get()->order == MIPRUNER_ORDER_SCORE;
  require(by_score || std::is_sorted(kept.begin(), kept.end()), "indices ascend");
  require(outputs.scores.untouched(outputs.wants_scores ? n_rows : 0), "a score for every row");
  if (outputs.wants_scores) {
    for (float score : outputs.scores.first(n_rows)) {
      require(!std::isnan(score) && score < HUGE_VALF, "scores are finite or -inf");
    }
  }
  const mipruner_result* const result = outputs.result.get();
  if (!result) return;
  require(result->n_keep == n_keep && result->n_rows == n_rows, "the result counts");
  std::vector<int32_t> ascending = kept;
  std::sort(ascending.begin(), ascending.end());
  require(result->keep_hash == mipruner_keep_hash(n_rows, ascending.data(), n_keep),
          "the result's hash is that of the rows");
}

void select(Bytes& bytes, const Context& context) {
  const int32_t kDtypes[] = {MIPRUNER_DTYPE_F32, MIPRUNER_DTYPE_F16, MIPRUNER_DTYPE_BF16};
  const int32_t dtype = bytes.PickValueInArray(kDtypes);
  const auto n_cols = bytes.ConsumeIntegralInRange<int64_t>(1, 40);
  const Matrix visual(bytes, n_cols, dtype);
  const Matrix text(bytes, one_in(bytes, 16) ? n_cols + 1 : n_cols,
                    one_in(bytes, 16) ? bytes.PickValueInArray(kDtypes) : dtype);
  SelectParams params(bytes);
  SelectOutputs outputs(bytes);
  const bool no_indices = one_in(bytes, 32);
  const int32_t status =
      mipruner_select(context.get(), one_in(bytes, 32) ? nullptr : visual.view(),
                      one_in(bytes, 8) ? nullptr : text.view(), params.get(),
                      no_indices ? nullptr : outputs.indices.data(), outputs.capacity,
                      outputs.wants_scores ? outputs.scores.data() : nullptr, outputs.result.get());
  if (status >= 0) {
    // Without a place for them there can have been no indices.
    require(!no_indices || visual.view()->n_rows == 0, "idx_out is needed");
    return require_selection(status, visual.view()->n_rows, params, outputs);
  }
  require_error(context.get(), status);
  require(outputs.indices.untouched() && outputs.scores.untouched(), "an error writes nothing");
}

void select_async(Bytes& bytes, const Context& context) {
  const Matrix visual(bytes, 8, MIPRUNER_DTYPE_F32);
  SelectParams params(bytes);
  Guarded<int64_t> indices(Matrix::kMostRows);
  const int32_t status = mipruner_select_async(context.get(), visual.view(), nullptr, params.get(),
                                               indices.data(), SelectOutputs::kMost, nullptr);
  require(status < 0, "nothing is asynchronous on the CPU");
  require_error(context.get(), status);
  require(indices.untouched(), "an error writes nothing");
}

// ---- gathering ----

using Memory = std::vector<unsigned char>;

std::vector<int32_t> index_list(Bytes& bytes, int32_t n_rows) {
  std::vector<int32_t> idx(bytes.ConsumeIntegralInRange<size_t>(0, 16));
  for (int32_t& row : idx) row = mostly<int32_t>(bytes, 0, std::max(n_rows - 1, 0));
  if (bytes.ConsumeBool()) {
    std::sort(idx.begin(), idx.end());
    idx.erase(std::unique(idx.begin(), idx.end()), idx.end());
  }
  return idx;
}

// 1 KiB to copy within, any two places of which may be given as dst and src.
Memory numbered_memory() {
  Memory memory(1024);
  for (size_t i = 0; i < memory.size(); ++i)
    memory[i] = static_cast<unsigned char>(i * 7 + i / 256);
  return memory;
}

size_t place(Bytes& bytes, size_t alignment) {
  return bytes.ConsumeIntegralInRange<size_t>(0, 512 / alignment) * alignment;
}

// What `memory` has to be after row idx[k] from src (stride apart) has gone to the k-th place of
// dst.
void gather_slowly(Memory* memory, size_t dst, size_t src, size_t row_bytes, size_t stride,
                   const std::vector<int32_t>& idx) {
  const Memory before = *memory;
  for (size_t k = 0; k < idx.size(); ++k) {
    const auto from = before.begin() + static_cast<std::ptrdiff_t>(src + size_t(idx[k]) * stride);
    std::copy(from, from + static_cast<std::ptrdiff_t>(row_bytes),
              memory->begin() + static_cast<std::ptrdiff_t>(dst + k * row_bytes));
  }
}

void gather_rows(Bytes& bytes) {
  Memory memory = numbered_memory(), expected = memory;
  const auto n_rows = bytes.ConsumeIntegralInRange<int32_t>(0, 16);
  const std::vector<int32_t> idx = index_list(bytes, n_rows);
  const auto row_bytes = bytes.ConsumeIntegralInRange<size_t>(0, 32);
  const auto gap = bytes.ConsumeIntegralInRange<size_t>(0, 4);  // 16 rows then fit 512 bytes
  const size_t stride = one_in(bytes, 4) ? 0 : std::min<size_t>(row_bytes + gap, 32);
  const size_t dst = place(bytes, 1);
  const size_t src = one_in(bytes, 2) ? dst : place(bytes, 1);
  const bool no_dst = one_in(bytes, 32), no_src = one_in(bytes, 32), no_idx = one_in(bytes, 32);
  const int32_t status = mipruner_gather_rows(
      no_dst ? nullptr : memory.data() + dst, no_src ? nullptr : memory.data() + src, n_rows,
      row_bytes, stride, no_idx ? nullptr : idx.data(),
      one_in(bytes, 32) ? -1 : static_cast<int32_t>(idx.size()));
  if (status < 0) {
    require_error(nullptr, status);
  } else {
    gather_slowly(&expected, dst, src, row_bytes, stride ? stride : row_bytes, idx);
  }
  require(memory == expected, "dst[k] = src[idx[k]], or nothing");
}

void gather_positions(Bytes& bytes) {
  Memory memory = numbered_memory(), expected = memory;
  const auto n = bytes.ConsumeIntegralInRange<int32_t>(0, 24);
  const std::vector<int32_t> idx = index_list(bytes, n);
  const auto n_sections = bytes.ConsumeIntegralInRange<int32_t>(-1, 4);
  const size_t alignment = one_in(bytes, 16) ? 1 : 4;
  const size_t dst = place(bytes, alignment);
  const size_t src = one_in(bytes, 2) ? dst : place(bytes, alignment);
  const int32_t status = mipruner_gather_positions(
      reinterpret_cast<int32_t*>(memory.data() + dst),
      reinterpret_cast<const int32_t*>(memory.data() + src), n_sections, n,
      one_in(bytes, 32) ? nullptr : idx.data(), static_cast<int32_t>(idx.size()));
  if (status < 0) {
    require_error(nullptr, status);
  } else {
    std::vector<int32_t> all;
    for (int32_t s = 0; s < n_sections; ++s) {
      for (int32_t row : idx) all.push_back(s * n + row);
    }
    gather_slowly(&expected, dst, src, 4, 4, all);
  }
  require(memory == expected, "each section's positions, or nothing");
}

// Sizes that no memory has: whatever is not refused has nothing to move.
void gather_too_much(Bytes& bytes) {
  Memory memory = numbered_memory();
  const size_t kSizes[] = {0, 1, size_t{1} << 31, size_t{1} << 62, ~size_t{0}};
  const int64_t kCounts[] = {
      -1, 0, 1, (int64_t{1} << 31) - 1, int64_t{1} << 31, std::numeric_limits<int64_t>::max()};
  const int32_t idx = bytes.ConsumeBool() ? 0 : std::numeric_limits<int32_t>::max();
  const size_t row_bytes = bytes.PickValueInArray(kSizes), stride = bytes.PickValueInArray(kSizes);
  const int64_t n_rows = bytes.PickValueInArray(kCounts);
  const int32_t n_idx = row_bytes > 1 || idx != 0 ? bytes.ConsumeIntegralInRange(-1, 0) : 1;
  const int32_t status = mipruner_gather_rows(memory.data(), memory.data() + 512, n_rows, row_bytes,
                                              stride, &idx, n_idx);
  if (status < 0) require_error(nullptr, status);
}

// ---- what needs no context ----

void count(Bytes& bytes) {
  const auto n = mostly<int64_t>(bytes, 0, 5000);
  const double ratio = odd_number<double>(bytes);
  const int64_t kept = mipruner_keep_count(n, ratio);
  if (kept < 0) {
    require_error(nullptr, static_cast<int32_t>(kept));
    require(n < 0 || !(ratio > 0 && ratio <= 1), "right arguments are accepted");
  } else {
    require(kept <= n && (n == 0 || kept >= 1), "at least one, at most all");
  }
  SelectParams params(bytes);
  const int32_t n_keep = mipruner_n_keep(params.get(), n);
  if (n_keep < 0) require_error(nullptr, n_keep);
  require(n_keep <= n || n < 0, "no more than there are");
}

void fill_defaults(Bytes& bytes) {
  Guarded<unsigned char> memory(4096);
  const auto size = one_in(bytes, 2) ? bytes.ConsumeIntegral<size_t>()
                                     : bytes.ConsumeIntegralInRange<size_t>(0, 4200);
  size_t struct_size = 0;
  if (bytes.ConsumeBool()) {
    mipruner_select_params_init(reinterpret_cast<mipruner_select_params*>(memory.data()), size);
  } else {
    mipruner_context_params_init(reinterpret_cast<mipruner_context_params*>(memory.data()), size);
  }
  std::memcpy(&struct_size, memory.data(), sizeof struct_size);
  require(struct_size == size || struct_size == 0, "struct_size is the size, or 0");
  require(memory.untouched(static_cast<int64_t>(std::max(struct_size, sizeof struct_size))),
          "as much is written as there is");
}

void ask(Bytes& bytes) {
  mipruner_supports(bytes.ConsumeIntegral<int32_t>(), bytes.ConsumeIntegral<int32_t>(),
                    bytes.ConsumeIntegral<int32_t>());
  require(mipruner_status_str(bytes.ConsumeIntegral<int32_t>()) != nullptr, "a sentence");
  const std::vector<int32_t> idx = index_list(bytes, 100);
  mipruner_keep_hash(bytes.ConsumeIntegral<int64_t>(), one_in(bytes, 4) ? nullptr : idx.data(),
                     one_in(bytes, 4) ? -1 : static_cast<int32_t>(idx.size()));
}

void call(Bytes& bytes, const Context& context) {
  switch (bytes.ConsumeIntegralInRange(0, 11)) {
    case 0: return gather_rows(bytes);
    case 1: return gather_positions(bytes);
    case 2: return gather_too_much(bytes);
    case 3: return count(bytes);
    case 4: return fill_defaults(bytes);
    case 5: return ask(bytes);
    case 6: return select_async(bytes, context);
    default: return select(bytes, context);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  mipruner_log_set(require_line, nullptr);
  const Context context(bytes);
  for (int calls = 0; calls < 8 && bytes.remaining_bytes() > 0; ++calls) call(bytes, context);
  return 0;
}
