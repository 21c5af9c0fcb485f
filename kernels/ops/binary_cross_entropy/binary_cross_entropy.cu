// binary_cross_entropy: logits [n], labels i32 [n] -> the loss, by one block, its terms in f64 added
// in order. Gradient: overwrites or adds. The CPU's bits.
#include "loss.cuh"

/// log(1 + e) for e in 0..=1, by the series of 2 artanh(e / (2 + e)).
__device__ __forceinline__ f64 ln_1p(f64 e) {
    f64 z = e / (2.0 + e), square = z * z, series = 0.0;
#pragma unroll
    for (i32 k = 12; k >= 0; k--) series = series * square + 1.0 / (f64)(2 * k + 1);
    return 2.0 * z * series;
}

template <class T> __device__ __forceinline__ f64 term(const T* logits, const i32* labels, u64 i) {
    i32 label = labels[i];
    if (label < 0) return 0.0;
    f32 x = widened(logits[i]);
    f64 linear = (f64)(x > 0.0f ? x : 0.0f) - (f64)x * (f64)label;
    return linear + ln_1p((f64)exp_exact(-fabsf(x)));
}

#define KERNELS(T)                                                                                 \
    KERNEL(binary_cross_entropy_##T, 256, const T* logits, const i32* labels, const f32* scale,    \
           f32* loss, f32* loss_sum, i32* targets, const i32* live, u32 capacity) {                \
        u32 rows = live_rows(live, capacity);                                                      \
        f64 sum = sum_in_order(rows, [&](u64 i) { return term(logits, labels, i); });              \
        u32 count = count_rows(rows, [&](u64 i) { return labels[i] >= 0; });                       \
        if (threadIdx.x) return;                                                                   \
        *loss = (f32)((f64)*scale * sum);                                                          \
        *loss_sum = (f32)sum;                                                                      \
        *targets = (i32)count;                                                                     \
    }                                                                                              \
    KERNEL(binary_cross_entropy_gradient_##T, 256, const T* logits, const i32* labels,             \
           const f32* scale, const f32* dloss, T* dx, const i32* live, u32 capacity, u32 each,     \
           u32 adds) {                                                                             \
        f32 factor = *scale * *dloss;                                                              \
        u32 rows = live_rows(live, capacity);                                                      \
        map_flat(block_rows(live, capacity, each), 1, {logits}, {dx}, adds,                        \
                 [=](const f32(&in)[1], f32(&out)[1], u64 element) {                               \
                     /* A pack may end behind the last element. */                                 \
                     i32 label = element < rows ? labels[element] : -1;                            \
                     out[0] = label < 0 ? 0.0f : factor * (sigmoid(in[0]) - (f32)label);           \
                 });                                                                               \
    }
FOR_ELEMENTS(KERNELS)
