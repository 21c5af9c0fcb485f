// What kernels share: types, 16-byte accesses, loops over elements, sums in a fixed order, and the
// only inline PTX. Compiles without any other header: by NVRTC for sm_80 and up, and by g++ in the
// emulator, where device.h stands for CUDA.
//
// To be compiled without contraction (-fmad=false): what is one operation is written as fmaf, so
// that vector body, tail and the CPU's run give the same bits. No sum of floats by atomics.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using f32 = float;
using f64 = double;
struct bf16 { u16 bits; };

#ifdef OCTET_EMULATOR
#include "device.h"
#else
/// A function that the host starts, by name, with blocks of at most so many threads, so many blocks
/// of which a multiprocessor's registers have room for.
#define KERNEL_OF(NAME, BLOCK, BLOCKS, ...)                                                        \
    extern "C" __global__ void __launch_bounds__(BLOCK, BLOCKS) NAME(__VA_ARGS__)
template <class T> using Type = T;
/// A variable of the block: SHARED(sums, f32[32]).
#define SHARED(NAME, ...) __shared__ __align__(16) Type<__VA_ARGS__> NAME
/// The bytes that the launch asks for.
#define DYNAMIC_SHARED(NAME) extern __shared__ __align__(1024) char NAME[]
#endif

/// One that takes the registers that it needs: room for more blocks is not worth a spill.
#define KERNEL(NAME, BLOCK, ...) KERNEL_OF(NAME, BLOCK, 1, __VA_ARGS__)

/// X(T) for each type of elements that kernels are compiled for.
#define FOR_ELEMENTS(X) X(f32) X(bf16)

// ---- PTX

#ifndef OCTET_EMULATOR
__device__ __forceinline__ u32 shared_address(const void* p) {
    return (u32)__cvta_generic_to_shared(p);
}

/// Two floats to the nearest, ties to even; the first in the low half.
__device__ __forceinline__ u32 pack_bf16(f32 low, f32 high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/// 16 bytes to global memory in one access: a plain store of them the compiler may cut in four.
__device__ __forceinline__ void store_words(void* to, uint4 words) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
                 "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w) : "memory");
}

/// 16 bytes to shared memory, to be waited for; those beyond the first `valid` become zero.
__device__ __forceinline__ void copy_async(void* to, const void* from, u32 valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(valid) : "memory");
}

/// The copies so far are a group.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most the newest `LEFT` groups are under way.
template <u32 LEFT> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/// Four 8x8 matrices of bf16; lane 8m + r gives the address of row r of matrix m.
__device__ __forceinline__ void load_matrices(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}

