// Dot products of 64 rows with 64 other rows, by one block: the inner loop of relevance and of
// redundancy.
//
// Method:
//   1. Both tiles travel through shared memory in stages of 128 bytes a row, kStages of them in
//      flight (cp.async where rows are 16-byte aligned, plain copies otherwise).
//   2. Half precision multiplies with mma.sync m16n8k16 and accumulates in float32; float32 uses
//      plain multiply-adds, because TF32 does not hold 1e-5. Both leave the same elements in the
//      same threads (see ProductTile).
//   3. Sums of squares of the rows are taken from the stages that pass, so no row is read twice.
//
// Which bits come out: every dot product is ((c0 + c1) + c2) + .., c being the sums over
// kDepthChunk elements each. A block may compute all of them or any one, and whoever adds partial
// results adds them in that order: how the work is cut into blocks therefore changes no bit. Nor
// does the place of a row within its tile.
#pragma once

#include <cstdint>

#include "cuda/common/copy.h"
#include "cuda/common/device.h"
#include "cuda/common/elements.h"
#include "cuda/common/items.cuh"
#include "cuda/common/matrix.h"
#include "cuda/common/shared.h"

namespace mipruner::cuda {

constexpr int kTileRows = 64;  // rows of either operand
constexpr int kProductThreads = 128;
constexpr int kProductBlocks =
    3;  // on one SM, as far as its shared memory goes: leaves 168 registers
constexpr int kDepthChunk = 512;  // elements whose products are summed before they join the total
constexpr int kStages = 3;
constexpr int kStageBytes = 128;  // of one row in one stage
constexpr int kVectorBytes = 16;  // of one asynchronous copy
constexpr int kVectorsPerRow = kStageBytes / kVectorBytes;

template <class Element>
constexpr int kStageDepth = kStageBytes / static_cast<int>(sizeof(Element));  // elements

template <class Element>
constexpr int kVectorDepth = kVectorBytes / static_cast<int>(sizeof(Element));

constexpr int64_t kTilesThatFill = 256;  // that keep a large device busy; fewer are cut into parts

// Can all rows of an operand travel as 16-byte vectors?
inline bool rows_are_aligned(const Operand& operand, int32_t columns, DataType dtype) {
  const auto size = static_cast<int64_t>(element_size(dtype));
  const int64_t steps = operand.row_stride | operand.batch_stride | columns;
  return steps * size % kVectorBytes == 0 &&
         reinterpret_cast<uintptr_t>(operand.data) % kVectorBytes == 0;
}

inline int64_t depth_chunks(int64_t columns) { return (columns + kDepthChunk - 1) / kDepthChunk; }

template <class Element>
struct ProductShared {
  static constexpr int kTileElements = kTileRows * kStageDepth<Element>;
  alignas(128) SharedArray<Element, kStages * kTileElements> a;
  alignas(128) SharedArray<Element, kStages * kTileElements> b;
};

// What one thread holds of the 64 x 64 results: rows a_row(0), a_row(1) and columns b_row(j, c).
struct ProductTile {
  float dots[8][4] = {};  // [j][2 h + c]
  // Threads 0 to 63: the sum of squares of row threadIdx.x of the first operand; threads 64 to 127:
  // of row threadIdx.x - 64 of the second.
  float squares = 0.0f;

