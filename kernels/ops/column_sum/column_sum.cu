// column_sum: dy [rows, columns] -> f32 [columns], the sum over rows: in f32 over 64 rows, over
// those in f64, in order; overwrites or adds. The CPU's bits. Other ops' sums over rows end with
// the same total.
#include "common.cuh"

KERNEL(column_sum_total, 32, const f32* sums, f32* out, const i32* live, u32 capacity, u32 each,
       u32 columns, u32 adds) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    f64 total = 0.0;
    u32 blocks = (live_rows(live, capacity) + each - 1) / each;
    // Loads that wait for no sum: few threads have nothing else to hide them behind.
#pragma unroll 8
    for (u64 block = 0; block < blocks; block++) total += sums[block * columns + column];
    out[column] = adds ? out[column] + (f32)total : (f32)total;
}

#define KERNELS(T)                                                                                 \
    KERNEL(column_sum_terms_##T, 256, const T* dy, f32* sums, const i32* live, u32 capacity,       \
           u32 each, u32 columns) {                                                                \
        sum_columns(block_rows(live, capacity, each), columns, {dy}, sums,                         \
                    [](const f32(&in)[1], f32& sum, u32) { sum += in[0]; });                       \
    }
FOR_ELEMENTS(KERNELS)
