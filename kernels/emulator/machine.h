// One block of threads as fibers: what runtime.cpp, checker.cpp and tensor.cpp share.
#pragma once
#include "device.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <string>
#include <vector>

namespace emulator {

/// Which ready thread runs next, and which block.
enum Order : u32 { IN_TURN, REVERSED, RANDOM, STARVING };
/// When copies that nobody has waited for yet happen.
enum Copies : u32 { EAGER, LAZY };
struct Schedule { Order order; Copies copies; u64 seed; };

enum State : uint8_t { READY, AT_BARRIER, IN_COLLECTIVE, ENDED };

struct Copy { char* to; const char* from; u32 valid, group; };

struct Fiber : Place {
    u32 number, warp;
    void* stack;
    State state;
    int line;
    bool yes;
    u32 mask;
    Collective run;
    void *in, *out;
    u32 group;
    std::vector<Copy> copies;
};

struct Warp { u32 arrived, alive, epoch; };

/// A variable of the block by its place in the source.
struct Variable { const void* tag; size_t offset; };

constexpr size_t SHARED_MAX = 256 << 10;
// Stacks lie at odd distances, so that they do not share the same lines of the cache.
constexpr size_t STACK = 64 << 10, STRIDE = STACK + 832;

struct Machine {
    Schedule schedule;
    std::string kernel, error;
    Dim3 block, threads, blocks;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<u32> ready, priority;
    Fiber* running;
    char* stacks = nullptr;
    size_t stacks_for = 0;
    void* host_stack;
    u64 random;
    u32 alive, at_barrier, said_yes, epoch, launch = 0;
    void (*call)(void* const*);
    void* const* arguments;
    alignas(1024) char memory[SHARED_MAX];
    size_t dynamic_bytes, shared_bytes;
    std::vector<Variable> variables;
    u64 copies = 0;

    u32 draw(u32 below);
    u32 block_number() const { return (block.z * blocks.y + block.y) * blocks.x + block.x; }
};

Machine& machine();
bool is_shared(const void* p);

// checker.cpp
enum Access { READ, WRITE, ATOMIC, COPIED };
void check(const void* address, size_t bytes, Access access);
void begin_launch();
void begin_block();
/// Bytes of shared memory that a copy is under way to: nobody may touch them.
void in_flight(const void* address, size_t bytes, bool flying);

}  // namespace emulator
