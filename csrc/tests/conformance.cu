// Does every wrapper of csrc/cuda/common do what its comment says? On a GPU that is what shows that
// the PTX in it is right; against the emulator it shows that the emulation says the same.
//
//   nvcc -std=c++17 -arch=native -I csrc csrc/tests/conformance.cu csrc/core/status.cpp
//   g++ -std=c++17 -I csrc -I csrc/tests -x c++ csrc/tests/conformance.cu -x none
//       csrc/core/status.cpp csrc/tests/emu/*.cpp, without checker.cpp and hooks.cpp
//
// Prints one line per check and exits with 1 if any failed. What is expected is computed here from
// the definitions, never with the wrappers themselves.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "core/coverage.h"
#include "cuda/common/copy.h"
#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#include "cuda/common/launch.h"
#include "cuda/common/math.h"
#include "cuda/common/matrix.h"
#include "cuda/common/shared.h"
#include "cuda/common/warp.h"

namespace mipruner::cuda {
namespace {

// ---- the device's memory

#if defined(__CUDACC__)

void require(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  std::printf("FAILED %s: %s\n", what, cudaGetErrorString(code));
  std::exit(1);
}
void* device_alloc(size_t bytes) {
  void* memory = nullptr;
  require(cudaMalloc(&memory, bytes), "cudaMalloc");
  return memory;
}
void device_free(void* memory) { (void)cudaFree(memory); }
void copy_to_device(void* to, const void* from, size_t bytes) {
  require(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "copy to the device");
}
// Waits for the kernels before it.
void copy_from_device(void* to, const void* from, size_t bytes) {
  require(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copy from the device");
}

#else

void* device_alloc(size_t bytes) { return emu::global_alloc(bytes, "conformance"); }
void device_free(void* memory) { emu::global_free(memory); }
void copy_to_device(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void copy_from_device(void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

#endif

// Host values with a copy of the same size on the device.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::vector<T> values)
      : values_(std::move(values)), device_(static_cast<T*>(device_alloc(bytes()))) {
    copy_to_device(device_, values_.data(), bytes());
  }
  explicit Buffer(size_t count) : Buffer(std::vector<T>(count)) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { device_free(device_); }
  T* device() { return device_; }
  const std::vector<T>& read() {
    copy_from_device(values_.data(), device_, bytes());
    return values_;
  }

 private:
  size_t bytes() const { return values_.size() * sizeof(T); }
  std::vector<T> values_;
  T* device_;
};

// ---- the outcome of a check

const char* current_check = "";
int failures = 0;  // of the current check

void expect(bool right, const char* what, double at, double got, double wanted) {
  if (right) return;
  if (++failures <= 3)
    std::printf("FAILED %s: %s at %.9g: got %.9g, expected %.9g\n", current_check, what, at, got,
                wanted);
}
void expect_same(double got, double wanted, const char* what, double at) {
  expect(got == wanted || (std::isnan(got) && std::isnan(wanted)), what, at, got, wanted);
}
void expect_ok(const Status& status) {
  if (status.ok()) return;
  ++failures;
  std::printf("FAILED %s: %s\n", current_check, status.message);
}

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// A reproducible number from 0 to 2^32 - 1.
uint32_t random_bits(uint32_t& state) {
  state = state * 1664525u + 1013904223u;
  return (state >> 16) | (state << 16);
}

MIPRUNER_DEVICE int lane_index() { return static_cast<int>(threadIdx.x); }

// ---- element types: every 16-bit pattern, and rounding at every midpoint

struct Format {
  int fraction_bits;
  int bias;
};
constexpr Format kHalfFormat = {10, 15};
constexpr Format kBFloat16Format = {7, 127};

// What a 16-bit pattern stands for; infinity's pattern counts as the number that would follow the
// largest one if `as_number`.
double decode(Format format, uint32_t pattern, bool as_number = false) {
  const int fraction_size = 1 << format.fraction_bits;
  const int exponent = static_cast<int>(pattern & 0x7fffu) / fraction_size;
  const int fraction = static_cast<int>(pattern & 0x7fffu) % fraction_size;
  const double sign = pattern & 0x8000u ? -1 : 1;
  if (exponent == 0x7fff / fraction_size && !as_number)
    return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  const int significand = exponent == 0 ? fraction : fraction_size + fraction;
  const int power = (exponent == 0 ? 1 : exponent) - format.bias - format.fraction_bits;
  return sign * std::ldexp(significand, power);
}

template <class Element>
__global__ void decode_kernel(float* out) {
  const unsigned pattern = blockIdx.x * blockDim.x + threadIdx.x;
  out[pattern] = to_float(Element{static_cast<uint16_t>(pattern)});
}

template <class Element>
__global__ void encode_kernel(const float* in, uint16_t* out, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = from_float<Element>(in[i]).bits;
}

struct Rounding {
  std::vector<float> inputs;
  std::vector<uint32_t> wanted;
  void add(float x, uint32_t pattern) {
    inputs.push_back(x);
    wanted.push_back(pattern);
  }
};

// Each finite pattern itself, and what lies halfway to its successor or one float32 beside that.
Rounding roundings(Format format) {
  const uint32_t infinity = 0x8000u - (1u << format.fraction_bits);
  Rounding all;
  for (uint32_t sign = 0; sign <= 0x8000u; sign += 0x8000u) {
    for (uint32_t pattern = 0; pattern < infinity; ++pattern) {
      const double here = decode(format, sign | pattern);
      const auto middle =
          static_cast<float>((here + decode(format, sign | (pattern + 1), true)) / 2);
      const float away = sign ? -INFINITY : INFINITY;
      all.add(static_cast<float>(here), sign | pattern);
      all.add(middle, sign | (pattern + (pattern & 1u)));  // to even
      all.add(std::nextafter(middle, 0.0f), sign | pattern);
      all.add(std::nextafter(middle, away), sign | (pattern + 1));
    }
    all.add(sign ? -INFINITY : INFINITY, sign | infinity);
    all.add(sign ? -3.4e38f : 3.4e38f, sign | infinity);
  }
  for (const uint32_t nan : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu})
    all.add(float_of(nan), 0x7fffu);
  return all;
}

template <class Element>
void check_conversions(Format format) {
  constexpr int kThreads = 256;
  constexpr int kPatterns = 1 << 16;
  Buffer<float> decoded(kPatterns);
  expect_ok(launch("decode", decode_kernel<Element>, dim3(kPatterns / kThreads), kThreads, 0,
                   nullptr, decoded.device()));
  const std::vector<float>& values = decoded.read();
  for (uint32_t pattern = 0; pattern < kPatterns; ++pattern) {
    const double wanted = decode(format, pattern);
    expect_same(values[pattern], wanted, "to_float of pattern", pattern);
    if (wanted == 0)  // the sign of zero
      expect_same(bits_of(values[pattern]), pattern << 16, "to_float of zero", pattern);
  }

  const Rounding rounding = roundings(format);
  const int count = static_cast<int>(rounding.inputs.size());
  Buffer<float> inputs(rounding.inputs);
  Buffer<uint16_t> encoded(rounding.inputs.size());
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  expect_ok(launch("encode", encode_kernel<Element>, dim3(blocks), kThreads, 0, nullptr,
                   inputs.device(), encoded.device(), count));
  const std::vector<uint16_t>& patterns = encoded.read();
  for (size_t i = 0; i < patterns.size(); ++i)
    expect_same(patterns[i], rounding.wanted[i], "from_float of", rounding.inputs[i]);
}

void check_half() { check_conversions<Half>(kHalfFormat); }
void check_bfloat16() { check_conversions<BFloat16>(kBFloat16Format); }

// ---- scalar functions

__global__ void keys_kernel(const float* in, uint32_t* keys, float* back, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  keys[i] = ordered_key(in[i]);
  back[i] = key_to_float(keys[i]);
}

// Special values, and random bit patterns.
std::vector<float> many_floats(size_t count) {
  std::vector<float> values;
  for (const uint32_t bits : {0u, 1u, 0x007fffffu, 0x00800000u, 0x3f800000u, 0x7f7fffffu,
                              0x7f800000u, 0x7f800001u, 0x7fffffffu}) {
    values.push_back(float_of(bits));
    values.push_back(float_of(bits | 0x80000000u));
  }
  uint32_t state = 1;
  while (values.size() < count) values.push_back(float_of(random_bits(state)));
  return values;
}

void check_ordered_key() {
  const std::vector<float> values = many_floats(512);
  const int count = static_cast<int>(values.size());
  Buffer<float> in(values);
  Buffer<uint32_t> keys(values.size());
  Buffer<float> back(values.size());
  expect_ok(launch("keys", keys_kernel, dim3(2), 256, 0, nullptr, in.device(), keys.device(),
                   back.device(), count));
  const std::vector<uint32_t>& key = keys.read();
  const std::vector<float>& restored = back.read();
  const auto as_ranked = [](float x) { return std::isnan(x) ? -INFINITY : x; };
  for (size_t i = 0; i < values.size(); ++i) {
    const float x = as_ranked(values[i]);
    expect_same(restored[i], x, "key_to_float of the key of", values[i]);
    for (size_t j = 0; j < values.size(); ++j) {
      const float y = as_ranked(values[j]);
      expect((x < y) == (key[i] < key[j]), "order of the keys of", x, y, y);
    }
  }
}

__global__ void functions_kernel(const float* in, float* exps, float* logs, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  exps[i] = exp_of(in[i]);
  logs[i] = log_of(fabsf(in[i]));
}

// The approximate versions are off by far more than the few units that these may be.
void check_functions() {
  constexpr double kTolerance = 4e-7;
  std::vector<float> values = {0.0f, -0.0f, 1.0f, -INFINITY, INFINITY};
  uint32_t state = 3;
  while (values.size() < 1024)  // from -80 to 80
    values.push_back(static_cast<float>(random_bits(state) / 4294967296.0 * 160 - 80));
  const int count = static_cast<int>(values.size());
  Buffer<float> in(values), exps(values.size()), logs(values.size());
  expect_ok(launch("functions", functions_kernel, dim3(4), 256, 0, nullptr, in.device(),
                   exps.device(), logs.device(), count));
  const auto close = [](double got, double wanted) {
    return got == wanted || std::fabs(got - wanted) <= kTolerance * std::fabs(wanted);
  };
  const std::vector<float>&exp = exps.read(), &log = logs.read();
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = values[i];
    expect(close(exp[i], std::exp(x)), "exp_of", x, exp[i], std::exp(x));
    expect(close(log[i], std::log(std::fabs(x))), "log_of", std::fabs(x), log[i],
           std::log(std::fabs(x)));
  }
}

// ---- reductions over a warp

struct LaneResult {
  float sum;
  float max;
  unsigned long long integer_sum;
  uint32_t word_sum;
};

__global__ void reductions_kernel(const float* in, LaneResult* out) {
  const int lane = lane_index();
  const float x = in[lane];
  const auto bits = static_cast<uint32_t>(__float_as_uint(x));
  const auto wide = static_cast<unsigned long long>(bits) << 20;
  out[lane] = {warp_sum(x), warp_max(x), warp_sum(wide), warp_sum(bits)};
}

void check_reductions() {
  uint32_t state = 5;
  for (int round = 0; round < 16; ++round) {
    std::vector<float> values;
    for (int lane = 0; lane < kWarpSize; ++lane)
      values.push_back(static_cast<float>(random_bits(state)) / 1e9f - 2.0f);
    if (round == 1) values[7] = -INFINITY;
    if (round == 2) values.assign(kWarpSize, -INFINITY);
    Buffer<float> in(values);
    Buffer<LaneResult> out(kWarpSize);
    expect_ok(launch("reductions", reductions_kernel, dim3(1), kWarpSize, 0, nullptr, in.device(),
                     out.device()));
    // The butterfly, all lanes of a step at once.
    std::vector<float> sums = values;
    for (size_t distance = kWarpSize / 2; distance > 0; distance /= 2) {
      const std::vector<float> before = sums;
      for (size_t lane = 0; lane < kWarpSize; ++lane) sums[lane] += before[lane ^ distance];
    }
    float largest = -INFINITY;
    unsigned long long wide = 0;
    uint32_t word = 0;
    for (const float x : values) {
      largest = std::fmax(largest, x);
      wide += static_cast<unsigned long long>(bits_of(x)) << 20;
      word += bits_of(x);
    }
    const std::vector<LaneResult>& results = out.read();
    for (size_t lane = 0; lane < kWarpSize; ++lane) {
      const auto at = static_cast<double>(lane);
      expect_same(results[lane].sum, sums[lane], "warp_sum of float in lane", at);
      expect_same(results[lane].sum, results[0].sum, "the same warp_sum in lane", at);
      expect_same(results[lane].max, largest, "warp_max in lane", at);
      expect(results[lane].integer_sum == wide, "warp_sum of 64 bits in lane", at, 0, 0);
      expect_same(results[lane].word_sum, word, "warp_sum of 32 bits in lane", at);
    }
  }
}

// ---- asynchronous copies

struct CopyMemory {
  SharedArray<uint4, 2 * kWarpSize> parts;  // one group, then another
};

// Each lane copies two parts of 16 bytes, the odd ones as zeros, and reads those of a neighbour.
__global__ void copies_kernel(const uint4* in, uint4* out) {
  CopyMemory& shared = dynamic_shared<CopyMemory>();
  const int lane = lane_index();
  const int neighbour = (lane + 5) % kWarpSize;
  shared.parts[lane] = make_uint4(7, 7, 7, 7);
  shared.parts[kWarpSize + lane] = make_uint4(7, 7, 7, 7);
  __syncthreads();
  for (int group = 0; group < 2; ++group) {
    const int part = group * kWarpSize + lane;
    cp_async16(&shared.parts[part], in + part, lane % 2 == 0);
    cp_async_commit();
  }
  cp_async_wait<1>();  // the first group has landed
  __syncthreads();
  out[lane] = shared.parts[neighbour];
  cp_async_wait<0>();
  __syncthreads();
  out[kWarpSize + lane] = shared.parts[kWarpSize + neighbour];
}

void check_copies() {
  std::vector<uint4> parts;
  for (unsigned i = 1; i <= 2 * kWarpSize; ++i) parts.push_back({i, i << 8, i << 16, ~i});
  Buffer<uint4> in(parts), out(parts.size());
  expect_ok(launch("copies", copies_kernel, dim3(1), kWarpSize, sizeof(CopyMemory), nullptr,
                   in.device(), out.device()));
  const std::vector<uint4>& copied = out.read();
  for (size_t i = 0; i < copied.size(); ++i) {
    const size_t neighbour = (i % kWarpSize + 5) % kWarpSize;
    const uint4 from = parts[i / kWarpSize * kWarpSize + neighbour];
    const uint4 wanted = neighbour % 2 == 0 ? from : uint4{0, 0, 0, 0};
    const uint4 got = copied[i];
    expect(got.x == wanted.x && got.y == wanted.y && got.z == wanted.z && got.w == wanted.w, "part",
           static_cast<double>(i), got.x, wanted.x);
  }
}

// ---- tensor cores

constexpr int kRowStride = 24;  // elements between the rows of a matrix in shared memory

struct MatrixMemory {
  SharedArray<uint16_t, kWarpSize * kRowStride> rows;
};

// Element j of row i of matrix m is 1000 m + 10 i + j; lane 8 m + i finds that row where the shared
// memory has row (8 m + i) * 5 % 32.
__global__ void load_kernel(uint32_t* out) {
  MatrixMemory& shared = dynamic_shared<MatrixMemory>();
  const int lane = lane_index();
  const int place = lane * 5 % kWarpSize * kRowStride;
  for (int j = 0; j < 8; ++j)
    shared.rows[place + j] = static_cast<uint16_t>(1000 * (lane / 8) + 10 * (lane % 8) + j);
  __syncwarp();
  uint32_t r[4];
  ldmatrix_x4(r, &shared.rows[place]);
  for (int m = 0; m < 4; ++m) out[lane * 4 + m] = r[m];
}

void check_ldmatrix() {
  Buffer<uint32_t> out(kWarpSize * 4);
  expect_ok(launch("ldmatrix", load_kernel, dim3(1), kWarpSize, sizeof(MatrixMemory), nullptr,
                   out.device()));
  const std::vector<uint32_t>& loaded = out.read();
  for (unsigned i = 0; i < loaded.size(); ++i) {
    const unsigned lane = i / 4, matrix = i % 4, group = lane / 4, pair = 2 * (lane % 4);
    const unsigned low = 1000 * matrix + 10 * group + pair;
    expect_same(loaded[i], low | (low + 1) << 16, "register", i);
  }
}

// A [16, 16], B [16, 8] and D [16, 8], row-major; one product by one warp.
template <class Element>
__global__ void multiply_kernel(const float* a, const float* b, float* d) {
  const int lane = lane_index();
  const int group = lane / 4, pair = 2 * (lane % 4);
  const auto packed = [](float low, float high) {
    return static_cast<uint32_t>(from_float<Element>(low).bits) |
           static_cast<uint32_t>(from_float<Element>(high).bits) << 16;
  };
  const auto a_pair = [&](int row, int column) {
    return packed(a[row * 16 + column], a[row * 16 + column + 1]);
  };
  const auto b_pair = [&](int row) { return packed(b[row * 8 + group], b[(row + 1) * 8 + group]); };
  const uint32_t fragment[4] = {a_pair(group, pair), a_pair(group + 8, pair),
                                a_pair(group, pair + 8), a_pair(group + 8, pair + 8)};
  float* upper = d + group * 8 + pair;
  float* lower = upper + 8 * 8;
  float sums[4] = {upper[0], upper[1], lower[0], lower[1]};
  mma_16816<Element>(sums, fragment, b_pair(pair), b_pair(pair + 8));
  upper[0] = sums[0];
  upper[1] = sums[1];
  lower[0] = sums[2];
  lower[1] = sums[3];
}

// Small integers, whose products and sums float32 holds exactly and 16 bits would not.
template <class Element>
void check_mma() {
  uint32_t state = 11;
  const auto integers = [&](size_t count, int limit, int offset) {
    std::vector<float> values;
    for (size_t i = 0; i < count; ++i) {
      const int x = static_cast<int>(random_bits(state) % static_cast<unsigned>(2 * limit + 1));
      values.push_back(static_cast<float>(x - limit + offset));
    }
    return values;
  };
  for (const int offset : {0, 1 << 20}) {
    const std::vector<float> a = integers(16 * 16, 100, 0);
    const std::vector<float> b = integers(16 * 8, 100, 0);
    const std::vector<float> before = integers(16 * 8, 100, offset);
    Buffer<float> device_a(a), device_b(b), device_d(before);
    expect_ok(launch("mma", multiply_kernel<Element>, dim3(1), kWarpSize, 0, nullptr,
                     device_a.device(), device_b.device(), device_d.device()));
    const std::vector<float>& d = device_d.read();
    for (size_t i = 0; i < d.size(); ++i) {
      double wanted = before[i];
      for (size_t j = 0; j < 16; ++j)
        wanted += static_cast<double>(a[i / 8 * 16 + j]) * static_cast<double>(b[j * 8 + i % 8]);
      expect_same(d[i], wanted, "element", static_cast<double>(i));
    }
  }
}

void check_mma_half() { check_mma<Half>(); }
void check_mma_bfloat16() { check_mma<BFloat16>(); }

// ---- launches

constexpr int kLargeCount = 16 * 1024;

struct LargeMemory {
  SharedArray<int, kLargeCount> values;  // 64 KiB, more than a kernel gets without asking
};

__global__ void large_memory_kernel(int* out) {
  LargeMemory& shared = dynamic_shared<LargeMemory>();
  const int lane = lane_index();
  shared.values[kLargeCount - 1 - lane] = lane;
  __syncwarp();
  out[lane] = shared.values[kLargeCount - kWarpSize + lane];
}

void check_launches() {
  Buffer<int> out(kWarpSize);
  expect_ok(launch("no blocks", large_memory_kernel, dim3(0), kWarpSize, 0, nullptr, out.device()));
  expect_ok(launch("64 KiB", large_memory_kernel, dim3(1), kWarpSize, sizeof(LargeMemory), nullptr,
                   out.device()));
  const std::vector<int>& lanes = out.read();
  for (int lane = 0; lane < kWarpSize; ++lane)
    expect_same(lanes[static_cast<size_t>(lane)], kWarpSize - 1 - lane, "value of lane", lane);
#if defined(__CUDACC__)
  const Status refused = launch("8 MiB of shared memory", large_memory_kernel, dim3(1), kWarpSize,
                                size_t{8} << 20, nullptr, out.device());
  expect(refused.code == StatusCode::kBackend, "status of a launch that cannot be", 0,
         static_cast<double>(refused.code), static_cast<double>(StatusCode::kBackend));
  expect(cudaGetLastError() == cudaSuccess, "last error left behind", 0, 1, 0);
#endif
}

// ---- arithmetic that the host shares

__global__ void coverage_kernel(double coverage, int64_t wanted, int64_t rows, int64_t* out) {
  const int64_t count = coverage_count(coverage, wanted, rows);
  const int64_t thread = static_cast<int64_t>(threadIdx.x);
  if (thread == 0) out[0] = count;
  for (int64_t j = thread; j < count; j += kWarpSize) {
    const int64_t position = coverage_position(j, count, rows);
    out[1 + j] = is_covered(position, count, rows) ? position : -1;
  }
}

void check_coverage() {
  struct Case {
    double coverage;
    int64_t wanted, rows, count;
  };
  // Halves round up; 0.3 of 5 is a half only once it is rounded to a double.
  for (const Case& c : {Case{0.5, 5, 9, 3}, Case{0.3, 5, 64, 2}, Case{1.0, 64, 576, 64},
                        Case{0.25, 1000, int64_t{1} << 31, 250}, Case{0.5, 9, 9, 0}}) {
    Buffer<int64_t> out(static_cast<size_t>(c.count) + 1);
    expect_ok(launch("coverage", coverage_kernel, dim3(1), kWarpSize, 0, nullptr, c.coverage,
                     c.wanted, c.rows, out.device()));
    const std::vector<int64_t>& found = out.read();
    expect_same(static_cast<double>(found[0]), static_cast<double>(c.count), "count", c.coverage);
    for (int64_t j = 0; j < c.count; ++j) {
      const int64_t begin = j * c.rows / c.count, end = (j + 1) * c.rows / c.count;
      const auto place = static_cast<int64_t>(
          (static_cast<uint64_t>(j) * 2654435769u + (uint64_t{1} << 31)) % (uint64_t{1} << 32));
      expect_same(static_cast<double>(found[static_cast<size_t>(j) + 1]),
                  static_cast<double>(begin + ((place * (end - begin)) >> 32)), "position",
                  static_cast<double>(j));
    }
  }
}

struct Check {
  const char* name;
  void (*run)();
};

constexpr Check kChecks[] = {
    {"to_float and from_float, Half", check_half},
    {"to_float and from_float, BFloat16", check_bfloat16},
    {"ordered_key and key_to_float", check_ordered_key},
    {"exp_of and log_of", check_functions},
    {"warp_sum and warp_max", check_reductions},
    {"cp_async16, commit and wait", check_copies},
    {"ldmatrix_x4", check_ldmatrix},
    {"mma_16816, Half", check_mma_half},
    {"mma_16816, BFloat16", check_mma_bfloat16},
    {"launch and dynamic_shared", check_launches},
    {"coverage_count, coverage_position and is_covered", check_coverage},
};

int run_all() {
  int failed = 0;
  for (const Check& check : kChecks) {
    current_check = check.name;
    failures = 0;
    check.run();
    if (failures == 0) std::printf("ok %s\n", check.name);
    if (failures > 3) std::printf("FAILED %s: %d mistakes in all\n", check.name, failures);
    failed += failures > 0;
  }
  return failed;
}

}  // namespace
}  // namespace mipruner::cuda

int main() { return mipruner::cuda::run_all() == 0 ? 0 : 1; }
