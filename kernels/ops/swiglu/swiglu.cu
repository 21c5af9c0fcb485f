// swiglu: x [rows, 2 half] -> y [rows, half], y = silu(first half of a row) * second half.
// Gradient: dx [rows, 2 half] from dy and x; overwrites. The CPU's bits.
//
// expects swiglu_*: LDG.E.128 STG.E.128
#include "common.cuh"

template <class T>
__device__ void forward(const T* x, T* y, Rows rows, u32 half) {
    u64 whole = 2 * (u64)half;
    map(block_team(), rows, half, {view(x, whole), view(x + half, whole)}, {view(y, half)}, false,
        [](const f32(&in)[2], f32(&out)[1], u32, u32) { out[0] = silu(in[0]) * in[1]; });
}

template <class T>
__device__ void gradient(const T* dy, const T* x, T* dx, Rows rows, u32 half) {
    u64 whole = 2 * (u64)half;
    map(block_team(), rows, half, {view(dy, half), view(x, whole), view(x + half, whole)},
        {view(dx, whole), view(dx + half, whole)}, false,
        [](const f32(&in)[3], f32(&out)[2], u32, u32) {
            f32 dy = in[0], gate = in[1], up = in[2];
            out[0] = dy * up * silu_derivative(gate);
            out[1] = dy * silu(gate);
        });
}

#define KERNELS(T)                                                                                 \
    KERNEL(swiglu_##T, 256, const T* x, T* y, const i32* live, u32 capacity, u32 each, u32 half) { \
        forward(x, y, block_rows(live, capacity, each), half);                                     \
    }                                                                                              \
    KERNEL(swiglu_gradient_##T, 256, const T* dy, const T* x, T* dx, const i32* live,              \
           u32 capacity, u32 each, u32 half) {                                                     \
        gradient(dy, x, dx, block_rows(live, capacity, each), half);                               \
    }
FOR_ELEMENTS(KERNELS)
