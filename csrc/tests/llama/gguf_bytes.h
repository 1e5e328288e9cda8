// Writes GGUF files, right ones and wrong ones, into memory: for the door's tests, and for the
// seeds of its fuzzing.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

namespace test {

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class GgufBytes {
 public:
  // What the file says of itself; where a number is not given it is the true one.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors;
  std::optional<uint64_t> n_pairs;
  uint64_t alignment = 32;  // of the data; the pair that says so is the caller's to add

  GgufBytes& u8(const std::string& key, uint8_t value) { return scalar(key, 0, value); }
  GgufBytes& u16(const std::string& key, uint16_t value) { return scalar(key, 2, value); }
  GgufBytes& u32(const std::string& key, uint32_t value) { return scalar(key, 4, value); }
  GgufBytes& i32(const std::string& key, int32_t value) { return scalar(key, 5, value); }
  GgufBytes& f32(const std::string& key, float value) { return scalar(key, 6, value); }
  GgufBytes& u64(const std::string& key, uint64_t value) { return scalar(key, 10, value); }
  GgufBytes& f64(const std::string& key, double value) { return scalar(key, 12, value); }

  GgufBytes& text(const std::string& key, const std::string& value) {
    start(key, 8);
    put_string(value);
    return *this;
  }

  GgufBytes& i32s(const std::string& key, const std::vector<int32_t>& values) {
    start_array(key, 5, values.size());
    pairs_ += bytes_of(values);
    return *this;
  }

  GgufBytes& texts(const std::string& key, const std::vector<std::string>& values) {
    start_array(key, 8, values.size());
    for (const std::string& value : values) put_string(value);
    return *this;
  }

  // A pair's beginning; raw() writes what follows.
  GgufBytes& start(const std::string& key, uint32_t type) {
    put_string(key);
    put(&pairs_, type);
    ++true_pairs_;
    return *this;
  }
  GgufBytes& start_array(const std::string& key, uint32_t type, uint64_t count) {
    start(key, 9);
    put(&pairs_, type);
    put(&pairs_, count);
    return *this;
  }
  GgufBytes& raw(const std::string& bytes) {
    pairs_ += bytes;
    return *this;
  }

  // `offset`: where the file says the data is; the data itself follows that of the tensor before.
  GgufBytes& tensor(const std::string& name, const std::vector<int64_t>& ne, int32_t type,
                    const std::string& data, std::optional<uint64_t> offset = std::nullopt) {
    put(&tensors_, static_cast<uint64_t>(name.size()));
    tensors_ += name;
    put(&tensors_, static_cast<uint32_t>(ne.size()));
    for (const int64_t n : ne) put(&tensors_, n);
    put(&tensors_, type);
    data_.resize(aligned(data_.size()), '\0');
    put(&tensors_, offset.value_or(data_.size()));
    data_ += data;
    ++true_tensors_;
    return *this;
  }

  GgufBytes& f32_tensor(const std::string& name, const std::vector<int64_t>& ne,
                        const std::vector<float>& values) {
    return tensor(name, ne, 0, bytes_of(values));
  }

  std::string build() const {
    std::string file = magic;
    put(&file, version);
    put(&file, n_tensors.value_or(true_tensors_));
    put(&file, n_pairs.value_or(true_pairs_));
    file += pairs_ + tensors_;
    if (true_tensors_ > 0) file.resize(aligned(file.size()), '\0');
    return file + data_;
  }

 private:
  uint64_t aligned(uint64_t size) const { return (size + alignment - 1) / alignment * alignment; }

  template <class T>
  static void put(std::string* to, T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    to->append(bytes, sizeof value);
  }

  template <class T>
  GgufBytes& scalar(const std::string& key, uint32_t type, T value) {
    start(key, type);
    put(&pairs_, value);
    return *this;
  }

  void put_string(const std::string& value) {
    put(&pairs_, static_cast<uint64_t>(value.size()));
    pairs_ += value;
  }

  std::string pairs_;
  std::string tensors_;
  std::string data_;
  uint64_t true_pairs_ = 0;
  uint64_t true_tensors_ = 0;
};

// A model file that names its architecture and has nothing else yet.
inline GgufBytes model(const std::string& architecture) {
  GgufBytes file;
  file.text("general.architecture", architecture);
  return file;
}

}  // namespace test
