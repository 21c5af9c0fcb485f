// mean_squared_error: a, b [rows, ..] -> the sum of (a - b)^2 of each row in f64, by a warp, and
// their total. Gradient of the first: overwrites or adds; the CPU's bits.
#include "loss.cuh"

LOSS_TOTAL(mean_squared_error)

template <class T>
__device__ __forceinline__ void terms(const T* a, const T* b, f64* terms, Rows rows, u32 columns) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        f64 sum = 0.0;
        for (u32 column = warp_team().rank; column < columns; column += 32) {
            u64 at = row * columns + column;
            f64 difference = (f64)widened(a[at]) - (f64)widened(b[at]);
            sum += difference * difference;
        }
        sum = warp_total(sum);
        if (warp_team().rank == 0) terms[row] = sum;
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(mean_squared_error_##T, 256, const T* a, const T* b, f64* sums, const i32* live,        \
           u32 capacity, u32 each, u32 columns) {                                                  \
        terms(a, b, sums, block_rows(live, capacity, each), columns);                              \
    }                                                                                              \
    KERNEL(mean_squared_error_gradient_##T, 256, const T* a, const T* b, const f32* scale,         \
           const f32* dloss, T* da, const i32* live, u32 capacity, u32 each, u32 columns,          \
           u32 adds) {                                                                             \
        f32 factor = 2.0f * *scale * *dloss;                                                       \
        map_flat(block_rows(live, capacity, each), columns, {a, b}, {da}, adds,                    \
                 [=](const f32(&in)[2], f32(&out)[1], u64) { out[0] = factor * (in[0] - in[1]); }); \
    }
FOR_ELEMENTS(KERNELS)