/// d[16, 8] += a[16, 16] b[16, 8], a and b of bf16.
__device__ __forceinline__ void multiply(f32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// 2^x, approximately: 2 units in the last place.
__device__ __forceinline__ f32 exp2_fast(f32 x) {
    f32 y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
inline u32 pack_bf16(f32 low, f32 high) {
    auto nearest = [](f32 x) {
        u32 bits = __float_as_uint(x);
        if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return nearest(low) | nearest(high) << 16;
}
inline void store_words(void* to, uint4 words) { *reinterpret_cast<uint4*>(to) = words; }
inline void copy_async(void* to, const void* from, u32 valid) {
    emulator::copy_async(to, from, valid);
}
inline void commit_copies() { emulator::commit_copies(); }
template <u32 LEFT> inline void wait_for_copies() { emulator::wait_for_copies(LEFT); }
inline void load_matrices(u32 (&r)[4], const void* row) {
    emulator::load_matrices(r, 4, false, row);
}
inline void load_transposed(u32 (&r)[4], const void* row) {
    emulator::load_matrices(r, 4, true, row);
}
inline void multiply(f32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    u32 b[2] = {b0, b1};
    emulator::multiply_16x8x16(d, a, b);
}
inline f32 exp2_fast(f32 x) { return exp2f(x); }
#endif

// ---- Elements

/// Elements that a thread handles together: 16 bytes of bf16, twice 16 bytes of f32.
constexpr u32 PACK = 8;

__device__ __forceinline__ f32 widened(f32 x) { return x; }
__device__ __forceinline__ f32 widened(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <class T> __device__ __forceinline__ T narrowed(f32 x);
template <> __device__ __forceinline__ f32 narrowed<f32>(f32 x) { return x; }
template <> __device__ __forceinline__ bf16 narrowed<bf16>(f32 x) {
    return bf16{(u16)pack_bf16(x, 0.0f)};
}

/// What storing and reading it again makes of it.
template <class T> __device__ __forceinline__ f32 stored(f32 x) { return widened(narrowed<T>(x)); }

__device__ __forceinline__ void load_pack(const bf16* from, f32 (&x)[PACK]) {
    uint4 words = *reinterpret_cast<const uint4*>(from);
    u32 pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(pairs[i] << 16);
        x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ void load_pack(const f32* from, f32 (&x)[PACK]) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        uint4 words = reinterpret_cast<const uint4*>(from)[i];
        x[4 * i] = __uint_as_float(words.x), x[4 * i + 1] = __uint_as_float(words.y);
        x[4 * i + 2] = __uint_as_float(words.z), x[4 * i + 3] = __uint_as_float(words.w);
    }
}

__device__ __forceinline__ void store_pack(bf16* to, const f32 (&x)[PACK]) {
    store_words(to, uint4{pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]),
                          pack_bf16(x[6], x[7])});
}

__device__ __forceinline__ void store_pack(f32* to, const f32 (&x)[PACK]) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        store_words(to + 4 * i,
                    uint4{__float_as_uint(x[4 * i]), __float_as_uint(x[4 * i + 1]),
                          __float_as_uint(x[4 * i + 2]), __float_as_uint(x[4 * i + 3])});
    }
}

/// `count` elements, at most a pack; in one access or two if it is `whole` and aligned.
template <class T>
__device__ __forceinline__ void load(const T* from, u32 count, bool aligned, f32 (&x)[PACK]) {
    if (aligned && count == PACK) return load_pack(from, x);
#pragma unroll
    for (u32 k = 0; k < PACK; k++) x[k] = k < count ? widened(from[k]) : 0.0f;
}

template <class T>
__device__ __forceinline__ void store(T* to, u32 count, bool aligned, const f32 (&x)[PACK]) {
    if (aligned && count == PACK) return store_pack(to, x);
#pragma unroll
    for (u32 k = 0; k < PACK; k++) {
        if (k < count) to[k] = narrowed<T>(x[k]);
    }
}

// ---- Rows

/// Rows `begin..end`.
struct Rows { u32 begin, end; };

/// How many rows of a tensor are live.
__device__ __forceinline__ u32 live_rows(const i32* live, u32 capacity) {
    if (!live) return capacity;
    i32 rows = *live;
    return rows < 0 ? 0 : (u32)rows < capacity ? (u32)rows : capacity;
}

/// How many of `count` rows from `first` on are live.
__device__ __forceinline__ u32 live_rows(const i32* live, u32 first, u32 count) {
    if (!live) return count;
    i32 rows = *live - (i32)first;
    return rows < 0 ? 0 : (u32)rows < count ? (u32)rows : count;
}

/// The live ones of `each` rows that this block has.
__device__ __forceinline__ Rows block_rows(const i32* live, u32 capacity, u32 each) {
    u32 rows = live_rows(live, capacity), begin = blockIdx.x * each;
    u32 end = begin + each < rows ? begin + each : rows;
    return begin < end ? Rows{begin, end} : Rows{0, 0};
}

/// Threads that share work: a block or a warp.
struct Team { u32 rank, size; };
__device__ __forceinline__ Team block_team() { return {threadIdx.x, blockDim.x}; }
__device__ __forceinline__ Team warp_team() { return {threadIdx.x % 32, 32}; }

