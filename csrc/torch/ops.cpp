// torch.ops.mipruner.*: tensors in, tensors out, and nothing else. All torch code there is.
//
// Everything here uses the LibTorch stable ABI (torch/csrc/stable, torch/headeronly), so that one
// binary loads under every torch >= 2.11. The steps are the same for each operation:
//   1. check what a view cannot express: rank, matching batches, mask dtype and shape, devices
//   2. make views of the tensors; rows whose elements are not adjacent are copied first
//   3. allocate the outputs and the workspace with torch's allocator, never our own: no allocation
//   and no
//      synchronisation of ours, so that an operation may be captured in a CUDA graph
//   4. call the core, which checks the rest, and turn its status into an exception
//
// Through the stable ABI every exception becomes a RuntimeError. mi_pruner_cuda/ops.py checks first
// and raises ValueError and TypeError; the checks here are for direct callers of
// torch.ops.mipruner.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/operations.h"

// In libtorch_cuda, every CUDA build of torch; absent, and null, where torch has no CUDA.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace mipruner {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr size_t kWorkspaceAlignment = 64;

// ---- errors ----

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  // Not STD_TORCH_CHECK: it puts this file's name and line before the message.
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

void raise_unless_ok(const Status& status) {
  if (!status.ok()) fail(status.message);
}

std::string shape_of(const Tensor& x) {
  std::ostringstream text;
  text << '[';
  for (int64_t i = 0; i < x.dim(); ++i) text << (i ? ", " : "") << x.size(i);
  text << ']';
  return text.str();
}

// ---- checks that need the tensor ----

DataType dtype_of(const char* name, const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return DataType::kFloat32;
    case ScalarType::Half: return DataType::kFloat16;
    case ScalarType::BFloat16: return DataType::kBFloat16;
    default: break;
  }
  fail(name, ": got dtype ", torch::headeronly::toString(x.scalar_type()),
       ", allowed are float32, float16 and bfloat16");
}

void check_rank(const char* name, const Tensor& x, int64_t low, const char* allowed) {
  if (x.dim() == low || x.dim() == low + 1) return;
  fail(name, ": got ", x.dim(), " dimensions, shape ", shape_of(x), ", allowed is ", allowed);
}

// The device of the operation is the one that the dispatcher chose: with operands on several
// devices that is the accelerator, so a tensor that stayed behind on the CPU is the one to name.
void check_device(const char* name, const Tensor& x, Device device, const Tensor& like) {
  const bool here = device == Device::kCpu ? x.is_cpu() : x.is_cuda();
  if (here && device == Device::kCuda && x.get_device_index() != like.get_device_index()) {
    fail(name, ": got a tensor on CUDA device ", x.get_device_index(), ", allowed is device ",
         like.get_device_index(), ", where the other tensors are");
  }
  if (here) return;
  fail(name, ": got a tensor on ", x.is_cpu() ? "the CPU" : "another device", ", allowed is ",
       device == Device::kCpu ? "the CPU" : "CUDA", ", where the other tensors are");
}

// This comes before any look at the tensors: without a backend nothing else about them matters.
void check_backend(Device device) {
  if (device == Device::kCpu || has_cuda()) return;
  fail(
      "device: got CUDA tensors, but this build of mipruner has no CUDA kernels (it was built with "
      "MIPRUNER_CUDA=OFF or without nvcc); move them with .cpu()");
}

// ---- views ----

// The rows of x as the core reads them: any row and batch stride, adjacent elements.
Tensor with_adjacent_elements(const Tensor& x) {
  const int64_t columns = x.size(x.dim() - 1);
  const int64_t rows = x.size(x.dim() - 2);
  const bool adjacent = columns <= 1 || x.stride(x.dim() - 1) == 1;
  // Rows that overlap (as_strided, unfold) are rare enough to copy. Expanded ones, stride 0, are
  // read as they are.
  const int64_t row_stride = x.stride(x.dim() - 2);
  const bool apart = rows <= 1 || row_stride == 0 || row_stride >= columns;
  return adjacent && apart ? x : torch::stable::contiguous(x);
}

