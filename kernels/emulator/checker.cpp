// Who may touch which memory, in what order. Finds accesses out of bounds, reads of what nobody has
// written, and pairs of accesses that nothing orders.
//
// Two accesses of different threads, one of them a plain write, are ordered by a barrier of their
// block, by __syncwarp in one warp, and by the end of a launch; not by shuffles, nor between blocks
// of one launch. A cell is two bytes.
#include "machine.h"
#include <map>

namespace emulator {

struct Moment { u32 launch, block, thread, epoch, warp_epoch; };
enum Readers : uint8_t { ONE, OF_A_WARP, OF_A_BLOCK, OF_BLOCKS };
struct Cell {
    Moment written, read;
    Readers readers;
    bool atomic, known, flying;
};

/// A range of the device's memory that a launch may touch.
struct Range {
    size_t bytes;
    std::string name;
    bool writable;
    std::vector<Cell> cells;
};

struct Memory {
    std::map<const char*, Range> ranges;
    std::vector<Cell> shared;
};

static Memory& memory() {
    static thread_local Memory* own = new Memory();
    return *own;
}

void begin_launch() { machine().launch++; }

void begin_block() { memory().shared.clear(); }

static Moment now(const Machine& m) {
    const Fiber& f = *m.running;
    return {m.launch, m.block_number(), f.number, m.epoch, m.warps[f.warp].epoch};
}

static bool ordered(const Moment& before, const Moment& after, bool same_thread_counts) {
    if (before.launch != after.launch) return true;
    if (before.block != after.block) return false;
    if (before.epoch < after.epoch) return true;
    if (same_thread_counts && before.thread == after.thread) return true;
    return before.thread / 32 == after.thread / 32 && before.warp_epoch < after.warp_epoch;
}

static void note_read(Cell& c, const Moment& at) {
    const Moment& was = c.read;
    bool same_launch = was.launch == at.launch;
    Readers readers = ONE;
    if (same_launch && (c.readers == OF_BLOCKS || was.block != at.block)) readers = OF_BLOCKS;
    else if (same_launch && was.epoch == at.epoch) {
        bool same_warp = was.thread / 32 == at.thread / 32;
        bool later = same_warp && was.warp_epoch < at.warp_epoch;
        if (c.readers == OF_A_BLOCK || !same_warp) readers = OF_A_BLOCK;
        else if (!later && (c.readers == OF_A_WARP || was.thread != at.thread)) readers = OF_A_WARP;
    }
    c.readers = readers;
    c.read = at;
}

static void check_cell(Cell& c, Access access, const Moment& at, const char* what, size_t offset) {
    bool writes = access != READ;
    if (c.flying) fail("%s of %s at byte %zu while a copy to it is under way", writes ? "write" : "read", what, offset);
    if (!writes && !c.known) fail("read of %s at byte %zu, which nobody has written", what, offset);
    const char* verb = access == ATOMIC ? "atomic" : writes ? "write" : "read";
    if (!(access == ATOMIC && c.atomic) && !ordered(c.written, at, true)) {
        fail("race: %s of %s at byte %zu after a write by block %u, thread %u", verb, what, offset, c.written.block, c.written.thread);
    }
    bool read_apart = c.readers == OF_BLOCKS ? c.read.launch == at.launch
        : c.readers == OF_A_BLOCK ? c.read.launch == at.launch && c.read.epoch == at.epoch
        : !ordered(c.read, at, c.readers == ONE);
    if (writes && read_apart) {
        fail("race: %s of %s at byte %zu after a read by block %u, thread %u", verb, what, offset, c.read.block, c.read.thread);
    }
    if (!writes) return note_read(c, at);
    c.written = at, c.atomic = access == ATOMIC, c.known = true;
}

static void check_shared(Machine& m, size_t offset, size_t bytes, Access access) {
    if (offset + bytes > m.shared_bytes) fail("out of bounds: byte %zu of %zu bytes of shared memory", offset, m.shared_bytes);
    auto& cells = memory().shared;
    if (cells.size() < m.shared_bytes / 2 + 1) cells.resize(m.shared_bytes / 2 + 1);
    Moment at = now(m);
    for (size_t b = 0; b < bytes; b += 2) check_cell(cells[(offset + b) / 2], access, at, "shared memory", offset + b);
}

static void check_global(Machine& m, const char* p, size_t bytes, Access access) {
    auto& ranges = memory().ranges;
    auto it = ranges.upper_bound(p);
    bool before_all = it == ranges.begin();
    if (!before_all) --it;
    size_t offset = before_all ? 0 : p - it->first;
    if (before_all || offset + bytes > it->second.bytes) {
        const char* verb = access == READ ? "read" : "write";
        if (before_all) fail("out of bounds: %s of %zu bytes before all operands", verb, bytes);
        fail("out of bounds: %s of %zu bytes at byte %zu of %s, which has %zu", verb, bytes, offset, it->second.name.c_str(), it->second.bytes);
    }
    Range& range = it->second;
    if (access != READ && !range.writable) fail("write of %s, which is an input", range.name.c_str());
    Moment at = now(m);
    for (size_t b = 0; b < bytes; b += 2) check_cell(range.cells[(offset + b) / 2], access, at, range.name.c_str(), offset + b);
}

void check(const void* address, size_t bytes, Access access) {
    Machine& m = machine();
    auto p = static_cast<const char*>(address);
    if (p >= m.stacks && p < m.stacks + STRIDE * m.stacks_for) return;
    if (is_shared(p)) return check_shared(m, p - m.memory, bytes, access);
    // What a thread knows of itself.
    auto fibers = reinterpret_cast<const char*>(m.fibers.data());
    if (p >= fibers && p < fibers + m.fibers.size() * sizeof(Fiber)) return;
    check_global(m, p, bytes, access);
}

void in_flight(const void* address, size_t bytes, bool flying) {
    size_t offset = static_cast<const char*>(address) - machine().memory;
    for (size_t b = 0; b < bytes; b += 2) memory().shared[(offset + b) / 2].flying = flying;
}

void atomic_access(void* address, size_t bytes) { check(address, bytes, ATOMIC); }

}  // namespace emulator

using namespace emulator;

/// Says that launches may touch these bytes until `emulator_forget`. `known`: they have content.
extern "C" void emulator_range(const char* start, size_t bytes, const char* name, bool writable, bool known) {
    Range& range = memory().ranges[start];
    range = Range{bytes, name, writable, std::vector<Cell>(bytes / 2 + 1)};
    for (Cell& c : range.cells) c.known = known;
}

extern "C" void emulator_forget() { memory().ranges.clear(); }

#define HOOKS(N)                                                                                   \
    extern "C" void __tsan_read##N(void* p) { check(p, N, READ); }                                 \
    extern "C" void __tsan_write##N(void* p) { check(p, N, WRITE); }                               \
    extern "C" void __tsan_unaligned_read##N(void* p) { check(p, N, READ); }                       \
    extern "C" void __tsan_unaligned_write##N(void* p) { check(p, N, WRITE); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
extern "C" void __tsan_read_range(void* p, size_t bytes) { check(p, bytes, READ); }
extern "C" void __tsan_write_range(void* p, size_t bytes) { check(p, bytes, WRITE); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
