// The header of a GGUF file: what it says of itself, and where each tensor lies.
//
// A GGUF file is untrusted input. llama.cpp's own reader keeps the whole vocabulary in memory and
// does not compare tensors with the file's size; this one checks every count, length and offset
// against the size before it uses it, keeps at most kMaxStored bytes whatever the file claims, and
// can be fuzzed without llama.cpp. It reads versions 2 and 3, little-endian, front to back through
// one small buffer:
//
//   magic, version, number of tensors, number of key-value pairs
//   pairs     key, type, value; or key, array, type, count, values
//   tensors   name, number of dimensions, dimensions, type, offset into the data
//   padding to general.alignment, then the data, which is not read here
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mipruner_llama/byte_source.hpp"
#include "mipruner_llama/source_reader.hpp"
#include "mipruner_llama/status.hpp"

namespace mipruner::llama {

struct GgufTensor {
  int32_t type = 0;                          // enum ggml_type, not yet checked: 0 or above
  std::array<int64_t, 4> ne = {1, 1, 1, 1};  // elements, the fastest dimension first
  uint64_t offset = 0;                       // bytes from the start of the file
};

// monostate: a string or an array that is too long to be kept, or an array of other than integers.
using GgufValue = std::variant<std::monostate, bool, uint64_t, int64_t, double, std::string,
                               std::vector<int64_t>>;

namespace detail {

// Bytes of names and values that are kept, and about what an entry costs beside them.
inline constexpr uint64_t kMaxStored = uint64_t{1} << 24;
inline constexpr uint64_t kEntryCost = 96;
// Bytes of a name; the format's own limit for keys.
inline constexpr uint64_t kMaxName = 65535;
// Longer strings (chat templates) and longer arrays (vocabularies) are skipped.
inline constexpr uint64_t kMaxString = 4096;
inline constexpr uint64_t kMaxIntegers = 4096;

enum GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// Bytes of a value of fixed size; 0 for the others, and for types that do not exist.
inline uint64_t gguf_type_size(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool: return 1;
    case kUint16:
    case kInt16: return 2;
    case kUint32:
    case kInt32:
    case kFloat32: return 4;
    case kUint64:
    case kInt64:
    case kFloat64: return 8;
    default: return 0;
  }
}

}  // namespace detail

class GgufHeader {
 public:
  // Replaces what an earlier call read. After an error the header is empty.
  Status read(ByteSource* source) {
    *this = GgufHeader();
    GgufHeader header;
    detail::SourceReader reader(source);
    uint64_t n_tensors = 0;
    uint64_t n_pairs = 0;
    Status status = header.read_start(&reader, &n_tensors, &n_pairs);
    for (uint64_t i = 0; status.ok() && i < n_pairs; ++i) status = header.read_pair(&reader);
    if (status.ok()) status = header.read_alignment(reader);
    for (uint64_t i = 0; status.ok() && i < n_tensors; ++i) status = header.read_tensor(&reader);
    if (status.ok()) status = header.place_tensors(reader, source->size());
    if (status.ok()) *this = std::move(header);
    return status;
  }

  uint32_t version() const { return version_; }
  bool contains(const std::string& key) const { return values_.count(key) > 0; }

  // NULL where the key is not there, or holds something else.
  const std::string* find_string(const std::string& key) const { return find<std::string>(key); }
  const std::vector<int64_t>* find_integers(const std::string& key) const {
    return find<std::vector<int64_t>>(key);
  }
  std::optional<double> find_float(const std::string& key) const {
    const double* value = find<double>(key);
    return value != nullptr ? std::optional<double>(*value) : std::nullopt;
  }
  // An integer of any width; negative ones are not found.
  std::optional<uint64_t> find_count(const std::string& key) const {
    if (const uint64_t* value = find<uint64_t>(key)) return *value;
    const int64_t* value = find<int64_t>(key);
    if (value == nullptr || *value < 0) return std::nullopt;
    return static_cast<uint64_t>(*value);
  }

  const GgufTensor* find_tensor(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found != tensors_.end() ? &found->second : nullptr;
  }

 private:
  template <class T>
  const T* find(const std::string& key) const {
    const auto found = values_.find(key);
    return found != values_.end() ? std::get_if<T>(&found->second) : nullptr;
  }

