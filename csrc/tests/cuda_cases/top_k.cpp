// top_k: every index and every value as on the CPU.
#include "cuda/top_k.cuh"

#include "tests/cuda_cases/cases.h"

namespace mipruner::cases {

using cuda::Items;

float any_score(Random& random, int kind) {
  switch (kind) {
    case 0: return random.normal();
    case 1: return static_cast<float>(random.below(5)) - 2;  // ties everywhere
    case 2: return 1.0f;
    case 3:
      return random.any_of(
          {0.0f, -0.0f, kInfinity, -kInfinity, kNaN, -kNaN, 1e-45f, -1e-45f, 3e38f, -3e38f, 1.0f});
    case 4: return 1.0f + static_cast<float>(random.below(1024)) * 0x1p-23f;  // last digit decides
    default: return random.one_in(100) ? random.normal() : -kInfinity;
  }
}

Verdict check_top_k(Random& random) {
  ScoresView scores;
  scores.batch = random.any_of<int64_t>({0, 1, 1, 2, 3});
  scores.columns = random.any_of<int64_t>(
      {0, 1, 2, 31, 32, 33, 576, 1023, 1024, 1025, random.below(3000), random.below(9000)});
  if (random.one_in(12)) {
    scores.batch = 1;  // both borders between the capacities of shared memory
    scores.columns = random.any_of<int64_t>({8192, 8193, 20480, 20481, 30000});
  }
  const int64_t gap = random.any_of<int64_t>({0, 0, 1, 7});
  scores.batch_stride = random.one_in(8) ? 0 : scores.columns + gap;
  const int64_t k = 1 + random.below(random.any_of<int64_t>({1, 64, scores.columns, 40000}));
  const int64_t width = std::min(k, scores.columns);
  const int64_t extent =
      scores.batch == 0 ? 0 : (scores.batch - 1) * scores.batch_stride + scores.columns;
  const auto kind = static_cast<int>(random.below(6));

  const Buffer<float> data(extent, "scores", random.below(2));
  for (int64_t i = 0; i < extent; ++i) data[i] = any_score(random, kind);
  scores.data = data.data();
  const Buffer<float> values(scores.batch * width, "values");
  const Buffer<int64_t> indices(scores.batch * width, "indices");
  const Status status = cuda::top_k(scores, k, values.data(), indices.data(), nullptr);
  const auto describe = [&](const char* what) {
    return trouble("top_k [%lld, %lld] stride %lld k %lld kind %d: %s",
                   static_cast<long long>(scores.batch), static_cast<long long>(scores.columns),
                   static_cast<long long>(scores.batch_stride), static_cast<long long>(k), kind,
                   what);
  };
  if (!status.ok()) return describe(status.message);

  std::vector<float> expected_values(values.bytes() / sizeof(float) + 1);
  std::vector<int64_t> expected(indices.bytes() / sizeof(int64_t) + 1);
  cpu::top_k(scores, k, expected_values.data(), expected.data(), Executor{});
  if (std::memcmp(indices.data(), expected.data(), indices.bytes()) != 0) {
    return describe("the indices differ");
  }
  if (std::memcmp(values.data(), expected_values.data(), values.bytes()) != 0) {
    return describe("the values differ");
  }
  return {};
}

// ---- top_k as select uses it ----

namespace {

enum RowState : uint8_t { kMasked, kBroken, kCounts, kCovered };

// The rows that item b should keep, by plain sorting.
std::vector<int64_t> best_rows(const float* scores, const uint8_t* state, int64_t rows, int64_t k) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < rows; ++i) {
    if (state[i] != kMasked) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    if (state[a] != state[b]) return state[a] > state[b];
    return state[a] == kCounts && scores[a] > scores[b];
  });
  order.resize(std::min(order.size(), static_cast<size_t>(k)));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

Verdict check_select_top_k(Random& random) {
  const bool segments = random.one_in(2);
  const int64_t count = random.any_of<int64_t>({0, 1, 2, 4});
  const int64_t size = random.any_of<int64_t>({0, 1, 33, 576, 1025, random.below(3000)});
  const Buffer<int64_t> offsets(count + 1, "visual_offsets");
  const Buffer<int64_t> places(count + 1, "begins");
  offsets[0] = 0;
  places[0] = 0;
  for (int64_t b = 0; b < count; ++b) {
    offsets[b + 1] = offsets[b] + (segments ? random.below(size + 1) : size);
    places[b + 1] = places[b] + 1 + random.below(random.any_of<int64_t>({3, 100, size + 5}));
  }
  const int64_t equal = 1 + random.below(size + 5);
  const cuda::Quota quota = {random.one_in(3) ? nullptr : places.data(), equal};
  Items items = {};
  items.count = count;
  items.rows = segments ? offsets[count] : size;
  items.visual_offsets = segments ? offsets.data() : nullptr;

  const int64_t rows = offsets[count];
  const Buffer<float> scores(rows, "scores");
  const Buffer<uint8_t> state(rows, "state");
  const auto kind = static_cast<int>(random.below(3));
  const int64_t rarity = random.any_of<int64_t>({1, 2, 30, 1000});
  for (int64_t i = 0; i < rows; ++i) {
    state[i] = random.one_in(rarity) ? random.any_of({kMasked, kBroken, kCovered}) : kCounts;
    scores[i] = state[i] == kCounts ? any_score(random, kind) : kNaN;
  }
  const bool absolute = random.one_in(2);
  const Buffer<int64_t> indices(quota.begin(count), "indices");
  const Status status = cuda::launch_select_top_k(items, scores.data(), state.data(), quota,
                                                  absolute, indices.data(), nullptr);
  if (!status.ok()) return trouble("select_top_k: %s", status.message);
  for (int64_t b = 0; b < count; ++b) {
    const int64_t first = offsets[b];
    std::vector<int64_t> expected =
        best_rows(&scores[first], &state[first], offsets[b + 1] - first, quota.wanted(b));
    if (absolute) std::for_each(expected.begin(), expected.end(), [&](int64_t& i) { i += first; });
    expected.resize(static_cast<size_t>(quota.wanted(b)), -1);
    if (std::equal(expected.begin(), expected.end(), &indices[quota.begin(b)])) continue;
    return trouble("select_top_k %s item %lld of %lld, size %lld, k %lld: the indices differ",
                   segments ? "segments" : "items", static_cast<long long>(b),
                   static_cast<long long>(count), static_cast<long long>(size),
                   static_cast<long long>(quota.wanted(b)));
  }
  return {};
}

}  // namespace mipruner::cases
