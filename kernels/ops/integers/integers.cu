// integers: a rule on each element of a and b. total: the wrapping sum of all elements, by one block.
#include "common.cuh"

#define RULE(NAME, VALUE)                                                                          \
    KERNEL(NAME, 256, const i32* as, const i32* bs, i32* out, const i32* live, u32 capacity,       \
           u32 each, u32 columns, i32 constant) {                                                  \
        Rows rows = block_rows(live, capacity, each);                                              \
        u64 end = (u64)rows.end * columns;                                                         \
        for (u64 i = (u64)rows.begin * columns + threadIdx.x; i < end; i += blockDim.x) {          \
            i32 a = as[i], b = bs ? bs[i] : constant;                                              \
            out[i] = VALUE;                                                                        \
        }                                                                                          \
    }
RULE(not_equal, a != b)
RULE(add_integers, (i32)((u32)a + (u32)b))
RULE(keep_or, b == 0 ? constant : a)
RULE(less_than, a < b)

KERNEL(total, 256, const i32* a, i32* out, const i32* live, u32 capacity, u32 columns) {
    SHARED(sums, u32[8]);
    u64 count = (u64)live_rows(live, capacity) * columns;
    u32 sum = 0;
    for (u64 i = threadIdx.x; i < count; i += blockDim.x) sum += (u32)a[i];
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(~0u, sum, width);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) sum += sums[warp];
    *out = (i32)sum;
}
