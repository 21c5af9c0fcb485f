// attention, tile by tile with an online softmax (Dao, arXiv:2307.08691): 16 queries a warp, keys and
// values in a ring of shared memory that cp.async fills. Gradient: keys and values by a block for a
// tile of keys, which meets the queries of all heads of its group in order, queries by a block for a
// tile of queries; both recompute the scores, nothing is added by two blocks, bits repeat. Who sees
// whom is mod.rs's; tiles that do not meet are skipped by the bounds of each 32 rows.
//
// bf16: ldmatrix and mma.sync; probabilities and gradients of scores are rounded to bf16 between two
// products. f32: fmaf, laid out alike. Heads of up to 64 or 128 elements, padded with zeros.
//
// expects attention_64_bf16: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects attention_128_bf16: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects attention_queries_64_bf16: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects attention_queries_128_bf16: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects attention_keys_64_bf16: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
// expects attention_keys_128_bf16: HMMA.16816.F32.BF16 LDSM LDGSTS STG.E.128
#include "attention.cuh"

// ---- Bounds

/// A warp for each 32 rows of a sequence, of queries or of keys.
__device__ void bound(const i32* segments, const i32* extents, Bounds* bounds, u64 length, u32 live,
                      u32 tile, u32 tiles) {
    Part rows = part(tile / tiles, length, live);
    u32 t = tile % tiles * BOUND + warp_team().rank;
    bool there = t < rows.count;
    const i32 most = 0x7fffffff, least = -most - 1;
    Bounds mine = {most, least, most, least};
    if (there) {
        i32 segment = segments[rows.first + t], extent = extents ? extents[rows.first + t] : most;
        mine = {segment, segment, extent, extent};
    }
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) {
        Bounds other = {__shfl_xor_sync(~0u, mine.low, width), __shfl_xor_sync(~0u, mine.high, width),
                        __shfl_xor_sync(~0u, mine.least, width), __shfl_xor_sync(~0u, mine.most, width)};
        mine = joined(mine, other);
    }
    if (warp_team().rank == 0) bounds[tile] = mine;
}

KERNEL(attention_bounds, 256, const i32* segments, const i32* extents, Bounds* bounds,
       const i32* live, u32 capacity, u32 length) {
    u32 tiles = blocks_of(length, BOUND), tile = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (tile >= capacity / length * tiles) return;
    bound(segments, extents, bounds, length, live_rows(live, capacity), tile, tiles);
}

// ---- Tiles of keys that queries meet: forward, and the gradient of queries

/// Keys and values of a tile, and the keys' segments.
template <class T, u32 KEYS, u32 D> struct KeyStage {
    Tile<T, KEYS, D> k, v;
    i32 segments[KEYS];
};

