// mean_pool: x [sequences, positions, columns] -> y [sequences, columns], the mean over the positions
// that count, added in order, by a block for each sequence; zeros if none counts. Gradient: dy / count
// at those positions, zeros at the others; overwrites or adds. The CPU's bits.
//
// expects mean_pool_bf16: LDG.E.128 STG.E.128
#include "common.cuh"

/// 1 over how many positions of a sequence count, or 0; without a mask all do.
__device__ f32 share(const i32* mask, u32 positions) {
    u32 count = mask ? 0 : positions;
    for (u32 first = 0; mask && first < positions; first += blockDim.x) {
        u32 at = first + threadIdx.x;
        count += __syncthreads_count(at < positions && mask[at] != 0);
    }
    return count == 0 ? 0.0f : 1.0f / (f32)count;
}

template <class T>
__device__ void forward(const T* x, const i32* mask, T* y, Rows rows, u32 positions, u32 columns) {
    bool whole = aligned(view(x, columns)) && aligned(view(y, columns));
    for (u64 row = rows.begin; row < rows.end; row++) {
        const i32* counts = mask ? mask + row * positions : nullptr;
        f32 factor = share(counts, positions);
        each_pack(block_team(), Rows{0, 1}, columns, [&](u64, u32 column, u32 some) {
            f32 sum[PACK] = {}, pack[PACK];
            for (u32 at = 0; at < positions; at++) {
                if (counts && counts[at] == 0) continue;
                load(x + (row * positions + at) * columns + column, some, whole, pack);
#pragma unroll
                for (u32 k = 0; k < PACK; k++) sum[k] += pack[k];
            }
#pragma unroll
            for (u32 k = 0; k < PACK; k++) sum[k] *= factor;
            store(y + row * columns + column, some, whole, sum);
        });
    }
}

template <class T>
__device__ void gradient(const T* dy, const i32* mask, T* dx, Rows rows, u32 positions, u32 columns,
                         bool adds) {
    bool whole = aligned(view(dy, columns)) && aligned(view(dx, columns));
    for (u64 row = rows.begin; row < rows.end; row++) {
        const i32* counts = mask ? mask + row * positions : nullptr;
        f32 factor = share(counts, positions);
        each_pack(block_team(), Rows{0, positions}, columns, [&](u64 at, u32 column, u32 some) {
            bool counted = !counts || counts[at] != 0;
            if (adds && !counted) return;
            T* to = dx + (row * positions + at) * columns + column;
            f32 old[PACK] = {}, pack[PACK];
            if (adds) load(to, some, whole, old);
            if (counted) {
                load(dy + row * columns + column, some, whole, pack);
#pragma unroll
                for (u32 k = 0; k < PACK; k++) old[k] = fmaf(factor, pack[k], old[k]);
            }
            store(to, some, whole, old);
        });
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(mean_pool_##T, 256, const T* x, const i32* mask, T* y, const i32* live, u32 capacity,   \
           u32 each, u32 positions, u32 columns) {                                                 \
        forward(x, mask, y, block_rows(live, capacity, each), positions, columns);                 \
    }                                                                                              \
    KERNEL(mean_pool_gradient_##T, 256, const T* dy, const i32* mask, T* dx, const i32* live,      \
           u32 capacity, u32 each, u32 positions, u32 columns, u32 adds) {                         \
        gradient(dy, mask, dx, block_rows(live, capacity, each), positions, columns, adds != 0);   \
    }
FOR_ELEMENTS(KERNELS)
