// cross_entropy: logits [rows, columns], labels i32 [rows] -> the term of each row in f64, by a warp,
// and their total; a label beyond the columns gives what is no number. Gradient: overwrites or adds.
#include "loss.cuh"

LOSS_TOTAL(cross_entropy)

template <class T>
__device__ __forceinline__ void terms(const T* logits, const i32* labels, f64* terms, Rows rows, u32 columns) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        i32 label = labels[row];
        f64 term = 0.0;
        if (label >= 0) {
            const T* x = logits + row * columns;
            f32 target = (u32)label < columns ? widened(x[label]) : nan_f32();
            term = log_sum(softmax_parts(x, columns, 1.0f), 1.0f) - (f64)target;
        }
        if (warp_team().rank == 0) terms[row] = term;
    }
}

template <class T>
__device__ __forceinline__ void gradient(const T* logits, const i32* labels, f32 factor, T* dx, Rows rows,
                                         u32 columns, bool adds) {
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        i32 label = labels[row];
        const T* x = logits + row * columns;
        View<T> to = view(dx + row * columns, 0);
        if (label < 0) {
            if (!adds) fill_rows(warp_team(), Rows{0, 1}, columns, to, 0.0f);
            continue;
        }
        Parts parts = softmax_parts(x, columns, 1.0f);
        f32 share = factor / parts.sum;
        map(warp_team(), Rows{0, 1}, columns, {view(x, 0)}, {to}, adds,
            [=](const f32(&in)[1], f32(&out)[1], u32, u32 column) {
                f32 softmax = share * exp_exact(in[0] - parts.largest);
                out[0] = column == (u32)label ? softmax - factor : softmax;
            });
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(cross_entropy_##T, 256, const T* logits, const i32* labels, f64* sums, const i32* live, \
           u32 capacity, u32 each, u32 columns) {                                                  \
        terms(logits, labels, sums, block_rows(live, capacity, each), columns);                    \
    }                                                                                              \
    KERNEL(cross_entropy_gradient_##T, 256, const T* logits, const i32* labels, const f32* scale,  \
           const f32* dloss, T* dx, const i32* live, u32 capacity, u32 each, u32 columns,          \
           u32 adds) {                                                                             \
        gradient(logits, labels, *scale * *dloss, dx, block_rows(live, capacity, each), columns,   \
                 adds);                                                                            \
    }
FOR_ELEMENTS(KERNELS)
