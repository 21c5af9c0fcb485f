// rope: x [rows, columns], positions [rows] -> y; in the first `heads` heads of each row element i of
// the first half and of the second are a pair, turned by position * frequency; the rest is copied.
// A position outside 0..positions gives NaN in the heads. Gradient: the same, turned back.
//
// An angle is a phase: the position times the pair's turns per position in units of 2^-64 turns.
// What the product wraps around is whole turns, so that angles are exact at any position.
//
// expects rope_bf16: LDG.E.128 STG.E.128
#include "common.cuh"

/// Of each pair of a head.
struct Turns { u64 at[128]; };

/// Cosine and sine within an ulp or two: the nearest quarter turn, and Cephes' sinf and cosf of what
/// is left.
__device__ __forceinline__ void turn(u64 phase, f32& cosine, f32& sine) {
    u32 top = (u32)(phase >> 32), quarter = (top + (1u << 29)) >> 30;
    f32 x = (f32)(i32)(top - (quarter << 30)) * 1.46291807926715968e-9f, z = x * x;
    f32 s = fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f);
    s = fmaf(s, z * x, x);
    f32 c = fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f);
    c = fmaf(c, z * z, fmaf(-0.5f, z, 1.0f));
    f32 even = quarter % 2 ? s : c, odd = quarter % 2 ? c : s;
    cosine = quarter == 1 || quarter == 2 ? -even : even;
    sine = quarter >= 2 ? -odd : odd;
}

/// `cosines` and `sines` hold those of the block's rows, `half` each.
template <class T>
__device__ __forceinline__ void rotate(const T* x, T* y, Rows rows, u32 columns, u32 half,
                                       u32 heads, const f32* cosines, const f32* sines) {
    bool whole = aligned(view(x, columns)) && aligned(view(y, columns));
    bool halves = whole && half % PACK == 0;
    u32 packs = (half + PACK - 1) / PACK, pairs = heads * packs, rest = 2 * half * heads;
    u32 tasks = pairs + (columns - rest + PACK - 1) / PACK;
    for (u32 i = threadIdx.x; i < (rows.end - rows.begin) * tasks; i += blockDim.x) {
        u32 row = i / tasks, task = i % tasks;
        u64 at = (u64)(rows.begin + row) * columns;
        f32 a[PACK], b[PACK];
        if (task >= pairs) {
            u32 column = rest + (task - pairs) * PACK, left = columns - column;
            u32 some = left < PACK ? left : PACK;
            bool straight = whole && rest % PACK == 0;
            load(x + at + column, some, straight, a);
            store(y + at + column, some, straight, a);
            continue;
        }
        u32 pair = task % packs * PACK, some = half - pair < PACK ? half - pair : PACK;
        u64 first = at + task / packs * 2 * half + pair;
        load(x + first, some, halves, a);
        load(x + first + half, some, halves, b);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            if (k >= some) continue;
            f32 c = cosines[row * half + pair + k], s = sines[row * half + pair + k], was = a[k];
            a[k] = fmaf(was, c, -(b[k] * s));
            b[k] = fmaf(b[k], c, was * s);
        }
        store(y + first, some, halves, a);
        store(y + first + half, some, halves, b);
    }
}

// `magnitude` of cosines; of sines it has the direction's sign.
#define KERNELS(T)                                                                                 \
    KERNEL(rope_##T, 256, const T* x, const i32* positions, T* y, const i32* live, u32 capacity,   \
           u32 each, u32 columns, u32 half, u32 heads, u32 most, f32 magnitude, f32 of_sines,      \
           const Turns turns) {                                                                    \
        DYNAMIC_SHARED(memory);                                                                    \
        Rows rows = block_rows(live, capacity, each);                                              \
        f32 *cosines = reinterpret_cast<f32*>(memory), *sines = cosines + each * half;             \
        for (u32 i = threadIdx.x; i < (rows.end - rows.begin) * half; i += blockDim.x) {           \
            u32 position = (u32)positions[rows.begin + i / half];                                  \
            f32 c = __uint_as_float(0x7fc00000u), s = c;                                           \
            if (position < most) turn(position * turns.at[i % half], c, s);                        \
            cosines[i] = magnitude * c, sines[i] = of_sines * s;                                   \
        }                                                                                          \
        __syncthreads();                                                                           \
        rotate(x, y, rows, columns, half, heads, cosines, sines);                                  \
    }
FOR_ELEMENTS(KERNELS)
