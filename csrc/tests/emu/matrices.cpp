// ldmatrix and mma: the layout of csrc/cuda/common/matrix.h, in loops.
#include <cstring>

#include "emu/checker.h"
#include "emu/warp_call.h"

namespace emu {
namespace {

struct LoadArgument {
  const void* row;
  uint32_t* r;
};

void run_load(WarpCall<LoadArgument>& call) {
  for (int lane = 0; lane < 32; ++lane) {
    if (reinterpret_cast<uintptr_t>(call[lane].row) % 16 == 0) continue;
    fail(call.site, "ldmatrix: the address of lane %d is not a multiple of 16", lane);
  }
  for (int matrix = 0; matrix < 4; ++matrix) {
    for (int lane = 0; lane < 32; ++lane) {
      const char* row = static_cast<const char*>(call[8 * matrix + lane / 4].row);
      std::memcpy(&call[lane].r[matrix], row + 4 * (lane % 4), 4);
    }
  }
}

struct MultiplyArgument {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
  float (*decode)(uint16_t bits);

  float low(uint32_t pair) const { return decode(static_cast<uint16_t>(pair & 0xffff)); }
  float high(uint32_t pair) const { return decode(static_cast<uint16_t>(pair >> 16)); }
};

struct Tile {
  float a[16][16];
  float b[16][8];
  float d[16][8];
};

void gather(WarpCall<MultiplyArgument>& call, Tile& tile) {
  for (int lane = 0; lane < 32; ++lane) {
    const MultiplyArgument& x = call[lane];
    const int group = lane / 4;
    const int pair = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      const int row = group + 8 * (i % 2);
      const int column = pair + 8 * (i / 2);
      tile.a[row][column] = x.low(x.a[i]);
      tile.a[row][column + 1] = x.high(x.a[i]);
    }
    for (int i = 0; i < 2; ++i) {
      tile.b[pair + 8 * i][group] = x.low(x.b[i]);
      tile.b[pair + 8 * i + 1][group] = x.high(x.b[i]);
      for (int j = 0; j < 2; ++j) tile.d[group + 8 * i][pair + j] = x.d[2 * i + j];
    }
  }
}

void scatter(WarpCall<MultiplyArgument>& call, const Tile& tile) {
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4;
    const int pair = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) call[lane].d[i] = tile.d[group + 8 * (i / 2)][pair + i % 2];
  }
}

// Sums in float, in order: not the rounding of any tensor core.
void run_multiply(WarpCall<MultiplyArgument>& call) {
  Tile tile;
  gather(call, tile);
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) tile.d[i][j] += tile.a[i][k] * tile.b[k][j];
    }
  }
  scatter(call, tile);
}

}  // namespace

void load_matrices(Site site, uint32_t (&r)[4], const void* row) {
  // Here, not in run_load: each lane answers for the row that it names.
  check_access(row, 16, Access::kRead, __builtin_return_address(0));
  LoadArgument argument{row, r};
  warp_call(site, "ldmatrix", 0xffffffffu, argument, run_load);
}

void multiply_matrices(Site site, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                       float (*decode)(uint16_t bits)) {
  MultiplyArgument argument{d, a, {b0, b1}, decode};
  warp_call(site, "mma", 0xffffffffu, argument, run_multiply);
}

}  // namespace emu
