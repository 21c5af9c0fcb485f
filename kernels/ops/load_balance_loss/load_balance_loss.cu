// load_balance_loss: logits [n, experts], counts [experts] -> the term of each row in f64, by a
// warp, and their total. Gradient of the logits: overwrites or adds.
#include "loss.cuh"

LOSS_TOTAL(load_balance_loss)

/// experts / Σ counts, or 0. Whole numbers, so that f64 has their sum exactly.
__device__ __forceinline__ f64 factor_of(const i32* counts, u32 experts) {
    f64 total = 0.0;
    for (u32 e = warp_team().rank; e < experts; e += 32) total += (f64)counts[e];
    total = warp_total(total);
    return total == 0.0 ? 0.0 : (f64)experts / total;
}

/// Σ counts e^(x - largest), by a warp.
template <class T>
__device__ __forceinline__ f64 weighted(const T* x, const i32* counts, u32 experts, f32 largest) {
    f64 sum = 0.0;
    for (u32 e = warp_team().rank; e < experts; e += 32) {
        sum += (f64)exp_exact(widened(x[e]) - largest) * (f64)counts[e];
    }
    return warp_total(sum);
}

template <class T>
__device__ void terms(const T* logits, const i32* counts, f64* terms, Rows rows, u32 experts) {
    f64 factor = factor_of(counts, experts);
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        const T* x = logits + row * experts;
        Parts parts = softmax_parts(x, experts, 1.0f);
        f64 sum = weighted(x, counts, experts, parts.largest);
        if (warp_team().rank == 0) terms[row] = sum / (f64)parts.sum * factor;
    }
}

template <class T>
__device__ void gradient(const T* logits, const i32* counts, f32 scale, T* dx, Rows rows,
                         u32 experts, bool adds) {
    f64 of_all = factor_of(counts, experts) * (f64)scale;
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        const T* x = logits + row * experts;
        Parts parts = softmax_parts(x, experts, 1.0f);
        f64 sum = weighted(x, counts, experts, parts.largest);
        f32 mean = (f32)(sum / (f64)parts.sum), factor = (f32)(of_all / (f64)parts.sum);
        map(warp_team(), Rows{0, 1}, experts, {view(x, 0)}, {view(dx + row * experts, 0)}, adds,
            [=](const f32(&in)[1], f32(&out)[1], u32, u32 e) {
                f32 count = e < experts ? (f32)counts[e] : 0.0f;
                out[0] = factor * exp_exact(in[0] - parts.largest) * (count - mean);
            });
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(load_balance_loss_##T, 256, const T* logits, const i32* counts, f64* sums,              \
           const i32* live, u32 capacity, u32 each, u32 experts) {                                 \
        terms(logits, counts, sums, block_rows(live, capacity, each), experts);                    \
    }                                                                                              \
    KERNEL(load_balance_loss_gradient_##T, 256, const T* logits, const i32* counts,                \
           const f32* scale, const f32* dloss, T* dx, const i32* live, u32 capacity, u32 each,     \
           u32 experts, u32 adds) {                                                                \
        Rows rows = block_rows(live, capacity, each);                                              \
        gradient(logits, counts, *scale * *dloss, dx, rows, experts, adds != 0);                   \
    }
FOR_ELEMENTS(KERNELS)
