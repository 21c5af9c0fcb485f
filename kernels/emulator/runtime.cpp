// Fibers, barriers, collectives of warps, copies that happen late, and the host's way in.
#include "machine.h"
#include <cstdarg>
#include <cstdio>
#include <numeric>
#include <sys/mman.h>

// Saves what a function must keep, swaps stacks and takes up where the other stopped.
extern "C" void emulator_switch(void** save, void* stack);
asm(R"(.text
.globl emulator_switch
.type emulator_switch,@function
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size emulator_switch,.-emulator_switch
)");

namespace emulator {

Machine& machine() {
    static thread_local Machine* own = new Machine();
    return *own;
}

Place& place() { return *machine().running; }

u32 Machine::draw(u32 below) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    return u32((random >> 32) * below >> 32);
}

bool is_shared(const void* p) {
    Machine& m = machine();
    return p >= m.memory && p < m.memory + SHARED_MAX;
}

void fail(const char* format, ...) {
    Machine& m = machine();
    char text[600];
    va_list list;
    va_start(list, format);
    int n = snprintf(text, sizeof text, "%s, block %u,%u,%u, thread %u: ", m.kernel.c_str(), m.block.x,
                     m.block.y, m.block.z, m.running->number);
    vsnprintf(text + n, sizeof text - n, format, list);
    va_end(list);
    m.error = text;
    void* lost;
    emulator_switch(&lost, m.host_stack);
    __builtin_unreachable();
}

static void make_ready(Fiber& f) {
    f.state = READY;
    machine().ready.push_back(f.number);
}

static void redraw(Machine& m, u32 warp) {
    u32 high = m.draw(1 << 15) << 16;
    for (u32 i = warp * 32; i < warp * 32 + 32 && i < m.priority.size(); i++) {
        m.priority[i] = high | (m.priority[i] & 0xffff);
    }
}

// Starving: the highest of random priorities runs until it waits; priorities rarely change, so
// that some warps stay far behind others.
static Fiber* next(Machine& m) {
    auto& ready = m.ready;
    if (ready.empty()) return nullptr;
    size_t at = 0;
    switch (m.schedule.order) {
    case IN_TURN: break;
    case REVERSED: at = ready.size() - 1; break;
    case RANDOM: at = m.draw(ready.size()); break;
    case STARVING:
        if (m.draw(4 * m.fibers.size()) == 0) redraw(m, m.draw(m.warps.size()));
        for (size_t i = 1; i < ready.size(); i++) {
            if (m.priority[ready[i]] > m.priority[ready[at]]) at = i;
        }
    }
    Fiber* f = &m.fibers[ready[at]];
    if (m.schedule.order == IN_TURN) ready.erase(ready.begin());
    else ready[at] = ready.back(), ready.pop_back();
    return f;
}

static void deadlock(Machine& m) {
    u32 barrier = 0, collective = 0;
    const Fiber* lane = nullptr;
    for (const Fiber& f : m.fibers) {
        barrier += f.state == AT_BARRIER;
        if (f.state == IN_COLLECTIVE) collective++, lane = &f;
    }
    if (!lane) fail("deadlock: %u threads wait at a barrier, others never come", barrier);
    fail("deadlock: %u threads wait at a barrier, %u lanes for others of their warp: thread %u for mask %08x",
         barrier, collective, lane->number, lane->mask);
}

static void give_way() {
    Machine& m = machine();
    Fiber* self = m.running;
    Fiber* other = next(m);
    if (other == self) return;
    if (!other) {
        if (m.alive) deadlock(m);
        void* lost;
        emulator_switch(&lost, m.host_stack);
    }
    m.running = other;
    emulator_switch(&self->stack, other->stack);
}

// ---- barriers

static void open_barrier(Machine& m) {
    if (!m.at_barrier || m.at_barrier < m.alive) return;
    int line = 0;
    m.said_yes = 0;
    for (Fiber& f : m.fibers) {
        if (f.state != AT_BARRIER) continue;
        if (line && f.line != line) fail("barrier in divergent code: some threads are at line %d, others at line %d", line, f.line);
        line = f.line;
        m.said_yes += f.yes;
        make_ready(f);
    }
    m.at_barrier = 0;
    m.epoch++;
}

