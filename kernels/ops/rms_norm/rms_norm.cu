// rms_norm: x [rows, columns], w -> y = x rstd w and rstd = 1 / sqrt(mean(x^2) + eps), a warp for
// each row; add_rms_norm: the same of s = a + b as it is stored. Gradients: dx overwrites or adds;
// dw as sums over 64 rows, which column_sum.cu adds up.
#include "common.cuh"

/// A row, by a warp; returns its rstd.
template <class T>
__device__ void normalise(const T* x, const T* w, T* y, f32* rstd, u32 columns, f32 eps) {
    f32 squares[1];
    sum_row(columns, {x}, squares, [](const f32(&in)[1], f32(&sums)[1], u32) { sums[0] += in[0] * in[0]; });
    f32 scale = 1.0f / sqrtf(squares[0] / (f32)columns + eps);
    map(warp_team(), Rows{0, 1}, columns, {view(x, 0), view(w, 0)}, {view(y, 0)}, false,
        [=](const f32(&in)[2], f32(&out)[1], u32, u32) { out[0] = in[0] * scale * in[1]; });
    if (warp_team().rank == 0) *rstd = scale;
}

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

/// dx = rstd (g - x^ mean(g x^)) with g = dy w, x^ = x rstd.
template <class T>
__device__ void input_gradient(const T* dy, const T* x, const T* w, const f32* rstd, T* dx,
                               Rows rows, u32 columns, bool adds) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        f32 scale = rstd[row], product[1];
        sum_row(columns, {dy + at, x + at, w}, product,
                [=](const f32(&in)[3], f32(&sums)[1], u32) { sums[0] += in[0] * in[2] * (in[1] * scale); });
        f32 mean = product[0] / (f32)columns;
        map(warp_team(), Rows{0, 1}, columns, {view(dy + at, 0), view(x + at, 0), view(w, 0)},
            {view(dx + at, 0)}, adds, [=](const f32(&in)[3], f32(&out)[1], u32, u32) {
                out[0] = scale * fmaf(-(in[1] * scale), mean, in[0] * in[2]);
            });
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
