// What the kernels of attention share: who sees whom, and tiles of a head in shared memory with
// their products.
#pragma once
#include "common.cuh"

/// geometry.rs in numbers; `window` is beyond all positions if there is none.
struct Geometry {
    u64 heads, kv_heads, elements, length, kv_length, q_stride, kv_stride, k_first, v_first, window;
    u64 causal, scale;
};

/// Rows that bounds are kept of.
constexpr u32 BOUND = 32;

/// Smallest and largest segment of some rows, and extent if they are queries.
struct Bounds { i32 low, high, least, most; };

__device__ __forceinline__ f32 negative_infinity() { return __uint_as_float(0xff800000u); }
__device__ __forceinline__ u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
__device__ __forceinline__ u32 larger(u32 a, u32 b) { return a > b ? a : b; }
__device__ __forceinline__ u32 blocks_of(u64 count, u32 size) { return (u32)((count + size - 1) / size); }

__device__ __forceinline__ Bounds joined(Bounds a, Bounds b) {
    return {a.low < b.low ? a.low : b.low, a.high > b.high ? a.high : b.high,
            a.least < b.least ? a.least : b.least, a.most > b.most ? a.most : b.most};
}

/// What a query sees: keys from `low` to before `high` that have its segment.
struct Sight { u32 low, high; i32 segment; };

/// Live rows of a sequence: the first, and how many.
struct Part { u64 first; u32 count; };

__device__ __forceinline__ Part part(u32 sequence, u64 length, u32 live) {
    u64 first = sequence * length, left = live > first ? live - first : 0;
    return {first, (u32)(left < length ? left : length)};
}

/// The operands of forward that all kernels read.
template <class T> struct Operands {
    const T *q, *kv;
    const i32 *q_segments, *kv_segments, *extents;
    const Bounds *q_bounds, *kv_bounds;
    u32 q_live, kv_live;
    Geometry g;
};

/// One sequence, as a block sees it.
template <class T> struct Sequence {
    const Operands<T>& in;
    Part queries, keys;
    const Bounds *q_bounds, *kv_bounds;

    __device__ Sequence(const Operands<T>& in, u32 sequence)
        : in(in), queries(part(sequence, in.g.length, in.q_live)),
          keys(part(sequence, in.g.kv_length, in.kv_live)),
          q_bounds(in.q_bounds + (u64)sequence * blocks_of(in.g.length, BOUND)),
          kv_bounds(in.kv_bounds + (u64)sequence * blocks_of(in.g.kv_length, BOUND)) {}

    /// The first key that query `t` may see by mask and window, and the first that it may not.
    __device__ u32 low(u32 t) const {
        u32 window = (u32)in.g.window;
        return t + 1 > window ? t + 1 - window : 0;
    }
    __device__ u32 high(u32 t) const {
        if (in.g.causal) return smaller(t + 1, keys.count);
        u64 end = (u64)t + in.g.window;
        return end < keys.count ? (u32)end : keys.count;
    }

    /// A query that is not there sees nothing.
    __device__ Sight sight(u32 t) const {
        if (t >= queries.count) return {0, 0, 0};
        u32 end = high(t);
        u64 row = queries.first + t;
        if (in.extents) {
            i32 extent = in.extents[row];
            end = extent < 0 ? 0 : smaller(end, (u32)extent);
        }
        return {low(t), end, in.q_segments[row]};
    }

    __device__ Bounds bounds(const Bounds* of, u32 begin, u32 end) const {
        Bounds all = of[begin / BOUND];
        for (u32 i = begin / BOUND + 1; i * BOUND < end; i++) all = joined(all, of[i]);
        return all;
    }
    __device__ Bounds of_queries(u32 begin, u32 size) const {
        return bounds(q_bounds, begin, smaller(begin + size, queries.count));
    }
    __device__ Bounds of_keys(u32 begin, u32 size) const {
        return bounds(kv_bounds, begin, smaller(begin + size, keys.count));
    }

    /// Whether every live query of a tile sees every key of a tile of so many.
    __device__ bool clear(Bounds queries_bounds, u32 t, u32 queries_end, Bounds keys_bounds, u32 key,
                          u32 size) const {
        u32 seen = high(t);
        if (queries_bounds.least < (i32)seen) seen = queries_bounds.least < 0 ? 0 : queries_bounds.least;
        return queries_bounds.low == keys_bounds.high && queries_bounds.high == keys_bounds.low &&
            key >= low(queries_end - 1) && key + size <= seen;
    }
};

__device__ __forceinline__ bool apart(Bounds a, Bounds b) { return a.high < b.low || b.high < a.low; }

// ---- Tiles and products

