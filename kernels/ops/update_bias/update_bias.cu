// update_bias: counts [experts] -> the step of each expert's bias, by one block: up for what is
// below the mean, down for what is above. Compared in integers: the CPU's bits.
#include "loss.cuh"

KERNEL(update_bias, 256, const i32* counts, f32* bias, u32 experts, f32 rate, u32 adds) {
    using i64 = long long;
    i64 total = 0;
    for (u32 e = threadIdx.x; e < experts; e += blockDim.x) total += counts[e];
    total = block_sum(total);
    for (u32 e = threadIdx.x; e < experts; e += blockDim.x) {
        i64 below = total - (i64)counts[e] * (i64)experts;
        f32 step = rate * (f32)((below > 0) - (below < 0));
        bias[e] = adds ? bias[e] + step : step;
    }
}
