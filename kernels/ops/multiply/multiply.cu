// multiply: a, b -> a b; overwrites or adds. The CPU's bits.
//
// expects multiply_*: LDG.E.128 STG.E.128
#include "common.cuh"

#define KERNELS(T)                                                                                 \
    KERNEL(multiply_##T, 256, const T* a, const T* b, T* y, const i32* live, u32 capacity,         \
           u32 each, u32 columns, u32 adds) {                                                      \
        map_flat(block_rows(live, capacity, each), columns, {a, b}, {y}, adds,                     \
                 [](const f32(&in)[2], f32(&out)[1], u64) { out[0] = in[0] * in[1]; });            \
    }
FOR_ELEMENTS(KERNELS)
