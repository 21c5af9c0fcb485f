// fold: into += from over flat f32, and sums of pieces in the order of a JoinTree
// (collectives/tree.rs): a stack of sums, on which two merge so often behind each piece. Integers
// wrap. The output may be one of the pieces. The CPU's bits.
#include "common.cuh"

// expects add_into: LDG.E.128 STG.E.128
// expects join_*: LDG.E.128 STG.E.128

KERNEL(add_into, 256, f32* into, const f32* from, u64 elements) {
    u64 stride = (u64)gridDim.x * blockDim.x * PACK;
    bool whole = (u64)into % 16 == 0 && (u64)from % 16 == 0;
    for (u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * PACK; at < elements; at += stride) {
        u32 some = elements - at < PACK ? (u32)(elements - at) : PACK;
        f32 x[PACK], y[PACK];
        load(into + at, some, whole, x);
        load(from + at, some, whole, y);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) x[k] += y[k];
        store(into + at, some, whole, x);
    }
}

/// Most pieces, and most sums that wait for their sibling.
constexpr u32 PIECES = 64, WAITING = 7;

/// Where pieces lie, and how often sums merge behind each.
struct Pieces { u64 at[PIECES], merges[PIECES]; };

template <class T> struct Same { static __device__ T plus(T left, T right) { return left + right; } };
template <class T, class U> struct Wraps {
    static __device__ T plus(T left, T right) { return (T)((U)left + (U)right); }
};
template <class T> struct Sum;
template <> struct Sum<f32> : Same<f32> {};
template <> struct Sum<f64> : Same<f64> {};
template <> struct Sum<i32> : Wraps<i32, u32> {};
template <> struct Sum<long long> : Wraps<long long, u64> {};

/// 16 bytes of elements.
template <class T> struct Quad {
    static constexpr u32 SIZE = 16 / sizeof(T);
    T x[SIZE];
};

template <class T>
__device__ __forceinline__ Quad<T> load_quad(const T* from, u32 some, bool whole) {
    Quad<T> quad;
    if (whole && some == Quad<T>::SIZE) {
        union { uint4 words; Quad<T> quad; } both;
        both.words = *reinterpret_cast<const uint4*>(from);
        return both.quad;
    }
#pragma unroll
    for (u32 k = 0; k < Quad<T>::SIZE; k++) quad.x[k] = k < some ? from[k] : T(0);
    return quad;
}

template <class T>
__device__ __forceinline__ void join(T* output, u64 elements, u32 count, const Pieces& pieces) {
    constexpr u32 SIZE = Quad<T>::SIZE;
    bool whole = (u64)output % 16 == 0;
    for (u32 i = 0; i < count; i++) whole = whole && pieces.at[i] % 16 == 0;
    u64 stride = (u64)gridDim.x * blockDim.x * SIZE;
    for (u64 at = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * SIZE; at < elements; at += stride) {
        u32 some = elements - at < SIZE ? (u32)(elements - at) : SIZE;
        // The top of the stack comes first: registers have no addresses.
        Quad<T> stack[WAITING] = {};
        for (u32 i = 0; i < count; i++) {
#pragma unroll
            for (u32 d = WAITING - 1; d > 0; d--) stack[d] = stack[d - 1];
            stack[0] = load_quad((const T*)pieces.at[i] + at, some, whole);
            for (u32 merge = 0; merge < pieces.merges[i]; merge++) {
#pragma unroll
                for (u32 k = 0; k < SIZE; k++) stack[0].x[k] = Sum<T>::plus(stack[1].x[k], stack[0].x[k]);
#pragma unroll
                for (u32 d = 1; d < WAITING - 1; d++) stack[d] = stack[d + 1];
            }
        }
        if (whole && some == SIZE) {
            union { Quad<T> quad; uint4 words; } both = {stack[0]};
            store_words(output + at, both.words);
            continue;
        }
#pragma unroll
        for (u32 k = 0; k < SIZE; k++) {
            if (k < some) output[at + k] = stack[0].x[k];
        }
    }
}

using i64 = long long;
#define KERNELS(T)                                                                                 \
    KERNEL(join_##T, 256, T* output, u64 elements, u32 count, const Pieces pieces) {               \
        join(output, elements, count, pieces);                                                     \
    }
KERNELS(f32)
KERNELS(f64)
KERNELS(i32)
KERNELS(i64)