MatrixView matrix_view(const char* name, const Tensor& x, Device device) {
  MatrixView view;
  view.data = x.const_data_ptr();
  view.dtype = dtype_of(name, x);
  view.device = device;
  view.columns = x.size(x.dim() - 1);
  view.rows = x.size(x.dim() - 2);
  // The stride of a dimension of one may be any number; it leads nowhere, and must not look odd.
  view.row_stride = view.rows > 1 ? x.stride(x.dim() - 2) : view.columns;
  if (x.dim() == 3) {
    view.batch = x.size(0);
    view.batch_stride = view.batch > 1 ? x.stride(0) : 0;
  }
  return view;
}

// rows: the [N, D] or [B, N, D] tensor that the mask is for; allowed: the mask's shape in words.
MaskView mask_view(const char* name, const std::optional<Tensor>& mask, const Tensor& rows,
                   Device device, const char* allowed) {
  if (!mask) return {};
  if (mask->scalar_type() != ScalarType::Bool) {
    fail(name, ": got dtype ", torch::headeronly::toString(mask->scalar_type()),
         ", allowed is bool");
  }
  check_device(name, *mask, device, rows);
  bool fits = mask->dim() == rows.dim() - 1;
  for (int64_t i = 0; fits && i < mask->dim(); ++i) fits = mask->size(i) == rows.size(i);
  if (!fits) {
    fail(name, ": got shape ", shape_of(*mask), ", allowed is ", allowed, " for rows of shape ",
         shape_of(rows));
  }
  MaskView view;
  view.data = static_cast<const bool*>(mask->const_data_ptr());
  view.row_stride = mask->stride(mask->dim() - 1);
  if (mask->dim() == 2) view.batch_stride = mask->stride(0);
  return view;
}

// ---- what torch lends: memory and threads ----

Tensor new_output(const Tensor& like, const std::vector<int64_t>& shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

// Scratch memory for one call. The tensor owns it and must outlive the call.
struct Scratch {
  Tensor memory;
  Workspace workspace;
};

Scratch new_scratch(const Tensor& like, size_t bytes) {
  // Torch aligns to 64 bytes on the CPU and to more on CUDA; the slice does not rely on that.
  const auto length = static_cast<int64_t>(bytes + kWorkspaceAlignment);
  Scratch scratch{new_output(like, {length}, ScalarType::Byte), {}};
  const auto address = reinterpret_cast<uintptr_t>(scratch.memory.mutable_data_ptr());
  const uintptr_t start = (address + kWorkspaceAlignment - 1) & ~(kWorkspaceAlignment - 1);
  scratch.workspace.data = reinterpret_cast<void*>(start);
  scratch.workspace.bytes = bytes;
  return scratch;
}

// The current stream of a CUDA device, as torch sees it.
void* current_stream(int32_t device_index) {
  if (!aoti_torch_get_current_cuda_stream)
    fail("device: got CUDA tensors from a torch without CUDA");
  void* stream = nullptr;
  if (aoti_torch_get_current_cuda_stream(device_index, &stream) != AOTI_TORCH_SUCCESS)
    fail("device: torch names no current stream for CUDA device ", device_index);
  return stream;
}

// Torch's own pool: torch.set_num_threads rules here too. (at::parallel_for would be silently
// serial in a library compiled without OpenMP.)
Executor torch_executor() {
  Executor executor;
  executor.lanes = torch::stable::get_num_threads();
  executor.run = [](void*, int64_t lanes, Executor::Body body, void* context) {
    torch::stable::parallel_for(0, lanes, 1, [=](int64_t begin, int64_t end) {
      for (int64_t lane = begin; lane < end; ++lane) body(context, lane);
    });
  };
  return executor;
}

// Where one call runs: on torch's threads, or on the current stream of a tensor's device, which is
// made the current device for as long as this lives.
template <Device kDevice>
class Place {
 public:
  Place(const char* name, const Tensor& x) {
    check_backend(kDevice);
    check_device(name, x, kDevice, x);
    if constexpr (kDevice == Device::kCpu) {
      executor_ = torch_executor();
    } else {
      guard_.emplace(x.get_device_index());
      executor_.stream = current_stream(x.get_device_index());
    }
  }
  const Executor& executor() const { return executor_; }

 private:
  Executor executor_;
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

// Greedy selection keeps its table of similarities up to this size (see SelectProblem): devices
// have memory to spare, and computing a row again costs them more than reading it.
template <Device kDevice>
constexpr int64_t kSimilarityBytes = kDevice == Device::kCpu ? int64_t{64} << 20 : int64_t{1} << 30;

// ---- the operations ----

// The dispatch key fixes kDevice: one instance of each operation per backend.

template <Device kDevice>
Tensor normalize_op(const Tensor& x, double eps) {
  const Place<kDevice> place("x", x);
  check_rank("x", x, 2, "[N, D] or [B, N, D]");
  const Tensor rows = with_adjacent_elements(x);
  const MatrixView view = matrix_view("x", rows, kDevice);
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()));
  for (size_t i = 0; i < shape.size(); ++i) shape[i] = x.size(static_cast<int64_t>(i));
  Tensor out = new_output(x, shape, x.scalar_type());
  raise_unless_ok(
      normalize(view, static_cast<float>(eps), out.mutable_data_ptr(), place.executor()));
  return out;
}

