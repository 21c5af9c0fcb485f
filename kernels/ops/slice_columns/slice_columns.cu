// slice_columns: some columns of `from` to some columns of `to`, rows of one number; overwrites or
// adds. `concat_columns` is one such move for each operand. Gradient: dy to those columns of dx, and
// if it overwrites zeros to the others. Bits, so that integers go the way of f32.
//
// expects move_columns_*: LDG.E.128 STG.E.128
#include "common.cuh"

/// Row `inner r + i` of a tensor is row i of step r of its leading dimension.
__device__ __forceinline__ Rows inner_rows(Rows rows, u32 inner) {
    return Rows{rows.begin * inner, rows.end * inner};
}

template <class T>
__device__ void move(const T* from, T* to, Rows rows, u32 count, u32 from_columns, u32 to_columns,
                     bool adds) {
    map(block_team(), rows, count, {view(from, from_columns)}, {view(to, to_columns)}, adds,
        [](const f32(&in)[1], f32(&out)[1], u32, u32) { out[0] = in[0]; });
}

template <class T>
__device__ void gradient(const T* dy, T* dx, Rows rows, u32 start, u32 count, u32 columns,
                         bool adds) {
    move(dy, dx + start, rows, count, count, columns, adds);
    if (adds) return;
    u32 end = start + count;
    fill_rows(block_team(), rows, start, view(dx, columns), 0.0f);
    fill_rows(block_team(), rows, columns - end, view(dx + end, columns), 0.0f);
}

#define KERNELS(T)                                                                                 \
    KERNEL(move_columns_##T, 256, const T* from, T* to, const i32* live, u32 capacity, u32 each,   \
           u32 inner, u32 count, u32 from_start, u32 from_columns, u32 to_start, u32 to_columns,   \
           u32 adds) {                                                                             \
        Rows rows = inner_rows(block_rows(live, capacity, each), inner);                           \
        move(from + from_start, to + to_start, rows, count, from_columns, to_columns, adds);       \
    }                                                                                              \
    KERNEL(slice_columns_gradient_##T, 256, const T* dy, T* dx, const i32* live, u32 capacity,     \
           u32 each, u32 inner, u32 start, u32 count, u32 columns, u32 adds) {                     \
        Rows rows = inner_rows(block_rows(live, capacity, each), inner);                           \
        gradient(dy, dx, rows, start, count, columns, adds);                                       \
    }
FOR_ELEMENTS(KERNELS)
