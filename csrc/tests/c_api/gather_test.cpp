// mipruner_gather_rows, mipruner_gather_positions, mipruner_keep_hash.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "call.h"
#include "guarded.h"

namespace mipruner::tests {
namespace {

constexpr int64_t kTooMany = int64_t{1} << 31;

class GatherRows : public testing::Test {
 protected:
  GatherRows() {
    for (size_t i = 0; i < src.size(); ++i) src[i] = static_cast<unsigned char>(i);
  }

  // [n_rows] rows of `row_bytes` bytes, `stride` apart.
  static constexpr int64_t n_rows = 6;
  static constexpr size_t row_bytes = 5, stride = 8;
  std::vector<unsigned char> src = std::vector<unsigned char>((n_rows - 1) * stride + row_bytes);
  std::vector<int32_t> idx = {1, 3, 4};
  Guarded<unsigned char> dst{15};

  int32_t gather() {
    return mipruner_gather_rows(dst.data(), src.data(), n_rows, row_bytes, stride, idx.data(), 3);
  }
  void expect_refused(int32_t status, std::initializer_list<const char*> parts) {
    EXPECT_EQ(status, MIPRUNER_ERROR_INVALID_ARGUMENT);
    expect_parts(mipruner_last_error(nullptr), parts);
    EXPECT_TRUE(dst.untouched());
  }
};

TEST_F(GatherRows, PacksTheRows) {
  EXPECT_EQ(gather(), MIPRUNER_OK);
  EXPECT_EQ(dst.first(15),
            (std::vector<unsigned char>{8, 9, 10, 11, 12, 24, 25, 26, 27, 28, 32, 33, 34, 35, 36}));
  EXPECT_TRUE(dst.untouched(15));
}

TEST_F(GatherRows, InAnyOrderAndMoreThanOnce) {
  idx = {5, 0, 5};
  EXPECT_EQ(gather(), MIPRUNER_OK);
  EXPECT_EQ(dst.first(15),
            (std::vector<unsigned char>{40, 41, 42, 43, 44, 0, 1, 2, 3, 4, 40, 41, 42, 43, 44}));
}

TEST_F(GatherRows, StrideZeroIsTheRowItself) {
  EXPECT_EQ(mipruner_gather_rows(dst.data(), src.data(), 8, 5, 0, idx.data(), 3), MIPRUNER_OK);
  EXPECT_EQ(dst.first(15),
            (std::vector<unsigned char>{5, 6, 7, 8, 9, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24}));
}

TEST_F(GatherRows, Nothing) {
  EXPECT_EQ(mipruner_gather_rows(nullptr, nullptr, 0, 5, 0, nullptr, 0), MIPRUNER_OK);
  EXPECT_EQ(mipruner_gather_rows(nullptr, nullptr, 6, 0, 0, idx.data(), 3), MIPRUNER_OK);
  EXPECT_EQ(mipruner_gather_rows(dst.data(), dst.data(), 6, 5, 0, nullptr, 0), MIPRUNER_OK);
  EXPECT_TRUE(dst.untouched());
}

TEST_F(GatherRows, InPlace) {
  const std::vector<unsigned char> before = src;
  EXPECT_EQ(gather(), MIPRUNER_OK);
  EXPECT_EQ(mipruner_gather_rows(src.data(), src.data(), n_rows, row_bytes, stride, idx.data(), 3),
            MIPRUNER_OK);
  EXPECT_EQ(std::vector<unsigned char>(src.begin(), src.begin() + 15), dst.first(15));
  // Beyond the packed rows nothing changed.
  EXPECT_TRUE(std::equal(src.begin() + 15, src.end(), before.begin() + 15));
}

// All ascending choices among six rows, packed as closely as they may be.
TEST_F(GatherRows, InPlaceWhateverIsChosen) {
  for (int chosen = 1; chosen < 64; ++chosen) {
    std::vector<int32_t> rows, values(12);
    std::iota(values.begin(), values.end(), 0);
    for (int32_t row = 0; row < 6; ++row) {
      if (chosen >> row & 1) rows.push_back(row);
    }
    const auto count = static_cast<int32_t>(rows.size());
    ASSERT_EQ(mipruner_gather_rows(values.data(), values.data(), 6, 8, 0, rows.data(), count),
              MIPRUNER_OK);
    for (size_t k = 0; k < rows.size(); ++k) {
      EXPECT_EQ(values[2 * k], 2 * rows[k]);
      EXPECT_EQ(values[2 * k + 1], 2 * rows[k] + 1);
    }
  }
}

TEST_F(GatherRows, InPlaceOutOfOrder) {
  const std::vector<unsigned char> before = src;
  for (const std::vector<int32_t>& order : {std::vector<int32_t>{1, 4, 3}, {2, 2, 3}}) {
    EXPECT_EQ(
        mipruner_gather_rows(src.data(), src.data(), n_rows, row_bytes, stride, order.data(), 3),
        MIPRUNER_ERROR_INVALID_ARGUMENT);
    expect_parts(mipruner_last_error(nullptr), {"dst: got memory that overlaps src", "ascending"});
    EXPECT_EQ(src, before);
  }
}

TEST_F(GatherRows, AnyOtherOverlap) {
  std::vector<unsigned char> memory(100);
  std::iota(memory.begin(), memory.end(), static_cast<unsigned char>(0));
  const std::vector<unsigned char> before = memory;
  unsigned char* const from = memory.data() + 40;  // 6 rows of 5 bytes, 30 bytes
  for (int shift : {-14, -5, -1, 1, 5, 29}) {
    EXPECT_EQ(mipruner_gather_rows(from + shift, from, 6, 5, 0, idx.data(), 3),
              MIPRUNER_ERROR_INVALID_ARGUMENT)
        << shift;
    EXPECT_EQ(memory, before);
  }
  for (int shift : {-15, 30}) {  // just beside it
    EXPECT_EQ(mipruner_gather_rows(from + shift, from, 6, 5, 0, idx.data(), 3), MIPRUNER_OK);
  }
}

TEST_F(GatherRows, DstNull) {
  expect_refused(
      mipruner_gather_rows(nullptr, src.data(), n_rows, row_bytes, stride, idx.data(), 3),
      {"dst: got NULL"});
}

TEST_F(GatherRows, SrcNull) {
  expect_refused(
      mipruner_gather_rows(dst.data(), nullptr, n_rows, row_bytes, stride, idx.data(), 3),
      {"src: got NULL"});
}

TEST_F(GatherRows, IdxNull) {
  expect_refused(
      mipruner_gather_rows(dst.data(), src.data(), n_rows, row_bytes, stride, nullptr, 3),
      {"idx: got NULL"});
}

TEST_F(GatherRows, IdxUnaligned) {
  const auto address = reinterpret_cast<uintptr_t>(idx.data()) + 2;
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), n_rows, row_bytes, stride,
                                      reinterpret_cast<const int32_t*>(address), 2),
                 {"idx: got an address that is not aligned to 4 bytes"});
}

