// scatter_rows: rows of `values` (or zeros, if there are none) to the rows of `out` that `index`
// names, each at most once; a number outside the live rows of `out` names none. In `out` lies a copy
// already. Bits, so that integers go the way of f32.
//
// expects scatter_rows_*: LDG.E.128 STG.E.128
#include "common.cuh"

template <class T>
__device__ void scatter(const T* values, const i32* index, T* out, Rows rows, u32 rows_of_out,
                        u32 columns) {
    bool whole = (!values || aligned(view(values, columns))) && aligned(view(out, columns));
    each_pack(block_team(), rows, columns, [&](u64 row, u32 column, u32 some) {
        u32 to = index[row];
        if (to >= rows_of_out) return;
        f32 x[PACK] = {};
        if (values) load(values + row * columns + column, some, whole, x);
        store(out + (u64)to * columns + column, some, whole, x);
    });
}

#define KERNELS(T)                                                                                 \
    KERNEL(scatter_rows_##T, 256, const T* values, const i32* index, T* out, const i32* live,      \
           u32 capacity, u32 each, u32 columns, const i32* out_live, u32 out_capacity) {           \
        u32 rows_of_out = live_rows(out_live, out_capacity);                                       \
        scatter(values, index, out, block_rows(live, capacity, each), rows_of_out, columns);       \
    }
FOR_ELEMENTS(KERNELS)