// Tensors whose elements the views point to: they must outlive the call, for they may be copies.
struct RelevanceRows {
  Tensor visual;
  Tensor text;
};

template <Device kDevice>
RelevanceRows relevance_rows(const Tensor& visual, const Tensor& text) {
  check_device("text", text, kDevice, visual);
  check_rank("visual", visual, 2, "[N, D] or [B, N, D]");
  check_rank("text", text, 2, "[M, D] or [B, M, D]");
  if (visual.dim() != text.dim()) {
    fail("text: got shape ", shape_of(text), ", allowed are as many dimensions as visual has, ",
         shape_of(visual));
  }
  return {with_adjacent_elements(visual), with_adjacent_elements(text)};
}

RelevanceProblem relevance_problem(const RelevanceRows& rows,
                                   const std::optional<Tensor>& visual_mask,
                                   const std::optional<Tensor>& text_mask, double temperature,
                                   const std::string& estimator, Device device) {
  RelevanceProblem problem;
  problem.visual = matrix_view("visual", rows.visual, device);
  problem.text = matrix_view("text", rows.text, device);
  problem.visual_mask = mask_view("visual_mask", visual_mask, rows.visual, device, "[N] or [B, N]");
  problem.text_mask = mask_view("text_mask", text_mask, rows.text, device, "[M] or [B, M]");
  problem.temperature = static_cast<float>(temperature);
  raise_unless_ok(parse_estimator(estimator.c_str(), &problem.estimator));
  return problem;
}

// [width] or [B, width], as the ranks of the rows ask.
std::vector<int64_t> result_shape(const Tensor& rows, int64_t width) {
  if (rows.dim() == 3) return {rows.size(0), width};
  return {width};
}

template <Device kDevice>
Tensor mutual_information_op(const Tensor& visual, const Tensor& text,
                             const std::optional<Tensor>& visual_mask,
                             const std::optional<Tensor>& text_mask, double temperature,
                             const std::string& estimator) {
  const Place<kDevice> place("visual", visual);
  const RelevanceRows rows = relevance_rows<kDevice>(visual, text);
  const RelevanceProblem problem =
      relevance_problem(rows, visual_mask, text_mask, temperature, estimator, kDevice);
  const Executor& executor = place.executor();
  Tensor scores = new_output(visual, result_shape(visual, problem.visual.rows), ScalarType::Float);
  const Scratch scratch =
      new_scratch(visual, mutual_information_workspace_bytes(problem, executor));
  raise_unless_ok(mutual_information(problem, static_cast<float*>(scores.mutable_data_ptr()),
                                     scratch.workspace, executor));
  return scores;
}

