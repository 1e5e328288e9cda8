// normalize: as on the CPU, but for the order of a sum.
#include "tests/cuda_cases/cases.h"

namespace mipruner::cases {

namespace {

float any_element(Random& random, int kind) {
  switch (kind) {
    case 0: return random.normal();
    case 1: return 0.0f;
    case 2: return random.normal() * 1e37f;   // the squares overflow
    case 3: return random.normal() * 1e-22f;  // the squares underflow
    case 4: return random.one_in(20) ? random.any_of({kNaN, kInfinity, -kInfinity}) : 1.0f;
    case 5: return random.one_in(9) ? 3e38f : 0.0f;
    default: return random.normal() * 1e-41f;  // subnormal
  }
}

// Two sums of other orders: equal up to a few units in the last place of the dtype.
bool close(float a, float b, DataType dtype) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  const float unit = dtype == DataType::kFloat32   ? 2e-6f
                     : dtype == DataType::kFloat16 ? 1e-3f
                                                   : 8e-3f;
  const float smallest = dtype == DataType::kFloat16 ? 6e-8f : 1e-44f;
  return std::fabs(a - b) <= unit * std::fabs(b) + smallest;
}

}  // namespace

Verdict check_normalize(Random& random) {
  MatrixView x;
  x.dtype = random.any_of({DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16});
  x.batch = random.any_of<int64_t>({0, 1, 1, 2});
  x.rows = random.any_of<int64_t>({0, 1, 3, 9, 17});
  x.columns = random.any_of<int64_t>({0, 1, 7, 8, 33, 64, 250, 256, 1000});
  if (random.one_in(4)) x.columns = random.any_of<int64_t>({2047, 2048, 2055, 4096, 4099});
  x.row_stride = random.one_in(8) ? 0 : x.columns + random.any_of<int64_t>({0, 0, 8, 3});
  const int64_t item = x.rows == 0 ? 0 : (x.rows - 1) * x.row_stride + x.columns;
  x.batch_stride = random.one_in(6) ? 0 : item + random.any_of<int64_t>({0, 8, 1});
  const int64_t extent = x.batch == 0 ? 0 : (x.batch - 1) * x.batch_stride + item;
  const float eps = random.any_of({1e-12f, 1e-12f, 1e-3f, 1e-30f, 0.5f});

  const auto bytes = static_cast<int64_t>(element_size(x.dtype));
  const Bytes data(extent * bytes, "x", random.any_of<int64_t>({0, 0, 16, bytes}));
  int kind = 0;
  for (int64_t i = 0; i < extent; ++i) {
    const int64_t width = std::max<int64_t>(x.row_stride, 1);
    if (i % width == 0) kind = static_cast<int>(random.one_in(2) ? 0 : random.below(7));
    write_element(data.data(), x.dtype, i, any_element(random, kind));
  }
  x.data = data.data();
  const int64_t results = x.batch * x.rows * x.columns;
  const Bytes out(results * bytes, "out", random.any_of<int64_t>({0, 0, 16, bytes}));
  const Status status = cuda::normalize(x, eps, out.data(), nullptr);
  const auto describe = [&](const char* what) {
    return trouble("normalize dtype %d [%lld, %lld, %lld] row stride %lld batch stride %lld: %s",
                   static_cast<int>(x.dtype), static_cast<long long>(x.batch),
                   static_cast<long long>(x.rows), static_cast<long long>(x.columns),
                   static_cast<long long>(x.row_stride), static_cast<long long>(x.batch_stride),
                   what);
  };
  if (!status.ok()) return describe(status.message);

  std::vector<char> expected(out.bytes() + 1);
  cpu::normalize(cpu::kernels_baseline(), x, eps, expected.data(), Executor{});
  for (int64_t i = 0; i < results; ++i) {
    const float got = read_element(out.data(), x.dtype, i);
    const float want = read_element(expected.data(), x.dtype, i);
    if (close(got, want, x.dtype)) continue;
    char what[128];
    std::snprintf(what, sizeof(what), "element %lld is %g, on the CPU %g",
                  static_cast<long long>(i), static_cast<double>(got), static_cast<double>(want));
    return describe(what);
  }
  return {};
}

}  // namespace mipruner::cases
