// kl_divergence: logits of a student and of its teacher [rows, columns] -> the term of each row in
// f64, by a warp, and their total. Gradient of the student: overwrites or adds.
#include "loss.cuh"

LOSS_TOTAL(kl_divergence)

template <class T>
__device__ __forceinline__ void terms(const T* student, const T* teacher, f64* terms, Rows rows,
                                      u32 columns, f32 temperature) {
    f32 rate = 1.0f / temperature;
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        const T *s = student + row * columns, *t = teacher + row * columns;
        Parts of_teacher = softmax_parts(t, columns, rate), of_student = softmax_parts(s, columns, rate);
        f64 difference = 0.0;
        for (u32 column = warp_team().rank; column < columns; column += 32) {
            f32 x = widened(t[column]), weight = exp_exact((x - of_teacher.largest) * rate);
            // A class that the teacher forbids adds nothing, whatever the student makes of it.
            if (weight != 0.0f) difference += (f64)weight * ((f64)x - (f64)widened(s[column]));
        }
        difference = warp_total(difference);
        f64 own = (f64)rate * difference / (f64)of_teacher.sum;
        f64 kl = own - log_sum(of_teacher, rate) + log_sum(of_student, rate);
        if (warp_team().rank == 0) terms[row] = kl * ((f64)temperature * (f64)temperature);
    }
}

template <class T>
__device__ __forceinline__ void gradient(const T* student, const T* teacher, f32 factor, T* dx, Rows rows,
                                         u32 columns, f32 temperature, bool adds) {
    f32 rate = 1.0f / temperature;
    for (u64 row = rows.begin + threadIdx.x / 32; row < rows.end; row += blockDim.x / 32) {
        const T *s = student + row * columns, *t = teacher + row * columns;
        Parts of_teacher = softmax_parts(t, columns, rate), of_student = softmax_parts(s, columns, rate);
        f32 own = factor / of_student.sum, given = -factor / of_teacher.sum;
        map(warp_team(), Rows{0, 1}, columns, {view(s, 0), view(t, 0)}, {view(dx + row * columns, 0)}, adds,
            [=](const f32(&in)[2], f32(&out)[1], u32, u32) {
                f32 p = own * exp_exact((in[0] - of_student.largest) * rate);
                out[0] = fmaf(given, exp_exact((in[1] - of_teacher.largest) * rate), p);
            });
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(kl_divergence_##T, 256, const T* student, const T* teacher, f64* sums, const i32* live, \
           u32 capacity, u32 each, u32 columns, f32 temperature) {                                 \
        terms(student, teacher, sums, block_rows(live, capacity, each), columns, temperature);     \
    }                                                                                              \
    KERNEL(kl_divergence_gradient_##T, 256, const T* student, const T* teacher, const f32* scale,  \
           const f32* dloss, T* dx, const i32* live, u32 capacity, u32 each, u32 columns,          \
           f32 temperature, u32 adds) {                                                            \
        gradient(student, teacher, *scale * *dloss * temperature, dx,                              \
                 block_rows(live, capacity, each), columns, temperature, adds);                    \
    }
FOR_ELEMENTS(KERNELS)
