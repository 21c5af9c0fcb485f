// combine: rows [R, columns], row_of [n, k], weight [n, k] -> y [n, columns], the weighted sum of a
// token's rows by fma, in order of its choices; a pair without a row (-1) adds nothing. Without
// weights their sum, the gradient of `dispatch`. Gradients: of a row, its pair's weight times its
// token's gradient; of a weight, the inner product of both rows, by a warp for each token. Those
// that are gradients overwrite or add. The CPU's bits but for inner products.
//
// expects combine_bf16_*: LDG.E.128 STG.E.128
// expects combine_rows_gradient_bf16_*: LDG.E.128 STG.E.128
// expects combine_weight_gradient_bf16: LDG.E.128
#include "common.cuh"

template <class T, class W>
__device__ void combine(const T* rows, const i32* row_of, const W* weight, T* y, Rows tokens,
                        u32 columns, u32 k, bool adds) {
    bool whole = aligned(view(rows, columns)) && aligned(view(y, columns));
    each_pack(block_team(), tokens, columns, [&](u64 token, u32 column, u32 some) {
        f32 sum[PACK] = {}, x[PACK];
        T* to = y + token * columns + column;
        if (adds) load(to, some, whole, sum);
        for (u64 pair = token * k; pair < (token + 1) * k; pair++) {
            i32 row = row_of[pair];
            if (row < 0) continue;
            f32 factor = weight ? widened(weight[pair]) : 1.0f;
            load(rows + (u64)row * columns + column, some, whole, x);
#pragma unroll
            for (u32 i = 0; i < PACK; i++) sum[i] = fmaf(factor, x[i], sum[i]);
        }
        store(to, some, whole, sum);
    });
}

template <class T, class W>
__device__ void rows_gradient(const T* dy, const i32* pair_of, const W* weight, T* drows, Rows rows,
                              u32 columns, u32 k, bool adds) {
    bool whole = aligned(view(dy, columns)) && aligned(view(drows, columns));
    each_pack(block_team(), rows, columns, [&](u64 row, u32 column, u32 some) {
        f32 sum[PACK] = {}, x[PACK];
        T* to = drows + row * columns + column;
        u32 pair = pair_of[row];
        f32 factor = widened(weight[pair]);
        if (adds) load(to, some, whole, sum);
        load(dy + (u64)(pair / k) * columns + column, some, whole, x);
#pragma unroll
        for (u32 i = 0; i < PACK; i++) sum[i] = fmaf(factor, x[i], sum[i]);
        store(to, some, whole, sum);
    });
}

template <class T>
__device__ void weight_gradient(const T* dy, const T* rows, const i32* row_of, f32* dweight,
                                Rows tokens, u32 columns, u32 k, bool adds) {
    u32 warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (u64 token = tokens.begin + warp; token < tokens.end; token += warps) {
        for (u64 pair = token * k; pair < (token + 1) * k; pair++) {
            i32 row = row_of[pair];
            f32 sum[1] = {};
            if (row >= 0) {
                sum_row(columns, {dy + token * columns, rows + (u64)row * columns}, sum,
                        [](const f32(&in)[2], f32(&sums)[1], u32) {
                            sums[0] = fmaf(in[0], in[1], sums[0]);
                        });
            }
            if (warp_team().rank == 0) dweight[pair] = adds ? dweight[pair] + sum[0] : sum[0];
        }
    }
}

#define WEIGHED(T, W)                                                                              \
    KERNEL(combine_##T##_##W, 256, const T* rows, const i32* row_of, const W* weight, T* y,        \
           const i32* live, u32 capacity, u32 each, u32 columns, u32 k, u32 adds) {                \
        combine(rows, row_of, weight, y, block_rows(live, capacity, each), columns, k, adds);      \
    }                                                                                              \
    KERNEL(combine_rows_gradient_##T##_##W, 256, const T* dy, const i32* pair_of, const W* weight, \
           T* drows, const i32* live, u32 capacity, u32 each, u32 columns, u32 k, u32 adds) {      \
        Rows rows = block_rows(live, capacity, each);                                              \
        rows_gradient(dy, pair_of, weight, drows, rows, columns, k, adds);                         \
    }
WEIGHED(f32, f32)
WEIGHED(bf16, f32)
WEIGHED(bf16, bf16)

#define KERNELS(T)                                                                                 \
    KERNEL(combine_weight_gradient_##T, 256, const T* dy, const T* rows, const i32* row_of,        \
           f32* dweight, const i32* live, u32 capacity, u32 each, u32 columns, u32 k, u32 adds) {  \
        Rows tokens = block_rows(live, capacity, each);                                            \
        weight_gradient(dy, rows, row_of, dweight, tokens, columns, k, adds);                      \
    }
FOR_ELEMENTS(KERNELS)
