// tanh: x -> y, the hyperbolic tangent of each element. Gradient: dx = dy (1 - y^2). The CPU's bits.
//
// expects tanh_*: LDG.E.128 STG.E.128
#include "common.cuh"

/// Relative error below 2^-22: Cephes' tanhf for small arguments.
__device__ __forceinline__ f32 tangent(f32 x) {
    f32 a = fabsf(x), square = a * a;
    f32 p = fmaf(-5.7049887e-3f, square, 2.063909e-2f);
    p = fmaf(p, square, -5.3739716e-2f);
    p = fmaf(p, square, 1.3331442e-1f);
    p = fmaf(p, square, -3.333328e-1f);
    f32 near = fmaf(p * square, a, a), far = 1.0f - 2.0f / (exp_exact(2.0f * a) + 1.0f);
    return copysignf(a < 0.625f ? near : far, x);
}

#define KERNELS(T)                                                                                 \
    KERNEL(tanh_##T, 256, const T* x, T* y, const i32* live, u32 capacity, u32 each,               \
           u32 columns) {                                                                          \
        map_flat(block_rows(live, capacity, each), columns, {x}, {y}, false,                       \
                 [](const f32(&in)[1], f32(&out)[1], u64) { out[0] = tangent(in[0]); });           \
    }                                                                                              \
    KERNEL(tanh_gradient_##T, 256, const T* dy, const T* x, T* dx, const i32* live, u32 capacity,  \
           u32 each, u32 columns) {                                                                \
        map_flat(block_rows(live, capacity, each), columns, {dy, x}, {dx}, false,                  \
                 [](const f32(&in)[2], f32(&out)[1], u64) {                                        \
                     f32 y = tangent(in[1]);                                                       \
                     out[0] = in[0] * fmaf(-y, y, 1.0f);                                           \
                 });                                                                               \
    }
FOR_ELEMENTS(KERNELS)
