// Which rows of an image are structure.
#include "mipruner_llama/row_layout.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "support.h"

namespace mipruner::llama {
namespace {

using test::expect_error;
using test::expect_ok;
using test::GgufBytes;
using Rows = std::vector<int32_t>;

constexpr int64_t kColumns = 4;
using Row = std::vector<float>;
const Row kBreak = {0.5F, -1, 0, 3};
const Row kEnd = {2, 2, -2, 0.125F};

GgufBytes mmproj(const std::string& type) {
  GgufBytes file;
  file.text("general.architecture", "clip").text("clip.projector_type", type);
  return file;
}

RowLayout open(const GgufBytes& file) {
  RowLayout layout;
  expect_ok(layout.open(test::source_of(file.build())));
  return layout;
}

// n rows of an image, none of them like a learned one.
Row patches(int64_t n, int64_t stride = kColumns) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Row rows(static_cast<size_t>(n * stride));
  for (float& value : rows) value = normal(random);
  return rows;
}

void put(Row* rows, int64_t at, const Row& row, int64_t stride = kColumns) {
  std::copy(row.begin(), row.end(), rows->begin() + at * stride);
}

ImageStructure find(const RowLayout& layout, const Row& rows, int64_t stride = kColumns) {
  EncodedImage image;
  image.rows = rows.data();
  image.n_rows = static_cast<int64_t>(rows.size()) / stride;
  image.stride = stride;
  image.nx = image.n_rows;
  image.ny = 1;
  ImageStructure structure;
  structure.rows = {99};  // of an image before
  expect_ok(layout.find(image, &structure));
  return structure;
}

TEST(RowLayout, PlainProjectorsHaveNone) {
  for (const char* type :
       {"mlp", "qwen2vl_merger", "gemma3", "idefics3", "internvl", "resampler"}) {
    const RowLayout layout = open(mmproj(type));
    EXPECT_EQ(layout.projector_type(), type);
    EXPECT_FALSE(layout.keeps_everything());
    const ImageStructure structure = find(layout, patches(6));
    EXPECT_EQ(structure.rows, Rows{}) << type;
    EXPECT_FALSE(structure.keep_all);
  }
}

// LLaVA 1.6 files bring a newline that llama.cpp's graph does not put in.
TEST(RowLayout, ALearnedRowThatIsNotInTheImageIsNoReasonToKeepAll) {
  GgufBytes file = mmproj("mlp");
  file.f32_tensor("v.image_newline", {kColumns}, kBreak);
  const ImageStructure structure = find(open(file), patches(6));
  EXPECT_EQ(structure.rows, Rows{});
  EXPECT_FALSE(structure.keep_all);
}

TEST(RowLayout, PixtralBreaksAreFoundByValue) {
  GgufBytes file = mmproj("pixtral");
  file.f32_tensor("v.token_embd.img_break", {kColumns}, kBreak);
  const RowLayout layout = open(file);
  Row rows = patches(11);  // 3 x 3 patches and two breaks
  put(&rows, 3, kBreak);
  put(&rows, 7, kBreak);
  const ImageStructure structure = find(layout, rows);
  EXPECT_EQ(structure.rows, (Rows{3, 7}));
  EXPECT_FALSE(structure.keep_all);
  EXPECT_EQ(structure.reason, "");
}

TEST(RowLayout, BeginAndEndAreFoundByValue) {
  for (const auto& [type, prefix] : {std::pair{"cogvlm", "v."}, std::pair{"adapter", "adapter."}}) {
    GgufBytes file = mmproj(type);
    const std::string name = prefix;
    file.f32_tensor(name + "boi", {kColumns, 1, 1}, kBreak);  // 1 x 1 x n in these files
    file.f32_tensor(name + "eoi", {kColumns, 1, 1}, kEnd);
    Row rows = patches(6);
    put(&rows, 0, kBreak);
    put(&rows, 5, kEnd);
    EXPECT_EQ(find(open(file), rows).rows, (Rows{0, 5})) << type;
  }
}

TEST(RowLayout, NewlinesAndSeparatorOfDeepSeekOcr) {
  GgufBytes file = mmproj("deepseekocr");
  file.f32_tensor("v.image_newline", {kColumns}, kBreak);
  file.f32_tensor("v.view_seperator", {kColumns}, kEnd);
  Row rows = patches(7);  // 2 x 2, newlines, separator
  put(&rows, 2, kBreak);
  put(&rows, 5, kBreak);
  put(&rows, 6, kEnd);
  EXPECT_EQ(find(open(file), rows).rows, (Rows{2, 5, 6}));
}

// A row break that must be there but is not found: nothing may be dropped blindly.
TEST(RowLayout, EverythingIsKeptWhereStructureIsNotFound) {
  GgufBytes file = mmproj("pixtral");
  const ImageStructure without = find(open(file), patches(11));
  EXPECT_TRUE(without.keep_all);
  EXPECT_EQ(without.reason, "pixtral: the row breaks of the image were not found");
  file.f32_tensor("v.token_embd.img_break", {kColumns}, kBreak);
  EXPECT_TRUE(find(open(file), patches(11)).keep_all);
  // Tiles of these have none, so that none is nothing to worry about.
  GgufBytes ocr2 = mmproj("deepseekocr2");
  ocr2.f32_tensor("v.view_seperator", {kColumns}, kEnd);
  EXPECT_FALSE(find(open(ocr2), patches(11)).keep_all);
}

TEST(RowLayout, DeepStackPlanesRepeatTheLearnedRow) {
  GgufBytes file = mmproj("granite4_vision");
  file.f32_tensor("v.image_newline", {kColumns}, kBreak);
  const RowLayout layout = open(file);
  Row rows = patches(5, 3 * kColumns);
  for (int64_t plane = 0; plane < 3; ++plane) put(&rows, 3 * 2 + plane, kBreak);
  EXPECT_EQ(find(layout, rows, 3 * kColumns).rows, Rows{2});
  expect_ok(layout.check_width(3 * kColumns));
}

TEST(RowLayout, AMissByOneColumnIsNoMatch) {
  GgufBytes file = mmproj("deepseekocr2");
  file.f32_tensor("v.view_seperator", {kColumns}, kEnd);
  const RowLayout layout = open(file);
  for (size_t column = 0; column < 4; ++column) {
    Row close = kEnd;
    close[column] += close[column] * 1e-4F;  // as float16 rounds
    Row rows = patches(3);
    put(&rows, 1, close);
    EXPECT_EQ(find(layout, rows).rows, Rows{1});
    for (const float wrong : {kEnd[column] + 0.01F, NAN, INFINITY}) {
      close = kEnd;
      close[column] = wrong;
      put(&rows, 1, close);
      EXPECT_EQ(find(layout, rows).rows, Rows{}) << column << " " << wrong;
    }
  }
}

TEST(RowLayout, LearnedRowsOfAnotherModelAreRefused) {
  GgufBytes file = mmproj("pixtral");
  file.f32_tensor("v.token_embd.img_break", {kColumns}, kBreak);
  const RowLayout layout = open(file);
  expect_ok(layout.check_width(kColumns));
  expect_error(layout.check_width(6),
               {"layout: got learned rows of 4 columns", "whose rows have 6"});
  // Rows that are too narrow to hold it are not read on into the next.
  Row narrow = patches(5, 3);
  put(&narrow, 1, kBreak, 3);
  EXPECT_TRUE(find(layout, narrow, 3).keep_all);
}

Row hunyuan_image() { return patches((3 + 1) * 2 + 2); }

TEST(RowLayout, HunyuanByPlace) {
  GgufBytes file = mmproj("hunyuanvl");
  file.f32_tensor("v.image_newline", {9}, Row(9, 1));  // before the projector: another width
  const RowLayout layout = open(file);
  expect_ok(layout.check_width(kColumns));
  const Row rows = hunyuan_image();
  EncodedImage image = {rows.data(), 10, kColumns, true, 3, 2};
  ImageStructure structure;
  expect_ok(layout.find(image, &structure));
  EXPECT_EQ(structure.rows, (Rows{0, 4, 8, 9}));
  EXPECT_FALSE(structure.keep_all);
  for (const auto& [nx, ny] : {std::pair{2, 3}, std::pair{10, 1}, std::pair{0, 8}}) {
    image.nx = nx;
    image.ny = ny;
    expect_ok(layout.find(image, &structure));
    EXPECT_EQ(structure.keep_all, nx != 0) << nx;
    EXPECT_EQ(structure.reason.empty(), nx == 0);
  }
  image = {rows.data(), 10, kColumns, false, 3, 2};
  expect_ok(layout.find(image, &structure));
  EXPECT_TRUE(structure.keep_all);
}

TEST(RowLayout, BlocksAreKeptWhole) {
  const RowLayout layout = open(mmproj("deepseek4v"));
  EXPECT_TRUE(layout.keeps_everything());
  const ImageStructure structure = find(layout, patches(8));
  EXPECT_TRUE(structure.keep_all);
  EXPECT_EQ(structure.rows, Rows{});
  EXPECT_EQ(structure.reason, "deepseek4v: the text model reads the rows in blocks");
}

TEST(RowLayout, UnknownProjectors) {
  const RowLayout plain = open(mmproj("brand_new"));
  EXPECT_FALSE(find(plain, patches(6)).keep_all);
  const Row rows = patches(6);
  ImageStructure structure;
  expect_ok(plain.find({rows.data(), 6, kColumns, true, 3, 2}, &structure));
  EXPECT_FALSE(structure.keep_all);
  expect_ok(plain.find({rows.data(), 6, kColumns, true, 2, 2}, &structure));
  EXPECT_TRUE(structure.keep_all);
  EXPECT_EQ(structure.reason, "brand_new: got 6 rows for a grid of 2 x 2");

  GgufBytes file = mmproj("brand_new");
  file.f32_tensor("v.image_newline", {kColumns}, kBreak);
  const RowLayout with_newline = open(file);
  Row broken = patches(6);
  put(&broken, 2, kBreak);
  EXPECT_EQ(find(with_newline, broken).rows, Rows{2});
  EXPECT_TRUE(find(with_newline, patches(6)).keep_all);
}

TEST(RowLayout, FilesOfMixedModalities) {
  GgufBytes file;
  file.text("clip.vision.projector_type", "pixtral").text("clip.audio.projector_type", "voxtral");
  EXPECT_EQ(open(file).projector_type(), "pixtral");
  GgufBytes empty;
  empty.text("clip.projector_type", "").text("clip.vision.projector_type", "gemma3");
  EXPECT_EQ(open(empty).projector_type(), "gemma3");
}

TEST(RowLayout, FilesThatAreNoMmproj) {
  RowLayout layout = open(mmproj("gemma3"));
  GgufBytes model;
  model.text("general.architecture", "llama");
  expect_error(layout.open(test::source_of(model.build())),
               {"model.gguf: the key clip.projector_type is not there", "a mmproj file"});
  GgufBytes broken = mmproj("pixtral");
  broken.tensor("v.token_embd.img_break", {kColumns}, 24, "1234");
  expect_error(layout.open(test::source_of(broken.build())), {"img_break\" got type 24"});
  expect_error(layout.open(test::source_of("GGUF")), {"model.gguf: "});
  expect_error(layout.open(std::shared_ptr<ByteSource>()), {"source: got NULL"});
  expect_error(layout.open("/nowhere/mmproj.gguf"), {"/nowhere/mmproj.gguf: got "});
  EXPECT_EQ(layout.projector_type(), "gemma3");  // as before
  ImageStructure structure;
  expect_error(layout.find({nullptr, 3, kColumns, false, 3, 1}, &structure),
               {"image: got no rows"});
}

TEST(RowLayout, IsReadFromAFile) {
  const test::Folder folder;
  GgufBytes file = mmproj("pixtral");
  file.f32_tensor("v.token_embd.img_break", {kColumns}, kBreak);
  RowLayout layout;
  expect_ok(layout.open(folder.write("mmproj.gguf", file.build())));
  Row rows = patches(3);
  put(&rows, 1, kBreak);
  EXPECT_EQ(find(layout, rows).rows, Rows{1});
}

}  // namespace
}  // namespace mipruner::llama
