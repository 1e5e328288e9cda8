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

bool same_call(const Thread& a, const Thread& b) {
  return a.mask == b.mask && a.operation == b.operation && a.site.line == b.site.line &&
         std::strcmp(a.site.file, b.site.file) == 0;
}

// Whether all lanes of the mask wait here; gathers their arguments. Fails if they never will.
bool all_arrived(const Thread& self, void* (&arguments)[kLanes]) {
  bool complete = true;
  for (int lane : Lanes{self.mask}) {
    const unsigned index = self.first_of_warp + static_cast<unsigned>(lane);
    if (index >= machine->block.size || machine->threads[index].state == State::kExited) {
      fail(self.site, "%s waits for lane %d, which has exited or never was (mask %08x)",
           self.operation, lane, self.mask);
    }
    const Thread& other = machine->threads[index];
    if (other.state != State::kAtCollective) {
      complete = false;
      continue;
    }
    if (!same_call(self, other)) {
      fail(self.site, "lane %u is at %s (mask %08x), but lane %d at %s in line %d (mask %08x)",
           self.lane, self.operation, self.mask, lane, other.operation, other.site.line,
           other.mask);
    }
    arguments[lane] = other.argument;
  }
  return complete;
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
  self.state = State::kAtCollective;
  void* arguments[kLanes] = {};
  if (!all_arrived(self, arguments)) {
    wait_turn();
    return;
  }
  ++stats().collectives;
  run(function, site, mask, arguments);
  for (int lane : Lanes{mask}) {
    machine->threads[self.first_of_warp + static_cast<unsigned>(lane)].state = State::kReady;
  }
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
