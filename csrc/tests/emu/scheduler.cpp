// Launches, turns, block-wide barriers and errors.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <numeric>
#include <string>

#include "emu/checker.h"
#include "emu/machine.h"

namespace emu {

__thread Machine* machine = nullptr;

namespace {

std::mutex launch_mutex;
Machine the_machine;

const char* base_name(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash ? slash + 1 : path;
}

// The next thread that can run, in the chosen order; nullptr if none can.
Thread* next_ready() {
  Machine& m = *machine;
  const Order order = options().order;
  const unsigned start = order == Order::kRandom ? next_random() % m.block.size : m.running->index;
  const unsigned index = order == Order::kBackward ? m.ready.before(start) : m.ready.after(start);
  return index == ReadyThreads::kNone ? nullptr : &m.threads[index];
}

std::string describe(const Thread& thread) {
  switch (thread.state) {
    case State::kReady: return "ready";
    case State::kExited: return "exited";
    case State::kAtBarrier:
    case State::kAtCollective: break;
  }
  const char* what = thread.state == State::kAtBarrier ? "__syncthreads" : thread.operation;
  return std::string("at ") + what + " " + base_name(thread.site.file) + ":" +
         std::to_string(thread.site.line);
}

[[noreturn]] void fail_deadlock() {
  std::map<std::string, int> groups;
  for (unsigned i = 0; i < machine->block.size; ++i) ++groups[describe(machine->threads[i])];
  std::string text;
  for (const auto& [state, count] : groups) text += std::to_string(count) + " " + state + "; ";
  fail(machine->running->site, "no thread can go on: %s", text.c_str());
}

Thread& take_turn() {
  Thread* next = next_ready();
  if (!next) fail_deadlock();
  machine->running = next;
  return *next;
}

void release_barrier() {
  Block& block = machine->block;
  const Site first = machine->running->site;
  for (unsigned i = 0; i < block.size; ++i) {
    const Site other = machine->threads[i].site;
    if (other.line == first.line && std::strcmp(other.file, first.file) == 0) continue;
    fail(first, "threads of one block wait at two barriers, the other one at %s:%d",
         base_name(other.file), other.line);
  }
  for (unsigned i = 0; i < block.size; ++i) set_state(machine->threads[i], State::kReady);
  block.arrived = 0;
  ++block.barriers_passed;
  block.count[block.barriers_passed % 2] = 0;  // of the next barrier: everyone has read it
  ++stats().barriers;
}

[[noreturn]] void run_thread() {
  fiber_entered();
  machine->body(machine->closure);
  Thread& self = *machine->running;
  Block& block = machine->block;
  if (!self.copies.empty()) fail(self.site, "a thread exits with cp.async copies not waited for");
  set_state(self, State::kExited);
  machine->warps[self.index / kLanes].gone |= 1u << self.lane;
  if (++block.exited == block.size) leave_fibers();
  switch_from_dead_fiber(take_turn().fiber);
}

void prepare_threads(dim3 size) {
  Machine& m = *machine;
  m.ready.fill(m.block.size);
  for (unsigned first = 0; first < m.block.size; first += kLanes) {
    const unsigned there = m.block.size - first;
    m.warps[first / kLanes] = {0, there < kLanes ? ~0u << there : 0};
  }
  for (unsigned i = 0; i < m.block.size; ++i) {
    Thread& thread = m.threads[i];
    thread.fiber = m.stacks.fiber(i);
    thread.coordinates.thread = dim3(i % size.x, i / size.x % size.y, i / size.x / size.y);
    thread.index = i;
    thread.lane = i % kLanes;
    thread.first_of_warp = i - i % kLanes;
    thread.state = State::kReady;
    thread.site = {"(start)", 0};
    thread.copies.clear();
    thread.copy_group = 0;
    prepare_fiber(thread.fiber, run_thread);
  }
}

void run_block(unsigned index, dim3 grid, dim3 size) {
  Machine& m = *machine;
  m.block.index = index;
  m.block.arrived = m.block.exited = m.block.barriers_passed = 0;
  m.block.count[0] = m.block.count[1] = 0;
  std::memset(m.block.shared, 0xff, m.block.shared_bytes);  // poison: NaN in every element type
  check_block_begins();
  m.stacks.forget_poison();
  prepare_threads(size);
  const dim3 block(index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y);
  for (unsigned i = 0; i < m.block.size; ++i) {
    Coordinates& c = m.threads[i].coordinates;
    c.block = block;
    c.block_size = size;
    c.grid_size = grid;
  }
  const Order order = options().order;
  const unsigned first = order == Order::kForward    ? 0
                         : order == Order::kBackward ? m.block.size - 1
                                                     : next_random() % m.block.size;
  m.running = &m.threads[first];
  enter_fibers(m.running->fiber);
  m.running = nullptr;
}

std::vector<unsigned> block_order(unsigned count) {
  std::vector<unsigned> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (options().order == Order::kBackward) std::reverse(blocks.begin(), blocks.end());
  if (options().order != Order::kRandom) return blocks;
  for (unsigned i = count; i > 1; --i) std::swap(blocks[i - 1], blocks[next_random() % i]);
  return blocks;
}

// The limits of devices of compute capability 8.0 to 9.0.
bool valid_configuration(dim3 grid, uint64_t threads, size_t shared_bytes) {
  constexpr uint64_t kMaxBlocks = 1u << 24;  // far below CUDA's: a test's time is limited
  constexpr size_t kMaxShared = 227 * 1024;
  if (threads == 0 || threads > kMaxThreads || shared_bytes > kMaxShared) return false;
  if (grid.y > 65535 || grid.z > 65535) return false;
  return static_cast<uint64_t>(grid.x) * grid.y * grid.z <= kMaxBlocks;
}

}  // namespace

Options& options() {
  static Options instance;
  return instance;
}

Stats& stats() {
  static Stats instance;
  return instance;
}

void ReadyThreads::fill(unsigned size) {
  std::fill(std::begin(words_), std::end(words_), 0);
  for (unsigned index = 0; index < size; ++index) insert(index);
}

unsigned ReadyThreads::after(unsigned index) const {
  const unsigned first = index / kBits;
  const uint64_t upper = ~uint64_t{0} << index % kBits << 1;
  for (unsigned step = 0; step <= kWords; ++step) {
    const unsigned word = (first + step) % kWords;
    const uint64_t found = words_[word] & (step == 0 ? upper : ~uint64_t{0});
    if (found) return word * kBits + static_cast<unsigned>(__builtin_ctzll(found));
  }
  return kNone;
}

unsigned ReadyThreads::before(unsigned index) const {
  const unsigned first = index / kBits;
  const uint64_t lower = ~(~uint64_t{0} << index % kBits);
  for (unsigned step = 0; step <= kWords; ++step) {
    const unsigned word = (first + kWords - step) % kWords;
    const uint64_t found = words_[word] & (step == 0 ? lower : ~uint64_t{0});
    if (found) return word * kBits + kBits - 1 - static_cast<unsigned>(__builtin_clzll(found));
  }
  return kNone;
}

void set_state(Thread& thread, State state) {
  thread.state = state;
  if (state == State::kReady) {
    machine->ready.insert(thread.index);
  } else {
    machine->ready.erase(thread.index);
  }
}

uint32_t next_random() {  // xorshift
  uint32_t& x = machine->random_state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return x;
}

const Coordinates& coordinates() { return machine->running->coordinates; }
void* shared_memory() { return machine->block.shared; }

void count_error(const char* message) {
  ++stats().errors;
  std::snprintf(stats().last_message, sizeof stats().last_message, "%s", message);
}

void fail(Site site, const char* format, ...) {
  char text[200];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  char message[256];
  std::snprintf(message, sizeof message, "%s:%d: %s", base_name(site.file), site.line, text);
  count_error(message);
  if (!machine || !machine->running) {  // host code: there is no launch to end
    std::fprintf(stderr, "emulator: %s\n", message);
    std::abort();
  }
  machine->failed = true;
  leave_fibers();
}

void fail_index(int index, int size) { fail({"SharedArray", 0}, "index %d of %d", index, size); }

void wait_turn() {
  Thread& self = *machine->running;
  Thread& next = take_turn();
  if (&next != &self) switch_fiber(self.fiber, next.fiber);
}

void sync_block(Site site) {
  Thread& self = *machine->running;
  Block& block = machine->block;
  self.site = site;
  set_state(self, State::kAtBarrier);
  if (block.exited > 0) fail(site, "barrier after %u threads have exited", block.exited);
  if (++block.arrived == block.size) release_barrier();
  wait_turn();
}

int sync_block_count(Site site, bool value) {
  unsigned& count = machine->block.count[machine->block.barriers_passed % 2];
  if (value) ++count;
  sync_block(site);
  return static_cast<int>(count);
}

void fence() { check_fence(); }

bool launch_body(dim3 grid, dim3 block, size_t shared_bytes, KernelBody body, const void* closure) {
  const std::lock_guard<std::mutex> lock(launch_mutex);
  const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
  if (!valid_configuration(grid, threads, shared_bytes)) {
    count_error("invalid launch configuration");
    return false;
  }
  ++stats().launches;
  machine = &the_machine;
  Machine& m = *machine;
  m.block.size = static_cast<unsigned>(threads);
  m.block.shared_bytes = shared_bytes;
  m.block.shared = take_shared(shared_bytes);
  if (m.threads.size() < threads) m.threads.resize(threads);
  m.stacks.reserve(threads);
  m.failed = false;
  m.random_state = options().seed * 2654435761u + 1;
  m.body = body;
  m.closure = closure;
  check_launch_begins();
  for (unsigned index : block_order(grid.x * grid.y * grid.z)) {
    run_block(index, grid, block);
    if (m.failed) break;
  }
  give_back_shared(m.block.shared);
  machine = nullptr;
  return !m.failed;
}

}  // namespace emu
