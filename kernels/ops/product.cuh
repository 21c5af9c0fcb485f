// Matrix products of a block: a tile of c [m, n] (+)= a [m, k] b [k, n], each factor stored as it
// is or transposed, sums in f32 in one order whatever the grid. bf16: tiles in a ring of shared
// memory that cp.async fills, ldmatrix, mma.sync; rows whose starts are no multiples of 16 bytes
// are copied element by element. f32: fmaf, in order of k. Then a bias, and a function of the sum as
// it is stored, which may be stored too.
#pragma once
#include "common.cuh"

/// A product's operands and sizes as far as they are live. Terms of sums from `first` on.
template <class T, class Out> struct Product {
    const T *a, *b, *bias;
    Out *c, *keeps;
    u32 m, n, first, k, function;
    bool adds;
};

/// What is stored for `some` sums of a row from `column` on.
template <class T, class Out>
__device__ __forceinline__ void finish(const Product<T, Out>& p, u32 row, u32 column, u32 some,
                                       f32 (&sum)[PACK]) {
    u64 at = (u64)row * p.n + column;
    bool whole = p.n % PACK == 0;
    f32 x[PACK];
    if (p.bias) {
        load(p.bias + column, some, whole, x);
#pragma unroll
        for (u32 i = 0; i < PACK; i++) sum[i] += x[i];
    }
    if (p.keeps) store(p.keeps + at, some, whole, sum);
    if (p.function == 1) {
#pragma unroll
        for (u32 i = 0; i < PACK; i++) sum[i] = gelu(stored<Out>(sum[i]));
    }
    if (p.adds) {
        load(p.c + at, some, whole, x);
#pragma unroll
        for (u32 i = 0; i < PACK; i++) sum[i] += x[i];
    }
    store(p.c + at, some, whole, sum);
}

/// Rows and columns of a tile as it lies in memory, and its place in shared memory. A row has 16
/// bytes more than it needs, so that eight rows lie in different banks.
template <u32 ROWS, u32 COLUMNS> struct Tile {
    bf16 at[ROWS][COLUMNS + 8];

    /// From a matrix of `rows` rows and `columns` columns; zeros where it ends.
    __device__ void fill(const bf16* from, u32 rows, u32 columns, u32 row, u32 column, bool whole) {
        for (u32 i = threadIdx.x; i < ROWS * COLUMNS / 8; i += blockDim.x) {
            u32 r = i / (COLUMNS / 8), c = i % (COLUMNS / 8) * 8;
            bf16* to = &at[r][c];
            bool inside = row + r < rows && column + c < columns;
            const bf16* source = from + (u64)(row + r) * columns + column + c;
            if (whole) {
                copy_async(to, inside ? source : from, inside ? 16 : 0);
                continue;
            }
#pragma unroll 1
            for (u32 e = 0; e < 8; e++) {
                to[e] = inside && column + c + e < columns ? source[e] : bf16{0};
            }
        }
    }
};

/// Depth of a tile, and tiles in the ring.
constexpr u32 DEPTH = 32, STAGES = 3;

template <bool T, u32 OUTER> struct Side { using Stored = Tile<OUTER, DEPTH>; };
template <u32 OUTER> struct Side<true, OUTER> { using Stored = Tile<DEPTH, OUTER>; };

