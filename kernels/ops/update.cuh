// What rules of optimizers share: state vectors as they are stored (update.rs, cpu/moments.rs), the
// loop over a flat slice, and the fingerprint of the new weights. The CPU's bits.
//
// A rule is a struct with VECTORS (1 or 2), is_signed(vector), constants(numbers, update, c), by one
// thread of a block, and step(p, g, state, c) for each element. RULE_KERNELS makes its functions:
//
//     NAME_begin                                        zeroes the fingerprint
//     NAME_f32, NAME_bf16, NAME_blocks8                 by how state vectors are stored
//
// All do nothing if the decision is not to update.
#pragma once
#include "common.cuh"

/// device.rs has it.
struct Decision { f64 norm; f32 factor; u32 skip; u64 updates; };

/// What a rule is told of a step, in its own order: update.rs.
struct Numbers { f64 at[8]; };

/// `base` to the power of a whole number, by squaring: update.rs has the same products.
__device__ __forceinline__ f64 power(f64 base, u64 exponent) {
    f64 result = 1.0;
    for (; exponent; exponent >>= 1, base *= base) {
        if (exponent & 1) result *= base;
    }
    return result;
}

// ---- Random words, as RandomStream::word of (update, 0, element)

__device__ __forceinline__ u64 mix(u64 x) {
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

/// Of the eight elements from `first` on, a multiple of 4. Each 2^32 blocks have a key of their own.
__device__ __forceinline__ void random_words(u64 update, u64 first, u64 key, u32 (&words)[PACK]) {
#pragma unroll
    for (u32 i = 0; i < PACK / 4; i++) {
        u64 block = first / 4 + i, round = block >> 32;
        Words w = philox(update, 0, (u32)block, round ? mix(key ^ mix(round)) : key);
        words[4 * i] = w.x, words[4 * i + 1] = w.y, words[4 * i + 2] = w.z, words[4 * i + 3] = w.w;
    }
}

// ---- State vectors

/// A vector where it lies; `scales` belong to eight bits.
struct Stored { void* values; u8* scales; };

/// Elements that share a scale, and the packs of them.
constexpr u32 SCALED = 64, SHARING = SCALED / PACK;

/// As they are computed.
struct Wide {
    static constexpr bool ROUNDS = false;
    template <bool SIGNED>
    static __device__ void get(Stored from, u64 at, u32 some, f32 (&x)[PACK]) {
        load((const f32*)from.values + at, some, true, x);
    }
    template <bool SIGNED>
    static __device__ void put(Stored to, u64 at, u32 some, const f32 (&x)[PACK], const u32 (&)[PACK]) {
        store((f32*)to.values + at, some, true, x);
    }
};

/// In 16 bits.
struct Narrow {
    static constexpr bool ROUNDS = true;
    template <bool SIGNED>
    static __device__ void get(Stored from, u64 at, u32 some, f32 (&x)[PACK]) {
        load((const bf16*)from.values + at, some, true, x);
    }
    template <bool SIGNED>
    static __device__ void put(Stored to, u64 at, u32 some, const f32 (&x)[PACK], const u32 (&random)[PACK]) {
        u32 bits[PACK];
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            bits[k] = x[k] != x[k] ? 0x7fc0 : (__float_as_uint(x[k]) + random[k]) >> 16;
        }
        bf16* values = (bf16*)to.values + at;
        if (some == PACK) {
            return store_words(values, uint4{bits[0] | bits[1] << 16, bits[2] | bits[3] << 16,
                                             bits[4] | bits[5] << 16, bits[6] | bits[7] << 16});
        }
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            if (k < some) values[k] = bf16{(u16)bits[k]};
        }
    }
};

/// In 8 bits and a scale for each SCALED of them, which eight lanes of a warp have. Bits of the
/// mantissa beside a sign, and without one.
struct Blocks {
    static constexpr bool ROUNDS = true;
    static constexpr u32 LOWEST = 113;
    static __device__ u32 mantissa(bool is_signed) { return is_signed ? 3 : 4; }