/// The walk of one tile of queries over the tiles of keys that it meets.
template <class T, u32 KEYS, u32 D, u32 THREADS> struct KeyWalk {
    using Stage = KeyStage<T, KEYS, D>;
    /// A tile, none if it is not before the last, and whether every query sees every key of it.
    struct Step { u32 tile; bool clear; };
    struct Known { i32 segment; };
    const Sequence<T>& s;
    Bounds bounds;
    u32 begin, end, last, kv_head;

    __device__ KeyWalk(const Sequence<T>& s, u32 begin, u32 size, u32 head)
        : s(s), bounds(s.of_queries(begin, size)), begin(begin),
          end(smaller(begin + size, s.queries.count)),
          kv_head(head / (u32)(s.in.g.heads / s.in.g.kv_heads)) {
        u32 seen = s.high(end - 1);
        if (bounds.most < (i32)seen) seen = bounds.most < 0 ? 0 : bounds.most;
        last = blocks_of(seen, KEYS);
    }
    __device__ bool is(Step step) const { return step.tile < last; }
    __device__ Bounds of(u32 tile) const {
        return tile < last ? s.of_keys(tile * KEYS, KEYS) : Bounds{};
    }
    /// The tile or the next one that is met; `ahead` is the tile's.
    __device__ Step settled(u32 tile, Bounds ahead) const {
        while (tile < last && apart(bounds, ahead)) ahead = of(++tile);
        return {tile, tile < last && s.clear(bounds, begin, end, ahead, tile * KEYS, KEYS)};
    }
    __device__ Step first() const {
        u32 tile = s.low(begin) / KEYS;
        return settled(tile, of(tile));
    }
    __device__ Bounds behind(Step step) const { return of(step.tile + 1); }
    __device__ Step following(Step step, Bounds ahead) const { return settled(step.tile + 1, ahead); }

    __device__ u64 row(Step step) const { return s.keys.first + (u64)step.tile * KEYS; }
    __device__ u32 left(Step step) const { return s.keys.count - step.tile * KEYS; }
    __device__ __forceinline__ void copy(Stage& stage, Step step) const {
        const Geometry& g = s.in.g;
        const T* from = s.in.kv + row(step) * g.kv_stride + kv_head * g.elements;
        stage.k.template fill<THREADS>(from + g.k_first, g.kv_stride, left(step), g.elements);
        stage.v.template fill<THREADS>(from + g.v_first, g.kv_stride, left(step), g.elements);
    }
    __device__ Known known(Step step) const {
        u32 i = threadIdx.x;
        return {i < KEYS && i < left(step) ? s.in.kv_segments[row(step) + i] : 0};
    }
    __device__ void keep(Stage& stage, Known known) const {
        if (threadIdx.x < KEYS) stage.segments[threadIdx.x] = known.segment;
    }
    /// Minus infinity for the keys of a tile that a row does not see.
    __device__ void mask(Sums<KEYS>& scores, const Stage& stage, u32 tile, const Sight (&rows)[2]) const {
        u32 pair = threadIdx.x % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                u32 column = 8 * j + pair + k, key = tile * KEYS + column;
                i32 segment = stage.segments[column];
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    bool seen = key >= rows[i].low && key < rows[i].high && segment == rows[i].segment;
                    if (!seen) scores[j][2 * i + k] = negative_infinity();
                }
            }
        }
    }
};

template <class T, u32 D, u32 WARPS, u32 KEYS, u32 STAGES>
__device__ __forceinline__ void forward(char* memory, const Operands<T>& in, T* out, f32* logsumexp) {
    constexpr u32 QUERIES = 16 * WARPS;
    auto& queries = *reinterpret_cast<Tile<T, QUERIES, D>*>(memory);
    auto* stages = reinterpret_cast<KeyStage<T, KEYS, D>*>(&queries + 1);
    auto* betweens = reinterpret_cast<Between<T, KEYS>*>(stages + STAGES);
    const Geometry& g = in.g;
    // Late tiles of a causal mask are the longest: they begin first.
    u32 tiles = blocks_of(g.length, QUERIES), head = blockIdx.y;
    u32 begin = (tiles - 1 - blockIdx.x % tiles) * QUERIES;
    Sequence<T> s(in, blockIdx.x / tiles);
    if (begin >= s.queries.count) return;
    KeyWalk<T, KEYS, D, 32 * WARPS> walk(s, begin, QUERIES, head);
    u64 first_row = s.queries.first + begin;
    u32 left = s.queries.count - begin;
    queries.template fill<32 * WARPS>(in.q + first_row * g.q_stride + head * g.elements, g.q_stride, left, g.elements);
    u32 warp = threadIdx.x / 32, row = 16 * warp, mine = row + threadIdx.x % 32 / 4;
    f32 unit = __uint_as_float((u32)g.scale) * LOG2_E;
    Sight sights[2] = {s.sight(begin + mine), s.sight(begin + mine + 8)};
    f32 most[2] = {negative_infinity(), negative_infinity()}, total[2] = {};
    Sums<D> sums;
    zero(sums);
    using Stage = KeyStage<T, KEYS, D>;
    using Step = typename KeyWalk<T, KEYS, D, 32 * WARPS>::Step;
    walk_on<STAGES>(walk, stages, [&](const Stage& stage, Step step) {
        Sums<KEYS> p;
        multiply_rows(p, queries, row, stage.k);
        if (!step.clear) walk.mask(p, stage, step.tile, sights);
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            f32 now = most[i];
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (u32 k = 0; k < 2; k++) now = fmaxf(now, p[j][2 * i + k]);
            }
            now = quad_max(now);
            // As long as nothing is seen all exponentials are 0.
            f32 from = now == negative_infinity() ? 0.0f : now * unit;
            // Exactly 1 where the largest score is the one of before.
            f32 rescale = now == most[i] ? 1.0f : exp2_fast(fmaf(most[i], unit, -from)), sum = 0.0f;
            most[i] = now;
#pragma unroll
            for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (u32 k = 0; k < 2; k++) {
                    f32& x = p[j][2 * i + k];
                    x = exp2_fast(fmaf(x, unit, -from));
                    sum += x;
                }
            }
            total[i] = fmaf(total[i], rescale, sum);
#pragma unroll
            for (u32 j = 0; j < D / 8; j++) sums[j][2 * i] *= rescale, sums[j][2 * i + 1] *= rescale;
        }
        multiply_sums(sums, p, stage.v, betweens[warp]);
    });
    f32 factors[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        total[i] = quad_sum(total[i]);
        factors[i] = total[i] == 0.0f ? 0.0f : 1.0f / total[i];
        f32 value = fmaf(most[i], __uint_as_float((u32)g.scale), logf(total[i]));
        u32 t = mine + 8 * i;
        if (threadIdx.x % 4 == 0 && t < left) logsumexp[(first_row + t) * g.heads + head] = value;
    }
    leave(queries, row, sums, factors[0], factors[1]);
    if (row >= left) return;
    u64 stride = g.heads * g.elements;
    T* to = out + (first_row + row) * stride + head * g.elements;
    queries.store_rows(row, to, stride, left - row, g.elements);
}

