// Judges the loads and stores of kernels: bounds, uninitialised shared memory, races.
//
// Every byte of shared and registered global memory has a cell that remembers its last write and
// two reads (four bytes share one for as long as they are accessed together). An access races with
// a remembered one unless one of these orders them: the same thread, a block-wide barrier, a chain
// of __syncwarp, both being atomic, or, between blocks, a fence and an atomic that the other block
// has seen. Shuffles and votes order nothing, as in CUDA.
#include "emu/checker.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "emu/machine.h"

namespace emu {
namespace {

// One access, compactly: there are many cells.
struct Stamp {
  uint32_t barriers;    // that the block had passed
  uint32_t clock : 20;  // of the thread: counts its __syncwarps
  uint32_t thread : 10;
  uint32_t present : 1;
  uint32_t atomic : 1;
};

struct Cell {
  uint8_t written;    // shared only
  uint8_t in_flight;  // shared only: a cp.async has been started and not waited for
  Stamp write;
  Stamp reads[2];
};

struct GlobalCell {
  Cell cell;
  uint32_t writer;  // block of cell.write
  uint32_t reader;  // block of cell.reads
  // Blocks run one after another, so that the first block to read is enough to know of any other
  // block that has read before this one.
  uint32_t first_reader;
  Stamp first_read;
};

// The cells of some memory. Four aligned bytes to which every access is to all of them have one
// cell, which is as good as four equal ones; the first access to some of them gives each its own.
template <class AnyCell>
class Cells {
 public:
  explicit Cells(size_t bytes) : words_((bytes + kWord - 1) / kWord) {}

  // Calls judge(cell) for the cells of these bytes. All are new in a generation: block or launch.
  template <class Judge>
  void visit(size_t offset, size_t bytes, uint32_t generation, Judge judge) {
    if (generation != generation_) divided_.clear();
    generation_ = generation;
    const size_t end = offset + bytes;
    while (offset < end) {
      Word& word = words_[offset / kWord];
      if (word.generation != generation) word = Word{generation, kWhole, {}};
      if (word.divided == kWhole && offset % kWord == 0 && end - offset >= kWord) {
        judge(word.cell);
        offset += kWord;
      } else {
        judge(own_cells(word)[offset % kWord]);
        ++offset;
      }
    }
  }

 private:
  static constexpr size_t kWord = 4;
  static constexpr uint32_t kWhole = ~0u;
  using OwnCells = std::array<AnyCell, kWord>;
  struct Word {
    uint32_t generation = 0;
    uint32_t divided = kWhole;  // or where in divided_ its bytes' own cells are
    AnyCell cell{};
  };

  OwnCells& own_cells(Word& word) {
    if (word.divided == kWhole) {
      word.divided = static_cast<uint32_t>(divided_.size());
      divided_.push_back({word.cell, word.cell, word.cell, word.cell});
    }
    return divided_[word.divided];
  }