u32 barrier(int line, bool yes) {
    Machine& m = machine();
    Fiber& f = *m.running;
    f.line = line, f.yes = yes, f.state = AT_BARRIER;
    m.at_barrier++;
    open_barrier(m);
    give_way();
    return m.said_yes;
}

// ---- collectives

static void nothing(u32, void* const*, void* const*) {}

static void complete(Machine& m, Fiber& of) {
    Fiber* lanes = &m.fibers[of.warp * 32];
    void *in[32], *out[32];
    Warp& warp = m.warps[of.warp];
    u32 mask = of.mask;
    for (u32 l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        if (!(warp.arrived >> l & 1)) fail("mask %08x names lane %u, which has ended", mask, l);
        if (lanes[l].mask != mask || lanes[l].run != of.run) fail("lanes of a warp meet in different collectives: masks %08x and %08x", mask, lanes[l].mask);
        in[l] = lanes[l].in, out[l] = lanes[l].out;
    }
    of.run(mask, in, out);
    warp.arrived &= ~mask;
    // Only this orders memory; shuffles do not.
    if (of.run == nothing) warp.epoch++;
    for (u32 l = 0; l < 32; l++) if (mask >> l & 1) make_ready(lanes[l]);
}

void collective(u32 mask, Collective run, void* in, void* out) {
    Machine& m = machine();
    Fiber& f = *m.running;
    if (!(mask >> f.lane & 1)) fail("lane %u calls a collective of mask %08x, to which it does not belong", f.lane, mask);
    f.mask = mask, f.run = run, f.in = in, f.out = out, f.state = IN_COLLECTIVE;
    Warp& warp = m.warps[f.warp];
    warp.arrived |= 1u << f.lane;
    if (((warp.arrived | ~warp.alive) & mask) == mask) complete(m, f);
    give_way();
}

void sync_warp(u32 mask) { collective(mask, nothing, nullptr, nullptr); }

// ---- shared memory

void* dynamic_shared() { return machine().memory; }

void* shared(const void* tag, size_t bytes, size_t alignment) {
    Machine& m = machine();
    for (const Variable& v : m.variables) if (v.tag == tag) return m.memory + v.offset;
    size_t offset = (m.shared_bytes + alignment - 1) / alignment * alignment;
    if (offset + bytes > SHARED_MAX) fail("more than %zu bytes of shared memory", SHARED_MAX);
    m.variables.push_back({tag, offset});
    m.shared_bytes = offset + bytes;
    memset(m.memory + offset, 0xff, bytes);
    return m.memory + offset;
}

// ---- copies

static void perform(const Copy& c) {
    memset(c.to, 0, 16);
    memcpy(c.to, c.from, c.valid);
}

void copy_async(void* to, const void* from, u32 valid) {
    Machine& m = machine();
    if (size_t(to) % 16 || (valid && size_t(from) % 16)) fail("a copy between addresses that are no multiples of 16");
    if (!is_shared(to)) fail("an asynchronous copy to what is not shared memory");
    check(to, 16, COPIED);
    if (valid) check(from, valid, READ);
    in_flight(to, 16, true);
    Copy copy{static_cast<char*>(to), static_cast<const char*>(from), valid, m.running->group};
    m.copies++;
    if (m.schedule.copies == EAGER) perform(copy);
    m.running->copies.push_back(copy);
}

void commit_copies() { machine().running->group++; }

void wait_for_copies(u32 left) {
    Machine& m = machine();
    Fiber& f = *m.running;
    std::vector<Copy> later;
    for (const Copy& c : f.copies) {
        if (c.group + left >= f.group) {
            later.push_back(c);
            continue;
        }
        if (m.schedule.copies == LAZY) perform(c);
        in_flight(c.to, 16, false);
        check(c.to, 16, COPIED);
    }
    f.copies.swap(later);
}

// ---- a block, a grid