/// Rows of one head in shared memory; 16 bytes more than a row needs, so that eight rows lie in
/// different banks.
template <class T, u32 ROWS, u32 D> struct Tile {
    static constexpr u32 CHUNK = 16 / sizeof(T);
    T at[ROWS][D + CHUNK];

    /// From rows of `elements` elements, by so many threads; zeros where those or the rows end.
    template <u32 THREADS>
    __device__ __forceinline__ void fill(const T* from, u64 stride, u32 rows, u32 elements) {
        // A thread has chunks of one column, so many rows apart.
        constexpr u32 ACROSS = D / CHUNK, APART = THREADS / ACROSS;
        static_assert(THREADS % ACROSS == 0 && ROWS % APART == 0, "threads that have as many chunks");
        u32 row = threadIdx.x / ACROSS, column = threadIdx.x % ACROSS * CHUNK;
        const T* source = from + row * stride + column;
        u64 jump = APART * stride;
        if ((u64)from % 16 == 0 && stride % CHUNK == 0 && elements % CHUNK == 0) {
            u32 there = column < elements ? rows : 0;
#pragma unroll
            for (u32 i = 0; i < ROWS; i += APART, source += jump) {
                bool inside = row + i < there;
                copy_async(&at[row + i][column], inside ? source : from, inside ? 16 : 0);
            }
            return;
        }
#pragma unroll 1
        for (u32 i = 0; i < ROWS; i += APART, source += jump) {
#pragma unroll 1
            for (u32 e = 0; e < CHUNK; e++) {
                bool inside = row + i < rows && column + e < elements;
                at[row + i][column + e] = inside ? source[e] : T{};
            }
        }
    }

    /// Some rows of a warp's from shared memory, which the warp has written.
    __device__ __forceinline__ void store_rows(u32 first, T* to, u64 stride, u32 rows,
                                               u32 elements) const {
        bool whole = (u64)to % 16 == 0 && stride % PACK == 0;
        for (u32 i = warp_team().rank; i < 16 * D / PACK; i += 32) {
            u32 row = i / (D / PACK), column = i % (D / PACK) * PACK;
            if (row >= rows || column >= elements) continue;
            f32 x[PACK];
            load_pack(&at[first + row][column], x);
            store(to + row * stride + column, smaller(elements - column, PACK), whole, x);
        }
    }
};

/// What the first of two products leaves for the second between a warp's lanes, if it does not stay
/// in their registers.
template <class T, u32 COLUMNS> struct Between {};
template <u32 COLUMNS> struct Between<f32, COLUMNS> { f32 at[16][COLUMNS + 4]; };

/// Sums of a warp's 16 rows: of 8 columns each lane has two of row lane / 4 and two of the eighth
/// row after that.
template <u32 COLUMNS> using Sums = f32[COLUMNS / 8][4];

template <u32 N> __device__ __forceinline__ void zero(f32 (&sums)[N][4]) {
#pragma unroll
    for (u32 j = 0; j < N; j++) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) sums[j][k] = 0.0f;
    }
}

/// sums = a[row.., D] b[.., D]^T.
template <u32 ROWS, u32 COLUMNS, u32 D>
__device__ __forceinline__ void multiply_rows(Sums<COLUMNS>& sums, const Tile<bf16, ROWS, D>& a,
                                              u32 row, const Tile<bf16, COLUMNS, D>& b) {
    u32 lane = threadIdx.x % 32, eighth = lane / 8, r = lane % 8;
    zero(sums);
#pragma unroll
    for (u32 k = 0; k < D; k += 16) {
        u32 left[4];
        load_matrices(left, &a.at[row + eighth % 2 * 8 + r][k + eighth / 2 * 8]);
#pragma unroll
        for (u32 j = 0; j < COLUMNS / 16; j++) {
            u32 right[4];
            load_matrices(right, &b.at[j * 16 + eighth / 2 * 8 + r][k + eighth % 2 * 8]);
            multiply(sums[2 * j], left, right[0], right[1]);
            multiply(sums[2 * j + 1], left, right[2], right[3]);
        }
    }
}

template <u32 ROWS, u32 COLUMNS, u32 D>
__device__ __forceinline__ void multiply_rows(Sums<COLUMNS>& sums, const Tile<f32, ROWS, D>& a,
                                              u32 row, const Tile<f32, COLUMNS, D>& b) {
    u32 g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
    zero(sums);
#pragma unroll 1
    for (u32 d = 0; d < D; d++) {
        f32 first = a.at[row + g][d], second = a.at[row + g + 8][d];
#pragma unroll
        for (u32 j = 0; j < COLUMNS / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                f32 right = b.at[8 * j + pair + k][d];
                sums[j][k] = fmaf(first, right, sums[j][k]);
                sums[j][2 + k] = fmaf(second, right, sums[j][2 + k]);
            }
        }
    }
}