// At least 0, so that a k which the core is about to refuse still names an allocatable output.
int64_t result_width(int64_t k, int64_t rows) { return std::max<int64_t>(0, std::min(k, rows)); }

template <Device kDevice>
std::tuple<Tensor, Tensor> top_k_op(const Tensor& scores, int64_t k) {
  const Place<kDevice> place("scores", scores);
  check_rank("scores", scores, 1, "[N] or [B, N]");
  if (scores.scalar_type() != ScalarType::Float) {
    fail("scores: got dtype ", torch::headeronly::toString(scores.scalar_type()),
         ", allowed is float32");
  }
  const int64_t last = scores.dim() - 1;
  const bool adjacent = scores.size(last) <= 1 || scores.stride(last) == 1;
  const Tensor source = adjacent ? scores : torch::stable::contiguous(scores);
  ScoresView view;
  view.data = static_cast<const float*>(source.const_data_ptr());
  view.device = kDevice;
  view.columns = source.size(last);
  if (last == 1) {
    view.batch = source.size(0);
    view.batch_stride = source.stride(0);
  }
  std::vector<int64_t> shape{result_width(k, view.columns)};
  if (last == 1) shape.insert(shape.begin(), view.batch);
  Tensor values = new_output(scores, shape, ScalarType::Float);
  Tensor indices = new_output(scores, shape, ScalarType::Long);
  const Executor& executor = place.executor();
  const Scratch scratch = new_scratch(scores, top_k_workspace_bytes(view, k, executor));
  raise_unless_ok(top_k(view, k, static_cast<float*>(values.mutable_data_ptr()),
                        static_cast<int64_t*>(indices.mutable_data_ptr()), scratch.workspace,
                        executor));
  return {values, indices};
}

template <Device kDevice>
std::tuple<Tensor, Tensor> select_op(const Tensor& visual, const Tensor& text, int64_t k,
                                     const std::optional<Tensor>& visual_mask,
                                     const std::optional<Tensor>& text_mask, double temperature,
                                     double redundancy, const std::string& estimator,
                                     double coverage) {
  const Place<kDevice> place("visual", visual);
  const RelevanceRows rows = relevance_rows<kDevice>(visual, text);
  SelectProblem problem;
  problem.relevance =
      relevance_problem(rows, visual_mask, text_mask, temperature, estimator, kDevice);
  problem.k = k;
  problem.redundancy = static_cast<float>(redundancy);
  problem.coverage = coverage;
  problem.similarity_bytes = kSimilarityBytes<kDevice>;
  const int64_t n = problem.relevance.visual.rows;
  Tensor indices = new_output(visual, result_shape(visual, result_width(k, n)), ScalarType::Long);
  Tensor scores = new_output(visual, result_shape(visual, n), ScalarType::Float);
  const Executor& executor = place.executor();
  const Scratch scratch = new_scratch(visual, select_workspace_bytes(problem, executor));
  raise_unless_ok(select(problem, static_cast<int64_t*>(indices.mutable_data_ptr()),
                         static_cast<float*>(scores.mutable_data_ptr()), scratch.workspace,
                         executor));
  return {indices, scores};
}

// A contiguous int64 tensor of the given shape, on the device of the operation.
Tensor integers(const char* name, const Tensor& x, const std::vector<int64_t>& shape, Device device,
                const Tensor& like, const char* allowed) {
  if (x.scalar_type() != ScalarType::Long) {
    fail(name, ": got dtype ", torch::headeronly::toString(x.scalar_type()), ", allowed is int64");
  }
  check_device(name, x, device, like);
  bool fits = x.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i)
    fits = x.size(static_cast<int64_t>(i)) == shape[i];
  if (!fits) fail(name, ": got shape ", shape_of(x), ", allowed is ", allowed);
  return torch::stable::contiguous(x);
}

