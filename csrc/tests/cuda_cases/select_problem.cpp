#include "tests/cuda_cases/select_problem.h"

namespace mipruner::cases {
namespace {

void spoil(Random& random, const MatrixView& view, void* data, int64_t row) {
  const int fault = static_cast<int>(random.below(7));
  const bool is_half = view.dtype == DataType::kFloat16;
  for (int64_t k = 0; k < view.columns; ++k) {
    const int64_t at = row * view.row_stride + k;
    const float x = read_element(data, view.dtype, at);
    switch (fault) {
      case 0: write_element(data, view.dtype, at, 0.0f); break;
      // As large as the dtype allows: the squares leave float32.
      case 1: write_element(data, view.dtype, at, x * (is_half ? 1e4f : 1e30f)); break;
      case 2: write_element(data, view.dtype, at, x * 1e-6f); break;
      // Shorter than the least length that counts.
      case 3: write_element(data, view.dtype, at, x * 1e-15f); break;
      case 4:
        if (k == 0) write_element(data, view.dtype, at, kNaN);
        break;
      case 5:
        if (k + 1 == view.columns) write_element(data, view.dtype, at, -kInfinity);
        break;
      // A copy of the first row: ties.
      default: write_element(data, view.dtype, at, read_element(data, view.dtype, k));
    }
  }
}

std::unique_ptr<Bytes> any_rows(Random& random, const char* name, int64_t rarity,
                                MatrixView* view) {
  const auto bytes = static_cast<int64_t>(element_size(view->dtype));
  view->row_stride = view->columns + random.any_of<int64_t>({0, 0, 8, 3});
  const int64_t item = view->rows == 0 ? 0 : (view->rows - 1) * view->row_stride + view->columns;
  view->batch_stride = random.one_in(8) ? 0 : item + random.any_of<int64_t>({0, 0, 8, 5});
  const int64_t extent = view->batch == 0 ? 0 : (view->batch - 1) * view->batch_stride + item;
  auto data = std::make_unique<Bytes>(extent * bytes, name, random.any_of<int64_t>({0, 0, bytes}));
  for (int64_t i = 0; i < extent; ++i) write_element(data->data(), view->dtype, i, random.normal());
  for (int64_t b = 0; b < view->batch; ++b) {
    for (int64_t i = 0; i < view->rows; ++i) {
      if (!random.one_in(rarity)) continue;
      spoil(random, *view, data->data() + b * view->batch_stride * bytes, i);
    }
  }
  view->data = data->data();
  return data;
}

std::unique_ptr<Buffer<bool>> any_mask(Random& random, const MatrixView& rows, MaskView* mask) {
  if (rows.batch * rows.rows == 0 || !random.one_in(3)) return nullptr;
  mask->row_stride = random.any_of<int64_t>({1, 1, 2});
  const int64_t item = (rows.rows - 1) * mask->row_stride + 1;
  mask->batch_stride = random.one_in(4) ? 0 : item;
  const int64_t extent = (rows.batch - 1) * mask->batch_stride + item;
  auto data = std::make_unique<Buffer<bool>>(extent, "mask");
  const int64_t rarity = random.any_of<int64_t>({2, 10, 1});
  for (int64_t i = 0; i < extent; ++i) (*data)[i] = !random.one_in(rarity);
  mask->data = data->data();
  return data;
}

// Few columns mostly: emulated multiplication is slow, and what is odd is odd at any width.
void choose_shape(Random& random, bool may_be_empty, MatrixView* visual, MatrixView* text) {
  visual->batch = random.any_of<int64_t>({1, 1, 2, 3});
  visual->columns = random.any_of<int64_t>({1, 8, 37, 64, 200, 1 + random.below(90)});
  visual->rows = random.any_of<int64_t>({1, 2, 33, 64, 65, 1 + random.below(130)});
  text->rows = random.any_of<int64_t>({1, 2, 5, 64, 65, 1 + random.below(80)});
  if (random.one_in(8)) {
    // Longer rows than are summed up together.
    visual->columns = random.any_of<int64_t>({512, 520, 1100});
    visual->rows = 1 + random.below(20);
    text->rows = 1 + random.below(10);
  }
  if (random.one_in(40)) {
    // More rows than are summed up together, or than a block has threads.
    visual->rows = random.any_of<int64_t>({512, 513, 700, 1030});
    visual->batch = visual->rows > 600 ? 1 : visual->batch;
    visual->columns = random.any_of<int64_t>({3, 8});
    text->rows = 1 + random.below(4);
  }
  if (random.one_in(25)) text->rows = random.any_of<int64_t>({256, 257, 300});
  if (may_be_empty && random.one_in(8)) text->rows = 0;
  if (may_be_empty && random.one_in(50)) visual->rows = 0;
  if (may_be_empty && random.one_in(50)) visual->batch = 0;
  text->batch = visual->batch;
  text->columns = visual->columns;
}

}  // namespace

Problem any_problem(Random& random, bool may_be_empty) {
  Problem problem;
  RelevanceProblem& relevance = problem.select.relevance;
  MatrixView& visual = relevance.visual;
  MatrixView& text = relevance.text;
  visual.dtype = text.dtype =
      random.any_of({DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16});
  choose_shape(random, may_be_empty, &visual, &text);
  const int64_t rarity = random.any_of<int64_t>({1000, 1000, 20, 4});
  problem.visual = any_rows(random, "visual", rarity, &visual);
  problem.text = any_rows(random, "text", rarity, &text);
  problem.visual_mask = any_mask(random, visual, &relevance.visual_mask);
  problem.text_mask = any_mask(random, text, &relevance.text_mask);
  relevance.temperature = random.any_of({0.1f, 0.1f, 0.1f, 1.0f, 0.03f});
  relevance.estimator =
      random.any_of({Estimator::kSpecific, Estimator::kSpecific, Estimator::kPosterior,
                     Estimator::kJoint, Estimator::kCosine});
  const int64_t rows = std::min<int64_t>(visual.rows, 40);
  problem.select.k = 1 + random.below(random.any_of<int64_t>({3, rows, rows, visual.rows + 5}));
  if (random.one_in(20)) problem.select.k = std::max<int64_t>(visual.rows, 1);
  problem.select.coverage = random.any_of({0.0, 0.0, 0.3, 0.5, 1.0});
  return problem;
}

int64_t any_similarity_bytes(Random& random, const SelectProblem& problem) {
  const MatrixView& visual = problem.relevance.visual;
  const int64_t all =
      visual.batch * visual.rows * visual.rows * static_cast<int64_t>(sizeof(float));
  return random.any_of<int64_t>({0, all / 2, all, int64_t{64} << 20});
}

SelectProblem item_of(const SelectProblem& problem, int64_t b) {
  SelectProblem alone = problem;
  for (MatrixView* view : {&alone.relevance.visual, &alone.relevance.text}) {
    const auto bytes = static_cast<int64_t>(element_size(view->dtype));
    view->batch = 1;
    view->data = static_cast<const char*>(view->data) + b * view->batch_stride * bytes;
  }
  for (MaskView* mask : {&alone.relevance.visual_mask, &alone.relevance.text_mask}) {
    if (mask->data) mask->data += b * mask->batch_stride;
  }
  return alone;
}

std::string describe(const SelectProblem& problem) {
  const MatrixView& visual = problem.relevance.visual;
  char text[256];
  std::snprintf(
      text, sizeof(text),
      "dtype %d estimator %d temperature %g batch %lld N %lld M %lld D %lld k %lld redundancy %g "
      "coverage %g",
      static_cast<int>(visual.dtype), static_cast<int>(problem.relevance.estimator),
      static_cast<double>(problem.relevance.temperature), static_cast<long long>(visual.batch),
      static_cast<long long>(visual.rows), static_cast<long long>(problem.relevance.text.rows),
      static_cast<long long>(visual.columns), static_cast<long long>(problem.k),
      static_cast<double>(problem.redundancy), problem.coverage);
  return text;
}

Result select_on_device(const SelectProblem& problem) {
  const MatrixView& visual = problem.relevance.visual;
  const int64_t width = std::min(problem.k, visual.rows);
  const Buffer<int64_t> indices(visual.batch * width, "indices");
  const Buffer<float> scores(visual.batch * visual.rows, "scores");
  const size_t bytes = cuda::select_workspace_bytes(problem);
  const Buffer<char> workspace(static_cast<int64_t>(bytes), "workspace");
  Result result;
  const uint64_t launches_before = emu::stats().launches;
  result.status =
      cuda::select(problem, indices.data(), scores.data(), {workspace.data(), bytes}, nullptr);
  result.launches = emu::stats().launches - launches_before;
  result.indices.assign(indices.data(), indices.data() + visual.batch * width);
  result.scores.assign(scores.data(), scores.data() + visual.batch * visual.rows);
  return result;
}

Result select_on_cpu(const SelectProblem& problem) {
  const MatrixView& visual = problem.relevance.visual;
  Result result;
  result.indices.resize(static_cast<size_t>(visual.batch * std::min(problem.k, visual.rows)));
  result.scores.resize(static_cast<size_t>(visual.batch * visual.rows));
  const size_t bytes = cpu::select_workspace_bytes(problem, Executor{});
  std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(64, (bytes + 64) / 64 * 64),
                                                std::free);
  cpu::select(cpu::kernels_baseline(), problem, result.indices.data(), result.scores.data(),
              {memory.get(), bytes}, Executor{});
  return result;
}

std::string compare_scores(const float* got, const float* want, int64_t rows, float temperature) {
  const double slack = kTolerance * largest_score(want, rows) + resolution(temperature);
  for (int64_t i = 0; i < rows; ++i) {
    if (!std::isfinite(want[i]) && got[i] == want[i]) continue;
    if (std::fabs(double{got[i]} - double{want[i]}) <= slack) continue;
    char text[128];
    std::snprintf(text, sizeof(text), "score %lld is %.9g, on the CPU %.9g",
                  static_cast<long long>(i), double{got[i]}, double{want[i]});
    return text;
  }
  return {};
}

}  // namespace mipruner::cases