static void thread_main() {
    Machine& m = machine();
    m.call(m.arguments);
    Fiber& f = *m.running;
    if (!f.copies.empty()) fail("the thread ends with copies that it has not waited for");
    f.state = ENDED;
    m.alive--;
    Warp& warp = m.warps[f.warp];
    warp.alive &= ~(1u << f.lane);
    open_barrier(m);
    for (u32 l = 0; l < 32; l++) {
        if (!(warp.arrived >> l & 1)) continue;
        Fiber& other = m.fibers[f.warp * 32 + l];
        if (((warp.arrived | ~warp.alive) & other.mask) == other.mask) complete(m, other);
    }
    give_way();
    __builtin_unreachable();
}

static void prepare(Machine& m) {
    u32 count = m.threads.x;
    if (count > m.stacks_for) {
        if (m.stacks) munmap(m.stacks, STRIDE * m.stacks_for);
        m.stacks = static_cast<char*>(mmap(nullptr, STRIDE * count, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        m.stacks_for = count;
    }
    m.fibers.resize(count), m.priority.resize(count);
    m.warps.assign((count + 31) / 32, Warp{0, 0, 0});
    m.ready.clear(), m.variables.clear();
    m.alive = count, m.at_barrier = 0, m.epoch = 0, m.shared_bytes = m.dynamic_bytes;
    memset(m.memory, 0xff, m.dynamic_bytes);
    for (u32 i = 0; i < count; i++) {
        Fiber& f = m.fibers[i];
        f.thread = {i, 0, 0}, f.block = m.block, f.threads = m.threads, f.blocks = m.blocks;
        f.lane = i % 32, f.warp = i / 32, f.number = i, f.group = 0;
        f.copies.clear();
        // What a switch pops: six registers, then where to go on; the stack as if just called.
        auto top = size_t(m.stacks + STRIDE * i + STACK) / 16 * 16;
        void** sp = reinterpret_cast<void**>(top) - 8;
        sp[6] = reinterpret_cast<void*>(thread_main);
        f.stack = sp;
        m.warps[f.warp].alive |= 1u << f.lane;
        m.priority[i] = m.draw(1 << 16);
        make_ready(f);
    }
    for (u32 w = 0; w < m.warps.size(); w++) redraw(m, w);
    begin_block();
}

static bool run_block(Machine& m) {
    prepare(m);
    Fiber* first = next(m);
    m.running = first;
    emulator_switch(&m.host_stack, first->stack);
    return m.error.empty();
}

static std::vector<u32> order_of_blocks(Machine& m, u32 count) {
    std::vector<u32> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (m.schedule.order == REVERSED) return {order.rbegin(), order.rend()};
    if (m.schedule.order >= RANDOM) {
        for (u32 i = count; i > 1; i--) std::swap(order[i - 1], order[m.draw(i)]);
    }
    return order;
}

}  // namespace emulator

using namespace emulator;

/// Runs a grid; writes what went wrong, or nothing, to `error`. Returns the copies that it made.
extern "C" u64 emulator_launch(const Kernel* kernel, const char* name, const u32* blocks, u32 threads,
                               u32 dynamic_bytes, void* const* arguments, const Schedule* schedule,
                               char* error, size_t error_bytes) {
    Machine& m = machine();
    m.kernel = name, m.schedule = *schedule, m.error.clear(), m.copies = 0;
    m.blocks = {blocks[0], blocks[1], blocks[2]}, m.threads = {threads, 1, 1};
    m.call = kernel->call, m.arguments = arguments, m.dynamic_bytes = dynamic_bytes;
    m.random = (schedule->seed + 77) * 0x9E3779B97F4A7C15ull | 1;
    for (int i = 0; i < 8; i++) m.draw(2);
    begin_launch();
    for (u32 number : order_of_blocks(m, blocks[0] * blocks[1] * blocks[2])) {
        m.block = {number % blocks[0], number / blocks[0] % blocks[1], number / blocks[0] / blocks[1]};
        if (!run_block(m)) break;
    }
    snprintf(error, error_bytes, "%s", m.error.c_str());
    return m.copies;
}
