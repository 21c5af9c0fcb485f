// What losses share: a logarithm, as cpu/softmax.rs has it, and what a block of threads finds out
// about a row or a column, in one order.
#pragma once
#include "common.cuh"

/// In f64 to some 1e-15. 0 gives minus infinity, less gives what is no number.
__device__ __forceinline__ f64 ln(f32 x) {
    u32 bits = __float_as_uint(x);
    if (x == 0.0f) return (f64)__uint_as_float(0xff800000u);
    if (bits == 0x7f800000u) return (f64)x;
    if (bits > 0x7f800000u) return (f64)__uint_as_float(0x7fc00000u);
    // Subnormal numbers are none in f64: 2^32 times as much is normal in f32 too.
    i32 exponent = 0;
    if (bits < 0x00800000u) bits = __float_as_uint(x * 4294967296.0f), exponent = -32;
    exponent += (i32)(bits >> 23) - 127;
    f64 mantissa = (f64)__uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
    if (mantissa > 1.4142135623730951) mantissa *= 0.5, exponent++;
    f64 s = (mantissa - 1.0) / (mantissa + 1.0), square = s * s, series = 0.0;
#pragma unroll
    for (i32 odd = 19; odd > 0; odd -= 2) series = series * square + 1.0 / (f64)odd;
    return (f64)exponent * 0.6931471805599453 + 2.0 * s * series;
}

/// e^x, but 0 below e^-87: subnormal numbers cost a CPU much.
__device__ __forceinline__ f32 exp_or_zero(f32 x) { return x < -87.0f ? 0.0f : exp_exact(x); }

/// What is no number.
__device__ __forceinline__ f32 nan_f32() { return __uint_as_float(0x7fc00000u); }
__device__ __forceinline__ f32 lowest_f32() { return __uint_as_float(0xff800000u); }

/// `join` of what all threads of a block of 256 have, in every thread: within warps in a tree, then
/// warp by warp.
template <class T, class F> __device__ __forceinline__ T block_join(T x, F join) {
    SHARED(of_warps, T[8]);
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) x = join(x, __shfl_xor_sync(~0u, x, width));
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = of_warps[0];
#pragma unroll
    for (u32 warp = 1; warp < 8; warp++) x = join(x, of_warps[warp]);
    // The next one begins when all have read.
    __syncthreads();
    return x;
}

template <class T> __device__ __forceinline__ T block_sum(T x) {
    return block_join(x, [](T a, T b) { return a + b; });
}

__device__ __forceinline__ f32 block_max(f32 x) {
    return block_join(x, [](f32 a, f32 b) { return b > a ? b : a; });
}

/// How many rows below `count` are such, in every thread of a block of 256.
template <class F> __device__ __forceinline__ u32 count_rows(u32 count, F such) {
    u32 found = 0;
    for (u32 row = threadIdx.x; row < count; row += 256) found += such(row);
    return block_sum(found);
}

/// The largest of a row's values and the sum of e^((x - largest) rate).
struct Parts { f32 largest, sum; };

/// Of a row, by a warp.
template <class T> __device__ __forceinline__ Parts softmax_parts(const T* x, u32 columns, f32 rate) {
    f32 largest = lowest_f32(), sum[1];
    bool whole = (u64)x % 16 == 0;
    each_pack(warp_team(), Rows{0, 1}, columns, [&](u64, u32 column, u32 some) {
        f32 of[PACK];
        load(x + column, some, whole, of);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            if (k < some) largest = of[k] > largest ? of[k] : largest;
        }
    });
    largest = warp_max(largest);
    sum_row(columns, {x}, sum, [=](const f32(&in)[1], f32(&sums)[1], u32) {
        sums[0] += exp_exact((in[0] - largest) * rate);
    });
    return {largest, sum[0]};
}

/// The log of a row's sum of e^(x rate).
__device__ __forceinline__ f64 log_sum(Parts parts, f32 rate) {
    return (f64)parts.largest * (f64)rate + ln(parts.sum);
}

/// The sum over a warp of `f64`.
__device__ __forceinline__ f64 warp_total(f64 x) {
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

/// The function NAME_total, of one block: the terms of all rows added in order, and scaled; and how
/// many labels are not negative, if there are labels.
#define LOSS_TOTAL(NAME)                                                                           \
    KERNEL(NAME##_total, 256, const f64* terms, const i32* labels, const f32* scale, f32* loss,    \
           f32* loss_sum, i32* targets, const i32* live, u32 capacity) {                           \
        u32 rows = live_rows(live, capacity);                                                      \
        f64 sum = sum_in_order(rows, [&](u64 row) { return terms[row]; });                         \
        u32 count = labels ? count_rows(rows, [&](u64 row) { return labels[row] >= 0; }) : 0;      \
        if (threadIdx.x) return;                                                                   \
        *loss = (f32)((f64)*scale * sum);                                                          \
        *loss_sum = (f32)sum;                                                                      \
        if (labels) *targets = (i32)count;                                                         \
    }
