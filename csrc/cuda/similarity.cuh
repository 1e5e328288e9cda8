// Similarities q_ik / tau of the rows of one item, tile by tile, and sums over them in a fixed
// order.
#pragma once

#include <cmath>

#include "cuda/common/math.h"
#include "cuda/greedy.cuh"
#include "cuda/product.cuh"
#include "cuda/rows.cuh"

namespace mipruner::cuda {

constexpr int kChunkTiles = 8;  // tiles whose sums are taken together; how, decides the bits
constexpr int kChunkPositions = kChunkTiles * kTileRows;
constexpr float kNotSimilar = -3.402823466e38f;  // the row itself, and places without a row

// The log of a sum of exponentials, as largest + log(sum).
struct LogSum {
  float largest = -INFINITY;
  float sum = 0.0f;
};

MIPRUNER_DEVICE LogSum merge(const LogSum& a, const LogSum& b) {
  const float largest = fmaxf(a.largest, b.largest);
  if (largest == -INFINITY) return a;  // nothing in either
  return {largest, fmaf(a.sum, exp_of(a.largest - largest), b.sum * exp_of(b.largest - largest))};
}

// r = max(0, P log(N P)) of a similarity, given the log-normaliser of its row.
MIPRUNER_DEVICE float redundancy_of(float similarity, float normalizer, float log_count) {
  const float log_p = similarity - normalizer;
  return fmaxf(exp_of(log_p) * (log_p + log_count), 0.0f);
}

// One item, as the kernels of greedy selection see it.
template <class Element>
struct SimilarRows {
  const Element* data;  // local row 0
  int64_t stride;
  int32_t columns;
  int32_t count;              // positions
  const int32_t* list;        // nullptr: position and local row are the same
  const float* inverse_norm;  // by local row
  const float* scale;
  bool any_huge;
  bool aligned;
  float inverse_temperature;

  MIPRUNER_DEVICE int64_t row_at(int position) const { return list ? list[position] : position; }
  MIPRUNER_DEVICE const Element* element_at(int position) const {
    return data + row_at(position) * stride;
  }
};

// Positions [first, first + count) of an item, up to 64 of them, for multiply_tile.
template <class Element>
struct PositionTile {
  const SimilarRows<Element>& rows;
  int first;
  int count;
  MIPRUNER_DEVICE const Element* operator()(int r) const {
    return r < count ? rows.element_at(first + r) : nullptr;
  }
  MIPRUNER_DEVICE const Element* base() const { return rows.data; }
};

template <class Element>
MIPRUNER_DEVICE PositionTile<Element> tile_at(const SimilarRows<Element>& rows, int first) {
  return {rows, first, min(kTileRows, rows.count - first)};
}

// Element n of a thread's 32 becomes x. Registers have no index, hence the comparisons.
MIPRUNER_DEVICE void set_element(float (&tile)[8][4], int n, float x) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (n == 4 * j + e) tile[j][e] = x;
    }
  }
}

// Is there a pair in element n of this thread: two rows, and not the same one?
template <class Element>
MIPRUNER_DEVICE bool is_pair(const PositionTile<Element>& a, const PositionTile<Element>& b,
                             int n) {
  const int row = ProductTile::a_row(n % 4 / 2);
  const int column = ProductTile::b_row(n / 4, n % 2);
  return row < a.count && column < b.count && a.first + row != b.first + column;
}

// Computes the dot products anew of pairs of which one is huge, so that they may have left
// float32's range. All lanes of a warp call it together, and take turns.
template <class Element>
MIPRUNER_DEVICE void replace_huge(const PositionTile<Element>& a, const PositionTile<Element>& b,
                                  float (&dots)[8][4]) {
  const SimilarRows<Element>& rows = a.rows;
#pragma unroll 1
  for (int n = 0; n < 32; ++n) {
    const bool pair = is_pair(a, b, n);
    const int i = pair ? a.first + ProductTile::a_row(n % 4 / 2) : 0;
    const int k = pair ? b.first + ProductTile::b_row(n / 4, n % 2) : 0;
    const float scale_i = rows.scale[rows.row_at(i)];
    const float scale_k = rows.scale[rows.row_at(k)];
    const bool huge = pair && (scale_i != 1.0f || scale_k != 1.0f);
    for (uint32_t left = __ballot_sync(kFullWarp, huge); left != 0; left &= left - 1) {
      const int lane = __ffs(static_cast<int>(left)) - 1;
      const int its_i = __shfl_sync(kFullWarp, i, lane);
      const int its_k = __shfl_sync(kFullWarp, k, lane);
      const float its_scale_i = __shfl_sync(kFullWarp, scale_i, lane);
      const float its_scale_k = __shfl_sync(kFullWarp, scale_k, lane);
      const float exact = scaled_dot(rows.element_at(its_i), its_scale_i, rows.element_at(its_k),
                                     its_scale_k, rows.columns);
      if (lane == static_cast<int>(threadIdx.x % kWarpSize)) set_element(dots, n, exact);
    }
  }
}

// q_ik / tau of a tile of rows with a tile of columns, in the places of ProductTile; kNotSimilar
// for i = k and where there is no row or column. All threads of the block call it together.
template <class Element>
MIPRUNER_DEVICE void similarity_tile(ProductShared<Element>& shared, const PositionTile<Element>& a,
                                     const PositionTile<Element>& b, float (&result)[8][4]) {
  const SimilarRows<Element>& rows = a.rows;
  const int chunks = (rows.columns + kDepthChunk - 1) / kDepthChunk;
  ProductTile tile = multiply_tile(shared, a, b, rows.columns, 0, chunks, rows.aligned);
  if (rows.any_huge) replace_huge(a, b, tile.dots);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      result[j][e] = kNotSimilar;
      if (!is_pair(a, b, 4 * j + e)) continue;
      const int64_t i = rows.row_at(a.first + ProductTile::a_row(e / 2));
      const int64_t k = rows.row_at(b.first + ProductTile::b_row(j, e % 2));
      // The same bits for (i, k) and (k, i): rows that tie by symmetry must tie in the result.
      const float inverse = rows.inverse_norm[i] * rows.inverse_norm[k];
      result[j][e] = tile.dots[j][e] * inverse * rows.inverse_temperature;
    }
  }
}

}  // namespace mipruner::cuda
