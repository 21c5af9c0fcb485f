// Matrix products over a grid of tiles. `m` or `k` may be the live rows of an operand, from row
// `first` of it on; what lies beyond is neither read nor written.
//
// expects product_64_*: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects product_128_*: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
#include "product.cuh"

#define PARAMETERS(T, OUT)                                                                         \
    const T *a, const T *b, OUT *c, const T *bias, OUT *keeps, const i32 *m_live, u32 m, u32 n,    \
        const i32 *k_live, u32 k, u32 first, u32 function, u32 adds
#define PRODUCT(T, OUT)                                                                            \
    Product<T, OUT> {                                                                              \
        a, b, bias, c, keeps, live_rows(m_live, first, m), n, 0, live_rows(k_live, first, k),      \
            function, adds != 0                                                                    \
    }

#define TILE(SIDE) blockIdx.x * SIDE, blockIdx.y * SIDE

// By how the factors lie: n as they are, t transposed.
#define BF16(NAME, A, B, OUT)                                                                      \
    KERNEL(product_64_##NAME##_##OUT, 128, PARAMETERS(bf16, OUT)) {                                \
        DYNAMIC_SHARED(memory);                                                                    \
        multiply_tiles<A, B, 64, 64, 32, 32>(memory, PRODUCT(bf16, OUT), TILE(64));                \
    }                                                                                              \
    KERNEL(product_128_##NAME##_##OUT, 256, PARAMETERS(bf16, OUT)) {                               \
        DYNAMIC_SHARED(memory);                                                                    \
        multiply_tiles<A, B, 128, 128, 64, 32>(memory, PRODUCT(bf16, OUT), TILE(128));             \
    }
#define LAYOUTS(NAME, A, B)                                                                        \
    BF16(NAME, A, B, bf16)                                                                         \
    BF16(NAME, A, B, f32)                                                                          \
    KERNEL(product_f32_##NAME, 128, PARAMETERS(f32, f32)) {                                        \
        multiply_f32<A, B>(PRODUCT(f32, f32), TILE(WIDE));                                         \
    }
LAYOUTS(nn, false, true)
LAYOUTS(nt, false, false)
LAYOUTS(tn, true, true)
LAYOUTS(tt, true, false)
