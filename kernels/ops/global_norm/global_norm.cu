// global_norm: block_sums, the sum of squares of each block of gradients in f64, a block of threads
// for each, in one order; decide, the norm of all of them and what follows for the update
// (device.rs, Decision), by one block: the sums are added one by one in block order, as on the CPU.
#include "common.cuh"

// expects block_sums: LDG.E.128

KERNEL(block_sums, 256, const f32* gradient, f64* sums, u64 elements, u64 block_elements) {
    SHARED(of_warps, f64[8]);
    u64 first = blockIdx.x * block_elements;
    u64 count = elements - first < block_elements ? elements - first : block_elements;
    const f32* from = gradient + first;
    bool whole = (u64)from % 16 == 0;
    f64 sum = 0.0;
    for (u64 at = threadIdx.x * PACK; at < count; at += 256 * PACK) {
        u32 some = count - at < PACK ? (u32)(count - at) : PACK;
        f32 x[PACK];
        load(from + at, some, whole, x);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) sum += (f64)x[k] * (f64)x[k];
    }
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(~0u, sum, width);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (u32 warp = 1; warp < 8; warp++) sum += of_warps[warp];
    sums[blockIdx.x] = sum;
}

/// device.rs has it, and what the bits of `skip` say.
struct Decision { f64 norm; f32 factor; u32 skip; u64 updates; };
constexpr u32 NOT_FINITE = 1, OVERFLOW = 2, HELD = 4;

/// By rank, where its flag is.
struct Flags { u64 at[64]; };

/// `known`: `updates` were made before; else the decision before this one says how many.
KERNEL(decide, 256, const f64* gathered, const i32* order, u64 blocks, f64 clip_norm, u32 known,
       u64 updates, Decision* decision, u32 ranks, const Flags flags) {
    f64 sum = sum_in_order(blocks, [&](u64 i) { return gathered[order[i]]; });
    if (threadIdx.x) return;
    Decision before = *decision, now;
    now.norm = sqrt(sum);
    bool finite = now.norm - now.norm == 0.0;
    bool clips = finite && clip_norm > 0.0 && clip_norm - clip_norm == 0.0;
    f64 factor = clip_norm / (now.norm + 1e-6);
    now.factor = clips && factor < 1.0 ? (f32)factor : 1.0f;
    bool overflow = false;
    for (u32 rank = 0; rank < ranks; rank++) {
        overflow = overflow || *reinterpret_cast<const u32*>(gathered + flags.at[rank]);
    }
    bool held = !known && before.skip & (OVERFLOW | HELD);
    now.skip = (finite ? 0 : NOT_FINITE) + (overflow ? OVERFLOW : 0) + (held ? HELD : 0);
    now.updates = (known ? updates : before.updates) + (now.skip == 0);
    *decision = now;
}