template <Device kDevice>
std::tuple<Tensor, Tensor> select_varlen_op(const Tensor& visual, const Tensor& text,
                                            const Tensor& visual_offsets, const Tensor& text_ranges,
                                            const std::vector<int64_t>& k, double temperature,
                                            double redundancy, const std::string& estimator,
                                            double coverage) {
  const Place<kDevice> place("visual", visual);
  const RelevanceRows rows = relevance_rows<kDevice>(visual, text);
  if (visual.dim() != 2) fail("visual: got shape ", shape_of(visual), ", allowed is [R, D]");
  const auto segments = static_cast<int64_t>(k.size());
  const Tensor offsets = integers("visual_offsets", visual_offsets, {segments + 1}, kDevice, visual,
                                  "[S + 1], S being the length of k");
  const Tensor ranges = integers("text_ranges", text_ranges, {segments, 2}, kDevice, visual,
                                 "[S, 2], S being the length of k");
  const RelevanceProblem relevance =
      relevance_problem(rows, std::nullopt, std::nullopt, temperature, estimator, kDevice);
  SelectVarlenProblem problem;
  problem.visual = relevance.visual;
  problem.text = relevance.text;
  problem.temperature = relevance.temperature;
  problem.estimator = relevance.estimator;
  problem.segments = segments;
  problem.visual_offsets = static_cast<const int64_t*>(offsets.const_data_ptr());
  problem.text_ranges = static_cast<const int64_t*>(ranges.const_data_ptr());
  problem.k = k.data();
  problem.redundancy = static_cast<float>(redundancy);
  problem.coverage = coverage;
  problem.similarity_bytes = kSimilarityBytes<kDevice>;
  int64_t total = 0;
  // At least 0 each, so that a k which the core is about to refuse still names an allocatable
  // output.
  for (const int64_t wanted : k) total += std::max<int64_t>(0, wanted);
  Tensor indices = new_output(visual, {total}, ScalarType::Long);
  Tensor scores = new_output(visual, {problem.visual.rows}, ScalarType::Float);
  const Executor& executor = place.executor();
  const Scratch scratch = new_scratch(visual, select_varlen_workspace_bytes(problem, executor));
  raise_unless_ok(select_varlen(problem, static_cast<int64_t*>(indices.mutable_data_ptr()),
                                static_cast<float*>(scores.mutable_data_ptr()), scratch.workspace,
                                executor));
  return {indices, scores};
}

// Do the dimensions from `first` on lie without gaps, so that a row is one run of bytes?
bool rows_are_runs(const Tensor& x, int64_t first) {
  int64_t expected = 1;
  for (int64_t i = x.dim() - 1; i >= first; --i) {
    if (x.size(i) > 1 && x.stride(i) != expected) return false;
    expected *= x.size(i);
  }
  return true;
}

