// Writes the seeds of gguf_header_fuzz into the folder that it is given: right files of each kind,
// from which the fuzzer finds the wrong ones.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "gguf_bytes.h"

namespace {

using test::GgufBytes;
using test::model;

constexpr const char* kTable = "token_embd.weight";

GgufBytes mmproj(const std::string& type, const std::string& learned) {
  GgufBytes file;
  file.text("clip.projector_type", type);
  if (!learned.empty()) file.f32_tensor(learned, {4}, {0.5F, 0.5F, 0.5F, 0.5F});
  return file;
}

std::map<std::string, GgufBytes> seeds() {
  std::map<std::string, GgufBytes> all;
  all["empty"] = GgufBytes();
  all["f32"] = model("llama").f32_tensor(kTable, {2, 3}, {0, 1, 2, 3, 4, 5});
  all["f16"] = model("gemma3").tensor(kTable, {4, 2}, 1, std::string(16, '\x3c'));
  all["q8_0"] = model("qwen2vl").tensor(kTable, {32, 2}, 8, std::string(68, '\x21'));
  all["version_2"] = all["f32"];
  all["version_2"].version = 2;
  all["shard"] = model("llama").u16("split.no", 1).u16("split.count", 2);
  all["granite"] = model("granite").f32("granite.embedding_scale", 12);
  all["granite"].i32s("granite.deepstack_mapping", {-1, 0}).f32_tensor(kTable, {1, 1}, {1});
  all["values"] = model("llama").u8("u8", 1).u64("u64", 2).f64("f64", 3).i32("i32", -4);
  all["values"].texts("texts", {"a", "bc", ""}).start_array("f32s", 6, 2).raw("12345678");
  all["alignment"].alignment = 64;
  all["alignment"].u32("general.alignment", 64).f32_tensor(kTable, {1, 2}, {1, 2});
  all["two_tensors"] = model("llama").f32_tensor("a", {3}, {1, 2, 3}).f32_tensor(kTable, {1}, {4});
  all["mlp"] = mmproj("mlp", "");
  all["pixtral"] = mmproj("pixtral", "v.token_embd.img_break");
  all["hunyuanvl"] = mmproj("hunyuanvl", "v.image_newline");
  all["cogvlm"] = mmproj("cogvlm", "v.boi");
  all["unknown"] = mmproj("brand_new", "adapter.eoi");
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  for (const auto& [name, file] : seeds()) {
    std::ofstream out(std::filesystem::path(argv[1]) / (name + ".gguf"), std::ios::binary);
    out << file.build();
    if (!out.flush()) {
      std::fprintf(stderr, "%s: cannot write %s.gguf\n", argv[1], name.c_str());
      return 1;
    }
  }
  return 0;
}