/// What backward reads besides.
template <class T> struct Given {
    const T* dout;
    const f32 *logsumexp, *delta;
};

/// In units of exp2; a query that sees nothing has probabilities of 0.
__device__ __forceinline__ f32 in_halvings(f32 logsumexp) {
    return logsumexp == negative_infinity() ? -negative_infinity() : logsumexp * LOG2_E;
}

template <class T, u32 D, u32 WARPS, u32 KEYS, u32 STAGES>
__device__ __forceinline__ void query_gradient(char* memory, const Operands<T>& in,
                                               const Given<T>& given, T* dq) {
    constexpr u32 QUERIES = 16 * WARPS;
    auto& queries = *reinterpret_cast<Tile<T, QUERIES, D>*>(memory);
    auto& douts = *(&queries + 1);
    auto* stages = reinterpret_cast<KeyStage<T, KEYS, D>*>(&douts + 1);
    auto* betweens = reinterpret_cast<Between<T, KEYS>*>(stages + STAGES);
    const Geometry& g = in.g;
    u32 tiles = blocks_of(g.length, QUERIES), head = blockIdx.y;
    u32 begin = (tiles - 1 - blockIdx.x % tiles) * QUERIES;
    Sequence<T> s(in, blockIdx.x / tiles);
    if (begin >= s.queries.count) return;
    KeyWalk<T, KEYS, D, 32 * WARPS> walk(s, begin, QUERIES, head);
    u64 first_row = s.queries.first + begin, stride = g.heads * g.elements;
    u32 left = s.queries.count - begin;
    queries.template fill<32 * WARPS>(in.q + first_row * g.q_stride + head * g.elements, g.q_stride, left, g.elements);
    douts.template fill<32 * WARPS>(given.dout + first_row * stride + head * g.elements, stride, left, g.elements);
    u32 warp = threadIdx.x / 32, row = 16 * warp, mine = row + threadIdx.x % 32 / 4;
    f32 scale = __uint_as_float((u32)g.scale), unit = scale * LOG2_E;
    Sight sights[2];
    f32 logsumexp[2], delta[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 t = mine + 8 * i;
        u64 at = (first_row + t) * g.heads + head;
        sights[i] = s.sight(begin + t);
        logsumexp[i] = in_halvings(t < left ? given.logsumexp[at] : negative_infinity());
        delta[i] = t < left ? given.delta[at] : 0.0f;
    }
    Sums<D> sums;
    zero(sums);
    using Stage = KeyStage<T, KEYS, D>;
    using Step = typename KeyWalk<T, KEYS, D, 32 * WARPS>::Step;
    walk_on<STAGES>(walk, stages, [&](const Stage& stage, Step step) {
        Sums<KEYS> p, dp;
        multiply_rows(p, queries, row, stage.k);
        multiply_rows(dp, douts, row, stage.v);
        if (!step.clear) walk.mask(p, stage, step.tile, sights);
#pragma unroll
        for (u32 j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                f32 x = exp2_fast(fmaf(p[j][k], unit, -logsumexp[k / 2]));
                p[j][k] = x * (dp[j][k] - delta[k / 2]);
            }
        }
        multiply_sums(sums, p, stage.k, betweens[warp]);
    });
    leave(queries, row, sums, scale, scale);
    if (row >= left) return;
    T* to = dq + (first_row + row) * g.q_stride + head * g.elements;
    queries.store_rows(row, to, g.q_stride, left - row, g.elements);
}

