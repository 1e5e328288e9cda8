// Coverage: the share of a selection that is spread evenly over the rows, whatever they hold.
//
// The most relevant rows alone lose what relevance does not see, the layout of the scene above all.
// With coverage c, of k rows kept out of n that count, C = floor(c * k + 1/2) are spread evenly:
// the n rows are cut into C runs of equal length (to within one row), and of each run one row is
// kept. Which one is a place within the run that jumps by the golden ratio from run to run, so that
// the kept rows of an image do not line up in columns of its grid. Contents do not matter. The
// other k - C rows are chosen by relevance, or greedily with the C rows as the first choices.
//
// Rows are meant as positions in the list of those that count (neither masked nor broken),
// ascending.
#pragma once

#include <cstdint>

// The same function for the host and for kernels.
#if defined(__CUDACC__)
#define MIPRUNER_EVERYWHERE __host__ __device__ __forceinline__
#else
#define MIPRUNER_EVERYWHERE inline
#endif

namespace mipruner {

// C, from 0 to `wanted`; 0 where all `rows` are kept anyway. coverage in [0, 1].
MIPRUNER_EVERYWHERE int64_t coverage_count(double coverage, int64_t wanted, int64_t rows) {
  if (wanted >= rows) return 0;
  const double share = coverage * static_cast<double>(wanted);
  return static_cast<int64_t>(share + 0.5);
}

// The first position of run j of `count`; for j = count the end of the last. rows <= 2^31.
MIPRUNER_EVERYWHERE uint64_t coverage_begin(int64_t j, int64_t count, int64_t rows) {
  return static_cast<uint64_t>(j) * static_cast<uint64_t>(rows) / static_cast<uint64_t>(count);
}

// The position kept of run j of `count`, which is at most rows: ascending in j.
MIPRUNER_EVERYWHERE int64_t coverage_position(int64_t j, int64_t count, int64_t rows) {
  const uint64_t begin = coverage_begin(j, count, rows);
  const uint64_t width = coverage_begin(j + 1, count, rows) - begin;
  // frac(j * golden ratio + 1/2), as 32 bits behind the binary point.
  const uint32_t place = static_cast<uint32_t>(j) * 2654435769u + 0x80000000u;
  return static_cast<int64_t>(begin + ((place * width) >> 32));
}

// Whether a position is the one kept of its run.
MIPRUNER_EVERYWHERE bool is_covered(int64_t position, int64_t count, int64_t rows) {
  // The last run that begins at the position or before.
  const uint64_t run = (static_cast<uint64_t>(position + 1) * static_cast<uint64_t>(count) - 1) /
                       static_cast<uint64_t>(rows);
  return coverage_position(static_cast<int64_t>(run), count, rows) == position;
}

}  // namespace mipruner
