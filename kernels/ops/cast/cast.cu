// cast: x -> y, the same values as another float, to nearest, ties to even; overwrites or adds. The
// CPU's bits. `copy` of floats is the same.
#include "common.cuh"

template <class From, class To>
__device__ void cast(const From* x, To* y, Rows rows, u32 columns, bool adds) {
    map_flat(rows, columns, {x}, {y}, adds, [](const f32(&in)[1], f32(&out)[1], u64) { out[0] = in[0]; });
}

#define KERNELS(FROM, TO)                                                                          \
    KERNEL(cast_##FROM##_##TO, 256, const FROM* x, TO* y, const i32* live, u32 capacity, u32 each, \
           u32 columns, u32 adds) {                                                                \
        cast(x, y, block_rows(live, capacity, each), columns, adds);                               \
    }
KERNELS(f32, f32)
KERNELS(f32, bf16)
KERNELS(bf16, f32)
KERNELS(bf16, bf16)
