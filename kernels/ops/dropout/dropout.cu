// dropout: x [rows, columns] -> x factor where the element's random number is at least `rate`, else 0.
// The gradient is the same of dy. Overwrites. The CPU's bits.
//
// expects dropout_*: LDG.E.128 STG.E.128
#include "common.cuh"

template <class T>
__device__ void dropout(const T* x, T* y, Rows rows, u32 columns, f32 rate, f32 factor,
                        u32 rows_per_sample, u64 key, RunArguments run) {
    bool whole = aligned(view(x, columns)) && aligned(view(y, columns));
    each_pack(block_team(), rows, columns, [&](u64 row, u32 column, u32 some) {
        u64 sample = run.first_sample + row / rows_per_sample;
        u32 element = (u32)(row % rows_per_sample) * columns + column;
        f32 value[PACK];
        load(x + row * columns + column, some, whole, value);
        Words words;
#pragma unroll
        for (u32 k = 0; k < PACK; k++, element++) {
            if (k == 0 || element % 4 == 0) words = philox(run.step, sample, element / 4, key);
            u32 word = element % 2 ? (element & 2 ? words.w : words.y) : element & 2 ? words.z : words.x;
            value[k] = unit(word) >= rate ? value[k] * factor : 0.0f;
        }
        store(y + row * columns + column, some, whole, value);
    });
}

#define KERNELS(T)                                                                                 \
    KERNEL(dropout_##T, 256, const T* x, T* y, const i32* live, u32 capacity, u32 each,            \
           u32 columns, f32 rate, f32 factor, u32 rows_per_sample, u64 key,                        \
           const RunArguments* run) {                                                              \
        Rows rows = block_rows(live, capacity, each);                                              \
        dropout(x, y, rows, columns, rate, factor, rows_per_sample, key, *run);                    \
    }
FOR_ELEMENTS(KERNELS)
