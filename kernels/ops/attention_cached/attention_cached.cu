// attention_cached: qkv [rows, (H + 2 K) D], positions, sequences [rows], caches [sequences,
// positions, K D]. cache_append: a row's keys or values to its place, if there is such a place; no
// two rows have the same. attention_over_cache: the query of each row and head over the positions up
// to its own, by a block whose warps share them 32 at a time, with an online softmax each; their
// sums are joined in order.
//
// expects cache_append_bf16: LDG.E.128 STG.E.128
// expects attention_over_cache_bf16: LDG.E.128 MUFU.EX2
#include "common.cuh"

/// Sizes of the caches, and what a query sees: `window` is beyond all positions if there is none.
struct Caches {
    u64 heads, kv_heads, elements, sequences, positions, window, scale, stride;
};

template <class T>
__device__ void append(const T* from, const i32* positions, const i32* sequences, T* cache,
                       Rows rows, const Caches& caches) {
    u32 columns = (u32)(caches.kv_heads * caches.elements);
    bool whole = aligned(view(from, caches.stride)) && aligned(view(cache, columns));
    each_pack(block_team(), rows, columns, [&](u64 row, u32 column, u32 some) {
        u32 position = positions[row], sequence = sequences[row];
        if (position >= caches.positions || sequence >= caches.sequences) return;
        f32 x[PACK];
        load(from + row * caches.stride + column, some, whole, x);
        store(cache + (sequence * caches.positions + position) * columns + column, some, whole, x);
    });
}

/// Elements of a head at most: a pack for each lane.
constexpr u32 HEAD_MAX = 32 * PACK, WARPS = 4;

/// What a warp has seen of a row: the largest score, the sum of exponentials relative to it, and
/// of values so weighted.
struct Seen { f32 most, total, values[HEAD_MAX]; };

template <class T>
__device__ void attend(const T* q, const T* keys, const T* values, T* out, u32 position, u32 low,
                       u32 elements, u64 stride, f32 unit) {
    SHARED(query, f32[HEAD_MAX]);
    SHARED(seen, Seen[WARPS]);
    bool whole = aligned(view(keys, stride)) && aligned(view(values, stride));
    for (u32 i = threadIdx.x; i < elements; i += blockDim.x) query[i] = widened(q[i]);
    __syncthreads();
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = lane * PACK;
    u32 some = column >= elements ? 0 : elements - column < PACK ? elements - column : PACK;
    f32 most = __uint_as_float(0xff800000u), total = 0.0f, sums[PACK] = {}, x[PACK];
    for (u32 first = low + 32 * warp; first <= position; first += 32 * WARPS) {
        u32 key = first + lane;
        f32 score = __uint_as_float(0xff800000u);
        if (key <= position) {
            score = 0.0f;
            for (u32 d = 0; d < elements; d += PACK) {
                u32 count = elements - d < PACK ? elements - d : PACK;
                load(keys + key * stride + d, count, whole, x);
#pragma unroll
                for (u32 k = 0; k < PACK; k++) {
                    if (k < count) score = fmaf(query[d + k], x[k], score);
                }
            }
        }
        f32 now = warp_max(score > most ? score : most);
        f32 p = exp2_fast(fmaf(score, unit, -now * unit));
        // Exactly 1 where the largest score is the one of before.
        f32 rescale = now == most ? 1.0f : exp2_fast(fmaf(most, unit, -now * unit));
        most = now, total = fmaf(total, rescale, p);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) sums[k] *= rescale;
        u32 count = position - first < 31 ? position - first + 1 : 32;
        for (u32 i = 0; i < count; i++) {
            f32 weight = __shfl_sync(~0u, p, i);
            if (some == 0) continue;
            load(values + (first + i) * stride + column, some, whole, x);
#pragma unroll
            for (u32 k = 0; k < PACK; k++) sums[k] = fmaf(weight, x[k], sums[k]);
        }
    }
    total = warp_sum(total);
    if (lane == 0) seen[warp].most = most, seen[warp].total = total;
#pragma unroll
    for (u32 k = 0; k < PACK; k++) seen[warp].values[column + k] = sums[k];
    __syncthreads();
    if (warp > 0 || some == 0) return;
#pragma unroll
    for (u32 w = 1; w < WARPS; w++) most = seen[w].most > most ? seen[w].most : most;
    total = 0.0f;
#pragma unroll
    for (u32 k = 0; k < PACK; k++) sums[k] = 0.0f;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        f32 factor = exp2_fast(fmaf(seen[w].most, unit, -most * unit));
        total = fmaf(seen[w].total, factor, total);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) sums[k] = fmaf(seen[w].values[column + k], factor, sums[k]);
    }
#pragma unroll
    for (u32 k = 0; k < PACK; k++) sums[k] *= 1.0f / total;
    store(out + column, some, aligned(view(out, elements)), sums);
}

template <class T>
__device__ void attend_row(const T* qkv, const i32* positions, const i32* sequences, const T* keys,
                           const T* values, T* out, u32 rows, const Caches& caches) {
    u32 row = blockIdx.x, head = blockIdx.y, elements = (u32)caches.elements;
    if (row >= rows) return;
    i32 position = positions[row];
    u32 sequence = sequences[row];
    T* to = out + (row * caches.heads + head) * elements;
    if (position < 0 || position >= caches.positions || sequence >= caches.sequences) {
        f32 value = position < 0 ? 0.0f : __uint_as_float(0x7fc00000u);
        for (u32 i = threadIdx.x; i < elements; i += blockDim.x) to[i] = narrowed<T>(value);
        return;
    }
    u64 stride = caches.kv_heads * elements;
    u64 at = sequence * caches.positions * stride + head / (caches.heads / caches.kv_heads) * elements;
    u32 window = (u32)caches.window, seen = (u32)position + 1, low = seen > window ? seen - window : 0;
    f32 unit = __uint_as_float((u32)caches.scale) * 1.44269504088896340736f;
    const T* q = qkv + row * caches.stride + head * elements;
    attend(q, keys + at, values + at, to, (u32)position, low, elements, stride, unit);
}

#define KERNELS(T)                                                                                 \
    KERNEL(cache_append_##T, 256, const T* qkv, const i32* positions, const i32* sequences,        \
           T* cache, const i32* live, u32 capacity, u32 each, u32 first, const Caches caches) {    \
        Rows rows = block_rows(live, capacity, each);                                              \
        append(qkv + first, positions, sequences, cache, rows, caches);                            \
    }                                                                                              \
    KERNEL(attention_over_cache_##T, 32 * WARPS, const T* qkv, const i32* positions,               \
           const i32* sequences, const T* keys, const T* values, T* out, const i32* live,          \
           u32 capacity, const Caches caches) {                                                    \
        u32 rows = live_rows(live, capacity);                                                      \
        attend_row(qkv, positions, sequences, keys, values, out, rows, caches);                    \
    }
FOR_ELEMENTS(KERNELS)
