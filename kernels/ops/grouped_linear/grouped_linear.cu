// grouped_linear: products with the weights of experts, each over its own rows, which begin where
// `start` [experts + 1] says; the host knows how many rows there are at most. y = x w[e]^T and
// dx = dy w[e]: each expert has as many rows of tiles as its rows need, experts behind one another,
// and a block looks for its own; the tiles of one row of them are neighbours, which read the same
// rows. dw[e] = dy^T x: a grid of tiles for each expert, zeros for one without rows. Rows of no
// expert are neither read nor written.
//
// expects grouped_64_*: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects grouped_128_*: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
#include "product.cuh"

/// An expert, and those of its rows that one of its tiles and later ones have.
struct Group { u32 expert; Rows rows; };

/// The expert whose rows the tile of that number has, if tiles have `each` rows, and its rows from
/// there on; every warp looks by itself. There are none if there is no such tile.
__device__ __forceinline__ Group group_of(const i32* start, u32 experts, u32 number, u32 each) {
    u32 lane = warp_team().rank, before = 0;
    for (u32 base = 0; base < experts; base += 32) {
        u32 e = base + lane;
        u32 first = e < experts ? start[e] : 0, end = e < experts ? start[e + 1] : 0;
        u32 tiles = (end - first + each - 1) / each, sum = tiles;
#pragma unroll
        for (u32 by = 1; by < 32; by *= 2) {
            u32 other = __shfl_up_sync(~0u, sum, by);
            sum += lane >= by ? other : 0;
        }
        u32 ends = __ballot_sync(~0u, number < before + sum);
        if (ends) {
            u32 found = __ffs((i32)ends) - 1;
            u32 skipped = before + __shfl_sync(~0u, sum - tiles, found);
            first = __shfl_sync(~0u, first, found), end = __shfl_sync(~0u, end, found);
            return {base + found, {first + (number - skipped) * each, end}};
        }
        before += __shfl_sync(~0u, sum, 31);
    }
    return {0, {0, 0}};
}

// A block's expert, and the product of rows of `a`, which end where the expert's do.
#define FIND(T, SIDE)                                                                              \
    u32 across = (n + SIDE - 1) / SIDE, column = blockIdx.x % across * SIDE;                       \
    Group group = group_of(start, experts, blockIdx.x / across, SIDE);                             \
    Product<T, T> p{a, w + (u64)group.expert * n * k, nullptr, c, nullptr, group.rows.end, n, 0, k, \
                    0, adds != 0}
#define ROW_PARAMETERS(T)                                                                          \
    const T *a, const T *w, const i32 *start, T *c, u32 experts, u32 n, u32 k, u32 adds
#define BY_ROWS(NAME, B)                                                                           \
    KERNEL(grouped_64_##NAME, 128, ROW_PARAMETERS(bf16)) {                                         \
        DYNAMIC_SHARED(memory);                                                                    \
        FIND(bf16, 64);                                                                            \
        multiply_tiles<false, B, 64, 64, 32, 32>(memory, p, group.rows.begin, column);             \
    }                                                                                              \
    KERNEL(grouped_128_##NAME, 256, ROW_PARAMETERS(bf16)) {                                        \
        DYNAMIC_SHARED(memory);                                                                    \
        FIND(bf16, 128);                                                                           \
        multiply_tiles<false, B, 128, 128, 64, 32>(memory, p, group.rows.begin, column);           \
    }                                                                                              \
    KERNEL(grouped_f32_##NAME, 128, ROW_PARAMETERS(f32)) {                                         \
        FIND(f32, WIDE);                                                                           \
        multiply_f32<false, B>(p, group.rows.begin, column);                                       \
    }
BY_ROWS(forward, false)
BY_ROWS(input, true)

// The product over an expert's rows. Nothing is added to the gradient of one without rows.
#define OVER_ROWS(T)                                                                               \
    u32 first = start[blockIdx.z], end = start[blockIdx.z + 1];                                    \
    if (adds && first == end) return;                                                              \
    Product<T, f32> p{dy,  x, nullptr, dw + (u64)blockIdx.z * m * n, nullptr, m, n, first, end, 0, \
                      adds != 0}
#define WEIGHT_PARAMETERS(T)                                                                       \
    const T *dy, const T *x, const i32 *start, f32 *dw, u32 m, u32 n, u32 adds
KERNEL(grouped_64_weight, 128, WEIGHT_PARAMETERS(bf16)) {
    DYNAMIC_SHARED(memory);
    OVER_ROWS(bf16);
    multiply_tiles<true, true, 64, 64, 32, 32>(memory, p, blockIdx.x * 64, blockIdx.y * 64);
}
KERNEL(grouped_128_weight, 256, WEIGHT_PARAMETERS(bf16)) {
    DYNAMIC_SHARED(memory);
    OVER_ROWS(bf16);
    multiply_tiles<true, true, 128, 128, 64, 32>(memory, p, blockIdx.x * 128, blockIdx.y * 128);
}
KERNEL(grouped_f32_weight, 128, WEIGHT_PARAMETERS(f32)) {
    OVER_ROWS(f32);
    multiply_f32<true, true>(p, blockIdx.x * WIDE, blockIdx.y * WIDE);
}