  Status read_start(detail::SourceReader* reader, uint64_t* n_tensors, uint64_t* n_pairs) {
    char magic[4] = {};
    Status status = reader->read(magic, sizeof magic, "the magic");
    if (!status.ok()) return status;
    if (std::memcmp(magic, "GGUF", 4) != 0) {
      return reader->fail("got a file that starts with " + detail::printable({magic, 4}) +
                          ", allowed is \"GGUF\"");
    }
    status = reader->read_value(&version_, "the version");
    if (!status.ok()) return status;
    if ((version_ & 0xFFFFU) == 0 && version_ != 0) {
      return reader->fail("got a big-endian file, allowed are little-endian ones");
    }
    if (version_ != 2 && version_ != 3) {
      return reader->fail("got GGUF version " + std::to_string(version_) + ", allowed are 2 and 3");
    }
    status = reader->read_value(n_tensors, "the number of tensors");
    if (status.ok()) status = reader->read_value(n_pairs, "the number of key-value pairs");
    if (!status.ok()) return status;
    status = reader->need_items(*n_pairs, 8 + 1 + 4 + 1, "key-value pairs");
    if (status.ok()) status = reader->need_items(*n_tensors, 8 + 1 + 4 + 4 + 8, "tensors");
    return status;
  }

  Status read_name(detail::SourceReader* reader, const char* what, std::string* name) {
    Status status = reader->read_string(name, detail::kMaxName, what);
    if (!status.ok()) return status;
    if (name->empty()) return reader->fail(std::string(what) + " got an empty string");
    return keep(*reader, detail::kEntryCost + name->size());
  }

  Status keep(const detail::SourceReader& reader, uint64_t bytes) {
    stored_ += bytes;
    if (stored_ <= detail::kMaxStored) return {};
    return reader.fail("got a header with more than " + std::to_string(detail::kMaxStored) +
                       " bytes of names and values, allowed are at most so many");
  }

  Status read_pair(detail::SourceReader* reader) {
    std::string key;
    uint32_t type = 0;
    Status status = read_name(reader, "a key", &key);
    if (status.ok()) status = reader->read_value(&type, "the type of a key");
    if (!status.ok()) return status;
    if (values_.count(key) > 0) {
      return reader->fail("got the key " + detail::printable(key) + " twice, allowed is once");
    }
    GgufValue value;
    status = type == detail::kArray ? read_array(reader, key, &value)
                                    : read_scalar(reader, type, key, &value);
    if (status.ok()) values_.emplace(std::move(key), std::move(value));
    return status;
  }

  Status read_scalar(detail::SourceReader* reader, uint32_t type, const std::string& key,
                     GgufValue* value) {
    if (type == detail::kString) return read_text(reader, value);
    if (type == detail::kFloat32) return read_as<float, double>(reader, value);
    if (type == detail::kFloat64) return read_as<double, double>(reader, value);
    if (type == detail::kBool) return read_as<uint8_t, bool>(reader, value);
    return with_integer(reader, type, key, [&](auto integer, bool is_signed) {
      Status status = reader->read_value(&integer, "a value");
      if (is_signed) {
        *value = static_cast<int64_t>(integer);
      } else {
        *value = static_cast<uint64_t>(integer);
      }
      return status;
    });
  }

  // Calls use(integer of the type, whether it is signed).
  template <class Use>
  static Status with_integer(detail::SourceReader* reader, uint32_t type, const std::string& key,
                             Use use) {
    switch (type) {
      case detail::kUint8: return use(uint8_t{}, false);
      case detail::kInt8: return use(int8_t{}, true);
      case detail::kUint16: return use(uint16_t{}, false);
      case detail::kInt16: return use(int16_t{}, true);
      case detail::kUint32: return use(uint32_t{}, false);
      case detail::kInt32: return use(int32_t{}, true);
      case detail::kUint64: return use(uint64_t{}, false);
      case detail::kInt64: return use(int64_t{}, true);
      default:
        return reader->fail("the key " + detail::printable(key) + " got type " +
                            std::to_string(type) + ", allowed are 0 to 12, and in arrays not 9");
    }
  }

  template <class Stored, class Kept>
  static Status read_as(detail::SourceReader* reader, GgufValue* value) {
    Stored stored{};
    const Status status = reader->read_value(&stored, "a value");
    *value = static_cast<Kept>(stored);
    return status;
  }

  Status read_text(detail::SourceReader* reader, GgufValue* value) {
    uint64_t length = 0;
    Status status = reader->read_value(&length, "a string");
    if (!status.ok()) return status;
    if (length > detail::kMaxString) return reader->skip(length, "a string");
    status = reader->need(length, "a string");
    if (status.ok()) status = keep(*reader, length);
    if (!status.ok()) return status;
    std::string text(length, '\0');
    status = reader->read(text.data(), length, "a string");
    *value = std::move(text);
    return status;
  }

  Status read_array(detail::SourceReader* reader, const std::string& key, GgufValue* value) {
    uint32_t type = 0;
    uint64_t count = 0;
    Status status = reader->read_value(&type, "the type of an array");
    if (status.ok()) status = reader->read_value(&count, "the length of an array");
    if (!status.ok()) return status;
    if (type == detail::kString) return skip_strings(reader, count);
    const uint64_t size = detail::gguf_type_size(type);
    if (size == 0) {  // an array of arrays, or no type at all
      return with_integer(reader, type, key, [](auto, bool) { return Status{}; });
    }
    status = reader->need_items(count, size, "elements of an array");
    if (!status.ok()) return status;
    const bool is_integer =
        type != detail::kBool && type != detail::kFloat32 && type != detail::kFloat64;
    if (!is_integer || count > detail::kMaxIntegers) return reader->skip(count * size, "an array");
    return read_integers(reader, type, key, count, value);
  }