/// The tile from `row` and `column` on. `A`: a lies as [k, m]; `B`: b lies as [k, n]. A warp has
/// WM x WN of a block's BM x BN.
template <bool A, bool B, u32 BM, u32 BN, u32 WM, u32 WN, class Out>
__device__ __forceinline__ void multiply_tiles(char* memory, const Product<bf16, Out>& p, u32 row,
                                               u32 column) {
    using TileA = typename Side<A, BM>::Stored;
    using TileB = typename Side<B, BN>::Stored;
    TileA* as = reinterpret_cast<TileA*>(memory);
    TileB* bs = reinterpret_cast<TileB*>(as + STAGES);
    if (row >= p.m) return;
    bool whole_a = (A ? p.m : p.k) % 8 == 0, whole_b = (B ? p.n : p.k) % 8 == 0;
    auto fill = [&](u32 tile) {
        u32 k = p.first + tile * DEPTH;
        TileA& a = as[tile % STAGES];
        TileB& b = bs[tile % STAGES];
        if (A) a.fill(p.a, p.k, p.m, k, row, whole_a);
        else a.fill(p.a, p.m, p.k, row, k, whole_a);
        if (B) b.fill(p.b, p.k, p.n, k, column, whole_b);
        else b.fill(p.b, p.n, p.k, column, k, whole_b);
    };
    u32 tiles = (p.k - p.first + DEPTH - 1) / DEPTH;
#pragma unroll 1
    for (u32 tile = 0; tile < STAGES - 1; tile++) {
        if (tile < tiles) fill(tile);
        commit_copies();
    }
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, eighth = lane / 8, r = lane % 8;
    u32 wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
    f32 sums[WM / 16][WN / 8][4] = {};
    for (u32 tile = 0; tile < tiles; tile++) {
        wait_for_copies<STAGES - 2>();
        // All copies of this tile are there, and nobody reads the one that is filled next.
        __syncthreads();
        if (tile + STAGES - 1 < tiles) fill(tile + STAGES - 1);
        commit_copies();
        TileA& a = as[tile % STAGES];
        TileB& b = bs[tile % STAGES];
#pragma unroll
        for (u32 k = 0; k < DEPTH; k += 16) {
            u32 left[WM / 16][4], right[WN / 16][4];
#pragma unroll
            for (u32 i = 0; i < WM / 16; i++) {
                u32 m = wm + i * 16;
                if (A) load_transposed(left[i], &a.at[k + eighth / 2 * 8 + r][m + eighth % 2 * 8]);
                else load_matrices(left[i], &a.at[m + eighth % 2 * 8 + r][k + eighth / 2 * 8]);
            }
#pragma unroll
            for (u32 j = 0; j < WN / 16; j++) {
                u32 n = wn + j * 16;
                if (B) load_transposed(right[j], &b.at[k + eighth % 2 * 8 + r][n + eighth / 2 * 8]);
                else load_matrices(right[j], &b.at[n + eighth / 2 * 8 + r][k + eighth % 2 * 8]);
            }
#pragma unroll
            for (u32 i = 0; i < WM / 16; i++) {
#pragma unroll
                for (u32 j = 0; j < WN / 16; j++) {
                    multiply(sums[i][2 * j], left[i], right[j][0], right[j][1]);
                    multiply(sums[i][2 * j + 1], left[i], right[j][2], right[j][3]);
                }
            }
        }
    }
    // The ring is read; now each warp lays out its sums there, to store whole rows of them.
    __syncthreads();
    constexpr u32 STRIDE = WN + 4;
    f32* staged = reinterpret_cast<f32*>(memory) + warp * WM * STRIDE;
#pragma unroll
    for (u32 i = 0; i < WM / 16; i++) {
#pragma unroll
        for (u32 j = 0; j < WN / 8; j++) {
#pragma unroll
            for (u32 e = 0; e < 4; e++) {
                u32 r = i * 16 + lane / 4 + e / 2 * 8;
                staged[r * STRIDE + j * 8 + lane % 4 * 2 + e % 2] = sums[i][j][e];
            }
        }
    }
    __syncwarp();
#pragma unroll 1
    for (u32 i = lane; i < WM * WN / PACK; i += 32) {
        u32 r = i / (WN / PACK), c = i % (WN / PACK) * PACK;
        if (row + wm + r >= p.m || column + wn + c >= p.n) continue;
        u32 left = p.n - column - wn - c;
        f32 sum[PACK];
        load_pack(staged + r * STRIDE + c, sum);
        finish(p, row + wm + r, column + wn + c, left < PACK ? left : PACK, sum);
    }
}

/// Rows and columns of an f32 tile, its depth, and what a thread has of it.
constexpr u32 WIDE = 64, SHALLOW = 16, ROWS = 4;

template <bool A, bool B>
__device__ __forceinline__ void multiply_f32(const Product<f32, f32>& p, u32 row, u32 column) {
    SHARED(a, f32[SHALLOW][WIDE + 4]);
    SHARED(b, f32[SHALLOW][WIDE + 4]);
    if (row >= p.m) return;
    u32 mine_m = threadIdx.x / (WIDE / PACK) * ROWS, mine_n = threadIdx.x % (WIDE / PACK) * PACK;
    f32 sums[ROWS][PACK] = {};
    for (u32 first = p.first; first < p.k; first += SHALLOW) {
        for (u32 i = threadIdx.x; i < SHALLOW * WIDE; i += blockDim.x) {
            // Neighbouring threads read neighbouring elements, however the factor lies.
            u32 k = A ? i / WIDE : i % SHALLOW, m = A ? i % WIDE : i / SHALLOW;
            bool inside = first + k < p.k && row + m < p.m;
            u64 at = A ? (u64)(first + k) * p.m + row + m : (u64)(row + m) * p.k + first + k;
            a[k][m] = inside ? p.a[at] : 0.0f;
        }
        for (u32 i = threadIdx.x; i < SHALLOW * WIDE; i += blockDim.x) {
            u32 k = B ? i / WIDE : i % SHALLOW, n = B ? i % WIDE : i / SHALLOW;
            bool inside = first + k < p.k && column + n < p.n;
            u64 at = B ? (u64)(first + k) * p.n + column + n : (u64)(column + n) * p.k + first + k;
            b[k][n] = inside ? p.b[at] : 0.0f;
        }
        __syncthreads();
#pragma unroll 4
        for (u32 k = 0; k < SHALLOW; k++) {
#pragma unroll
            for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
                for (u32 j = 0; j < PACK; j++) {
                    sums[i][j] = fmaf(a[k][mine_m + i], b[k][mine_n + j], sums[i][j]);
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
        if (row + mine_m + i >= p.m || column + mine_n >= p.n) continue;
        u32 left = p.n - column - mine_n;
        finish(p, row + mine_m + i, column + mine_n, left < PACK ? left : PACK, sums[i]);
    }
}
