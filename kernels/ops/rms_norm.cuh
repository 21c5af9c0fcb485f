// RMS norm of a row by a warp, and its gradient: of whole rows, and of heads.
#pragma once
#include "common.cuh"

/// y = x rstd w with rstd = 1 / sqrt(mean(x^2) + eps): a row, by a warp.
template <class T>
__device__ void normalise(const T* x, const T* w, T* y, f32* rstd, u32 columns, f32 eps) {
    f32 squares[1];
    sum_row(columns, {x}, squares,
            [](const f32(&in)[1], f32(&sums)[1], u32) { sums[0] += in[0] * in[0]; });
    f32 scale = 1.0f / sqrtf(squares[0] / (f32)columns + eps);
    map(warp_team(), Rows{0, 1}, columns, {view(x, 0), view(w, 0)}, {view(y, 0)}, false,
        [=](const f32(&in)[2], f32(&out)[1], u32, u32) { out[0] = in[0] * scale * in[1]; });
    if (warp_team().rank == 0) *rstd = scale;
}

/// dx = rstd (g - x^ mean(g x^)) with g = dy w, x^ = x rstd: a row, by a warp.
template <class T>
__device__ void normalise_gradient(const T* dy, const T* x, const T* w, f32 rstd, T* dx,
                                   u32 columns, bool adds) {
    f32 product[1];
    sum_row(columns, {dy, x, w}, product, [=](const f32(&in)[3], f32(&sums)[1], u32) {
        sums[0] += in[0] * in[2] * (in[1] * rstd);
    });
    f32 mean = product[0] / (f32)columns;
    map(warp_team(), Rows{0, 1}, columns, {view(dy, 0), view(x, 0), view(w, 0)}, {view(dx, 0)},
        adds, [=](const f32(&in)[3], f32(&out)[1], u32, u32) {
            out[0] = rstd * fmaf(-(in[1] * rstd), mean, in[0] * in[2]);
        });
}