  Status read_integers(detail::SourceReader* reader, uint32_t type, const std::string& key,
                       uint64_t count, GgufValue* value) {
    Status status = keep(*reader, count * sizeof(int64_t));
    if (!status.ok()) return status;
    std::vector<int64_t> integers;
    integers.reserve(count);
    status = with_integer(reader, type, key, [&](auto integer, bool) {
      Status read;
      for (uint64_t i = 0; read.ok() && i < count; ++i) {
        read = reader->read_value(&integer, "an array");
        integers.push_back(static_cast<int64_t>(integer));
      }
      return read;
    });
    *value = std::move(integers);
    return status;
  }

  static Status skip_strings(detail::SourceReader* reader, uint64_t count) {
    constexpr const char* kWhat = "an array of strings";
    Status status = reader->need_items(count, sizeof(uint64_t), "elements of an array");
    for (uint64_t i = 0; status.ok() && i < count; ++i) {
      if (reader->skip_near_string()) continue;
      uint64_t length = 0;
      status = reader->read_value(&length, kWhat);
      if (status.ok()) status = reader->skip(length, kWhat);
    }
    return status;
  }

  Status read_alignment(const detail::SourceReader& reader) {
    const std::string key = "general.alignment";
    if (!contains(key)) return {};
    const std::optional<uint64_t> alignment = find_count(key);
    constexpr uint64_t kMost = uint64_t{1} << 20;
    if (!alignment || *alignment == 0 || *alignment > kMost || (*alignment & (*alignment - 1))) {
      return reader.fail(key + " got " + (alignment ? std::to_string(*alignment) : "another type") +
                         ", allowed are powers of two up to " + std::to_string(kMost));
    }
    alignment_ = *alignment;
    return {};
  }

  Status read_tensor(detail::SourceReader* reader) {
    std::string name;
    GgufTensor tensor;
    uint32_t n_dimensions = 0;
    Status status = read_name(reader, "a tensor's name", &name);
    if (status.ok()) status = reader->read_value(&n_dimensions, "a tensor's dimensions");
    if (!status.ok()) return status;
    if (n_dimensions > tensor.ne.size()) {
      return reader->fail("the tensor " + detail::printable(name) + " got " +
                          std::to_string(n_dimensions) + " dimensions, allowed are at most 4");
    }
    for (uint32_t i = 0; status.ok() && i < n_dimensions; ++i) {
      status = reader->read_value(&tensor.ne[i], "a tensor's dimensions");
    }
    if (status.ok()) status = check_dimensions(*reader, name, tensor);
    if (status.ok()) status = reader->read_value(&tensor.type, "a tensor's type");
    if (status.ok() && tensor.type < 0) {
      status = reader->fail("the tensor " + detail::printable(name) + " got type " +
                            std::to_string(tensor.type) + ", allowed are 0 and above");
    }
    if (status.ok()) status = reader->read_value(&tensor.offset, "a tensor's offset");
    if (!status.ok()) return status;
    if (!tensors_.emplace(name, tensor).second) {
      return reader->fail("got the tensor " + detail::printable(name) + " twice, allowed is once");
    }
    return {};
  }

  static Status check_dimensions(const detail::SourceReader& reader, const std::string& name,
                                 const GgufTensor& tensor) {
    int64_t elements = 1;
    for (const int64_t n : tensor.ne) {
      if (n < 0 || (n > 1 && elements > INT64_MAX / n)) {
        std::string shape;
        for (const int64_t each : tensor.ne) shape += " " + std::to_string(each);
        return reader.fail("the tensor " + detail::printable(name) + " got the dimensions" + shape +
                           ", allowed are 0 and above with fewer than 2^63 elements in all");
      }
      elements *= n;
    }
    return {};
  }

  // Turns offsets into the data into offsets into the file.
  Status place_tensors(const detail::SourceReader& reader, uint64_t size) {
    const uint64_t start = (reader.position() + alignment_ - 1) / alignment_ * alignment_;
    for (auto& [name, tensor] : tensors_) {
      if (start > size || tensor.offset > size - start || tensor.offset % alignment_ != 0) {
        return reader.fail("the tensor " + detail::printable(name) + " got offset " +
                           std::to_string(tensor.offset) + ", allowed are multiples of " +
                           std::to_string(alignment_) + " up to " +
                           std::to_string(start > size ? 0 : size - start));
      }
      tensor.offset += start;
    }
    return {};
  }

  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  uint64_t stored_ = 0;
  std::map<std::string, GgufValue> values_;
  std::map<std::string, GgufTensor> tensors_;
};

}  // namespace mipruner::llama