// ---- Tiles of queries that keys meet: the gradients of keys and values

/// Queries of a tile, their output's gradients, and what is known of each query.
template <class T, u32 QUERIES, u32 D> struct QueryStage {
    Tile<T, QUERIES, D> q, dout;
    f32 logsumexp[QUERIES], delta[QUERIES];
    Sight sights[QUERIES];
};

/// The walk of one tile of keys over the tiles of queries that it meets, head by head.
template <class T, u32 QUERIES, u32 D, u32 THREADS> struct QueryWalk {
    using Stage = QueryStage<T, QUERIES, D>;
    /// A tile of a head, none behind the last head, and whether every query of it sees every key.
    struct Step { u32 head, tile; bool clear; };
    struct Known { f32 logsumexp, delta; Sight sight; };
    const Sequence<T>& s;
    const Given<T>& given;
    Bounds bounds;
    u32 begin, size, start, last, first_head, end_head;

    __device__ QueryWalk(const Sequence<T>& s, const Given<T>& given, u32 begin, u32 size, u32 head,
                         u32 heads)
        : s(s), given(given), bounds(s.of_keys(begin, size)), begin(begin), size(size),
          first_head(head), end_head(head + heads) {
        const Geometry& g = s.in.g;
        u32 window = (u32)g.window;
        u32 low = g.causal ? begin : begin + 1 > window ? begin + 1 - window : 0;
        u64 high = (u64)smaller(begin + size, s.keys.count) - 1 + g.window;
        start = low / QUERIES;
        last = blocks_of(high < s.queries.count ? high : s.queries.count, QUERIES);
    }
    __device__ bool is(Step step) const { return step.head < end_head; }
    __device__ Bounds of(u32 tile) const {
        return tile < last ? s.of_queries(tile * QUERIES, QUERIES) : Bounds{};
    }
    /// The tile or the next one that is met; `ahead` is the tile's, and then that one's.
    __device__ u32 met(u32 tile, Bounds& ahead) const {
        while (tile < last && (apart(bounds, ahead) || ahead.most <= (i32)begin)) ahead = of(++tile);
        return tile;
    }
    /// Of one head after another; one that meets nothing is the last.
    __device__ Step settled(u32 head, u32 tile, Bounds ahead) const {
        tile = met(tile, ahead);
        if (tile >= last) {
            ahead = of(start);
            head++;
            tile = met(start, ahead);
        }
        if (tile >= last) return {~0u, 0, false};
        u32 t = tile * QUERIES, end = smaller(t + QUERIES, s.queries.count);
        return {head, tile, s.clear(ahead, t, end, bounds, begin, size)};
    }
    __device__ Step first() const {
        Bounds ahead = of(start);
        return met(start, ahead) < last ? settled(first_head, start, of(start)) : Step{~0u, 0, false};
    }
    __device__ Bounds behind(Step step) const { return of(step.tile + 1); }
    __device__ Step following(Step step, Bounds ahead) const {
        return settled(step.head, step.tile + 1, ahead);
    }

    __device__ u64 row(Step step) const { return s.queries.first + (u64)step.tile * QUERIES; }
    __device__ u32 left(Step step) const { return s.queries.count - step.tile * QUERIES; }
    __device__ __forceinline__ void copy(Stage& stage, Step step) const {
        const Geometry& g = s.in.g;
        u64 stride = g.heads * g.elements, head = step.head * g.elements;
        stage.q.template fill<THREADS>(s.in.q + row(step) * g.q_stride + head, g.q_stride, left(step), g.elements);
        stage.dout.template fill<THREADS>(given.dout + row(step) * stride + head, stride, left(step), g.elements);
    }
    __device__ Known known(Step step) const {
        u32 i = threadIdx.x;
        if (i >= QUERIES || i >= left(step)) return {negative_infinity(), 0.0f, {0, 0, 0}};
        u64 at = (row(step) + i) * s.in.g.heads + step.head;
        return {given.logsumexp[at], given.delta[at], s.sight(step.tile * QUERIES + i)};
    }
    __device__ void keep(Stage& stage, Known known) const {
        u32 i = threadIdx.x;
        if (i >= QUERIES) return;
        stage.logsumexp[i] = in_halvings(known.logsumexp);
        stage.delta[i] = known.delta;
        stage.sights[i] = known.sight;
    }
    /// Minus infinity for the queries of a tile that do not see a row's key.
    __device__ void mask(Sums<QUERIES>& scores, const Stage& stage, u32 key,
                         const i32 (&segments)[2]) const {
        u32 pair = threadIdx.x % 4 * 2;
#pragma unroll
        for (u32 j = 0; j < QUERIES / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                Sight sight = stage.sights[8 * j + pair + k];
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    bool seen = key + 8 * i >= sight.low && key + 8 * i < sight.high &&
                        segments[i] == sight.segment;
                    if (!seen) scores[j][2 * i + k] = negative_infinity();
                }
            }
        }
    }
};

