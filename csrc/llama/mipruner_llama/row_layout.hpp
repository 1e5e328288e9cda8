// Which rows of an encoded image are not a piece of it but structure: begin and end of the image,
// row breaks, separators. A model was trained with them in place, so a selection must keep them,
// and neither libmtmd nor llama.cpp says which they are.
//
// Three ways to know, in the order of what they are good for:
//
//   1. By value. Most projectors copy learned rows out of the mmproj file into the image. A row
//      that equals one of them, column by column, is structure wherever it stands. This needs no
//      grid, which libmtmd gives for M-RoPE models only.
//   2. By place, for HunyuanVL, which normalizes its learned rows after putting them in.
//   3. Not at all. Where structure must be assumed but cannot be found, or where the decoder reads
//      rows in blocks, everything is kept, and `reason` says why.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mipruner_llama/byte_source.hpp"
#include "mipruner_llama/gguf_header.hpp"
#include "mipruner_llama/status.hpp"
#include "mipruner_llama/tensor_rows.hpp"

namespace mipruner::llama {

struct EncodedImage {
  const float* rows = nullptr;  // [n_rows, stride]
  int64_t n_rows = 0;
  int64_t stride = 0;     // floats from one row to the next, llama_model_n_embd_inp()
  bool has_grid = false;  // M-RoPE: nx and ny are the image's
  int64_t nx = 0;         // else n_rows and 1
  int64_t ny = 0;
};

struct ImageStructure {
  bool keep_all = false;
  std::string reason;         // why everything is kept; else empty
  std::vector<int32_t> rows;  // ascending
};

namespace detail {

enum class RowKind {
  kPlain,           // every row is a piece of the image
  kMayHaveLearned,  // learned rows by value; some images have none
  kHasLearned,      // every image has some
  kHunyuan,         // by place: [begin] then rows of nx + [newline], then [end]
  kBlocks,          // the decoder reads blocks of rows
  kUnknown,
};

struct Projector {
  const char* type;  // clip.projector_type
  RowKind kind;
};

// llama.cpp's tools/mtmd/models at 0.5.0; the comment names the graph where it is not obvious.
inline constexpr Projector kProjectors[] = {
    {"adapter", RowKind::kHasLearned},              // GLM-Edge, llava.cpp: begin, end
    {"cogvlm", RowKind::kHasLearned},               // begin, end
    {"pixtral", RowKind::kHasLearned},              // a break after every row but the last
    {"deepseekocr", RowKind::kHasLearned},          // newline after every row; separator
    {"deepseekocr2", RowKind::kMayHaveLearned},     // separator after the global view
    {"granite4_vision", RowKind::kMayHaveLearned},  // newline after every row of tiles
    {"hunyuanvl", RowKind::kHunyuan},
    // Its text model compresses blocks of four rows, two by two patches, and the image is padded so
    // that blocks begin where they should: any subset of rows would move all blocks.
    {"deepseek4v", RowKind::kBlocks},
    {"mlp", RowKind::kPlain},
    {"ldp", RowKind::kPlain},
    {"ldpv2", RowKind::kPlain},
    {"resampler", RowKind::kPlain},
    {"qwen2vl_merger", RowKind::kPlain},
    {"qwen2.5vl_merger", RowKind::kPlain},
    {"qwen2.5o", RowKind::kPlain},
    {"qwen3vl_merger", RowKind::kPlain},
    {"ling3vl", RowKind::kPlain},
    {"step3vl", RowKind::kPlain},
    {"gemma3", RowKind::kPlain},
    {"gemma3nv", RowKind::kPlain},
    {"gemma4v", RowKind::kPlain},
    {"gemma4uv", RowKind::kPlain},
    {"phi4", RowKind::kPlain},
    {"idefics3", RowKind::kPlain},
    {"internvl", RowKind::kPlain},
    {"llama4", RowKind::kPlain},
    {"lfm2", RowKind::kPlain},
    {"kimivl", RowKind::kPlain},
    {"kimik25", RowKind::kPlain},
    {"paddleocr", RowKind::kPlain},
    {"lightonocr", RowKind::kPlain},  // pixtral.cpp, but its breaks are not loaded
    {"janus_pro", RowKind::kPlain},
    {"dots_ocr", RowKind::kPlain},
    {"dots3note_v", RowKind::kPlain},
    {"glm4v", RowKind::kPlain},
    {"glm5v", RowKind::kPlain},
    {"youtuvl", RowKind::kPlain},
    {"yasa2", RowKind::kPlain},
    {"nemotron_v2_vl", RowKind::kPlain},
    {"exaone4_5", RowKind::kPlain},
    {"minicpmv4_6", RowKind::kPlain},
    {"mimovl", RowKind::kPlain},
    {"minimax_m3", RowKind::kPlain},
    {"muse-glimmer", RowKind::kPlain},
};

// The names that learned rows have in mmproj files.
inline constexpr const char* kLearnedRows[] = {
    "v.boi",
    "v.eoi",
    "adapter.boi",
    "adapter.eoi",
    "v.image_newline",
    "v.view_seperator",
    "mm.image_begin",
    "mm.image_end",
    "v.token_embd.img_break",
    "v.token_embd.img_start",
    "v.token_embd.img_end",
    "v.token_embd.img_pad",
};

}  // namespace detail

class RowLayout {
 public:
  // path: the mmproj file. After an error the layout is as before.
  Status open(const std::string& path) {
    std::unique_ptr<ByteSource> source;
    const Status status = FileSource::open(path, &source);
    return status.ok() ? open(std::shared_ptr<ByteSource>(std::move(source))) : status;
  }