TEST_F(GatherRows, SizesNegative) {
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), -1, row_bytes, stride, idx.data(), 3),
                 {"n_rows: got -1"});
  expect_refused(
      mipruner_gather_rows(dst.data(), src.data(), n_rows, row_bytes, stride, idx.data(), -3),
      {"n_idx: got -3"});
}

TEST_F(GatherRows, RowsBeyondInt32) {
  expect_refused(
      mipruner_gather_rows(dst.data(), src.data(), kTooMany, row_bytes, stride, idx.data(), 3),
      {"n_rows: got 2147483648"});
}

TEST_F(GatherRows, StrideBelowTheRow) {
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), n_rows, row_bytes, 4, idx.data(), 3),
                 {"src_stride: got 4", "5 to"});
}

TEST_F(GatherRows, SizesThatNoMemoryHas) {
  constexpr size_t kHuge = std::numeric_limits<size_t>::max();
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), n_rows, kHuge, 0, idx.data(), 3),
                 {"row_bytes: got 18446744073709551615"});
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), n_rows, 5, kHuge, idx.data(), 3),
                 {"src_stride: got 18446744073709551615"});
  expect_refused(
      mipruner_gather_rows(dst.data(), src.data(), n_rows, 5, kHuge / 2 / 6 + 1, idx.data(), 3),
      {"src_stride: got 1537228672809129302"});
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), n_rows, kHuge / 8, 0, idx.data(), 3),
                 {"row_bytes: got 2305843009213693951"});
}

TEST_F(GatherRows, IdxOutside) {
  for (int32_t row : {-1, 6, std::numeric_limits<int32_t>::min()}) {
    idx = {0, 1, row};
    const std::string said = "idx: got " + std::to_string(row);
    expect_refused(gather(), {said.c_str(), "0 to 5"});
  }
}