    /// 2^(exponent - 127).
    static __device__ f32 power_of_two(u32 exponent) {
        return __uint_as_float(exponent ? exponent << 23 : 1u << 22);
    }
    static __device__ f32 quotient(u32 code, u32 m) {
        f32 small = (f32)code * power_of_two(LOWEST + 1 - m);
        return code < 1u << m ? small : __uint_as_float((code + (LOWEST << m)) << (23 - m));
    }
    static __device__ u32 code(f32 quotient, u32 random, u32 m) {
        u32 bits = __float_as_uint(quotient), code, most = (16u << m) - 1;
        if (bits < (LOWEST + 1) << 23) {
            code = (u32)(quotient / power_of_two(LOWEST + 1 - m) + (f32)random * (1.0f / 65536.0f));
        } else {
            code = ((bits + (random << (7 - m))) >> (23 - m)) - (LOWEST << m);
        }
        return code < most ? code : most;
    }

    template <bool SIGNED>
    static __device__ void get(Stored from, u64 at, u32 some, f32 (&x)[PACK]) {
        const u8* codes = (const u8*)from.values + at;
        uint2 pairs = some == PACK ? *reinterpret_cast<const uint2*>(codes) : uint2{0, 0};
        f32 scale = some ? power_of_two(from.scales[at / SCALED]) : 0.0f;
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            u32 word = k < 4 ? pairs.x : pairs.y, byte = word >> 8 * (k % 4) & 0xff;
            if (some < PACK) byte = k < some ? codes[k] : 0;
            f32 value = quotient(SIGNED ? byte & 0x7f : byte, mantissa(SIGNED)) * scale;
            x[k] = SIGNED && byte & 0x80 ? -value : value;
        }
    }

    /// All lanes of a warp come here. Its lanes' scales are neighbours, and the first stores them.
    template <bool SIGNED>
    static __device__ void put(Stored to, u64 at, u32 some, const f32 (&x)[PACK], const u32 (&random)[PACK]) {
        u32 largest = 0;
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            u32 magnitude = k < some ? __float_as_uint(x[k]) & 0x7fffffff : 0;
            largest = magnitude > largest ? magnitude : largest;
        }
#pragma unroll
        for (u32 width = SHARING / 2; width > 0; width /= 2) {
            u32 other = __shfl_xor_sync(~0u, largest, width);
            largest = other > largest ? other : largest;
        }
        u32 scale = largest >> 23 < 254 ? largest >> 23 : 254;
        f32 inverse = power_of_two(254 - scale);
        u32 pairs[2] = {0, 0};
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            u32 bits = __float_as_uint(x[k]);
            u32 found = code(__uint_as_float(bits & 0x7fffffff) * inverse, random[k], mantissa(SIGNED));
            if (SIGNED) found |= bits >> 24 & 0x80;
            else if (x[k] > 0.0f && !found) found = 1;
            pairs[k / 4] |= found << 8 * (k % 4);
        }
        // Every lane has read its old scale, in `get`.
        __syncwarp();
        u32 lane = warp_team().rank;
#pragma unroll
        for (u32 i = 0; i < 32 / SHARING; i++) {
            u32 of = __shfl_sync(~0u, scale, i * SHARING), there = __shfl_sync(~0u, some, i * SHARING);
            if (lane == 0 && there) to.scales[at / SCALED + i] = (u8)of;
        }
        u8* codes = (u8*)to.values + at;
        if (some == PACK) {
            *reinterpret_cast<uint2*>(codes) = uint2{pairs[0], pairs[1]};
            return;
        }
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            if (k < some) codes[k] = (u8)(pairs[k / 4] >> 8 * (k % 4));
        }
    }
};

// ---- The loop

/// Of an element at its place: a bijection of its bits.
__device__ __forceinline__ u64 fingerprint_of(u64 element, u32 bits) {
    u32 x = bits ^ (u32)element * 0x9E3779B1u ^ (u32)(element >> 32) * 0x85EBCA77u;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    u32 y = (x ^ x >> 13) * 0xC2B2AE3Du;
    return (u64)(y ^ y >> 16) << 32 | (x ^ x >> 16);
}