template <class T, u32 D, u32 WARPS, u32 QUERIES, u32 STAGES>
__device__ __forceinline__ void key_gradient(char* memory, const Operands<T>& in,
                                             const Given<T>& given, T* dkv) {
    constexpr u32 KEYS = 16 * WARPS;
    auto& keys = *reinterpret_cast<Tile<T, KEYS, D>*>(memory);
    auto& values = *(&keys + 1);
    auto* stages = reinterpret_cast<QueryStage<T, QUERIES, D>*>(&values + 1);
    auto* betweens = reinterpret_cast<Between<T, QUERIES>*>(stages + STAGES);
    const Geometry& g = in.g;
    // Early keys of a causal mask have the most queries: they begin first.
    u32 tiles = blocks_of(g.kv_length, KEYS), begin = blockIdx.x % tiles * KEYS;
    u32 kv_head = blockIdx.y, group = (u32)(g.heads / g.kv_heads);
    Sequence<T> s(in, blockIdx.x / tiles);
    if (begin >= s.keys.count) return;
    QueryWalk<T, QUERIES, D, 32 * WARPS> walk(s, given, begin, KEYS, kv_head * group, group);
    u64 first_row = s.keys.first + begin;
    u32 left = s.keys.count - begin;
    u64 place = first_row * g.kv_stride + kv_head * g.elements;
    keys.template fill<32 * WARPS>(in.kv + place + g.k_first, g.kv_stride, left, g.elements);
    values.template fill<32 * WARPS>(in.kv + place + g.v_first, g.kv_stride, left, g.elements);
    u32 warp = threadIdx.x / 32, row = 16 * warp, mine = row + threadIdx.x % 32 / 4;
    f32 scale = __uint_as_float((u32)g.scale), unit = scale * LOG2_E;
    i32 segments[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        segments[i] = mine + 8 * i < left ? in.kv_segments[first_row + mine + 8 * i] : 0;
    }
    Sums<D> dk, dv;
    zero(dk);
    zero(dv);
    using Stage = QueryStage<T, QUERIES, D>;
    using Step = typename QueryWalk<T, QUERIES, D, 32 * WARPS>::Step;
    walk_on<STAGES>(walk, stages, [&](const Stage& stage, Step step) {
        u32 pair = threadIdx.x % 4 * 2;
        Sums<QUERIES> p, dp;
        multiply_rows(p, keys, row, stage.q);
        if (!step.clear) walk.mask(p, stage, begin + mine, segments);
#pragma unroll
        for (u32 j = 0; j < QUERIES / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                f32 logsumexp = stage.logsumexp[8 * j + pair + k % 2];
                p[j][k] = exp2_fast(fmaf(p[j][k], unit, -logsumexp));
            }
        }
        multiply_sums(dv, p, stage.dout, betweens[warp]);
        multiply_rows(dp, values, row, stage.dout);
#pragma unroll
        for (u32 j = 0; j < QUERIES / 8; j++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) p[j][k] *= dp[j][k] - stage.delta[8 * j + pair + k % 2];
        }
        multiply_sums(dk, p, stage.q, betweens[warp]);
    });
    leave(keys, row, dk, scale, scale);
    leave(values, row, dv, 1.0f, 1.0f);
    if (row >= left) return;
    T* to = dkv + place + row * g.kv_stride;
    keys.store_rows(row, to + g.k_first, g.kv_stride, left - row, g.elements);
    values.store_rows(row, to + g.v_first, g.kv_stride, left - row, g.elements);
}