TEST_F(GatherRows, IdxOfNoRows) {
  expect_refused(mipruner_gather_rows(dst.data(), src.data(), 0, row_bytes, stride, idx.data(), 3),
                 {"idx: got 1"});
}

// ---- positions ----

class GatherPositions : public testing::Test {
 protected:
  const std::vector<int32_t> idx = {0, 2, 3};
  Guarded<int32_t> dst{12};

  void expect_refused(int32_t status, std::initializer_list<const char*> parts) {
    EXPECT_EQ(status, MIPRUNER_ERROR_INVALID_ARGUMENT);
    expect_parts(mipruner_last_error(nullptr), parts);
    EXPECT_TRUE(dst.untouched());
  }
  // Section s of `sections` holds 100 s, 100 s + 1, ..; five of each.
  static std::vector<int32_t> sections(int count) {
    std::vector<int32_t> values;
    for (int i = 0; i < 5 * count; ++i) values.push_back(i / 5 * 100 + i % 5);
    return values;
  }
  static std::vector<int32_t> gathered(int count) {
    std::vector<int32_t> values;
    for (int s = 0; s < count; ++s)
      values.insert(values.end(), {s * 100, s * 100 + 2, s * 100 + 3});
    return values;
  }
};

TEST_F(GatherPositions, OfOneThreeAndFourSections) {
  for (int count : {1, 3, 4}) {
    Guarded<int32_t> out(3 * count);
    EXPECT_EQ(
        mipruner_gather_positions(out.data(), sections(count).data(), count, 5, idx.data(), 3),
        MIPRUNER_OK);
    EXPECT_EQ(out.first(3 * count), gathered(count));
    EXPECT_TRUE(out.untouched(3 * count));
  }
}

TEST_F(GatherPositions, InPlace) {
  for (int count : {1, 3, 4}) {
    std::vector<int32_t> values = sections(count);
    EXPECT_EQ(mipruner_gather_positions(values.data(), values.data(), count, 5, idx.data(), 3),
              MIPRUNER_OK);
    values.resize(static_cast<size_t>(3 * count));
    EXPECT_EQ(values, gathered(count));
  }
}

