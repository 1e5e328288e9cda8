// Rows of one tensor of a GGUF file as floats, whatever its type: read when asked for, never all.
// Needs ggml for its types and their conversion to float.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ggml.h"
#include "mipruner_llama/byte_source.hpp"
#include "mipruner_llama/gguf_header.hpp"
#include "mipruner_llama/status.hpp"

namespace mipruner::llama {

class TensorRows {
 public:
  // `header` is that of `source`. After an error the object is as before.
  Status open(std::shared_ptr<ByteSource> source, const GgufHeader& header,
              const std::string& name) {
    const std::string where = source->name() + ": the tensor " + detail::printable(name);
    const GgufTensor* tensor = header.find_tensor(name);
    if (tensor == nullptr) return invalid(where + " is not there" + other_shards(header));
    TensorRows rows;
    rows.columns_ = tensor->ne[0];
    rows.rows_ = tensor->ne[1];
    rows.offset_ = tensor->offset;
    Status status = check_shape(*tensor, where);
    if (status.ok()) status = rows.resolve_type(tensor->type, where);
    if (status.ok()) status = rows.check_extent(source->size(), where);
    if (!status.ok()) return status;
    rows.source_ = std::move(source);
    *this = std::move(rows);
    return {};
  }

  int64_t columns() const { return columns_; }
  int64_t rows() const { return rows_; }
  const std::string& file() const { return source_->name(); }

  // Appends to `raw` the bytes of one row, which must lie in [0, rows()).
  bool read_raw(int64_t row, std::vector<char>* raw) const {
    const size_t at = raw->size();
    raw->resize(at + row_bytes_);
    const uint64_t offset = offset_ + static_cast<uint64_t>(row) * row_bytes_;
    return source_->read(offset, raw->data() + at, row_bytes_);
  }

  // raw: `count` rows from read_raw(). out: [count, columns()].
  void to_float(const std::vector<char>& raw, size_t count, float* out) const {
    const auto columns = static_cast<size_t>(columns_);
    for (size_t i = 0; i < count; ++i) {
      const char* from = raw.data() + i * row_bytes_;
      if (to_float_ == nullptr) {
        std::memcpy(out + i * columns, from, row_bytes_);
      } else {
        to_float_(from, out + i * columns, columns_);
      }
    }
  }

 private:
  // Beyond every model there is; bounds the memory of a row.
  static constexpr int64_t kMaxColumns = int64_t{1} << 20;

  static std::string other_shards(const GgufHeader& header) {
    const uint64_t shards = header.find_count("split.count").value_or(1);
    if (shards <= 1) return ", allowed is a file that holds it";
    return ": it is in another of the " + std::to_string(shards) +
           " files of this split model, allowed is the one that holds it";
  }

  static Status check_shape(const GgufTensor& tensor, const std::string& where) {
    const auto& ne = tensor.ne;
    const bool fits = ne[0] >= 1 && ne[0] <= kMaxColumns && ne[1] >= 1 && ne[1] <= INT32_MAX;
    if (fits && ne[2] == 1 && ne[3] == 1) return {};
    std::string shape;
    for (const int64_t n : ne) shape += " " + std::to_string(n);
    return invalid(where + " got the dimensions" + shape + ", allowed are 1 to " +
                   std::to_string(kMaxColumns) + " columns and 1 to 2147483647 rows");
  }

  Status resolve_type(int32_t type, const std::string& where) {
    if (type < 0 || type >= static_cast<int32_t>(GGML_TYPE_COUNT)) {
      return invalid(where + " got type " + std::to_string(type) + ", allowed are 0 to " +
                     std::to_string(static_cast<int32_t>(GGML_TYPE_COUNT) - 1) +
                     ", the types of this build's ggml");
    }
    const ggml_type_traits* traits = ggml_get_type_traits(static_cast<ggml_type>(type));
    const bool is_float = type == static_cast<int32_t>(GGML_TYPE_F32);
    if (traits == nullptr || traits->blck_size < 1 || traits->type_size < 1 ||
        (!is_float && traits->to_float == nullptr)) {
      return invalid(where + " got type " + std::to_string(type) +
                     ", allowed are types that this build's ggml can convert to float");
    }
    if (columns_ % traits->blck_size != 0) {
      return invalid(
          where + " got " + std::to_string(columns_) + " columns, allowed are multiples" + " of " +
          std::to_string(traits->blck_size) + ", the block of its type " + std::to_string(type));
    }
    to_float_ = is_float ? nullptr : traits->to_float;
    row_bytes_ = traits->type_size * static_cast<size_t>(columns_ / traits->blck_size);
    return {};
  }

  // row_bytes_ is below 2^20 * sizeof a block and rows_ below 2^31, so that nothing overflows.
  Status check_extent(uint64_t file_size, const std::string& where) const {
    const uint64_t bytes = static_cast<uint64_t>(rows_) * row_bytes_;
    if (offset_ <= file_size && bytes <= file_size - offset_) return {};
    return invalid(where + " got " + std::to_string(bytes) + " bytes at " +
                   std::to_string(offset_) + ", allowed is what ends within the file's " +
                   std::to_string(file_size) + " bytes: is it truncated?");
  }

  std::shared_ptr<ByteSource> source_;
  int64_t columns_ = 0;
  int64_t rows_ = 0;
  uint64_t offset_ = 0;
  size_t row_bytes_ = 0;
  ggml_to_float_t to_float_ = nullptr;  // NULL for float32
};

}  // namespace mipruner::llama
