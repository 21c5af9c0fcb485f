// activation: y = f(x) element by element; dx = dy f'(x). gelu, gelu_erf and silu, as cpu.rs has them.
// Overwrites. The CPU's bits.
//
// expects gelu_*: LDG.E.128 STG.E.128
#include "common.cuh"

/// The normal distribution function: the Chebyshev fit of Press et al., "Numerical Recipes", erfcc.
__device__ __forceinline__ f32 normal_cdf(f32 x) {
    f32 z = fabsf(x) * 0.70710678118654752440f;
    f32 t = 1.0f / fmaf(0.5f, z, 1.0f);
    f32 p = fmaf(0.17087277f, t, -0.82215223f);
    p = fmaf(p, t, 1.4885159f);
    p = fmaf(p, t, -1.135204f);
    p = fmaf(p, t, 0.27886807f);
    p = fmaf(p, t, -0.18628806f);
    p = fmaf(p, t, 0.09678418f);
    p = fmaf(p, t, 0.37409196f);
    p = fmaf(p, t, 1.0000237f);
    p = fmaf(p, t, -1.2655122f);
    f32 tail = 0.5f * t * exp_exact(fmaf(-z, z, p));
    return x < 0.0f ? tail : 1.0f - tail;
}

__device__ __forceinline__ f32 gelu_erf(f32 x) {
    x = x < -20.0f ? -20.0f : x;
    return x * normal_cdf(x);
}

__device__ __forceinline__ f32 gelu_erf_derivative(f32 x) {
    f32 near = fabsf(x) > 20.0f ? copysignf(20.0f, x) : x;
    return fmaf(near * 0.3989423f, exp_exact(-0.5f * near * near), normal_cdf(near));
}

#define KERNELS_OF(F, T)                                                                           \
    KERNEL(F##_##T, 256, const T* x, T* y, const i32* live, u32 capacity, u32 each, u32 columns) { \
        map_flat(block_rows(live, capacity, each), columns, {x}, {y}, false,                       \
                 [](const f32(&in)[1], f32(&out)[1], u64) { out[0] = F(in[0]); });                 \
    }                                                                                              \
    KERNEL(F##_gradient_##T, 256, const T* dy, const T* x, T* dx, const i32* live, u32 capacity,   \
           u32 each, u32 columns) {                                                                \
        map_flat(block_rows(live, capacity, each), columns, {dy, x}, {dx}, false,                  \
                 [](const f32(&in)[2], f32(&out)[1], u64) { out[0] = in[0] * F##_derivative(in[1]); }); \
    }
#define KERNELS(T) KERNELS_OF(gelu, T) KERNELS_OF(gelu_erf, T) KERNELS_OF(silu, T)
FOR_ELEMENTS(KERNELS)
