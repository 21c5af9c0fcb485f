// l2_normalize: x [rows, columns] -> y = x / norm and norm = max(|x|, eps), a warp for each row, sums
// in f64. Gradient: dx = (dy - x (dy . x) / norm^2) / norm, or dy / eps for a shorter row; overwrites
// or adds.
//
// expects l2_normalize_bf16: LDG.E.128 STG.E.128
#include "common.cuh"

/// The inner product of two rows by a warp, each product exact.
template <class T> __device__ f64 inner(const T* a, const T* b, u32 columns) {
    bool whole = (u64)a % 16 == 0 && (u64)b % 16 == 0;
    f64 sum = 0.0;
    for (u32 column = warp_team().rank * PACK; column < columns; column += 32 * PACK) {
        u32 some = columns - column < PACK ? columns - column : PACK;
        f32 x[PACK], y[PACK];
        load(a + column, some, whole, x);
        load(b + column, some, whole, y);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) sum += k < some ? (f64)x[k] * (f64)y[k] : 0.0;
    }
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(~0u, sum, width);
    return sum;
}

template <class T>
__device__ void forward(const T* x, T* y, f32* norms, Rows rows, u32 columns, f32 eps) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        f32 length = (f32)sqrt(inner(x + at, x + at, columns)), norm = length < eps ? eps : length;
        map(warp_team(), Rows{0, 1}, columns, {view(x + at, 0)}, {view(y + at, 0)}, false,
            [=](const f32(&in)[1], f32(&out)[1], u32, u32) { out[0] = in[0] / norm; });
        if (warp_team().rank == 0) norms[row] = norm;
    }
}

template <class T>
__device__ void gradient(const T* dy, const T* x, const f32* norms, T* dx, Rows rows, u32 columns,
                         f32 eps, bool adds) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        u64 at = row * columns;
        f32 norm = norms[row];
        f64 square = (f64)norm * (f64)norm, product = inner(dy + at, x + at, columns);
        f32 along = norm > eps ? (f32)(product / square) : 0.0f;
        map(warp_team(), Rows{0, 1}, columns, {view(dy + at, 0), view(x + at, 0)},
            {view(dx + at, 0)}, adds, [=](const f32(&in)[2], f32(&out)[1], u32, u32) {
                out[0] = (in[0] - along * in[1]) / norm;
            });
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(l2_normalize_##T, 256, const T* x, T* y, f32* norms, const i32* live, u32 capacity,     \
           u32 each, u32 columns, f32 eps) {                                                       \
        forward(x, y, norms, block_rows(live, capacity, each), columns, eps);                      \
    }                                                                                              \
    KERNEL(l2_normalize_gradient_##T, 256, const T* dy, const T* x, const f32* norms, T* dx,       \
           const i32* live, u32 capacity, u32 each, u32 columns, f32 eps, u32 adds) {              \
        Rows rows = block_rows(live, capacity, each);                                              \
        gradient(dy, x, norms, dx, rows, columns, eps, adds != 0);                                 \
    }
FOR_ELEMENTS(KERNELS)