  Status open(std::shared_ptr<ByteSource> source) {
    if (source == nullptr) return invalid("source: got NULL, allowed is a source of bytes");
    GgufHeader header;
    RowLayout layout;
    Status status = header.read(source.get());
    if (status.ok()) status = layout.read_type(*source, header);
    if (status.ok()) status = layout.read_learned_rows(source, header);
    if (status.ok()) *this = std::move(layout);
    return status;
  }

  const std::string& projector_type() const { return type_; }

  // Whether every image is kept whole, so that this is known before any is encoded.
  bool keeps_everything() const { return kind_ == detail::RowKind::kBlocks; }

  // Whether the learned rows fit a model whose rows have `width` columns, DeepStack included.
  Status check_width(int64_t width) const {
    const bool by_value =
        kind_ == detail::RowKind::kHasLearned || kind_ == detail::RowKind::kMayHaveLearned;
    for (const std::vector<float>& learned : learned_) {
      const auto columns = static_cast<int64_t>(learned.size());
      if (!by_value || width % columns == 0) continue;
      return invalid("layout: got learned rows of " + std::to_string(columns) +
                     " columns, allowed are those of the model's mmproj file, whose rows have " +
                     std::to_string(width));
    }
    return {};
  }

  Status find(const EncodedImage& image, ImageStructure* structure) const {
    if (image.n_rows > 0 && (image.rows == nullptr || image.stride < 1)) {
      return invalid("image: got no rows, allowed are " + std::to_string(image.n_rows));
    }
    *structure = {};
    switch (kind_) {
      case detail::RowKind::kBlocks:
        keep_all(type_ + ": the text model reads the rows in blocks", structure);
        return {};
      case detail::RowKind::kHunyuan: find_by_place(image, structure); return {};
      default: find_by_value(image, structure); break;
    }
    const bool is_unknown = kind_ == detail::RowKind::kUnknown;
    const bool must_have =
        kind_ == detail::RowKind::kHasLearned || (is_unknown && !learned_.empty());
    if (structure->rows.empty() && must_have) {
      keep_all(type_ + ": the row breaks of the image were not found", structure);
    } else if (is_unknown && image.has_grid && image.nx * image.ny != image.n_rows) {
      keep_all(type_ + ": got " + std::to_string(image.n_rows) + " rows for a grid of " +
                   std::to_string(image.nx) + " x " + std::to_string(image.ny),
               structure);
    }
    return {};
  }

 private:
  static void keep_all(std::string reason, ImageStructure* structure) {
    structure->keep_all = true;
    structure->reason = std::move(reason);
    structure->rows.clear();
  }

  Status read_type(const ByteSource& source, const GgufHeader& header) {
    const std::string* type = header.find_string("clip.projector_type");
    if (type == nullptr || type->empty()) type = header.find_string("clip.vision.projector_type");
    if (type == nullptr || type->empty()) {
      return invalid(source.name() + ": the key clip.projector_type is not there, allowed is a " +
                     "mmproj file");
    }
    type_ = *type;
    kind_ = detail::RowKind::kUnknown;
    for (const detail::Projector& projector : detail::kProjectors) {
      if (type_ == projector.type) kind_ = projector.kind;
    }
    return {};
  }

  Status read_learned_rows(const std::shared_ptr<ByteSource>& source, const GgufHeader& header) {
    for (const char* name : detail::kLearnedRows) {
      if (header.find_tensor(name) == nullptr) continue;
      TensorRows tensor;
      const Status status = tensor.open(source, header, name);
      if (!status.ok()) return status;
      std::vector<char> raw;
      if (!tensor.read_raw(0, &raw)) {
        return invalid(source->name() + ": reading the tensor " + name + " failed");
      }
      std::vector<float> row(static_cast<size_t>(tensor.columns()));
      tensor.to_float(raw, 1, row.data());
      learned_.push_back(std::move(row));
    }
    return {};
  }

  // DeepStack rows repeat the learned row once per plane, so that its own columns come first.
  static bool starts_with(const float* row, int64_t columns, const std::vector<float>& learned) {
    if (static_cast<int64_t>(learned.size()) > columns) return false;
    for (size_t i = 0; i < learned.size(); ++i) {
      // An encoder may compute in float16; the comparison is written so that NaN fails it.
      const float allowed = 1e-3F * std::fabs(learned[i]) + 1e-6F;
      if (!(std::fabs(row[i] - learned[i]) <= allowed)) return false;
    }
    return true;
  }

  void find_by_value(const EncodedImage& image, ImageStructure* structure) const {
    for (int64_t i = 0; i < image.n_rows; ++i) {
      for (const std::vector<float>& learned : learned_) {
        if (!starts_with(image.rows + i * image.stride, image.stride, learned)) continue;
        structure->rows.push_back(static_cast<int32_t>(i));
        break;
      }
    }
  }

  void find_by_place(const EncodedImage& image, ImageStructure* structure) const {
    const int64_t row = image.nx + 1;
    if (!image.has_grid || image.n_rows != row * image.ny + 2) {
      keep_all(type_ + ": got " + std::to_string(image.n_rows) +
                   " rows, expected were (nx + 1) * " + "ny + 2",
               structure);
      return;
    }
    structure->rows.push_back(0);
    for (int64_t y = 1; y <= image.ny; ++y) {
      structure->rows.push_back(static_cast<int32_t>(y * row));
    }
    structure->rows.push_back(static_cast<int32_t>(image.n_rows - 1));
  }

  std::string type_;
  detail::RowKind kind_ = detail::RowKind::kUnknown;
  std::vector<std::vector<float>> learned_;
};

}  // namespace mipruner::llama
