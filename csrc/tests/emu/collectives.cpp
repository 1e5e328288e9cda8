// Calls in which the lanes of a warp take part together.
#include <cstring>

#include "emu/checker.h"
#include "emu/machine.h"
#include "emu/warp_call.h"

namespace emu {
namespace {

// The lanes of `mask`, lowest first: for (int lane : Lanes{mask}).
struct Lanes {
  struct Iterator {
    uint32_t left;
    int operator*() const { return __builtin_ctz(left); }
    void operator++() { left &= left - 1; }
    bool operator!=(const Iterator& other) const { return left != other.left; }
  };
  uint32_t mask;
  Iterator begin() const { return {mask}; }
  Iterator end() const { return {0}; }
};

Thread& lane_of(const Thread& self, int lane) {
  return machine->threads[self.first_of_warp + static_cast<unsigned>(lane)];
}

void require_same_call(const Thread& a, const Thread& b) {
  // Pointers of one file's name are mostly one.
  const bool same = a.mask == b.mask && a.operation == b.operation && a.site.line == b.site.line &&
                    (a.site.file == b.site.file || std::strcmp(a.site.file, b.site.file) == 0);
  if (same) return;
  fail(a.site, "lane %u is at %s (mask %08x), but lane %u at %s in line %d (mask %08x)", a.lane,
       a.operation, a.mask, b.lane, b.operation, b.site.line, b.mask);
}

// Whether all lanes of the mask wait here. Fails if they never will.
bool all_arrived(const Thread& self, const Warp& warp) {
  if (const uint32_t missing = self.mask & warp.gone) {
    fail(self.site, "%s waits for lane %d, which has exited or never was (mask %08x)",
         self.operation, *Lanes{missing}.begin(), self.mask);
  }
  const uint32_t here = self.mask & warp.waiting;
  // One of the others stands for all, which were compared when they came.
  if (const uint32_t others = here & ~(1u << self.lane)) {
    require_same_call(self, lane_of(self, *Lanes{others}.begin()));
  }
  return here == self.mask;
}

struct ShuffleArgument {
  uint64_t given;
  uint64_t received;
  int source;
};

int source_lane(Shuffle kind, int lane, int operand, int width) {
  const int first = lane & ~(width - 1);
  int source = lane;
  switch (kind) {
    case Shuffle::kIndex: return first + (operand & (width - 1));
    case Shuffle::kXor: source = lane ^ operand; break;
    case Shuffle::kUp: source = lane - operand; break;
    case Shuffle::kDown: source = lane + operand; break;
  }
  return source >= first && source < first + width ? source : lane;
}

void run_shuffle(WarpCall<ShuffleArgument>& call) {
  for (int lane : Lanes{call.mask}) {
    const int source = call[lane].source;
    if (!(call.mask >> source & 1)) {
      fail(call.site, "lane %d reads lane %d, which is not in mask %08x", lane, source, call.mask);
    }
    call[lane].received = call[source].given;
  }
}

struct VoteArgument {
  uint32_t given;
  uint32_t received;
  Reduction kind;
};

void run_ballot(WarpCall<VoteArgument>& call) {
  uint32_t votes = 0;
  for (int lane : Lanes{call.mask}) votes |= call[lane].given << lane;
  for (int lane : Lanes{call.mask}) call[lane].received = votes;
}

void run_match(WarpCall<VoteArgument>& call) {
  for (int lane : Lanes{call.mask}) {
    uint32_t equal = 0;
    for (int other : Lanes{call.mask}) {
      if (call[other].given == call[lane].given) equal |= 1u << other;
    }
    call[lane].received = equal;
  }
}

uint32_t combine(Reduction kind, uint32_t x, uint32_t y) {
  switch (kind) {
    case Reduction::kAdd: return x + y;
    case Reduction::kMax: return x > y ? x : y;
    case Reduction::kMin: return x < y ? x : y;
    case Reduction::kAnd: return x & y;
    case Reduction::kOr: return x | y;
    case Reduction::kXor: return x ^ y;
  }
  return 0;
}

void run_reduction(WarpCall<VoteArgument>& call) {
  const int first = *Lanes{call.mask}.begin();
  const Reduction kind = call[first].kind;
  uint32_t result = call[first].given;
  for (int lane : Lanes{call.mask & (call.mask - 1)}) {
    result = combine(kind, result, call[lane].given);
  }
  for (int lane : Lanes{call.mask}) call[lane].received = result;
}

void run_barrier(WarpCall<VoteArgument>& call) { check_warp_barrier(call.mask); }

}  // namespace

void warp_call(Site site, const char* operation, uint32_t mask, void* argument, RunWarpCall run,
               const void* function) {
  Thread& self = *machine->running;
  if (!(mask >> self.lane & 1)) {
    fail(site, "lane %u calls %s with mask %08x, which leaves it out", self.lane, operation, mask);
  }
  self.site = site;
  self.operation = operation;
  self.mask = mask;
  self.argument = argument;
  set_state(self, State::kAtCollective);
  Warp& warp = machine->warps[self.index / kLanes];
  warp.waiting |= 1u << self.lane;
  if (!all_arrived(self, warp)) {
    wait_turn();
    return;
  }
  ++stats().collectives;
  void* arguments[kLanes] = {};
  for (int lane : Lanes{mask}) {
    require_same_call(self, lane_of(self, lane));
    arguments[lane] = lane_of(self, lane).argument;
  }
  run(function, site, mask, arguments);
  warp.waiting &= ~mask;
  for (int lane : Lanes{mask}) set_state(lane_of(self, lane), State::kReady);
  // Otherwise the last lane to arrive would always be the first to go on.
  if (options().order == Order::kRandom) wait_turn();
}

uint64_t shuffle(Site site, Shuffle kind, uint32_t mask, uint64_t bits, int operand, int width) {
  static constexpr const char* kNames[] = {"__shfl_sync", "__shfl_xor_sync", "__shfl_up_sync",
                                           "__shfl_down_sync"};
  const int lane = static_cast<int>(machine->running->lane);
  ShuffleArgument argument{bits, 0, source_lane(kind, lane, operand, width)};
  warp_call(site, kNames[static_cast<int>(kind)], mask, argument, run_shuffle);
  return argument.received;
}

uint32_t ballot(Site site, uint32_t mask, bool value) {
  VoteArgument argument{value, 0, Reduction::kAdd};
  warp_call(site, "__ballot_sync", mask, argument, run_ballot);
  return argument.received;
}

uint32_t match_any(Site site, uint32_t mask, uint32_t value) {
  VoteArgument argument{value, 0, Reduction::kAdd};
  warp_call(site, "__match_any_sync", mask, argument, run_match);
  return argument.received;
}

uint32_t reduce(Site site, Reduction kind, uint32_t mask, uint32_t value) {
  VoteArgument argument{value, 0, kind};
  warp_call(site, "__reduce_sync", mask, argument, run_reduction);
  return argument.received;
}

void sync_warp(Site site, uint32_t mask) {
  VoteArgument argument{0, 0, Reduction::kAdd};
  warp_call(site, "__syncwarp", mask, argument, run_barrier);
}

}  // namespace emu
