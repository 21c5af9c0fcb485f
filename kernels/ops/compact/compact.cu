// compact: mask [n] -> index [capacity], count: the positions of what is not 0, in order, by one
// block. Too many raise the flag; the first are kept. What lies beyond the count is left alone.
#include "common.cuh"

KERNEL(compact, 1024, const i32* mask, i32* index, i32* count, i32* overflow, const i32* live,
       u32 rows, u32 capacity) {
    SHARED(set, u32[32]);
    u32 end = live_rows(live, rows), warp = threadIdx.x / 32, lane = threadIdx.x % 32, found = 0;
    for (u32 begin = 0; begin < end; begin += blockDim.x) {
        u32 position = begin + threadIdx.x;
        bool mine = position < end && mask[position] != 0;
        u32 ballot = __ballot_sync(~0u, mine);
        if (lane == 0) set[warp] = __popc(ballot);
        __syncthreads();
        u32 slot = found + __popc(ballot & ((1u << lane) - 1));
        for (u32 other = 0; other < blockDim.x / 32; other++) {
            slot += other < warp ? set[other] : 0;
            found += set[other];
        }
        if (mine && slot < capacity) index[slot] = (i32)position;
        // Counts are read before they are written anew.
        __syncthreads();
    }
    if (threadIdx.x > 0) return;
    *count = (i32)(found < capacity ? found : capacity);
    if (found > capacity) *overflow = 1;
}
