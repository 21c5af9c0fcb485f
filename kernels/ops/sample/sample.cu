// sample: logits [rows, classes], samples, elements [rows] -> a class for each row, by a block: the
// first of the largest at a rate of 0, else the first to arrive in a race of exponential times, of
// equal ones the lowest. A thread has the four classes of a block of random words. The CPU's bits.
#include "common.cuh"

/// -log(1 - u) of a random word, as ops/sample/cpu.rs has it.
__device__ __forceinline__ f32 exponential(u32 word) {
    const f32 part = 1.0f / 4294967296.0f;
    f32 u = ((f32)word + 0.5f) * part, rest = ((f32)~word + 0.5f) * part;
    u32 bits = __float_as_uint(rest);
    i32 power = (i32)(bits - 0x3f3504f3u) >> 23;
    f32 mantissa = __uint_as_float(bits - ((u32)power << 23));
    bool near = u < 0.25f;
    f32 f = near ? -u : mantissa - 1.0f, exponent = near ? 0.0f : (f32)power, square = f * f;
    f32 p = fmaf(7.0376836e-2f, f, -1.151461e-1f);
    p = fmaf(p, f, 1.1676999e-1f);
    p = fmaf(p, f, -1.2420141e-1f);
    p = fmaf(p, f, 1.4249323e-1f);
    p = fmaf(p, f, -1.6668058e-1f);
    p = fmaf(p, f, 2.0000715e-1f);
    p = fmaf(p, f, -2.4999994e-1f);
    p = fmaf(p, f, 3.333333e-1f);
    f32 tail = fmaf(exponent, -2.1219444e-4f, f * square * p);
    tail = fmaf(square, -0.5f, tail);
    return -fmaf(exponent, 0.6933594f, f + tail);
}

__device__ __forceinline__ u64 mixed(u64 value) {
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

/// Beyond 2^32 blocks another key counts anew.
__device__ __forceinline__ u64 key_of(u64 key, u64 block) {
    return block >> 32 ? mixed(key ^ mixed(block >> 32)) : key;
}

/// A class and when it arrives.
struct Arrival { f32 time; u32 class_; };

__device__ __forceinline__ Arrival earlier(Arrival a, Arrival b) {
    return b.time < a.time || (b.time == a.time && b.class_ < a.class_) ? b : a;
}

__device__ Arrival block_first(Arrival mine) {
    SHARED(warps, Arrival[8]);
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) {
        Arrival other = {__shfl_xor_sync(~0u, mine.time, width), __shfl_xor_sync(~0u, mine.class_, width)};
        mine = earlier(mine, other);
    }
    // Nobody still reads those of the round before.
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = warps[0];
#pragma unroll
    for (u32 warp = 1; warp < 8; warp++) mine = earlier(mine, warps[warp]);
    return mine;
}

template <class T>
__device__ void draw(const T* logits, i32* out, u64 element, u64 step, u64 sample, u64 key,
                     u32 classes, f32 rate) {
    const f32 infinity = __uint_as_float(0x7f800000u);
    Arrival best = {infinity, 0};
    for (u32 i = threadIdx.x; i < classes; i += blockDim.x) {
        best = earlier(best, Arrival{-widened(logits[i]), i});
    }
    best = block_first(best);
    if (rate > 0.0f) {
        f32 largest = -best.time;
        best = {infinity, 0};
        for (u32 first = 4 * threadIdx.x; first < classes; first += 4 * blockDim.x) {
            u64 block = element / 4 + first / 4;
            Words words = philox(step, sample, (u32)block, key_of(key, block));
            u32 each[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                if (first + k >= classes) continue;
                f32 x = widened(logits[first + k]);
                f32 time = exponential(each[k]) * exp_exact((largest - x) * rate);
                if (time < best.time) best = {time, first + k};
            }
        }
        best = block_first(best);
    }
    if (threadIdx.x == 0) *out = (i32)best.class_;
}

#define KERNELS(T)                                                                                 \
    KERNEL(sample_##T, 256, const T* logits, const i32* samples, const i32* elements, i32* out,    \
           const RunArguments* run, const i32* live, const i32* live_samples,                      \
           const i32* live_elements, u32 capacity, u32 classes, f32 rate, u64 key) {               \
        u32 row = blockIdx.x;                                                                      \
        if (row >= live_rows(live, capacity) || row >= live_rows(live_samples, capacity)) return;  \
        if (row >= live_rows(live_elements, capacity)) return;                                     \
        u64 sample = run->first_sample + (u64)(long long)samples[row];                             \
        i32 at = elements[row];                                                                    \
        u64 element = (u64)(at < 0 ? 0u - (u32)at : (u32)at) * ((classes + 3) / 4 * 4);            \
        draw(logits + (u64)row * classes, out + row, element, run->step, sample, key, classes,     \
             rate);                                                                                \
    }
FOR_ELEMENTS(KERNELS)