/// Σ dout · out of every row and head, by a warp: what the softmax takes back from each score.
template <class T>
__device__ void deltas(const T* dout, const T* out, f32* delta, Rows rows, u32 heads, u32 elements) {
    for (u64 i = (u64)rows.begin * heads + threadIdx.x / 32; i < (u64)rows.end * heads;
         i += blockDim.x / 32) {
        f32 sum[1];
        sum_row(elements, {dout + i * elements, out + i * elements}, sum,
                [](const f32(&in)[2], f32(&sums)[1], u32) { sums[0] += in[0] * in[1]; });
        if (warp_team().rank == 0) delta[i] = sum[0];
    }
}

#define OPERANDS(T)                                                                                \
    const T *q, const T *kv, const i32 *q_segments, const i32 *kv_segments, const i32 *extents,    \
        const Bounds *q_bounds, const Bounds *kv_bounds, const i32 *q_live, u32 q_rows,            \
        const i32 *kv_live, u32 kv_rows
#define GIVEN(T)                                                                                   \
    Operands<T> {                                                                                  \
        q, kv, q_segments, kv_segments, extents, q_bounds, kv_bounds, live_rows(q_live, q_rows),   \
            live_rows(kv_live, kv_rows), geometry                                                  \
    }

// KEYS of a tile in forward; BACK of a tile that queries meet in backward, QUERIES of one that keys
// meet; as many blocks at once, forward and of each gradient, as registers are wanted for.
#define HEADS(T, D, WARPS, KEYS, BACK, QUERIES, STAGES, BLOCKS, OF_QUERIES, OF_KEYS)                                                   \
    KERNEL_OF(attention_##D##_##T, 32 * WARPS, BLOCKS, OPERANDS(T), T* out, f32* logsumexp,                   \
           const Geometry geometry) {                                                              \
        DYNAMIC_SHARED(memory);                                                                    \
        forward<T, D, WARPS, KEYS, STAGES>(memory, GIVEN(T), out, logsumexp);                      \
    }                                                                                              \
    KERNEL_OF(attention_queries_##D##_##T, 32 * WARPS, OF_QUERIES, OPERANDS(T), const T* dout,                    \
           const f32* logsumexp, const f32* delta, T* dq, const Geometry geometry) {               \
        DYNAMIC_SHARED(memory);                                                                    \
        Given<T> given = {dout, logsumexp, delta};                                                 \
        query_gradient<T, D, WARPS, BACK, STAGES>(memory, GIVEN(T), given, dq);                  \
    }                                                                                              \
    KERNEL_OF(attention_keys_##D##_##T, 32 * WARPS, OF_KEYS, OPERANDS(T), const T* dout,                       \
           const f32* logsumexp, const f32* delta, T* dkv, const Geometry geometry) {              \
        DYNAMIC_SHARED(memory);                                                                    \
        Given<T> given = {dout, logsumexp, delta};                                                 \
        key_gradient<T, D, WARPS, QUERIES, STAGES>(memory, GIVEN(T), given, dkv);                   \
    }
HEADS(f32, 64, 2, 32, 32, 32, 2, 1, 1, 1)
HEADS(f32, 128, 2, 32, 16, 16, 2, 1, 1, 1)
HEADS(bf16, 64, 4, 64, 64, 64, 2, 3, 3, 2)
HEADS(bf16, 128, 4, 64, 64, 48, 2, 2, 2, 1)

#define DELTAS(T)                                                                                  \
    KERNEL(attention_deltas_##T, 256, const T* dout, const T* out, f32* delta, const i32* live,    \
           u32 capacity, u32 each, u32 heads, u32 elements) {                                      \
        deltas(dout, out, delta, block_rows(live, capacity, each), heads, elements);               \
    }
FOR_ELEMENTS(DELTAS)