/// A matrix: element (row, column) at `at[row * stride + column]`.
template <class T> struct View { T* at; u64 stride; };
template <class T> __device__ __forceinline__ View<T> view(T* at, u64 stride) { return {at, stride}; }

template <class T> __device__ __forceinline__ bool aligned(View<T> v) {
    return (u64)v.at % 16 == 0 && v.stride % PACK == 0;
}

/// `f(row, column, count)` for every pack of some rows; the last of a row may have fewer elements.
template <class F>
__device__ __forceinline__ void each_pack(Team team, Rows rows, u32 columns, F f) {
    u32 packs = (columns + PACK - 1) / PACK, count = (rows.end - rows.begin) * packs;
    for (u32 i = team.rank; i < count; i += team.size) {
        u32 column = i % packs * PACK;
        f(rows.begin + i / packs, column, columns - column < PACK ? columns - column : PACK);
    }
}

/// `f(inputs, outputs, row, column)` for every element of some rows, stored to the outputs or added
/// to them. Each element by itself: the result does not depend on how the work is shared.
template <u32 N, u32 M, class In, class Out, class F>
__device__ __forceinline__ void map(Team team, Rows rows, u32 columns, const View<In> (&in)[N],
                                    const View<Out> (&out)[M], bool adds, F f) {
    bool whole = true;
#pragma unroll
    for (u32 n = 0; n < N; n++) whole = whole && aligned(in[n]);
#pragma unroll
    for (u32 m = 0; m < M; m++) whole = whole && aligned(out[m]);
    each_pack(team, rows, columns, [&](u64 row, u32 column, u32 some) {
        f32 x[N][PACK], y[M][PACK], old[PACK];
#pragma unroll
        for (u32 n = 0; n < N; n++) load(in[n].at + row * in[n].stride + column, some, whole, x[n]);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            f32 given[N], made[M];
#pragma unroll
            for (u32 n = 0; n < N; n++) given[n] = x[n][k];
            f(given, made, row, column + k);
#pragma unroll
            for (u32 m = 0; m < M; m++) y[m][k] = made[m];
        }
#pragma unroll
        for (u32 m = 0; m < M; m++) {
            auto to = out[m].at + row * out[m].stride + column;
            if (adds) {
                load(to, some, whole, old);
#pragma unroll
                for (u32 k = 0; k < PACK; k++) y[m][k] += old[k];
            }
            store(to, some, whole, y[m]);
        }
    });
}

/// [`map`] over whole rows that lie one behind the other: `f(inputs, outputs, element)`.
template <u32 N, u32 M, class In, class Out, class F>
__device__ __forceinline__ void map_flat(Rows rows, u32 columns, In* const (&in)[N],
                                         Out* const (&out)[M], bool adds, F f) {
    u64 first = (u64)rows.begin * columns;
    View<In> from[N];
    View<Out> to[M];
#pragma unroll
    for (u32 n = 0; n < N; n++) from[n] = {in[n] + first, 0};
#pragma unroll
    for (u32 m = 0; m < M; m++) to[m] = {out[m] + first, 0};
    auto each = [&](const f32(&x)[N], f32(&y)[M], u32, u32 column) { f(x, y, first + column); };
    map(block_team(), Rows{0, 1}, (rows.end - rows.begin) * columns, from, to, adds, each);
}

/// One value for all elements of some rows.
template <class T>
__device__ __forceinline__ void fill_rows(Team team, Rows rows, u32 columns, View<T> to, f32 value) {
    bool whole = aligned(to);
    f32 x[PACK];
#pragma unroll
    for (u32 k = 0; k < PACK; k++) x[k] = value;
    each_pack(team, rows, columns, [&](u64 row, u32 column, u32 some) {
        store(to.at + row * to.stride + column, some, whole, x);
    });
}

// ---- Random numbers, as random.rs has them

/// What a run is told of itself: device.rs.
struct RunArguments { u64 step, first_sample; };

struct Words { u32 x, y, z, w; };

