// exponential_average: average += rate (x - average), or average = x where it overwrites. The CPU's
// bits.
//
// expects exponential_average_bf16_f32: LDG.E.128 STG.E.128
#include "common.cuh"

#define KERNELS(FROM, TO)                                                                          \
    KERNEL(exponential_average_##FROM##_##TO, 256, const FROM* x, TO* average, const i32* live,    \
           u32 capacity, u32 each, u32 columns, f32 rate, u32 adds) {                              \
        Rows rows = block_rows(live, capacity, each);                                              \
        u64 first = (u64)rows.begin * columns;                                                     \
        bool whole = aligned(view(x + first, 0)) && aligned(view(average + first, 0));             \
        u32 count = (rows.end - rows.begin) * columns;                                             \
        each_pack(block_team(), Rows{0, 1}, count, [&](u64, u32 column, u32 some) {                \
            f32 now[PACK], old[PACK];                                                              \
            load(x + first + column, some, whole, now);                                            \
            if (adds) load(average + first + column, some, whole, old);                            \
            _Pragma("unroll") for (u32 k = 0; k < PACK; k++) {                                     \
                if (adds) now[k] = fmaf(rate, now[k] - old[k], old[k]);                            \
            }                                                                                      \
            store(average + first + column, some, whole, now);                                     \
        });                                                                                        \
    }
KERNELS(f32, f32)
KERNELS(f32, bf16)
KERNELS(bf16, f32)
KERNELS(bf16, bf16)
