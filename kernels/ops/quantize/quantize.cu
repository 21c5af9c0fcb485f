// quantize: x -> q of 8 bits and scale = max |x| / the largest such number, in two kernels: the
// largest bits of |x|, integers whose order does not matter, and the codes. dequantize: q, scale ->
// x. As f8.rs has them, bit by bit.
//
// expects quantize_largest_bf16: LDG.E.128
// expects quantize_bf16: LDG.E.128 STG.E.64
// expects dequantize_bf16: LDG.E.64 STG.E.128
#include "loss.cuh"

/// Bits of the mantissa, bias of the exponent, the code of the largest number: `Format` of f8.rs.
struct Format { u32 mantissa; i32 bias; u32 largest; };

constexpr u32 NO_NUMBER = 0x7f;

__device__ __forceinline__ f32 power_of_two(i32 exponent) {
    return __uint_as_float((u32)(exponent + 127) << 23);
}

__device__ __forceinline__ u32 encode(f32 x, const Format& f) {
    u32 bits = __float_as_uint(x), sign = bits >> 24 & 0x80;
    if ((bits & 0x7fffffffu) > 0x7f800000u) return sign | NO_NUMBER;
    i32 lowest = 1 - f.bias, exponent = (i32)(bits >> 23 & 0xff) - 127;
    exponent = exponent < lowest ? lowest : exponent > 64 ? 64 : exponent;
    // In units of the last place, rounded to the nearest, ties to even.
    f32 units = fabsf(x) * power_of_two((i32)f.mantissa - exponent);
    i32 whole = (i32)rintf(units < 64.0f ? units : 64.0f);
    u32 code = ((u32)(exponent - lowest) << f.mantissa) + (u32)whole;
    return sign | (code < f.largest ? code : f.largest);
}

__device__ __forceinline__ f32 decode(u32 code, const Format& f) {
    u32 magnitude = code & 0x7f, exponent = magnitude >> f.mantissa;
    u32 whole = (magnitude & ((1u << f.mantissa) - 1)) + (exponent > 0 ? 1u << f.mantissa : 0);
    i32 power = (i32)(exponent > 0 ? exponent : 1) - f.bias - (i32)f.mantissa;
    f32 value = (f32)whole * power_of_two(power);
    bool infinite = magnitude == f.largest + 1 && magnitude != NO_NUMBER;
    if (magnitude > f.largest) value = infinite ? __uint_as_float(0x7f800000u) : nan_f32();
    return code & 0x80 ? -value : value;
}

/// The scale for a largest value with these bits, in a format that reaches `reach`.
__device__ __forceinline__ f32 scale_of(u32 largest, f32 reach) {
    if (largest == 0) return 1.0f;
    if (largest >= 0x7f800000u) return nan_f32();
    f32 scale = __uint_as_float(largest) / reach, smallest = __uint_as_float(0x00800000u);
    return scale < smallest ? smallest : scale;
}

/// `f(element, count)` for packs of the elements of some rows.
template <class F> __device__ __forceinline__ void each_of(Rows rows, u32 columns, F f) {
    u64 first = (u64)rows.begin * columns;
    each_pack(block_team(), Rows{0, 1}, (rows.end - rows.begin) * columns,
              [&](u64, u32 column, u32 some) { f(first + column, some); });
}

template <class T> __device__ void largest(const T* x, u32* most, Rows rows, u32 columns) {
    u32 own = 0;
    each_of(rows, columns, [&](u64 at, u32 some) {
        f32 pack[PACK];
        load(x + at, some, (u64)(x + at) % 16 == 0, pack);
#pragma unroll
        for (u32 i = 0; i < PACK; i++) {
            u32 bits = __float_as_uint(pack[i]) & 0x7fffffffu;
            own = bits > own ? bits : own;
        }
    });
    own = block_join(own, [](u32 a, u32 b) { return b > a ? b : a; });
    if (threadIdx.x == 0 && own > 0) atomicMax(most, own);
}

template <class T>
__device__ void quantize(const T* x, u8* q, Rows rows, u32 columns, f32 scale, const Format& f) {
    each_of(rows, columns, [&](u64 at, u32 some) {
        f32 pack[PACK];
        u32 codes[PACK];
        load(x + at, some, (u64)(x + at) % 16 == 0, pack);
#pragma unroll
        for (u32 i = 0; i < PACK; i++) codes[i] = encode(pack[i] / scale, f);
        if (some == PACK && (u64)(q + at) % 8 == 0) {
            uint2 words;
            words.x = codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24;
            words.y = codes[4] | codes[5] << 8 | codes[6] << 16 | codes[7] << 24;
            *reinterpret_cast<uint2*>(q + at) = words;
            return;
        }
#pragma unroll
        for (u32 i = 0; i < PACK; i++) {
            if (i < some) q[at + i] = (u8)codes[i];
        }
    });
}

template <class T>
__device__ void dequantize(const u8* q, T* x, Rows rows, u32 columns, f32 scale, const Format& f) {
    each_of(rows, columns, [&](u64 at, u32 some) {
        f32 pack[PACK];
        if (some == PACK && (u64)(q + at) % 8 == 0) {
            uint2 words = *reinterpret_cast<const uint2*>(q + at);
#pragma unroll
            for (u32 i = 0; i < PACK; i++) {
                u32 word = i < 4 ? words.x : words.y;
                pack[i] = decode(word >> i % 4 * 8 & 0xff, f) * scale;
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < PACK; i++) pack[i] = i < some ? decode(q[at + i], f) * scale : 0.0f;
        }
        store(x + at, some, (u64)(x + at) % 16 == 0, pack);
    });
}

#define FORMAT u32 mantissa, u32 bias, u32 top
#define KERNELS(T)                                                                                 \
    KERNEL(quantize_largest_##T, 256, const T* x, u32* most, const i32* live, u32 capacity,        \
           u32 each, u32 columns) {                                                                \
        largest(x, most, block_rows(live, capacity, each), columns);                               \
    }                                                                                              \
    KERNEL(quantize_##T, 256, const T* x, const u32* most, u8* q, f32* scale, const i32* live,     \
           u32 capacity, u32 each, u32 columns, f32 reach, FORMAT) {                               \
        f32 own = scale_of(*most, reach);                                                          \
        if (blockIdx.x == 0 && threadIdx.x == 0) *scale = own;                                     \
        Format f{mantissa, (i32)bias, top};                                                        \
        quantize(x, q, block_rows(live, capacity, each), columns, own, f);                         \
    }                                                                                              \
    KERNEL(dequantize_##T, 256, const u8* q, const f32* scale, T* x, const i32* live,              \
           u32 capacity, u32 each, u32 columns, FORMAT) {                                          \
        Format f{mantissa, (i32)bias, top};                                                        \
        dequantize(q, x, block_rows(live, capacity, each), columns, *scale, f);                    \
    }
FOR_ELEMENTS(KERNELS)
