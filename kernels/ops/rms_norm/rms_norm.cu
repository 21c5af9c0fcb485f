// rms_norm: x [rows, columns], w -> y = x rstd w and rstd = 1 / sqrt(mean(x^2) + eps), a warp for
// each row; add_rms_norm: the same of s = a + b as it is stored. Gradients: dx overwrites or adds;
// dw as sums over 64 rows, which column_sum.cu adds up.
#include "rms_norm.cuh"

template <class T>
__device__ void forward(const T* x, const T* w, T* y, f32* rstd, Rows rows, u32 columns, f32 eps) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        normalise(x + row * columns, w, y + row * columns, rstd + row, columns, eps);
    }
}

template <class T>
__device__ void forward_of_sum(const T* a, const T* b, const T* w, T* y, f32* rstd, T* s, Rows rows,
                               u32 columns, f32 eps) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        map(warp_team(), Rows{0, 1}, columns, {view(a + at, 0), view(b + at, 0)}, {view(s + at, 0)},
            false, [](const f32(&in)[2], f32(&out)[1], u32, u32) { out[0] = in[0] + in[1]; });
        // Each lane reads what it has written itself: packs go to the same lanes.
        normalise(s + at, w, y + at, rstd + row, columns, eps);
    }
}

template <class T>
__device__ void input_gradient(const T* dy, const T* x, const T* w, const f32* rstd, T* dx,
                               Rows rows, u32 columns, bool adds) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        normalise_gradient(dy + at, x + at, w, rstd[row], dx + at, columns, adds);
    }
}

template <class T>
__device__ void weight_terms(const T* dy, const T* x, const f32* rstd, f32* sums, Rows rows,
                             u32 columns) {
    sum_columns(rows, columns, {dy, x}, sums, [=](const f32(&in)[2], f32& sum, u32 row) {
        sum = fmaf(in[0], in[1] * rstd[row], sum);
    });
}

#define KERNELS(T)                                                                                 \
    KERNEL(rms_norm_##T, 256, const T* x, const T* w, T* y, f32* rstd, const i32* live,            \
           u32 capacity, u32 each, u32 columns, f32 eps) {                                         \
        forward(x, w, y, rstd, block_rows(live, capacity, each), columns, eps);                    \
    }                                                                                              \
    KERNEL(add_rms_norm_##T, 256, const T* a, const T* b, const T* w, T* y, f32* rstd, T* s,       \
           const i32* live, u32 capacity, u32 each, u32 columns, f32 eps) {                        \
        forward_of_sum(a, b, w, y, rstd, s, block_rows(live, capacity, each), columns, eps);       \
    }                                                                                              \
    KERNEL(rms_norm_input_gradient_##T, 256, const T* dy, const T* x, const T* w, const f32* rstd, \
           T* dx, const i32* live, u32 capacity, u32 each, u32 columns, u32 adds) {                \
        input_gradient(dy, x, w, rstd, dx, block_rows(live, capacity, each), columns, adds);       \
    }                                                                                              \
    KERNEL(rms_norm_weight_terms_##T, 256, const T* dy, const T* x, const f32* rstd, f32* sums,    \
           const i32* live, u32 capacity, u32 each, u32 columns) {                                 \
        weight_terms(dy, x, rstd, sums, block_rows(live, capacity, each), columns);                \
    }
FOR_ELEMENTS(KERNELS)
