// The C interface for C++17: contexts that free themselves, results in vectors, errors as
// exceptions. Header-only; mipruner.h says what everything means.
//
//     mipruner::Context context;
//     auto params = mipruner_select_default_params();
//     params.n_keep = 64;
//     const auto visual = mipruner::rows_of(rows, 4096);  // rows, words: std::vector<float>
//     const auto text = mipruner::rows_of(words, 4096);
//     for (int32_t row : context.select(visual, text, params).kept) ...
//
// Hosts compiled without exceptions use the C functions with context.get().
#ifndef MIPRUNER_MIPRUNER_HPP
#define MIPRUNER_MIPRUNER_HPP

#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mipruner/mipruner.h"

namespace mipruner {
// A namespace of its own, so that nothing here is the namesake of something within libmipruner.a.
inline namespace cpp_interface {

// What a failing call threw: its status and the library's sentence.
class Error : public std::runtime_error {
 public:
  Error(int32_t status, const char* message)
      : std::runtime_error(message && *message ? message : mipruner_status_str(status)),
        status_(status) {}

  int32_t status() const noexcept { return status_; }  // enum mipruner_status, below 0

 private:
  int32_t status_;
};

// Elements next to each other, owned by somebody else: what std::span is from C++20 on. Made from a
// pointer and a count, or from anything with data() and size().
template <class T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, size_t size) : data_(data), size_(size) {}
  template <class Container, class = std::enable_if_t<std::is_convertible_v<
                                 decltype(std::declval<Container&>().data()), T*>>>
  constexpr Span(Container&& container) : data_(container.data()), size_(container.size()) {}

  constexpr T* data() const { return data_; }
  constexpr size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

// Which of the library's element types T is. For a half of your own:
//     template <> struct mipruner::ElementType<MyHalf>
//         : std::integral_constant<int32_t, MIPRUNER_DTYPE_F16> {};
template <class T>
struct ElementType;
template <>
struct ElementType<float> : std::integral_constant<int32_t, MIPRUNER_DTYPE_F32> {};

// Rows in host memory, `row_stride` elements apart (0: columns). The last row need not be followed
// by padding.
template <class T>
mipruner_view rows_of(Span<const T> elements, int64_t columns, int64_t row_stride = 0) {
  const int64_t stride = row_stride == 0 ? columns : row_stride;
  const auto size = static_cast<int64_t>(elements.size());
  if (columns < 1 || stride < columns) {
    throw Error(MIPRUNER_ERROR_INVALID_ARGUMENT,
                "row_stride: got less than columns, or no columns at all");
  }
  if (size % stride != 0 && size % stride != columns) {
    throw Error(MIPRUNER_ERROR_INVALID_ARGUMENT, "elements: got a count that is not whole rows");
  }
  mipruner_view view = {};
  view.data = elements.data();
  view.n_rows = (size + stride - columns) / stride;
  view.n_cols = columns;
  view.row_stride = stride;
  view.dtype = ElementType<std::remove_cv_t<T>>::value;
  view.memory = MIPRUNER_MEMORY_HOST;
  return view;
}

template <class T, class Allocator>
mipruner_view rows_of(const std::vector<T, Allocator>& elements, int64_t columns,
                      int64_t row_stride = 0) {
  return rows_of(Span<const T>(elements), columns, row_stride);
}

struct Selection {
  std::vector<int32_t> kept;  // ascending, or by score where params.order says so
  std::vector<float> scores;  // one per visual row: relevance in nats
  mipruner_result result;     // keep_hash, milliseconds and more
  int32_t status;             // MIPRUNER_OK or a warning
};

// One thread at a time; different contexts are independent.
class Context {
 public:
  explicit Context(const mipruner_context_params& params = mipruner_context_default_params()) {
    mipruner_context* context = nullptr;
    const int32_t status = mipruner_init(&params, &context);
    if (status < 0) throw Error(status, mipruner_last_error(nullptr));
    context_.reset(context);
  }

  mipruner_context* get() const noexcept { return context_.get(); }

  // The rows of `visual` to keep; throws Error.
  Selection select(const mipruner_view& visual, const mipruner_view& text,
                   const mipruner_select_params& params) {
    return run(visual, &text, params);
  }

  // Without text, by redundancy, which must be above 0, as it is by default, and coverage.
  Selection select(const mipruner_view& visual, const mipruner_select_params& params) {
    return run(visual, nullptr, params);
  }

 private:
  struct Free {
    void operator()(mipruner_context* context) const noexcept { mipruner_free(context); }
  };

  Selection run(const mipruner_view& visual, const mipruner_view* text,
                const mipruner_select_params& params) {
    const int32_t count = mipruner_n_keep(&params, visual.n_rows);
    if (count < 0) throw Error(count, mipruner_last_error(nullptr));
    Selection selection = {};
    selection.kept.resize(static_cast<size_t>(count));
    selection.scores.resize(static_cast<size_t>(visual.n_rows));
    selection.result.struct_size = sizeof(selection.result);
    selection.status = mipruner_select(get(), &visual, text, &params, selection.kept.data(), count,
                                       selection.scores.data(), &selection.result);
    if (selection.status < 0) throw Error(selection.status, mipruner_last_error(get()));
    return selection;
  }

  std::unique_ptr<mipruner_context, Free> context_;
};

// The kept rows of a matrix in host memory, packed.
template <class T>
std::vector<std::remove_const_t<T>> gather_rows(Span<T> elements, int64_t columns,
                                                Span<const int32_t> kept) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (columns < 1) throw Error(MIPRUNER_ERROR_INVALID_ARGUMENT, "columns: got less than 1");
  const auto width = static_cast<size_t>(columns);
  if (elements.size() % width != 0) {
    throw Error(MIPRUNER_ERROR_INVALID_ARGUMENT, "elements: got a count that is not whole rows");
  }
  std::vector<std::remove_const_t<T>> packed(kept.size() * width);
  const int32_t status = mipruner_gather_rows(
      packed.data(), elements.data(), static_cast<int64_t>(elements.size() / width),
      width * sizeof(T), 0, kept.data(), static_cast<int32_t>(kept.size()));
  if (status < 0) throw Error(status, mipruner_last_error(nullptr));
  return packed;
}

}  // namespace cpp_interface
}  // namespace mipruner

#endif
