// group_by_expert: expert [n, k] -> row_of [n, k], pair_of [capacity], expert_start [experts + 1],
// count: a stable counting sort of pairs by expert. Three kernels: how many pairs of each expert a
// unit of pairs has, a warp for each unit; the row of the first of those, by one block; the rows of
// all pairs, a warp for each unit again. Integers throughout, and no order but that of pairs: the
// CPU's bits. Pairs that find no row have -1, and the flag is raised.
#include "common.cuh"

/// Pairs of a unit, units of a block, and experts at most.
constexpr u32 UNIT = 512, UNITS = 4, EXPERTS = 1024;

/// The pairs of this warp's unit, of so many.
__device__ __forceinline__ Rows unit_of(u32 pairs) {
    u32 begin = (blockIdx.x * UNITS + threadIdx.x / 32) * UNIT;
    u32 end = begin + UNIT < pairs ? begin + UNIT : pairs;
    return begin < end ? Rows{begin, end} : Rows{0, 0};
}

/// The lanes that have the same number below `limit`, of those that have one.
__device__ __forceinline__ u32 alike(u32 number, bool mine, u32 limit) {
    u32 same = __ballot_sync(~0u, mine);
    for (u32 bit = 1; bit < limit; bit *= 2) {
        bool set = (number & bit) != 0;
        u32 others = __ballot_sync(~0u, set);
        same &= set ? others : ~others;
    }
    return same;
}

KERNEL(group_count, 128, const i32* expert, u32* units, const i32* live, u32 tokens, u32 k,
       u32 experts) {
    SHARED(counts, u32[UNITS][EXPERTS]);
    u32* own = counts[threadIdx.x / 32];
    Rows pairs = unit_of(live_rows(live, tokens) * k);
    if (pairs.begin == pairs.end) return;
    for (u32 e = warp_team().rank; e < experts; e += 32) own[e] = 0;
    __syncwarp();
    for (u32 pair = pairs.begin + warp_team().rank; pair < pairs.end; pair += 32) {
        atomicAdd(&own[expert[pair]], 1u);
    }
    __syncwarp();
    u32* to = units + (u64)(pairs.begin / UNIT) * experts;
    for (u32 e = warp_team().rank; e < experts; e += 32) to[e] = own[e];
}

/// What all threads before this one of a block of 1024 have, summed.
__device__ __forceinline__ u32 sum_before(u32 x) {
    SHARED(of_warps, u32[32]);
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = x;
#pragma unroll
    for (u32 by = 1; by < 32; by *= 2) {
        u32 other = __shfl_up_sync(~0u, sum, by);
        sum += lane >= by ? other : 0;
    }
    if (lane == 31) of_warps[warp] = sum;
    __syncthreads();
    for (u32 other = 0; other < warp; other++) sum += of_warps[other];
    return sum - x;
}

/// In `units`, the first row of each expert's pairs of a unit takes the place of their number. The
/// units of an expert are shared by several threads, each of which has some in a row.
KERNEL(group_scan, 1024, u32* units, i32* start, i32* count, i32* overflow, const i32* live,
       u32 tokens, u32 k, u32 experts, u32 capacity) {
    SHARED(sums, u32[1024]);
    SHARED(firsts, u32[EXPERTS]);
    u32 pairs = live_rows(live, tokens) * k, all = (pairs + UNIT - 1) / UNIT;
    u32 parts = 1024 / experts < 32 ? 1024 / experts : 32, each = (all + parts - 1) / parts;
    u32 e = threadIdx.x % experts, part = threadIdx.x / experts;
    u32 begin = part < parts ? part * each : all, end = begin + each < all ? begin + each : all;
    u32 sum = 0, total = 0;
    for (u32 unit = begin; unit < end; unit++) sum += units[(u64)unit * experts + e];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < experts) {
        for (u32 other = 0; other < parts; other++) total += sums[other * experts + threadIdx.x];
    }
    u32 first = sum_before(total), last = first + total;
    if (threadIdx.x < experts) {
        firsts[threadIdx.x] = first;
        start[threadIdx.x + 1] = (i32)(last < capacity ? last : capacity);
    }
    __syncthreads();
    u32 row = firsts[e];
    for (u32 other = 0; other < part && part < parts; other++) row += sums[other * experts + e];
    for (u32 unit = begin; unit < end; unit++) {
        u32* at = units + (u64)unit * experts + e;
        u32 some = *at;
        *at = row;
        row += some;
    }
    if (threadIdx.x > 0) return;
    start[0] = 0;
    *count = (i32)(pairs < capacity ? pairs : capacity);
    if (pairs > capacity) *overflow = 1;
}

KERNEL(group_place, 128, const i32* expert, const u32* units, i32* row_of, i32* pair_of,
       const i32* live, u32 tokens, u32 k, u32 experts, u32 capacity) {
    SHARED(rows, u32[UNITS][EXPERTS]);
    u32 lane = warp_team().rank, *next = rows[threadIdx.x / 32];
    Rows pairs = unit_of(live_rows(live, tokens) * k);
    if (pairs.begin == pairs.end) return;
    const u32* first = units + (u64)(pairs.begin / UNIT) * experts;
    for (u32 e = lane; e < experts; e += 32) next[e] = first[e];
    __syncwarp();
    for (u32 begin = pairs.begin; begin < pairs.end; begin += 32) {
        u32 pair = begin + lane;
        bool mine = pair < pairs.end;
        u32 e = mine ? (u32)expert[pair] : 0, same = alike(e, mine, experts);
        u32 before = __popc(same & ((1u << lane) - 1)), row = next[e] + before;
        // All have read where the next row is.
        __syncwarp();
        if (mine && before == 0) next[e] += __popc(same);
        __syncwarp();
        if (!mine) continue;
        row_of[pair] = row < capacity ? (i32)row : -1;
        if (row < capacity) pair_of[row] = (i32)pair;
    }
}