  std::vector<Word> words_;
  std::vector<OwnCells> divided_;
  uint32_t generation_ = 0;
};

// Pages around each allocation that belong to nobody, so that misses are recognised: further away
// than a wrong row of the largest table is. They take no memory.
constexpr size_t kMargin = 16 << 20;

struct Region {
  char* begin;
  size_t bytes;
  std::string name;
  char* mapping;
  size_t mapped_bytes;
  Cells<GlobalCell> cells;
};

std::mutex regions_mutex;
std::map<const char*, Region> regions;  // by begin
Region* recent = nullptr;

constexpr size_t kArenaBytes = 1 << 20;
char* arena = nullptr;  // shared memory starts in its middle
Cells<Cell> shared_cells(256 * 1024);
uint32_t block_generation = 0;
uint32_t launch_generation = 0;

// seen[t][l]: the latest clock of lane l of its warp that thread t is known to be after.
uint32_t seen[kMaxThreads][kLanes];
uint32_t clocks[kMaxThreads];

using Blocks = std::set<uint32_t>;
Blocks acquired;  // blocks whose released writes this block may read
Blocks pending;   // the same, once it has executed a fence
bool fenced = false;
std::unordered_map<const void*, Blocks> released;  // by the address of the atomic

const char* name_of(Access access) {
  switch (access) {
    case Access::kRead: return "read";
    case Access::kWrite: return "write";
    case Access::kAtomic: return "atomic update";
  }
  return "access";
}

// The kernel's name if the linker kept it, and what addr2line takes: an address of a program at a
// fixed place, an offset of anything else.
std::string place(const void* code) {
  Dl_info info;
  if (!dladdr(code, &info)) return "?";
  const bool fixed = static_cast<const ElfW(Ehdr)*>(info.dli_fbase)->e_type == ET_EXEC;
  const uintptr_t base = fixed ? 0 : reinterpret_cast<uintptr_t>(info.dli_fbase);
  // The hook's return address: one less is still in the line that made the access.
  const size_t address = reinterpret_cast<uintptr_t>(code) - base - 1;
  char text[160];
  std::snprintf(text, sizeof text, "%.80s code 0x%zx", info.dli_sname ? info.dli_sname : "in",
                address);
  return text;
}

struct Request {
  const char* space;
  const char* address;
  size_t offset;
  size_t bytes;
  Access access;
  const void* code;
  bool writes() const { return access != Access::kRead; }
};

[[noreturn]] void fail_access(const Request& request, const char* problem) {
  fail({"checker", 0}, "%s: %s of %zu bytes at offset %td of %s, thread %u of block %u, %s",
       problem, name_of(request.access), request.bytes, static_cast<ptrdiff_t>(request.offset),
       request.space, machine->running->index, machine->block.index, place(request.code).c_str());
}

[[noreturn]] void fail_race(const Request& request, const Stamp& other, uint32_t block,
                            const char* what) {
  fail({"checker", 0},
       "race: %s at offset %zu of %s, thread %u of block %u, with the %s of thread "
       "%u of block %u, %s",
       name_of(request.access), request.offset, request.space, machine->running->index,
       machine->block.index, what, static_cast<unsigned>(other.thread), block,
       place(request.code).c_str());
}

// Whether the remembered access of this block is known to come before the running thread's.
bool happened_before(const Stamp& stamp) {
  const Thread& self = *machine->running;
  if (stamp.thread == self.index) return true;
  if (stamp.barriers < machine->block.barriers_passed) return true;
  const unsigned lane = stamp.thread % kLanes;
  return stamp.thread - lane == self.first_of_warp && seen[self.index][lane] >= stamp.clock;
}

Stamp stamp_now(Access access) {
  const unsigned index = machine->running->index;
  Stamp stamp{};
  stamp.barriers = machine->block.barriers_passed;
  stamp.clock = clocks[index] & 0xfffff;
  stamp.thread = index & 0x3ff;
  stamp.present = 1;
  stamp.atomic = access == Access::kAtomic;
  return stamp;
}

void remember(Cell& cell, const Request& request) {
  const Stamp now = stamp_now(request.access);
  if (request.writes()) {
    cell.write = now;
    return;
  }
  // A read that came before this one need not be kept: who is after this one is after that one.
  const bool first_is_free = !cell.reads[0].present || happened_before(cell.reads[0]);
  cell.reads[first_is_free ? 0 : 1] = now;
}

// `own_write`: the remembered write is of this block. The reads always are.
void judge_within_block(Cell& cell, const Request& request, bool own_write) {
  const bool both_atomic = request.access == Access::kAtomic && cell.write.atomic;
  if (own_write && cell.write.present && !both_atomic && !happened_before(cell.write)) {
    fail_race(request, cell.write, machine->block.index, cell.write.atomic ? "atomic" : "write");
  }
  for (const Stamp& read : cell.reads) {
    if (!request.writes() || !read.present || happened_before(read)) continue;
    fail_race(request, read, machine->block.index, "read");
  }
  remember(cell, request);
}

void judge_shared_cell(Cell& cell, const Request& request) {
  if (cell.in_flight) fail_access(request, "cp.async still under way");
  if (!cell.written && request.access != Access::kWrite) fail_access(request, "uninitialised");
  judge_within_block(cell, request, true);
  if (request.writes()) cell.written = 1;
}

void judge_shared(Request& request) {
  const size_t size = machine->block.shared_bytes;
  request.space = "shared memory";
  request.offset = static_cast<size_t>(request.address - machine->block.shared);
  if (request.offset >= size || request.bytes > size - request.offset) {
    fail_access(request, "out of bounds");
  }
  shared_cells.visit(request.offset, request.bytes, block_generation,
                     [&](Cell& cell) { judge_shared_cell(cell, request); });
}

bool other_unseen_block(uint32_t block) {
  return block != machine->block.index && acquired.count(block) == 0;
}

void judge_between_blocks(const GlobalCell& g, const Request& request) {
  const Stamp& write = g.cell.write;
  const bool both_atomic = request.access == Access::kAtomic && write.atomic;
  if (write.present && !both_atomic && other_unseen_block(g.writer)) {
    fail_race(request, write, g.writer, write.atomic ? "atomic" : "write");
  }
  if (request.writes() && g.first_read.present && other_unseen_block(g.first_reader)) {
    fail_race(request, g.first_read, g.first_reader, "read");
  }
}

void judge_global_cell(GlobalCell& g, const Request& request) {
  const uint32_t self = machine->block.index;
  judge_between_blocks(g, request);
  if (g.reader != self) g.cell.reads[0] = g.cell.reads[1] = Stamp{};
  judge_within_block(g.cell, request, g.writer == self);
  if (request.writes()) {
    g.writer = self;
    return;
  }
  g.reader = self;
  if (g.first_read.present) return;
  g.first_read = stamp_now(request.access);
  g.first_reader = self;
}

Region* find_region(const char* address) {
  const auto near = [&](const Region& region) {
    return address >= region.begin - kMargin && address < region.begin + region.bytes + kMargin;
  };
  if (recent && near(*recent)) return recent;
  const auto after = regions.upper_bound(address + kMargin);
  if (after == regions.begin()) return nullptr;
  Region& candidate = std::prev(after)->second;
  if (!near(candidate)) return nullptr;
  recent = &candidate;
  return recent;
}

void judge_global(Region& region, Request& request) {
  request.space = region.name.c_str();
  request.offset = static_cast<size_t>(request.address - region.begin);
  if (request.offset >= region.bytes || request.bytes > region.bytes - request.offset) {
    fail_access(request, "out of bounds");
  }
  region.cells.visit(request.offset, request.bytes, launch_generation,
                     [&](GlobalCell& cell) { judge_global_cell(cell, request); });
}

void set_in_flight(const char* shared, size_t bytes, bool in_flight) {
  const auto offset = static_cast<size_t>(shared - machine->block.shared);
  shared_cells.visit(offset, bytes, block_generation,
                     [&](Cell& cell) { cell.in_flight = in_flight; });
}

bool in_arena(const char* address) { return address >= arena && address < arena + kArenaBytes; }

char* map_pages(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

}  // namespace

void check_access(const void* address, size_t bytes, Access access, const void* code) {
  if (!machine || !machine->running) return;
  ++stats().accesses;
  if (machine->stacks.contain(address)) return;
  Request request{nullptr, static_cast<const char*>(address), 0, bytes, access, code};
  if (in_arena(request.address)) {
    judge_shared(request);
  } else if (Region* region = find_region(request.address)) {
    judge_global(*region, request);
  }
}

void check_alignment(const void* address, size_t bytes, const void* code) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
  if (!machine || !machine->running || machine->stacks.contain(address)) return;
  const char* p = static_cast<const char*>(address);
  if (!in_arena(p) && !find_region(p)) return;
  fail({"checker", 0}, "misaligned access of %zu bytes, thread %u of block %u, %s", bytes,
       machine->running->index, machine->block.index, place(code).c_str());
}

// Every lane of the mask learns what any of them knew, and what all of them have done so far.
void check_warp_barrier(uint32_t mask) {
  const unsigned first = machine->running->first_of_warp;
  uint32_t merged[kLanes] = {};
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const uint32_t* known = seen[first + lane];
    for (unsigned i = 0; i < kLanes; ++i) merged[i] = std::max(merged[i], known[i]);
    merged[lane] = std::max(merged[lane], clocks[first + lane]);
  }
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    std::memcpy(seen[first + lane], merged, sizeof merged);
    ++clocks[first + lane];
  }
}