/// The four words of a block below 2^32: Philox4x32 with ten rounds.
__device__ __forceinline__ Words philox(u64 step, u64 sample, u32 block, u64 key) {
    Words c = {block, (u32)step, (u32)sample, (u32)(sample >> 32)};
    u32 low = (u32)key, high = (u32)(key >> 32);
#pragma unroll
    for (u32 round = 0; round < 10; round++) {
        u64 a = (u64)c.x * 0xD2511F53u, b = (u64)c.z * 0xCD9E8D57u;
        c = Words{(u32)(b >> 32) ^ c.y ^ low, (u32)b, (u32)(a >> 32) ^ c.w ^ high, (u32)a};
        low += 0x9E3779B9u, high += 0xBB67AE85u;
    }
    return c;
}

/// A multiple of 2^-24 in [0, 1).
__device__ __forceinline__ f32 unit(u32 word) { return (f32)(word >> 8) / 16777216.0f; }

// ---- Sums

/// The sum over a warp in a fixed tree, in every lane.
__device__ __forceinline__ f32 warp_sum(f32 x) {
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

__device__ __forceinline__ f32 warp_max(f32 x) {
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) {
        f32 other = __shfl_xor_sync(~0u, x, width);
        x = other > x ? other : x;
    }
    return x;
}

/// `K` sums over a row by a warp: `add(inputs, sums, column)` adds an element's terms. Packs go to
/// lanes in turn, so the order depends on the columns alone.
template <u32 N, u32 K, class In, class F>
__device__ __forceinline__ void sum_row(u32 columns, In* const (&in)[N], f32 (&sums)[K], F add) {
    bool whole = true;
#pragma unroll
    for (u32 n = 0; n < N; n++) whole = whole && (u64)in[n] % 16 == 0;
#pragma unroll
    for (u32 k = 0; k < K; k++) sums[k] = 0.0f;
    for (u32 column = warp_team().rank * PACK; column < columns; column += 32 * PACK) {
        u32 some = columns - column < PACK ? columns - column : PACK;
        f32 x[N][PACK];
#pragma unroll
        for (u32 n = 0; n < N; n++) load(in[n] + column, some, whole, x[n]);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            f32 given[N];
#pragma unroll
            for (u32 n = 0; n < N; n++) given[n] = x[n][k];
            if (k < some) add(given, sums, column + k);
        }
    }
#pragma unroll
    for (u32 k = 0; k < K; k++) sums[k] = warp_sum(sums[k]);
}

/// Sums over some rows, column by column in the order of rows, to the block's row of `sums`:
/// `add(inputs, sum, row)` adds an element's term.
template <u32 N, class In, class F>
__device__ __forceinline__ void sum_columns(Rows rows, u32 columns, In* const (&in)[N], f32* sums,
                                            F add) {
    bool whole = columns % PACK == 0;
#pragma unroll
    for (u32 n = 0; n < N; n++) whole = whole && (u64)in[n] % 16 == 0;
    each_pack(block_team(), Rows{0, 1}, columns, [&](u64, u32 column, u32 some) {
        f32 sum[PACK] = {};
        auto add_row = [&](const f32(&x)[N][PACK], u32 row) {
#pragma unroll
            for (u32 k = 0; k < PACK; k++) {
                f32 given[N];
#pragma unroll
                for (u32 n = 0; n < N; n++) given[n] = x[n][k];
                add(given, sum[k], row);
            }
        };
        u32 row = rows.begin;
        // Loads that wait for no sum, a few rows at a time.
        constexpr u32 AHEAD = 4;
#pragma unroll 1
        for (; whole && row + AHEAD <= rows.end; row += AHEAD) {
            f32 x[AHEAD][N][PACK];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
#pragma unroll
                for (u32 n = 0; n < N; n++) {
                    load_pack(in[n] + (u64)(row + i) * columns + column, x[i][n]);
                }
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) add_row(x[i], row + i);
        }
        for (; row < rows.end; row++) {
            f32 x[N][PACK];
#pragma unroll
            for (u32 n = 0; n < N; n++) load(in[n] + (u64)row * columns + column, some, whole, x[n]);
            add_row(x, row);
        }
        store(sums + (u64)blockIdx.x * columns + column, some, whole, sum);
    });
}

