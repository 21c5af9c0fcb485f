// head_norm: x [rows, (H + 2 K) D], wq, wk [D] -> y and rstd [rows, H + K]: query heads normalised
// with wq, key heads with wk as in rms_norm, a warp for each; values copied. Gradients: dx
// overwrites; dw as sums over 64 rows and their heads, which column_sum.cu adds up.
//
// expects head_norm_bf16: LDG.E.128 STG.E.128
// expects head_norm_input_gradient_bf16: LDG.E.128 STG.E.128
#include "rms_norm.cuh"

/// How many heads there are.
struct Heads { u32 queries, keys, elements; };

/// `f(head, row, where it begins in x, where its rstd lies)` for each head of some rows, by a warp.
template <class F> __device__ __forceinline__ void each_head(Rows rows, Heads heads, F f) {
    u32 all = heads.queries + 2 * heads.keys, normed = heads.queries + heads.keys;
    u32 count = (rows.end - rows.begin) * all;
    for (u32 i = threadIdx.x / 32; i < count; i += blockDim.x / 32) {
        u64 row = rows.begin + i / all;
        u32 head = i % all;
        f(head, (row * all + head) * heads.elements, row * normed + head);
    }
}

template <class T>
__device__ __forceinline__ void copy_head(const T* from, T* to, u32 elements) {
    map(warp_team(), Rows{0, 1}, elements, {view(from, 0)}, {view(to, 0)}, false,
        [](const f32(&in)[1], f32(&out)[1], u32, u32) { out[0] = in[0]; });
}

template <class T>
__device__ void forward(const T* x, const T* wq, const T* wk, T* y, f32* rstd, Rows rows,
                        Heads heads, f32 eps) {
    each_head(rows, heads, [=](u32 head, u64 at, u64 number) {
        if (head >= heads.queries + heads.keys) return copy_head(x + at, y + at, heads.elements);
        const T* w = head < heads.queries ? wq : wk;
        normalise(x + at, w, y + at, rstd + number, heads.elements, eps);
    });
}

template <class T>
__device__ void input_gradient(const T* dy, const T* x, const T* wq, const T* wk, const f32* rstd,
                               T* dx, Rows rows, Heads heads) {
    each_head(rows, heads, [=](u32 head, u64 at, u64 number) {
        if (head >= heads.queries + heads.keys) return copy_head(dy + at, dx + at, heads.elements);
        const T* w = head < heads.queries ? wq : wk;
        normalise_gradient(dy + at, x + at, w, rstd[number], dx + at, heads.elements, false);
    });
}

/// Sums over `count` heads from `first` on of some rows: heads go to groups of threads in turn, and
/// the groups' sums are added in order.
template <class T>
__device__ void weight_terms(const T* dy, const T* x, const f32* rstd, f32* sums, Rows rows,
                             Heads heads, u32 first, u32 count) {
    SHARED(partial, f32[256][PACK]);
    u32 all = heads.queries + 2 * heads.keys, normed = heads.queries + heads.keys;
    u32 packs = (heads.elements + PACK - 1) / PACK, groups = blockDim.x / packs;
    u32 pack = threadIdx.x % packs, group = threadIdx.x / packs;
    u32 column = pack * PACK, left = heads.elements - column, some = left < PACK ? left : PACK;
    bool whole = aligned(view(dy, heads.elements)) && aligned(view(x, heads.elements));
    f32 sum[PACK] = {}, a[PACK], b[PACK];
    u32 vectors = group < groups ? (rows.end - rows.begin) * count : 0;
    for (u32 i = group; i < vectors; i += groups) {
        u64 row = rows.begin + i / count;
        u32 head = first + i % count;
        u64 at = (row * all + head) * heads.elements + column;
        f32 scale = rstd[row * normed + head];
        load(dy + at, some, whole, a);
        load(x + at, some, whole, b);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) sum[k] = fmaf(a[k], b[k] * scale, sum[k]);
    }
#pragma unroll
    for (u32 k = 0; k < PACK; k++) partial[threadIdx.x][k] = sum[k];
    __syncthreads();
    if (group > 0) return;
    for (u32 other = 1; other < groups; other++) {
#pragma unroll
        for (u32 k = 0; k < PACK; k++) sum[k] += partial[other * packs + pack][k];
    }
    store(sums + (u64)blockIdx.x * heads.elements + column, some, heads.elements % PACK == 0, sum);
}

#define KERNELS(T)                                                                                 \
    KERNEL(head_norm_##T, 256, const T* x, const T* wq, const T* wk, T* y, f32* rstd,              \
           const i32* live, u32 capacity, u32 each, u32 queries, u32 keys, u32 elements,           \
           f32 eps) {                                                                              \
        Rows rows = block_rows(live, capacity, each);                                              \
        forward(x, wq, wk, y, rstd, rows, Heads{queries, keys, elements}, eps);                    \
    }                                                                                              \
    KERNEL(head_norm_input_gradient_##T, 256, const T* dy, const T* x, const T* wq, const T* wk,   \
           const f32* rstd, T* dx, const i32* live, u32 capacity, u32 each, u32 queries, u32 keys, \
           u32 elements) {                                                                         \
        Rows rows = block_rows(live, capacity, each);                                              \
        input_gradient(dy, x, wq, wk, rstd, dx, rows, Heads{queries, keys, elements});             \
    }                                                                                              \
    KERNEL(head_norm_weight_terms_##T, 256, const T* dy, const T* x, const f32* rstd, f32* sums,   \
           const i32* live, u32 capacity, u32 each, u32 elements, u32 queries, u32 keys,           \
           u32 first, u32 count) {                                                                 \
        Rows rows = block_rows(live, capacity, each);                                              \
        weight_terms(dy, x, rstd, sums, rows, Heads{queries, keys, elements}, first, count);       \
    }
FOR_ELEMENTS(KERNELS)