TEST_F(GatherPositions, OverlappingOtherwise) {
  std::vector<int32_t> values = sections(4);
  const std::vector<int32_t> before = values;
  const std::vector<int32_t> descending = {3, 2, 0};
  EXPECT_EQ(mipruner_gather_positions(values.data(), values.data(), 4, 5, descending.data(), 3),
            MIPRUNER_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(mipruner_gather_positions(values.data() + 1, values.data(), 3, 5, idx.data(), 3),
            MIPRUNER_ERROR_INVALID_ARGUMENT);
  expect_parts(mipruner_last_error(nullptr), {"dst: got memory that overlaps src"});
  EXPECT_EQ(values, before);
}

TEST_F(GatherPositions, Nothing) {
  EXPECT_EQ(mipruner_gather_positions(nullptr, nullptr, 0, 5, idx.data(), 3), MIPRUNER_OK);
  EXPECT_EQ(mipruner_gather_positions(nullptr, nullptr, 4, 0, nullptr, 0), MIPRUNER_OK);
}

TEST_F(GatherPositions, NullInTurn) {
  const std::vector<int32_t> src = sections(4);
  expect_refused(mipruner_gather_positions(nullptr, src.data(), 4, 5, idx.data(), 3),
                 {"dst: got NULL"});
  expect_refused(mipruner_gather_positions(dst.data(), nullptr, 4, 5, idx.data(), 3),
                 {"src: got NULL"});
  expect_refused(mipruner_gather_positions(dst.data(), src.data(), 4, 5, nullptr, 3),
                 {"idx: got NULL"});
}

TEST_F(GatherPositions, UnalignedInTurn) {
  std::vector<int32_t> src = sections(4);
  const auto shifted = [](const int32_t* pointer) {
    return reinterpret_cast<int32_t*>(reinterpret_cast<uintptr_t>(pointer) + 1);
  };
  expect_refused(mipruner_gather_positions(shifted(dst.data()), src.data(), 3, 5, idx.data(), 3),
                 {"dst: got an address that is not aligned"});
  expect_refused(mipruner_gather_positions(dst.data(), shifted(src.data()), 3, 5, idx.data(), 3),
                 {"src: got an address that is not aligned"});
  expect_refused(mipruner_gather_positions(dst.data(), src.data(), 3, 5, shifted(idx.data()), 2),
                 {"idx: got an address that is not aligned"});
}

TEST_F(GatherPositions, SizesOutside) {
  const std::vector<int32_t> src = sections(4);
  expect_refused(mipruner_gather_positions(dst.data(), src.data(), -1, 5, idx.data(), 3),
                 {"n_sections: got -1"});
  expect_refused(mipruner_gather_positions(dst.data(), src.data(), 4, -5, idx.data(), 3),
                 {"n: got -5"});
  expect_refused(mipruner_gather_positions(dst.data(), src.data(), 4, kTooMany, idx.data(), 3),
                 {"n: got 2147483648"});
  expect_refused(mipruner_gather_positions(dst.data(), src.data(), 4, 5, idx.data(), -1),
                 {"n_idx: got -1"});
}

TEST_F(GatherPositions, SectionsThatNoMemoryHas) {
  const std::vector<int32_t> src = sections(4);
  expect_refused(
      mipruner_gather_positions(dst.data(), src.data(), kTooMany - 1, kTooMany - 1, idx.data(), 3),
      {"n_sections: got 2147483647"});
}

TEST_F(GatherPositions, IdxOutside) {
  const std::vector<int32_t> src = sections(4);
  for (int32_t row : {-1, 5}) {
    const int32_t rows[] = {0, row};
    expect_refused(mipruner_gather_positions(dst.data(), src.data(), 4, 5, rows, 2),
                   {"idx: got ", "0 to 4"});
  }
}

// ---- the hash ----

// FNV-1a from its definition, over bytes written out one by one.
uint64_t fnv_1a(const std::vector<int64_t>& numbers) {
  std::vector<unsigned char> bytes;
  for (int64_t number : numbers) {
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<unsigned char>(number >> 8 * i));
  }
  uint64_t hash = 14695981039346656037u;
  for (unsigned char byte : bytes) {
    hash ^= byte;
    hash *= 1099511628211u;
  }
  return hash;
}

TEST(KeepHash, IsFnv1aOfTheCountAndTheRows) {
  const int32_t idx[] = {0, 7, 300, 575};
  EXPECT_EQ(mipruner_keep_hash(576, idx, 4), fnv_1a({576, 0, 7, 300, 575}));
  EXPECT_EQ(mipruner_keep_hash(0, nullptr, 0), fnv_1a({0}));
}

// Caches on disk hold it: it must never change. The numbers come from another implementation.
TEST(KeepHash, IsStable) {
  const int32_t idx[] = {0, 7, 300, 575};
  EXPECT_EQ(mipruner_keep_hash(576, idx, 4), 0xd25aa664dd419e16u);
  EXPECT_EQ(mipruner_keep_hash(0, nullptr, 0), 0xa8c7f832281a39c5u);
}

TEST(KeepHash, TellsApart) {
  const int32_t a[] = {0, 1}, b[] = {0, 2};
  EXPECT_NE(mipruner_keep_hash(5, a, 2), mipruner_keep_hash(5, b, 2));
  EXPECT_NE(mipruner_keep_hash(5, a, 2), mipruner_keep_hash(6, a, 2));
  EXPECT_NE(mipruner_keep_hash(5, a, 2), mipruner_keep_hash(5, a, 1));
}

TEST(KeepHash, OfNothingReadable) {
  const int32_t idx = 0;
  EXPECT_EQ(mipruner_keep_hash(5, nullptr, 1), 0u);
  EXPECT_EQ(mipruner_keep_hash(5, &idx, -1), 0u);
}

TEST(KeepHash, OfASelectionIsThatOfItsRowsAscending) {
  mipruner_select_params params = mipruner_select_default_params();
  params.order = MIPRUNER_ORDER_SCORE;
  const Outcome outcome = select(Context(), related(60, 5, 16), params);
  std::vector<int32_t> ascending = outcome.kept;
  EXPECT_FALSE(std::is_sorted(ascending.begin(), ascending.end()));
  std::sort(ascending.begin(), ascending.end());
  EXPECT_EQ(outcome.result.keep_hash, mipruner_keep_hash(60, ascending.data(), 15));
}

}  // namespace
}  // namespace mipruner::tests
