// What each visual row tells about the others: similarities q_ik / tau by row, with their
// log-normalisers.
//
// If all N x N similarities fit the limit they are computed once (the upper triangle, then
// mirrored) and kept. Otherwise the normalisers come from a pass that keeps nothing, and rows are
// computed when asked for and cached: a miss computes the row asked for together with the rows most
// likely to be asked for next, because the pass over V costs about as much for 64 rows as for one.
// Both ways give the same bits.
#pragma once

#include "core/operations.h"
#include "cpu/similarity.h"

namespace mipruner::cpu {

struct RedundancyScratch {
  int64_t capacity;     // rows of `similarities`: all N, or as many as the limit allows
  float* similarities;  // [capacity, N] q_ik / tau; the lowest float where k = i
  float* normalizers;   // [N] log of the sum over k != i of exp(q_ik / tau)
  int64_t* slot_of;     // [N] where row i of the similarities is, or -1
  int64_t* row_of;      // [capacity] the inverse, -1 for an empty slot
  float* urgency;       // [N] who should be computed next
  int64_t* batch;       // rows computed together
  RowSet batch_rows;    // the same rows as the columns of a product
  Tile tile;
};

RedundancyScratch take_redundancy_scratch(Layout& layout, const MatrixView& visual,
                                          int64_t limit_bytes);

class Redundancy {
 public:
  // `rows` have been measured; all arguments outlive the object.
  Redundancy(const Kernels& kernels, const RowSet& rows, float temperature,
             const BlockScratch* lanes, const Executor& executor, RedundancyScratch* scratch);

  // Computes the normalisers. Must come first.
  void prepare();

  // sums[i] += r_ik for all i, for the row k just chosen. `gains` tell which rows may be chosen
  // next: those that are not `chosen`, the largest gain first.
  void add(int64_t k, const float* gains, const bool* chosen, float* sums);

  // totals[k] = sum_i r_ik: how well row k represents all others.
  void representativeness(float* totals);

 private:
  bool keeps_all() const { return scratch_.capacity >= rows_.count; }
  float* similarity_row(int64_t slot) { return scratch_.similarities + slot * rows_.count; }
  int64_t tile_width(int64_t column) const;
  void keep_all();
  void mirror_block(int64_t first_row, int64_t row_count, int64_t column, int64_t width,
                    const float* dots);
  template <class Use>
  void stream(const Use& use);
  int64_t rows_to_fetch(int64_t k, const float* gains, const bool* chosen);
  int64_t place_batch(int64_t count, const bool* chosen);
  void fetch(int64_t k, const float* gains, const bool* chosen);

  const Kernels& kernels_;
  const Product& product_;
  const RowSet& rows_;
  const float inverse_temperature_;
  const float log_count_;
  const BlockScratch* lanes_;
  const Executor& executor_;
  RedundancyScratch& scratch_;
};

}  // namespace mipruner::cpu
