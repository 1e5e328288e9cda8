// _C: the core for NumPy hosts (llama-cpp-python, ONNX Runtime), and what this build can do.
//
// Needs neither torch nor anything else but NumPy. Arrays are read where they lie, whatever their
// row stride; only rows whose elements are not adjacent are copied. The interpreter lock is
// released while the core works. mi_pruner_cuda/numpy.py is the public face of this module.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "core/operations.h"

namespace py = pybind11;

namespace mipruner {
namespace {

// In the build that the tests make, arrays count as memory of an emulated CUDA device.
#if defined(MIPRUNER_EMULATED_CUDA)
constexpr Device kDevice = Device::kCuda;
#else
constexpr Device kDevice = Device::kCpu;
#endif

// ---- errors ----

void raise_unless_ok(const Status& status) {
  switch (status.code) {
    case StatusCode::kOk: return;
    case StatusCode::kInvalidArgument: throw py::value_error(status.message);
    case StatusCode::kOutOfMemory: throw std::bad_alloc();
    default: throw std::runtime_error(status.message);
  }
}

std::string shape_of(const py::array& x) { return py::str(x.attr("shape")).cast<std::string>(); }

// ---- arrays to views ----

// dtype: what the caller says the bits are; only uint16 arrays need it, since NumPy has no
// bfloat16.
DataType dtype_of(const char* name, const py::array& x, const std::optional<std::string>& dtype) {
  const auto held = py::str(x.dtype().attr("name")).cast<std::string>();
  const bool native = x.dtype().attr("isnative").cast<bool>();
  if (dtype && *dtype != "float32" && *dtype != "float16" && *dtype != "bfloat16") {
    throw py::value_error("dtype: got \"" + *dtype + "\", allowed are float32, float16, bfloat16");
  }
  const bool raw_bfloat16 = held == "uint16" && dtype == "bfloat16";
  if (native && (raw_bfloat16 || !dtype || *dtype == held)) {
    if (raw_bfloat16 || held == "bfloat16") return DataType::kBFloat16;
    if (held == "float32") return DataType::kFloat32;
    if (held == "float16") return DataType::kFloat16;
  }
  throw py::type_error(std::string(name) + ": got dtype " + (native ? "" : "byte-swapped ") + held +
                       (dtype ? " with dtype=\"" + *dtype + "\"" : "") +
                       ", allowed are float32, float16, ml_dtypes.bfloat16, and uint16 with "
                       "dtype=\"bfloat16\"");
}

// Of no subclass, which could say more than its numbers (mi_pruner_cuda/_arrays.py).
py::array array_of(const char* name, const py::object& given) {
  if (py::type::of(given).is(py::module_::import("numpy").attr("ndarray"))) {
    return py::reinterpret_borrow<py::array>(given);
  }
  throw py::type_error(std::string(name) + ": got " +
                       py::str(py::type::of(given).attr("__name__")).cast<std::string>() +
                       ", allowed is a numpy.ndarray");
}

void check_rank(const char* name, const py::array& x, py::ssize_t low, const char* allowed) {
  if (x.ndim() == low || x.ndim() == low + 1) return;
  throw py::value_error(std::string(name) + ": got " + std::to_string(x.ndim()) +
                        " dimensions, shape " + shape_of(x) + ", allowed is " + allowed);
}

// Can the core read x as it lies? Elements of a row adjacent, rows forward and apart (or all the
// same).
bool readable_in_place(const py::array& x) {
  const py::ssize_t item = x.itemsize();
  const py::ssize_t last = x.ndim() - 1;
  if (x.size() == 0) return true;
  if (!(x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
  if (x.shape(last) > 1 && x.strides(last) != item) return false;
  for (py::ssize_t i = 0; i < last; ++i) {
    if (x.strides(i) < 0 || x.strides(i) % item != 0) return false;
  }
  const bool is_row = last == 0 || x.shape(last - 1) <= 1;
  return is_row || x.strides(last - 1) == 0 || x.strides(last - 1) >= x.shape(last) * item;
}

py::array readable(const py::array& x) {
  return readable_in_place(x) ? x : py::array(x.attr("copy")("C"));
}

MatrixView matrix_view(const py::array& x, DataType dtype) {
  MatrixView view;
  view.data = x.data();
  view.dtype = dtype;
  view.device = kDevice;
  const py::ssize_t rows = x.ndim() - 2;
  view.columns = x.shape(rows + 1);
  view.rows = x.shape(rows);
  // NumPy may give an empty array any stride.
  view.row_stride = x.size() == 0 ? view.columns : x.strides(rows) / x.itemsize();
  if (x.ndim() == 3) {
    view.batch = x.shape(0);
    view.batch_stride = x.size() == 0 ? 0 : x.strides(0) / x.itemsize();
  }
  return view;
}

// An optional mask: None, or the array and its view.
struct Mask {
  py::object owner = py::none();
  MaskView view;
};

Mask mask_of(const char* name, const py::object& given, const py::array& rows,
             const char* allowed) {
  Mask mask;
  if (given.is_none()) return mask;
  py::array array = array_of(name, given);
  if (!array.dtype().equal(py::dtype::of<bool>())) {
    throw py::type_error(std::string(name) + ": got dtype " +
                         py::str(array.dtype()).cast<std::string>() + ", allowed is bool");
  }
  bool fits = array.ndim() == rows.ndim() - 1;
  for (py::ssize_t i = 0; fits && i < array.ndim(); ++i) fits = array.shape(i) == rows.shape(i);
  if (!fits) {
    throw py::value_error(std::string(name) + ": got shape " + shape_of(array) + ", allowed is " +
                          allowed + " for rows of shape " + shape_of(rows));
  }
  array = readable(array);
  mask.view.data = static_cast<const bool*>(array.data());
  mask.view.row_stride = array.strides(array.ndim() - 1);
  if (array.ndim() == 2) mask.view.batch_stride = array.strides(0);
  mask.owner = array;
  return mask;
}

Executor executor_of(int64_t threads) {
  if (threads < 1) {
    throw py::value_error("threads: got " + std::to_string(threads) +
                          ", allowed is an integer >= 1");
  }
  return thread_executor(threads);
}

// ---- scratch memory ----

constexpr std::align_val_t kAlignment{64};

struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
};
using Scratch = std::unique_ptr<void, AlignedDelete>;

Scratch new_scratch(size_t bytes) { return Scratch(::operator new(bytes, kAlignment)); }

// [width] or [B, width], as the rank of the rows asks.
py::array new_result(const py::dtype& dtype, bool batched, int64_t batch, int64_t width) {
  std::vector<py::ssize_t> shape;
  if (batched) shape.push_back(batch);
  shape.push_back(width);
  return py::array(dtype, shape);
}

// ---- the operations ----

py::array normalize_array(const py::object& given, double eps,
                          const std::optional<std::string>& dtype, int64_t threads) {
  const py::array x = array_of("x", given);
  check_rank("x", x, 2, "[N, D] or [B, N, D]");
  const DataType type = dtype_of("x", x, dtype);
  const py::array rows = readable(x);
  const MatrixView view = matrix_view(rows, type);
  py::array out(x.dtype(), std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  void* const target = out.mutable_data();
  const Executor executor = executor_of(threads);
  Status status;
  {
    py::gil_scoped_release release;
    status = normalize(view, static_cast<float>(eps), target, executor);
  }
  raise_unless_ok(status);
  return out;
}

// Holds the arrays that the views of `problem` point into.
struct Relevance {
  py::array visual;
  py::array text;
  Mask visual_mask;
  Mask text_mask;
  RelevanceProblem problem;
};

Relevance relevance_of(const py::object& visual, const py::object& text,
                       const py::object& visual_mask, const py::object& text_mask,
                       double temperature, const std::string& estimator,
                       const std::optional<std::string>& dtype) {
  Relevance r;
  r.visual = array_of("visual", visual);
  r.text = array_of("text", text);
  check_rank("visual", r.visual, 2, "[N, D] or [B, N, D]");
  check_rank("text", r.text, 2, "[M, D] or [B, M, D]");
  if (r.visual.ndim() != r.text.ndim()) {
    throw py::value_error("text: got shape " + shape_of(r.text) +
                          ", allowed are as many dimensions as visual has, " + shape_of(r.visual));
  }
  const DataType visual_type = dtype_of("visual", r.visual, dtype);
  const DataType text_type = dtype_of("text", r.text, dtype);
  r.visual = readable(r.visual);
  r.text = readable(r.text);
  r.visual_mask = mask_of("visual_mask", visual_mask, r.visual, "[N] or [B, N]");
  r.text_mask = mask_of("text_mask", text_mask, r.text, "[M] or [B, M]");
  r.problem.visual = matrix_view(r.visual, visual_type);
  r.problem.text = matrix_view(r.text, text_type);
  r.problem.visual_mask = r.visual_mask.view;
  r.problem.text_mask = r.text_mask.view;
  r.problem.temperature = static_cast<float>(temperature);
  raise_unless_ok(parse_estimator(estimator.c_str(), &r.problem.estimator));
  return r;
}

py::array mutual_information_array(const py::object& visual, const py::object& text,
                                   const py::object& visual_mask, const py::object& text_mask,
                                   double temperature, const std::string& estimator,
                                   const std::optional<std::string>& dtype, int64_t threads) {
  const Relevance r =
      relevance_of(visual, text, visual_mask, text_mask, temperature, estimator, dtype);
  const Executor executor = executor_of(threads);
  py::array scores = new_result(py::dtype::of<float>(), r.visual.ndim() == 3,
                                r.problem.visual.batch, r.problem.visual.rows);
  auto* const target = static_cast<float*>(scores.mutable_data());
  Status status;
  {
    py::gil_scoped_release release;
    const size_t bytes = mutual_information_workspace_bytes(r.problem, executor);
    const Scratch scratch = new_scratch(bytes);
    status = mutual_information(r.problem, target, {scratch.get(), bytes}, executor);
  }
  raise_unless_ok(status);
  return scores;
}

// At least 0, so that a k which the core is about to refuse still names an allocatable output.
int64_t result_width(int64_t k, int64_t rows) { return std::max<int64_t>(0, std::min(k, rows)); }

// Runs an operation that fills two arrays, without Python's lock and with the scratch memory that
// `bytes_of` asks for. The arrays are returned.
template <class First, class Second, class BytesOf, class Operation>
py::tuple fill_two(py::array first, py::array second, int64_t threads, const BytesOf& bytes_of,
                   const Operation& operation) {
  auto* const first_target = static_cast<First*>(first.mutable_data());
  auto* const second_target = static_cast<Second*>(second.mutable_data());
  const Executor executor = executor_of(threads);
  Status status;
  {
    py::gil_scoped_release release;
    const size_t bytes = bytes_of(executor);
    const Scratch scratch = new_scratch(bytes);
    status = operation(first_target, second_target, Workspace{scratch.get(), bytes}, executor);
  }
  raise_unless_ok(status);
  return py::make_tuple(first, second);
}

py::tuple top_k_array(const py::object& given, int64_t k, int64_t threads) {
  const py::array scores = array_of("scores", given);
  check_rank("scores", scores, 1, "[N] or [B, N]");
  if (!scores.dtype().equal(py::dtype::of<float>())) {
    throw py::type_error("scores: got dtype " + py::str(scores.dtype()).cast<std::string>() +
                         ", allowed is float32");
  }
  const py::array source = readable(scores);
  const bool batched = source.ndim() == 2;
  ScoresView view;
  view.device = kDevice;
  view.data = static_cast<const float*>(source.data());
  view.columns = source.shape(source.ndim() - 1);
  if (batched) {
    view.batch = source.shape(0);
    view.batch_stride = source.size() == 0 ? 0 : source.strides(0) / source.itemsize();
  }
  const int64_t width = result_width(k, view.columns);
  py::array values = new_result(py::dtype::of<float>(), batched, view.batch, width);
  py::array indices = new_result(py::dtype::of<int64_t>(), batched, view.batch, width);
  return fill_two<float, int64_t>(
      values, indices, threads,
      [&](const Executor& executor) { return top_k_workspace_bytes(view, k, executor); },
      [&](auto* first, auto* second, Workspace workspace, const Executor& executor) {
        return top_k(view, k, first, second, workspace, executor);
      });
}

py::tuple select_array(const py::object& visual, const py::object& text, int64_t k,
                       const py::object& visual_mask, const py::object& text_mask,
                       double temperature, double redundancy, const std::string& estimator,
                       const std::optional<std::string>& dtype, int64_t threads,
                       int64_t similarity_bytes, double coverage) {
  const Relevance r =
      relevance_of(visual, text, visual_mask, text_mask, temperature, estimator, dtype);
  SelectProblem problem;
  problem.similarity_bytes = similarity_bytes;
  problem.relevance = r.problem;
  problem.k = k;
  problem.redundancy = static_cast<float>(redundancy);
  problem.coverage = coverage;
  const bool batched = r.visual.ndim() == 3;
  const int64_t n = r.problem.visual.rows;
  py::array indices =
      new_result(py::dtype::of<int64_t>(), batched, r.problem.visual.batch, result_width(k, n));
  py::array scores = new_result(py::dtype::of<float>(), batched, r.problem.visual.batch, n);
  return fill_two<int64_t, float>(
      indices, scores, threads,
      [&](const Executor& executor) { return select_workspace_bytes(problem, executor); },
      [&](auto* first, auto* second, Workspace workspace, const Executor& executor) {
        return select(problem, first, second, workspace, executor);
      });
}

using Integers = py::array_t<int64_t, py::array::c_style>;

// Whole numbers, in order and adjacent: of an array, or of what NumPy makes one of, whose elements
// all fit.
Integers integers_of(const char* name, const py::object& given) {
  const bool is_array = py::isinstance<py::array>(given);
  const py::array array = is_array ? array_of(name, given) : py::array::ensure(given);
  if (array && array.size() == 0) return Integers::ensure(array.attr("astype")("int64"));
  const bool is_whole = array && (array.dtype().kind() == 'i' || array.dtype().kind() == 'u');
  // Casts of which nothing is lost only; from uint64 it may be.
  if (is_whole) {
    if (const Integers whole = Integers::ensure(array)) return whole;
  }
  const auto held = array ? py::str(array.dtype()).cast<std::string>() : "no array";
  throw py::type_error(std::string(name) + ": got " + held + ", allowed is int64");
}

py::tuple select_varlen_array(const py::object& visual, const py::object& text,
                              const py::object& given_offsets, const py::object& given_ranges,
                              const std::vector<int64_t>& k, double temperature, double redundancy,
                              const std::string& estimator, const std::optional<std::string>& dtype,
                              int64_t threads, int64_t similarity_bytes, double coverage) {
  const Relevance r =
      relevance_of(visual, text, py::none(), py::none(), temperature, estimator, dtype);
  const Integers visual_offsets = integers_of("visual_offsets", given_offsets);
  const Integers text_ranges = integers_of("text_ranges", given_ranges);
  if (r.visual.ndim() != 2) {
    throw py::value_error("visual: got shape " + shape_of(r.visual) + ", allowed is [R, D]");
  }
  const auto segments = static_cast<int64_t>(k.size());
  if (visual_offsets.ndim() != 1 || visual_offsets.shape(0) != segments + 1) {
    throw py::value_error("visual_offsets: got shape " + shape_of(visual_offsets) +
                          ", allowed is [S + 1], S being the length of k");
  }
  if (text_ranges.ndim() != 2 || text_ranges.shape(0) != segments || text_ranges.shape(1) != 2) {
    throw py::value_error("text_ranges: got shape " + shape_of(text_ranges) +
                          ", allowed is [S, 2], S being the length of k");
  }
  SelectVarlenProblem problem;
  problem.visual = r.problem.visual;
  problem.text = r.problem.text;
  problem.segments = segments;
  problem.visual_offsets = visual_offsets.data();
  problem.text_ranges = text_ranges.data();
  problem.k = k.data();
  problem.temperature = r.problem.temperature;
  problem.estimator = r.problem.estimator;
  problem.redundancy = static_cast<float>(redundancy);
  problem.coverage = coverage;
  problem.similarity_bytes = similarity_bytes;
  int64_t total = 0;
  for (const int64_t wanted : k) total += std::max<int64_t>(0, wanted);
  py::array indices = new_result(py::dtype::of<int64_t>(), false, 1, total);
  py::array scores = new_result(py::dtype::of<float>(), false, 1, problem.visual.rows);
  return fill_two<int64_t, float>(
      indices, scores, threads,
      [&](const Executor& executor) { return select_varlen_workspace_bytes(problem, executor); },
      [&](auto* first, auto* second, Workspace workspace, const Executor& executor) {
        return select_varlen(problem, first, second, workspace, executor);
      });
}

size_t select_workspace_bytes_of(int64_t n, int64_t m, int64_t d, double redundancy,
                                 int64_t threads, int64_t k) {
  SelectProblem problem;
  problem.k = k;
  problem.redundancy = static_cast<float>(redundancy);
  const char placeholder = 0;  // only its address is looked at
  for (MatrixView* view : {&problem.relevance.visual, &problem.relevance.text}) {
    view->data = &placeholder;
    view->rows = view == &problem.relevance.visual ? n : m;
    view->columns = view->row_stride = d;
    view->device = kDevice;
  }
  return select_workspace_bytes(problem, executor_of(threads));
}

py::dict build_info() {
  py::dict info;
  info["version"] = version();
  info["compiler"] = MIPRUNER_COMPILER;
  info["flags"] = MIPRUNER_CXX_FLAGS;
  info["has_cuda"] = has_cuda();
  info["cpu_level"] = cpu_level();
  info["cpu_levels"] = py::str(cpu_levels()).attr("split")(",");
  return info;
}

}  // namespace
}  // namespace mipruner

PYBIND11_MODULE(_C, m) {
  using namespace mipruner;
  m.doc() = "The mipruner core on NumPy arrays. Public interface: mi_pruner_cuda.numpy.";
  m.def("normalize", normalize_array, py::arg("x"), py::arg("eps") = 1e-12,
        py::arg("dtype") = py::none(), py::arg("threads") = 1);
  m.def("mutual_information", mutual_information_array, py::arg("visual"), py::arg("text"),
        py::arg("visual_mask") = py::none(), py::arg("text_mask") = py::none(),
        py::arg("temperature") = 0.1, py::arg("estimator") = "specific",
        py::arg("dtype") = py::none(), py::arg("threads") = 1);
  // noconvert: a fraction is no count.
  m.def("top_k", top_k_array, py::arg("scores"), py::arg("k").noconvert(), py::arg("threads") = 1);
  m.def("select", select_array, py::arg("visual"), py::arg("text"), py::arg("k").noconvert(),
        py::arg("visual_mask") = py::none(), py::arg("text_mask") = py::none(),
        py::arg("temperature") = 0.1, py::arg("redundancy") = 0.0,
        py::arg("estimator") = "specific", py::arg("dtype") = py::none(), py::arg("threads") = 1,
        py::arg("similarity_bytes") = SelectProblem().similarity_bytes, py::arg("coverage") = 0.0);
  m.def("select_varlen", select_varlen_array, py::arg("visual"), py::arg("text"),
        py::arg("visual_offsets"), py::arg("text_ranges"), py::arg("k").noconvert(),
        py::arg("temperature") = 0.1, py::arg("redundancy") = 0.0,
        py::arg("estimator") = "specific", py::arg("dtype") = py::none(), py::arg("threads") = 1,
        py::arg("similarity_bytes") = SelectVarlenProblem().similarity_bytes,
        py::arg("coverage") = 0.0);
  m.def("select_workspace_bytes", select_workspace_bytes_of, py::arg("n"), py::arg("m"),
        py::arg("d"), py::arg("redundancy") = 0.0, py::arg("threads") = 1, py::arg("k") = 1,
        "Scratch memory of one select of float32 rows, in bytes.");
  m.def(
      "set_cpu_level",
      [](const std::optional<std::string>& level) {
        raise_unless_ok(set_cpu_level(level ? level->c_str() : nullptr));
      },
      py::arg("level"),
      "Replaces the CPU level in use, for tests that run every level; None: choose anew.");
  m.def("build_info", build_info,
        "version, compiler, flags, has_cuda, cpu_level (in use) and cpu_levels (usable here).");
}