/// The sum of `f(i)` for i below `count`, added one by one in order, in thread 0 of a block of 256:
/// as on the CPU. The others come along.
template <class F> __device__ __forceinline__ f64 sum_in_order(u64 count, F f) {
    SHARED(terms, f64[256]);
    f64 sum = 0.0;
    for (u64 first = 0; first < count; first += 256) {
        u64 some = count - first < 256 ? count - first : 256;
        if (threadIdx.x < some) terms[threadIdx.x] = f(first + threadIdx.x);
        __syncthreads();
        for (u64 i = 0; threadIdx.x == 0 && i < some; i++) sum += terms[i];
        __syncthreads();
    }
    return sum;
}

// ---- Functions, as cpu/vector.rs has them

/// e^x within 1.01 units in the last place: Cephes' expf.
__device__ __forceinline__ f32 exp_exact(f32 x) {
    const f32 round = 12582912.0f;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    f32 shifted = fmaf(x, 1.44269504088896340736f, round);
    f32 n = shifted - round;
    f32 r = fmaf(n, -355.0f / 512.0f, x);
    r = fmaf(n, 2.1219444e-4f, r);
    f32 p = fmaf(1.9875691e-4f, r, 1.3981999e-3f);
    p = fmaf(p, r, 8.333452e-3f);
    p = fmaf(p, r, 4.1665796e-2f);
    p = fmaf(p, r, 1.6666666e-1f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r * r, r) + 1.0f;
    i32 power = (i32)(__float_as_uint(shifted) - __float_as_uint(round));
    i32 half = power >> 1;
    p *= __uint_as_float((u32)(half + 127) << 23);
    return p * __uint_as_float((u32)(power - half + 127) << 23);
}

/// Relative error below 2^-22; odd.
__device__ __forceinline__ f32 tanh_exact(f32 x) {
    f32 a = fabsf(x), square = a * a;
    f32 p = fmaf(-5.7049887e-3f, square, 2.063909e-2f);
    p = fmaf(p, square, -5.3739715e-2f);
    p = fmaf(p, square, 1.3331442e-1f);
    p = fmaf(p, square, -3.333328e-1f);
    f32 near = fmaf(p * square, a, a);
    f32 far = 1.0f - 2.0f / (exp_exact(2.0f * a) + 1.0f);
    return copysignf(a < 0.625f ? near : far, x);
}

__device__ __forceinline__ f32 sigmoid(f32 x) { return 1.0f / (1.0f + exp_exact(-x)); }
__device__ __forceinline__ f32 silu(f32 x) { return x / (1.0f + exp_exact(-x)); }
__device__ __forceinline__ f32 silu_derivative(f32 x) {
    f32 s = sigmoid(x);
    return s * fmaf(x, 1.0f - s, 1.0f);
}

constexpr f32 GELU_SCALE = 2.0f * 0.7978846f;
constexpr f32 GELU_CUBE = 0.044715f;

__device__ __forceinline__ f32 gelu(f32 x) {
    f32 argument = GELU_SCALE * fmaf(x * x * x, GELU_CUBE, x);
    return x / (1.0f + exp_exact(-argument));
}

__device__ __forceinline__ f32 gelu_derivative(f32 x) {
    x = x < -30.0f ? -30.0f : x;
    x = x > 30.0f ? 30.0f : x;
    f32 square = x * x;
    f32 argument = GELU_SCALE * fmaf(x * square, GELU_CUBE, x);
    f32 slope = GELU_SCALE * fmaf(square, 3.0f * GELU_CUBE, 1.0f);
    f32 s = sigmoid(argument);
    return fmaf(x * slope, s * (1.0f - s), s);
}
