// scale: x -> x factor; overwrites or adds. The CPU's bits.
//
// expects scale_*: LDG.E.128 STG.E.128
#include "common.cuh"

#define KERNELS(T)                                                                                 \
    KERNEL(scale_##T, 256, const T* x, T* y, const i32* live, u32 capacity, u32 each, u32 columns, \
           f32 factor, u32 adds) {                                                                 \
        map_flat(block_rows(live, capacity, each), columns, {x}, {y}, adds,                        \
                 [=](const f32(&in)[1], f32(&out)[1], u64) { out[0] = in[0] * factor; });          \
    }
FOR_ELEMENTS(KERNELS)