  MIPRUNER_DEVICE static int a_row(int h) {
    return static_cast<int>(threadIdx.x / 32) * 16 + static_cast<int>(threadIdx.x % 32) / 4 + 8 * h;
  }
  MIPRUNER_DEVICE static int b_row(int j, int c) {
    return j * 8 + static_cast<int>(threadIdx.x % 4) * 2 + c;
  }
};

// Where the 16 bytes number `vector` of a row lie in a tile: rows that are read together fall into
// different banks.
template <class Element>
MIPRUNER_DEVICE int tile_offset(int row, int vector) {
  return row * kStageDepth<Element> + ((vector ^ (row & 7)) * kVectorDepth<Element>);
}

// Starts the copy of elements [depth, depth + kStageDepth) of 64 rows. rows(r) points to row r, or
// is null: such rows, and elements from `columns` on, are zeros.
template <class Element, class Rows, class Tile>
MIPRUNER_DEVICE void load_stage(Tile& tile, int first, const Rows& rows, int depth, int columns,
                                bool aligned) {
  constexpr int kPerThread = kTileRows * kVectorsPerRow / kProductThreads;
#pragma unroll
  for (int step = 0; step < kPerThread; ++step) {
    const int number = step * kProductThreads + static_cast<int>(threadIdx.x);
    const int row = number / kVectorsPerRow;
    const int vector = number % kVectorsPerRow;
    const int column = depth + vector * kVectorDepth<Element>;
    const int target = first + tile_offset<Element>(row, vector);
    const Element* source = rows(row);
    if (aligned) {
      const bool valid = source != nullptr && column < columns;
      // A row that is not there still names an address that could be read.
      cp_async16(&tile[target], valid ? source + column : rows.base(), valid);
      continue;
    }
    for (int e = 0; e < kVectorDepth<Element>; ++e) {
      const bool valid = source != nullptr && column + e < columns;
      tile[target + e] = valid ? source[column + e] : Element{};
    }
  }
}

// Adds the products of one stage.
template <class Element>
MIPRUNER_DEVICE void multiply_stage(ProductShared<Element>& shared, int first,
                                    float (&sums)[8][4]) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp_row = static_cast<int>(threadIdx.x / 32) * 16;
#pragma unroll
  for (int step = 0; step < kVectorsPerRow / 2; ++step) {  // 16 elements of depth each
    uint32_t a[4];
    ldmatrix_x4(
        a, &shared.a[first + tile_offset<Element>(warp_row + lane % 16, step * 2 + lane / 16)]);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      // Two groups of 8 columns at once: lanes 0-15 name the rows of the first, 16-31 those of the
      // second; within each, the lower and the upper 8 elements of depth.
      uint32_t b[4];
      const int row = pair * 16 + lane % 8 + lane / 16 * 8;
      ldmatrix_x4(b, &shared.b[first + tile_offset<Element>(row, step * 2 + lane / 8 % 2)]);
      mma_16816<Element>(sums[2 * pair], a, b[0], b[1]);
      mma_16816<Element>(sums[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

template <>
MIPRUNER_DEVICE void multiply_stage<float>(ProductShared<float>& shared, int first,
                                           float (&sums)[8][4]) {
  for (int k = 0; k < kStageDepth<float>; ++k) {
    const int vector = k / kVectorDepth<float>;
    const int element = k % kVectorDepth<float>;
    float a[2];
#pragma unroll
    for (int h = 0; h < 2; ++h)
      a[h] = shared.a[first + tile_offset<float>(ProductTile::a_row(h), vector) + element];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float b =
            shared.b[first + tile_offset<float>(ProductTile::b_row(j, c), vector) + element];
#pragma unroll
        for (int h = 0; h < 2; ++h) sums[j][2 * h + c] = fmaf(a[h], b, sums[j][2 * h + c]);
      }
    }
  }
}

// Adds the squares of this thread's row in one stage, in four interleaved sums: shorter chains,
// smaller rounding errors.
template <class Element>
MIPRUNER_DEVICE void square_stage(ProductShared<Element>& shared, int first, float (&sums)[4]) {
  const int row = static_cast<int>(threadIdx.x) % kTileRows;
  auto& tile = threadIdx.x < kTileRows ? shared.a : shared.b;
  for (int vector = 0; vector < kVectorsPerRow; ++vector) {
#pragma unroll
    for (int e = 0; e < kVectorDepth<Element>; ++e) {
      const float x = to_float(tile[first + tile_offset<Element>(row, vector) + e]);
      sums[e % 4] = fmaf(x, x, sums[e % 4]);
    }
  }
}

// The dot products over depth chunks [first_chunk, last_chunk). All threads of the block call it
// together; on return shared memory may be used again at once. a and b give rows by number, as
// load_stage asks.
template <class Element, class RowsA, class RowsB>
MIPRUNER_DEVICE ProductTile multiply_tile(ProductShared<Element>& shared, const RowsA& a,
                                          const RowsB& b, int columns, int first_chunk,
                                          int last_chunk, bool aligned) {
  constexpr int kDepth = kStageDepth<Element>;
  constexpr int kStagesPerChunk = kDepthChunk / kDepth;
  constexpr int kTile = ProductShared<Element>::kTileElements;
  const int first_stage = first_chunk * kStagesPerChunk;
  const int last_column = min(columns, last_chunk * kDepthChunk);
  const int last_stage = (last_column + kDepth - 1) / kDepth;
  const auto load = [&](int stage) {
    if (stage < last_stage) {
      const int slot = stage % kStages * kTile;
      load_stage<Element>(shared.a, slot, a, stage * kDepth, columns, aligned);
      load_stage<Element>(shared.b, slot, b, stage * kDepth, columns, aligned);
    }
    // Committed even when empty, so that the number of groups in flight stays constant.
    cp_async_commit();
  };
  for (int stage = 0; stage < kStages - 1; ++stage) load(first_stage + stage);

  ProductTile total;
  float sums[8][4] = {};
  float squares[4] = {};
  for (int stage = first_stage; stage < last_stage; ++stage) {
    cp_async_wait<kStages - 2>();
    // Everybody's copies have landed, and everybody is done with the stage that is now replaced.
    __syncthreads();
    load(stage + kStages - 1);
    const int slot = stage % kStages * kTile;
    multiply_stage<Element>(shared, slot, sums);
    square_stage<Element>(shared, slot, squares);
    if ((stage + 1) % kStagesPerChunk != 0 && stage + 1 != last_stage) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        total.dots[j][e] += sums[j][e];
        sums[j][e] = 0.0f;
      }
    }
    total.squares += (squares[0] + squares[1]) + (squares[2] + squares[3]);
    for (float& sum : squares) sum = 0.0f;
  }
  cp_async_wait<0>();
  __syncthreads();  // the next user of shared memory must not overtake a slow reader
  return total;
}

}  // namespace mipruner::cuda
