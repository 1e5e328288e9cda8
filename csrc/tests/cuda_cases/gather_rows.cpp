// gather_rows: every byte as on the CPU.
#include "tests/cuda_cases/cases.h"

namespace mipruner::cases {

Verdict check_gather(Random& random) {
  GatherProblem problem;
  problem.batch = random.any_of<int64_t>({0, 1, 1, 2, 3});
  problem.rows = random.any_of<int64_t>({0, 1, 5, 40});
  problem.row_bytes = random.any_of<int64_t>({0, 1, 8, 16, 48, 100, 144, 512, 4096, 5000, 8192});
  problem.count = random.any_of<int64_t>({0, 1, 3, 33, random.below(80)});
  const int64_t gap = random.any_of<int64_t>({0, 0, 16, 3});
  problem.row_stride_bytes = random.one_in(10) ? 0 : problem.row_bytes + gap;
  const int64_t item_bytes =
      problem.rows == 0 ? 0 : (problem.rows - 1) * problem.row_stride_bytes + problem.row_bytes;
  problem.batch_stride_bytes =
      random.one_in(6) ? 0 : (item_bytes + 15) / 16 * 16 + random.any_of<int64_t>({0, 0, 32, 5});
  problem.indices_batch_stride = random.one_in(4) ? 0 : problem.count;
  const int64_t extent =
      problem.batch == 0 ? 0 : (problem.batch - 1) * problem.batch_stride_bytes + item_bytes;

  const Bytes source(extent, "source", random.any_of<int64_t>({0, 0, 0, 16, 3}));
  for (int64_t i = 0; i < extent; ++i) source[i] = static_cast<unsigned char>(random.below(256));
  const int64_t index_count = problem.batch * problem.count;
  const Buffer<int64_t> indices(index_count, "indices");
  for (int64_t i = 0; i < index_count; ++i) {
    // The CPU refuses what lies further out; here it is a row of zeros.
    const int64_t outside =
        random.any_of<int64_t>({-1, -1, -2, problem.rows, std::numeric_limits<int64_t>::max(),
                                std::numeric_limits<int64_t>::min()});
    indices[i] = problem.rows == 0 || random.one_in(8) ? outside : random.below(problem.rows);
  }
  problem.source = source.data();
  problem.indices = indices.data();
  const Bytes out(index_count * problem.row_bytes, "out", random.any_of<int64_t>({0, 0, 0, 1}));
  const Status status = cuda::gather_rows(problem, out.data(), nullptr);
  const auto describe = [&](const char* what) {
    return trouble(
        "gather_rows [%lld, %lld, %lld bytes] row stride %lld batch stride %lld count %lld: %s",
        static_cast<long long>(problem.batch), static_cast<long long>(problem.rows),
        static_cast<long long>(problem.row_bytes), static_cast<long long>(problem.row_stride_bytes),
        static_cast<long long>(problem.batch_stride_bytes), static_cast<long long>(problem.count),
        what);
  };
  if (!status.ok()) return describe(status.message);

  std::vector<int64_t> clean(static_cast<size_t>(index_count) + 1);
  for (int64_t i = 0; i < index_count; ++i) {
    clean[static_cast<size_t>(i)] =
        indices[i] < problem.rows ? std::max<int64_t>(indices[i], -1) : -1;
  }
  GatherProblem on_cpu = problem;
  on_cpu.indices = clean.data();
  std::vector<unsigned char> expected(out.bytes() + 1);
  cpu::gather_rows(on_cpu, expected.data(), Executor{});
  if (std::memcmp(out.data(), expected.data(), out.bytes()) != 0) return describe("bytes differ");
  return {};
}

}  // namespace mipruner::cases