void check_fence() {
  fenced = true;
  acquired.insert(pending.begin(), pending.end());
}

void check_atomic_order(const void* address) {
  if (in_arena(static_cast<const char*>(address))) return;  // orders nothing between blocks
  Blocks& publishers = released[address];
  pending.insert(publishers.begin(), publishers.end());
  if (!fenced) return;
  publishers.insert(machine->block.index);
  publishers.insert(acquired.begin(), acquired.end());
}

void check_copy_started(const void* shared, size_t bytes) {
  const char* p = static_cast<const char*>(shared);
  if (!in_arena(p)) fail({"checker", 0}, "cp.async to memory that is not shared");
  set_in_flight(p, bytes, true);
}

void check_copy_landed(const void* shared, size_t bytes) {
  set_in_flight(static_cast<const char*>(shared), bytes, false);
}

void check_launch_begins() {
  ++launch_generation;
  released.clear();
}

void check_block_begins() {
  ++block_generation;
  acquired.clear();
  pending.clear();
  fenced = false;
  std::fill(std::begin(clocks), std::end(clocks), 1u);
  std::memset(seen, 0, sizeof seen);
}

char* take_shared(size_t) {
  if (!arena) arena = map_pages(kArenaBytes);
  return arena + kArenaBytes / 2;
}
void give_back_shared(char*) {}

void* global_alloc(size_t bytes, const char* name) {
  const std::lock_guard<std::mutex> lock(regions_mutex);
  const size_t mapped = (bytes + 4095) / 4096 * 4096 + 2 * kMargin;
  char* const mapping = map_pages(mapped);
  char* const begin = mapping + kMargin;
  std::memset(begin, 0xff, bytes);
  regions.emplace(begin, Region{begin, bytes, name, mapping, mapped, Cells<GlobalCell>(bytes)});
  return begin;
}

void global_free(void* memory) {
  const std::lock_guard<std::mutex> lock(regions_mutex);
  const auto found = regions.find(static_cast<const char*>(memory));
  if (found == regions.end()) return;
  recent = nullptr;
  munmap(found->second.mapping, found->second.mapped_bytes);
  regions.erase(found);
}

}  // namespace emu