/// A slice of the flat vectors, which begins where 16 bytes and a scale do.
struct Slice {
    f32* weights;
    bf16* rounded;  // or null
    const f32* gradient;
    Stored states[2];
    u64 first, key, elements;
};

/// Adds a sum of integers to a cell, once for each block.
__device__ __forceinline__ void add_to(u64* cell, u64 sum) {
    SHARED(sums, u64[32]);
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(~0u, sum, width);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) sum += sums[warp];
    atomicAdd(cell, sum);
}

template <class R, class S>
__device__ __forceinline__ void update(const Slice& s, const Numbers& numbers, const Decision& decision,
                                       u64* fingerprint) {
    constexpr u32 N = R::VECTORS;
    SHARED(shared, f32[8]);
    if (decision.skip) return;
    if (threadIdx.x == 0) R::constants(numbers, decision.updates, shared);
    __syncthreads();
    f32 c[8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) c[i] = shared[i];
    f32 factor = decision.factor;
    u64 sum = 0, lane = threadIdx.x % 32, stride = (u64)gridDim.x * blockDim.x * PACK;
    u64 warp = ((u64)blockIdx.x * blockDim.x + threadIdx.x - lane) * PACK;
    // A whole warp goes round together, also beyond the end.
    for (; warp < s.elements; warp += stride) {
        u64 at = warp + lane * PACK, left = at < s.elements ? s.elements - at : 0;
        u32 some = left < PACK ? (u32)left : PACK;
        f32 p[PACK], g[PACK], x[2][PACK];
        u32 words[PACK], random[PACK];
        load(s.weights + at, some, true, p);
        load(s.gradient + at, some, true, g);
        S::template get<R::is_signed(0)>(s.states[0], at, some, x[0]);
        if (N > 1) S::template get<R::is_signed(1)>(s.states[1], at, some, x[1]);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            f32 state[2] = {x[0][k], N > 1 ? x[1][k] : 0.0f};
            R::step(p[k], g[k] * factor, state, c);
            x[0][k] = state[0], x[1][k] = state[1];
            if (k < some) sum += fingerprint_of(s.first + at + k, __float_as_uint(p[k]));
        }
        if (S::ROUNDS) random_words(decision.updates, s.first + at, s.key, words);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) random[k] = S::ROUNDS ? words[k] & 0xffff : 0;
        S::template put<R::is_signed(0)>(s.states[0], at, some, x[0], random);
        if (N > 1) {
#pragma unroll
            for (u32 k = 0; k < PACK; k++) random[k] = S::ROUNDS ? words[k] >> 16 : 0;
            S::template put<R::is_signed(1)>(s.states[1], at, some, x[1], random);
        }
        store(s.weights + at, some, true, p);
        if (s.rounded) store(s.rounded + at, some, true, p);
    }
    add_to(fingerprint, sum);
}

#define RULE_KERNEL(NAME, RULE, STORAGE)                                                           \
    KERNEL(NAME, 256, f32* weights, bf16* rounded, const f32* gradient, void* values0, u8* scales0, \
           void* values1, u8* scales1, const Decision* decision, u64* fingerprint, u64 first,      \
           u64 key, u64 elements, const Numbers numbers) {                                         \
        Slice slice = {weights, rounded, gradient, {{values0, scales0}, {values1, scales1}},       \
                       first,   key,     elements};                                                \
        update<RULE, STORAGE>(slice, numbers, *decision, fingerprint);                             \
    }
#define RULE_KERNELS(NAME, RULE)                                                                   \
    KERNEL(NAME##_begin, 256, const Decision* decision, u64* fingerprint) {                         \
        if (threadIdx.x == 0 && !decision->skip) *fingerprint = 0;                                 \
    }                                                                                              \
    RULE_KERNEL(NAME##_f32, RULE, Wide)                                                            \
    RULE_KERNEL(NAME##_bf16, RULE, Narrow)                                                         \
    RULE_KERNEL(NAME##_blocks8, RULE, Blocks)