/// sums += p[16, ROWS] b[ROWS, D], p as a product has left it.
template <u32 ROWS, u32 D>
__device__ __forceinline__ void multiply_sums(Sums<D>& sums, const Sums<ROWS>& p,
                                              const Tile<bf16, ROWS, D>& b, Between<bf16, ROWS>&) {
    u32 lane = threadIdx.x % 32, eighth = lane / 8, r = lane % 8;
#pragma unroll
    for (u32 k = 0; k < ROWS / 16; k++) {
        const f32(&even)[4] = p[2 * k], (&odd)[4] = p[2 * k + 1];
        u32 left[4] = {pack_bf16(even[0], even[1]), pack_bf16(even[2], even[3]),
                       pack_bf16(odd[0], odd[1]), pack_bf16(odd[2], odd[3])};
#pragma unroll
        for (u32 j = 0; j < D / 16; j++) {
            u32 right[4];
            load_transposed(right, &b.at[k * 16 + eighth % 2 * 8 + r][j * 16 + eighth / 2 * 8]);
            multiply(sums[2 * j], left, right[0], right[1]);
            multiply(sums[2 * j + 1], left, right[2], right[3]);
        }
    }
}

template <u32 ROWS, u32 D>
__device__ __forceinline__ void multiply_sums(Sums<D>& sums, const Sums<ROWS>& p,
                                              const Tile<f32, ROWS, D>& b,
                                              Between<f32, ROWS>& between) {
    u32 g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 j = 0; j < ROWS / 8; j++) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) between.at[g + k / 2 * 8][8 * j + pair + k % 2] = p[j][k];
    }
    __syncwarp();
#pragma unroll 1
    for (u32 d = 0; d < ROWS; d++) {
        f32 first = between.at[g][d], second = between.at[g + 8][d];
#pragma unroll
        for (u32 j = 0; j < D / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                f32 right = b.at[d][8 * j + pair + k];
                sums[j][k] = fmaf(first, right, sums[j][k]);
                sums[j][2 + k] = fmaf(second, right, sums[j][2 + k]);
            }
        }
    }
    // All have read it before it is written again.
    __syncwarp();
}

/// A warp's sums, each row by its factor, to its rows of a tile that nobody else reads any more.
template <class T, u32 ROWS, u32 D>
__device__ __forceinline__ void leave(Tile<T, ROWS, D>& tile, u32 row, const Sums<D>& sums,
                                      f32 first, f32 second) {
    u32 g = threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 j = 0; j < D / 8; j++) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            tile.at[row + g + k / 2 * 8][8 * j + pair + k % 2] =
                narrowed<T>(sums[j][k] * (k < 2 ? first : second));
        }
    }
    __syncwarp();
}

__device__ __forceinline__ f32 quad_max(f32 x) {
#pragma unroll
    for (u32 width = 1; width < 4; width *= 2) {
        x = fmaxf(x, __shfl_xor_sync(~0u, x, width));
    }
    return x;
}

__device__ __forceinline__ f32 quad_sum(f32 x) {
#pragma unroll
    for (u32 width = 1; width < 4; width *= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

constexpr f32 LOG2_E = 1.44269504088896340736f;

// ---- Tiles that meet

/// `meet(stage, step)` for every step of a walk, while the next ones are copied to the ring. What is
/// read to find and to know them is asked for before a tile is met and used behind it.
template <u32 STAGES, class Walk, class F>
__device__ __forceinline__ void walk_on(const Walk& walk, typename Walk::Stage* stages, F meet) {
    // The one that is met, those that are copied, and the one that is copied next.
    typename Walk::Step coming[STAGES];
    coming[0] = walk.first();
#pragma unroll
    for (u32 i = 0; i < STAGES - 1; i++) {
        if (walk.is(coming[i])) {
            walk.copy(stages[i], coming[i]);
            walk.keep(stages[i], walk.known(coming[i]));
        }
        commit_copies();
        coming[i + 1] = coming[i];
        if (walk.is(coming[i])) coming[i + 1] = walk.following(coming[i], walk.behind(coming[i]));
    }
#pragma unroll 1
    for (u32 number = 0; walk.is(coming[0]); number++) {
        wait_for_copies<STAGES - 2>();
        // All of this tile is there, and nobody reads the one that is filled next.
        __syncthreads();
        auto& free = stages[(number + STAGES - 1) % STAGES];
        typename Walk::Step next = coming[STAGES - 1];
        bool more = walk.is(next);
        typename Walk::Known known{};
        Bounds ahead{};
        if (more) {
            walk.copy(free, next);
            known = walk.known(next);
            ahead = walk.behind(next);
        }
        commit_copies();
        meet(stages[number % STAGES], coming[0]);
        if (more) {
            walk.keep(free, known);
            next = walk.following(next, ahead);
        }
#pragma unroll
        for (u32 i = 0; i + 1 < STAGES; i++) coming[i] = coming[i + 1];
        coming[STAGES - 1] = next;
    }
    wait_for_copies<0>();
    __syncthreads();
}
