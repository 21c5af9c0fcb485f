// layer_norm: x [rows, columns], w, b -> y = (x - mean) rstd w + b, mean and rstd, a warp for each
// row, the variance over centred values; add_layer_norm: the same of s = a + b as it is stored.
// Gradients: dx overwrites or adds; dw as sums over 64 rows, which column_sum.cu adds up.
//
// expects layer_norm_bf16: LDG.E.128 STG.E.128
#include "common.cuh"

/// A row, by a warp.
template <class T>
__device__ void normalise(const T* x, const T* w, const T* b, T* y, f32* mean, f32* rstd,
                          u32 columns, f32 eps) {
    f32 sum[1], squares[1];
    sum_row(columns, {x}, sum, [](const f32(&in)[1], f32(&sums)[1], u32) { sums[0] += in[0]; });
    f32 middle = sum[0] / (f32)columns;
    sum_row(columns, {x}, squares, [=](const f32(&in)[1], f32(&sums)[1], u32) {
        sums[0] += (in[0] - middle) * (in[0] - middle);
    });
    f32 scale = 1.0f / sqrtf(squares[0] / (f32)columns + eps);
    map(warp_team(), Rows{0, 1}, columns, {view(x, 0), view(w, 0), view(b, 0)}, {view(y, 0)}, false,
        [=](const f32(&in)[3], f32(&out)[1], u32, u32) {
            out[0] = fmaf((in[0] - middle) * scale, in[1], in[2]);
        });
    if (warp_team().rank == 0) *mean = middle, *rstd = scale;
}

template <class T>
__device__ void forward(const T* x, const T* w, const T* b, T* y, f32* mean, f32* rstd, Rows rows,
                        u32 columns, f32 eps) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        normalise(x + at, w, b, y + at, mean + row, rstd + row, columns, eps);
    }
}

template <class T>
__device__ void forward_of_sum(const T* a, const T* c, const T* w, const T* b, T* y, f32* mean,
                               f32* rstd, T* s, Rows rows, u32 columns, f32 eps) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        map(warp_team(), Rows{0, 1}, columns, {view(a + at, 0), view(c + at, 0)}, {view(s + at, 0)},
            false, [](const f32(&in)[2], f32(&out)[1], u32, u32) { out[0] = in[0] + in[1]; });
        // Each lane reads what it has written itself: packs go to the same lanes.
        normalise(s + at, w, b, y + at, mean + row, rstd + row, columns, eps);
    }
}

/// dx = rstd (g - mean(g) - x^ mean(g x^)) with g = dy w, x^ = (x - mean) rstd.
template <class T>
__device__ void input_gradient(const T* dy, const T* x, const T* w, const f32* mean,
                               const f32* rstd, T* dx, Rows rows, u32 columns, bool adds) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        f32 middle = mean[row], scale = rstd[row], sums[2];
        sum_row(columns, {dy + at, x + at, w}, sums, [=](const f32(&in)[3], f32(&sums)[2], u32) {
            f32 g = in[0] * in[2];
            sums[0] += g;
            sums[1] += g * ((in[1] - middle) * scale);
        });
        f32 sum = sums[0] / (f32)columns, product = sums[1] / (f32)columns;
        map(warp_team(), Rows{0, 1}, columns, {view(dy + at, 0), view(x + at, 0), view(w, 0)},
            {view(dx + at, 0)}, adds, [=](const f32(&in)[3], f32(&out)[1], u32, u32) {
                f32 centred = (in[1] - middle) * scale;
                out[0] = scale * fmaf(-centred, product, fmaf(in[0], in[2], -sum));
            });
    }
}

template <class T>
__device__ void weight_terms(const T* dy, const T* x, const f32* mean, const f32* rstd, f32* sums,
                             Rows rows, u32 columns) {
    sum_columns(rows, columns, {dy, x}, sums, [=](const f32(&in)[2], f32& sum, u32 row) {
        sum = fmaf(in[0], (in[1] - mean[row]) * rstd[row], sum);
    });
}

#define KERNELS(T)                                                                                 \
    KERNEL(layer_norm_##T, 256, const T* x, const T* w, const T* b, T* y, f32* mean, f32* rstd,    \
           const i32* live, u32 capacity, u32 each, u32 columns, f32 eps) {                        \
        forward(x, w, b, y, mean, rstd, block_rows(live, capacity, each), columns, eps);           \
    }                                                                                              \
    KERNEL(add_layer_norm_##T, 256, const T* a, const T* c, const T* w, const T* b, T* y,          \
           f32* mean, f32* rstd, T* s, const i32* live, u32 capacity, u32 each, u32 columns,       \
           f32 eps) {                                                                              \
        Rows rows = block_rows(live, capacity, each);                                              \
        forward_of_sum(a, c, w, b, y, mean, rstd, s, rows, columns, eps);                          \
    }                                                                                              \
    KERNEL(layer_norm_input_gradient_##T, 256, const T* dy, const T* x, const T* w,                \
           const f32* mean, const f32* rstd, T* dx, const i32* live, u32 capacity, u32 each,       \
           u32 columns, u32 adds) {                                                                \
        Rows rows = block_rows(live, capacity, each);                                              \
        input_gradient(dy, x, w, mean, rstd, dx, rows, columns, adds);                             \
    }                                                                                              \
    KERNEL(layer_norm_weight_terms_##T, 256, const T* dy, const T* x, const f32* mean,             \
           const f32* rstd, f32* sums, const i32* live, u32 capacity, u32 each, u32 columns) {     \
        weight_terms(dy, x, mean, rstd, sums, block_rows(live, capacity, each), columns);          \
    }
FOR_ELEMENTS(KERNELS)