template <Device kDevice>
Tensor gather_rows_op(const Tensor& rows, const Tensor& indices) {
  const Place<kDevice> place("rows", rows);
  const bool batched = indices.dim() == 2;
  const int64_t row_dimension = batched ? 2 : 1;  // the first dimension of a row
  if (indices.dim() != 1 && !batched) {
    fail("indices: got shape ", shape_of(indices), ", allowed is [K] or [B, K]");
  }
  if (rows.dim() < row_dimension || (batched && rows.size(0) != indices.size(0))) {
    fail("rows: got shape ", shape_of(rows), ", allowed is ",
         batched ? "[B, N, ...] with the batch of indices, " : "[N, ...] for indices of shape ",
         shape_of(indices));
  }
  const bool readable = rows_are_runs(rows, row_dimension) && rows.stride(row_dimension - 1) >= 0;
  const Tensor source = readable ? rows : torch::stable::contiguous(rows);
  const Tensor index = integers("indices", indices,
                                batched ? std::vector<int64_t>{indices.size(0), indices.size(1)}
                                        : std::vector<int64_t>{indices.size(0)},
                                kDevice, rows, "[K] or [B, K]");
  const auto element = static_cast<int64_t>(source.element_size());
  std::vector<int64_t> shape;
  if (batched) shape.push_back(indices.size(0));
  shape.push_back(indices.size(indices.dim() - 1));
  GatherProblem problem;
  problem.row_bytes = element;
  for (int64_t i = row_dimension; i < source.dim(); ++i) {
    shape.push_back(source.size(i));
    problem.row_bytes *= source.size(i);
  }
  problem.source = source.const_data_ptr();
  problem.device = kDevice;
  problem.rows = source.size(row_dimension - 1);
  problem.row_stride_bytes = source.stride(row_dimension - 1) * element;
  if (batched) {
    problem.batch = source.size(0);
    problem.batch_stride_bytes = source.stride(0) * element;
    problem.indices_batch_stride = index.size(1);
  }
  problem.indices = static_cast<const int64_t*>(index.const_data_ptr());
  problem.count = index.size(index.dim() - 1);
  Tensor out = new_output(rows, shape, rows.scalar_type());
  raise_unless_ok(gather_rows(problem, out.mutable_data_ptr(), place.executor()));
  return out;
}

}  // namespace
}  // namespace mipruner

STABLE_TORCH_LIBRARY(mipruner, m) {
  m.def("normalize(Tensor x, float eps=1e-12) -> Tensor");
  m.def(
      "mutual_information(Tensor visual, Tensor text, Tensor? visual_mask=None, "
      "Tensor? text_mask=None, float temperature=0.1, str estimator=\"specific\") -> Tensor");
  m.def("top_k(Tensor scores, SymInt k) -> (Tensor values, Tensor indices)");
  m.def(
      "select(Tensor visual, Tensor text, SymInt k, Tensor? visual_mask=None, "
      "Tensor? text_mask=None, float temperature=0.1, float redundancy=0.0, "
      "str estimator=\"specific\", float coverage=0.0) -> (Tensor indices, Tensor scores)");
  m.def(
      "select_varlen(Tensor visual, Tensor text, Tensor visual_offsets, Tensor text_ranges, "
      "int[] k, float temperature=0.1, float redundancy=0.0, str estimator=\"specific\", "
      "float coverage=0.0) -> (Tensor indices, Tensor scores)");
  m.def("gather_rows(Tensor rows, Tensor indices) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(mipruner, CPU, m) {
  using mipruner::Device;
  m.impl("normalize", TORCH_BOX(&mipruner::normalize_op<Device::kCpu>));
  m.impl("mutual_information", TORCH_BOX(&mipruner::mutual_information_op<Device::kCpu>));
  m.impl("top_k", TORCH_BOX(&mipruner::top_k_op<Device::kCpu>));
  m.impl("select", TORCH_BOX(&mipruner::select_op<Device::kCpu>));
  m.impl("select_varlen", TORCH_BOX(&mipruner::select_varlen_op<Device::kCpu>));
  m.impl("gather_rows", TORCH_BOX(&mipruner::gather_rows_op<Device::kCpu>));
}

// Registered in every build, so that a CUDA tensor meets a sentence and not "no kernel for
// backend".
STABLE_TORCH_LIBRARY_IMPL(mipruner, CUDA, m) {
  using mipruner::Device;
  m.impl("normalize", TORCH_BOX(&mipruner::normalize_op<Device::kCuda>));
  m.impl("mutual_information", TORCH_BOX(&mipruner::mutual_information_op<Device::kCuda>));
  m.impl("top_k", TORCH_BOX(&mipruner::top_k_op<Device::kCuda>));
  m.impl("select", TORCH_BOX(&mipruner::select_op<Device::kCuda>));
  m.impl("select_varlen", TORCH_BOX(&mipruner::select_varlen_op<Device::kCuda>));
  m.impl("gather_rows", TORCH_BOX(&mipruner::gather_rows_op<Device::kCuda>));
}
