// What kernels see of CUDA C++ when g++ compiles them: keywords, indices, barriers, collectives.
//
// Every thread of a block is a fiber. Barriers and collectives of warps are where fibers take
// turns; the order in which they do is the schedule's. Accesses to memory come to the checker
// through the hooks that -fsanitize=thread compiles in (checker.cpp).
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#define __device__
#define __host__
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

namespace emulator {

using u16 = uint16_t;
using u32 = uint32_t;
using u64 = unsigned long long;

struct Dim3 { u32 x, y, z; };

/// What a thread knows of itself.
struct Place { Dim3 thread, block, threads, blocks; u32 lane; };

Place& place();
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// All threads of the block; returns how many said yes. `line`: threads that meet at different
/// lines have diverged.
u32 barrier(int line, bool yes = false);

/// Runs on all lanes of a mask at once, when the last of them arrives: operands and results by lane.
using Collective = void (*)(u32 mask, void* const* in, void* const* out);
void collective(u32 mask, Collective run, void* in, void* out);
void sync_warp(u32 mask);

/// A block's variable: one for each place in the source, the same for all threads.
void* shared(const void* tag, size_t bytes, size_t alignment);
void* dynamic_shared();

/// An access that no other thread can come between.
void atomic_access(void* address, size_t bytes);

/// A copy to shared memory that may happen at any time up to the wait for its group. Bytes beyond
/// `valid` become zero.
void copy_async(void* to, const void* from, u32 valid);
void commit_copies();
void wait_for_copies(u32 groups_left);

void load_matrices(u32* registers, u32 matrices, bool transposed, const void* row);
void multiply_16x8x16(float* d, const u32* a, const u32* b);

/// A kernel as the host starts it: the kinds of its parameters, one letter each.
struct Kernel {
    const char* parameters;
    void (*call)(void* const* arguments);
    u32 block_max, table_words;
};

template <class T> constexpr char kind() {
    if (std::is_pointer_v<T>) return 'p';
    if (std::is_class_v<T>) return 's';
    if (std::is_same_v<T, float>) return 'f';
    return sizeof(T) == 8 ? 'l' : 'w';
}

template <auto F> struct Entry;
template <class... A, void (*F)(A...)> struct Entry<F> {
    static constexpr char parameters[] = {kind<A>()..., 0};
    static constexpr u32 table_words = (0 + ... + (kind<A>() == 's' ? sizeof(A) / 8 : 0));
    template <size_t... I> __attribute__((no_sanitize("thread")))
    static void spread(void* const* p, std::index_sequence<I...>) {
        F(*static_cast<A*>(p[I])...);
    }
    static void call(void* const* p) { spread(p, std::index_sequence_for<A...>()); }
};

template <class T> struct Shuffled { T value; u32 from; };

template <class T> T shuffle(u32 mask, T value, u32 from) {
    Shuffled<T> in{value, from};
    T out;
    auto exchange = [](u32 mask, void* const* in, void* const* out)
        __attribute__((no_sanitize("thread"))) {
        for (u32 lane = 0; lane < 32; lane++) {
            if (!(mask >> lane & 1)) continue;
            u32 from = static_cast<Shuffled<T>*>(in[lane])->from;
            if (!(mask >> from & 1)) fail("lane %u reads lane %u, which is not in mask %08x", lane, from, mask);
            *static_cast<T*>(out[lane]) = static_cast<Shuffled<T>*>(in[from])->value;
        }
    };
    collective(mask, exchange, &in, &out);
    return out;
}

}  // namespace emulator

#define KERNEL_OF(NAME, BLOCK, BLOCKS, ...)                                                        \
    extern "C" void NAME(__VA_ARGS__);                                                             \
    extern "C" {                                                                                   \
    extern const emulator::Kernel kernel_##NAME;                                                   \
    const emulator::Kernel kernel_##NAME = {emulator::Entry<&NAME>::parameters,                    \
                                            emulator::Entry<&NAME>::call, BLOCK,                   \
                                            emulator::Entry<&NAME>::table_words};                  \
    }                                                                                              \
    extern "C" void NAME(__VA_ARGS__)

template <class T> using Type = T;
#define SHARED(NAME, ...)                                                                          \
    static const char shared_tag_##NAME = 0;                                                       \
    auto& NAME = *static_cast<Type<__VA_ARGS__>*>(emulator::shared(                                \
        &shared_tag_##NAME, sizeof(Type<__VA_ARGS__>), alignof(Type<__VA_ARGS__>)))
#define DYNAMIC_SHARED(NAME) char* NAME = static_cast<char*>(emulator::dynamic_shared())

#define threadIdx (emulator::place().thread)
#define blockIdx (emulator::place().block)
#define blockDim (emulator::place().threads)
#define gridDim (emulator::place().blocks)
#define __syncthreads() emulator::barrier(__LINE__)
#define __syncthreads_count(yes) emulator::barrier(__LINE__, yes)
#define __syncthreads_or(yes) (emulator::barrier(__LINE__, yes) > 0)

inline void __syncwarp(unsigned mask = ~0u) { emulator::sync_warp(mask); }

template <class T> T __shfl_sync(unsigned mask, T value, int lane) {
    return emulator::shuffle(mask, value, lane & 31);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
    return emulator::shuffle(mask, value, emulator::place().lane ^ bits);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by) {
    unsigned lane = emulator::place().lane;
    return emulator::shuffle(mask, value, lane + by < 32 ? lane + by : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by) {
    unsigned lane = emulator::place().lane;
    return emulator::shuffle(mask, value, lane >= by ? lane - by : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool yes) {
    unsigned out;
    auto count = [](unsigned mask, void* const* in, void* const* out)
        __attribute__((no_sanitize("thread"))) {
        unsigned ballot = 0;
        for (int l = 0; l < 32; l++) ballot |= (mask >> l & 1 && *static_cast<bool*>(in[l])) << l;
        for (int l = 0; l < 32; l++) if (mask >> l & 1) *static_cast<unsigned*>(out[l]) = ballot;
    };
    emulator::collective(mask, count, &yes, &out);
    return out;
}
inline bool __any_sync(unsigned mask, bool yes) { return __ballot_sync(mask, yes) != 0; }

template <class T, class F> __attribute__((no_sanitize("thread"), noinline))
T emulated_atomic(T* address, F change) {
    emulator::atomic_access(address, sizeof(T));
    T old = *address;
    *address = change(old);
    return old;
}
template <class T> T atomicAdd(T* address, T value) {
    static_assert(std::is_integral_v<T>, "sums of floats by atomics have no order");
    return emulated_atomic(address, [=](T old) { return T(old + value); });
}
template <class T> T atomicMax(T* address, T value) {
    return emulated_atomic(address, [=](T old) { return old > value ? old : value; });
}
template <class T> T atomicExch(T* address, T value) {
    return emulated_atomic(address, [=](T) { return value; });
}

struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(8) uint2 { unsigned x, y; };
inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, 4); return x; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
