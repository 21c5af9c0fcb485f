// copy of integers: x -> y, overwrites or adds. Floats are cast.cu's.
#include "common.cuh"

KERNEL(copy_i32, 256, const i32* x, i32* y, const i32* live, u32 capacity, u32 each, u32 columns,
       u32 adds) {
    Rows rows = block_rows(live, capacity, each);
    u64 end = (u64)rows.end * columns;
    for (u64 i = (u64)rows.begin * columns + threadIdx.x; i < end; i += blockDim.x) {
        y[i] = adds ? y[i] + x[i] : x[i];
    }
}
