// route: logits [n, experts] -> expert [n, k], weight [n, k], counts [experts]: a warp for each
// token picks the k largest keys one after the other, the lower expert among equals; what is no
// number comes last. Counts are integers that blocks add up: their order does not matter. Gradient:
// logits, expert, dweight -> dlogits, overwrites or adds. Expert e belongs to lane e mod 32, and
// sums run as on the CPU: its bits.
#include "loss.cuh"

/// Experts that one router can choose from, as route/mod.rs has it, and warps of a block.
constexpr u32 EXPERTS = 1024, WARPS = 8;

/// The scores of a token.
template <class T> struct Scores {
    const T* x;
    bool softmax;
    f32 largest, sum;
    __device__ __forceinline__ f32 of(u32 expert) const {
        f32 logit = widened(x[expert]);
        return softmax ? exp_exact(logit - largest) / sum : sigmoid(logit);
    }
};

template <class T>
__device__ __forceinline__ Scores<T> scores_of(const T* x, u32 experts, bool softmax) {
    Scores<T> scores{x, softmax, lowest_f32(), 0.0f};
    if (!softmax) return scores;
    for (u32 e = warp_team().rank; e < experts; e += 32) {
        f32 logit = widened(x[e]);
        scores.largest = logit > scores.largest ? logit : scores.largest;
    }
    scores.largest = warp_max(scores.largest);
    for (u32 e = warp_team().rank; e < experts; e += 32) {
        scores.sum += exp_exact(widened(x[e]) - scores.largest);
    }
    scores.sum = warp_sum(scores.sum);
    return scores;
}

/// f(0) + f(1) + ..., added one by one, in every lane of a warp.
template <class F> __device__ __forceinline__ f32 sum_in_turn(u32 count, F f) {
    f32 sum = 0.0f;
    for (u32 first = 0; first < count; first += 32) {
        u32 mine = first + warp_team().rank, some = count - first < 32 ? count - first : 32;
        f32 term = mine < count ? f(mine) : 0.0f;
        for (u32 i = 0; i < some; i++) sum += __shfl_sync(~0u, term, i);
    }
    return sum;
}

/// Whole numbers in the order of floats; 1 for what is no number, 0 for nothing.
__device__ __forceinline__ u32 ranked(f32 x) {
    // -0 becomes 0.
    u32 bits = __float_as_uint(x + 0.0f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 1;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// What a token's choice is made of.
struct Choice { u32 experts, k; bool softmax, normalize; };

/// What the scores of the chosen experts are divided by.
template <class T>
__device__ __forceinline__ f32 divisor_of(const Scores<T>& scores, const i32* chosen,
                                          const Choice& c) {
    if (!c.normalize) return 1.0f;
    return sum_in_turn(c.k, [&](u32 j) { return scores.of(chosen[j]); }) + 1e-20f;
}

/// The expert with the largest key of a warp's, which is taken out.
__device__ __forceinline__ u32 take(u32* keys, u32 experts) {
    u64 best = 0;
    for (u32 e = warp_team().rank; e < experts; e += 32) {
        u64 key = (u64)keys[e] << 32 | (EXPERTS - e);
        best = key > best ? key : best;
    }
#pragma unroll
    for (u32 width = 16; width > 0; width /= 2) {
        u64 other = __shfl_xor_sync(~0u, best, width);
        best = other > best ? other : best;
    }
    u32 e = EXPERTS - (u32)best;
    // A lane has its own experts' keys.
    if (e % 32 == warp_team().rank) keys[e] = 0;
    return e;
}

template <class T>
__device__ void route(const T* logits, const f32* bias, i32* expert, f32* weight, i32* counts,
                      Rows tokens, const Choice& c) {
    SHARED(keys, u32[WARPS][EXPERTS]);
    SHARED(taken, i32[EXPERTS]);
    u32 lane = warp_team().rank, warp = threadIdx.x / 32;
    for (u32 e = threadIdx.x; e < c.experts; e += blockDim.x) taken[e] = 0;
    __syncthreads();
    for (u64 token = tokens.begin + warp; token < tokens.end; token += WARPS) {
        Scores<T> scores = scores_of(logits + token * c.experts, c.experts, c.softmax);
        for (u32 e = lane; e < c.experts; e += 32) {
            keys[warp][e] = ranked(bias ? scores.of(e) + bias[e] : widened(scores.x[e]));
        }
        i32* chosen = expert + token * c.k;
        for (u32 j = 0; j < c.k; j++) {
            u32 e = take(keys[warp], c.experts);
            if (j % 32 != lane) continue;
            chosen[j] = (i32)e;
            atomicAdd(&taken[e], 1);
        }
        // A lane reads the choices that it made.
        f32 divisor = divisor_of(scores, chosen, c);
        f32* weights = weight + token * c.k;
        for (u32 j = lane; j < c.k; j += 32) weights[j] = scores.of(chosen[j]) / divisor;
    }
    __syncthreads();
    for (u32 e = threadIdx.x; e < c.experts; e += blockDim.x) {
        if (taken[e]) atomicAdd(&counts[e], taken[e]);
    }
}

template <class T>
__device__ void gradient(const T* logits, const i32* expert, const f32* dweight, T* dlogits,
                         Rows tokens, const Choice& c, bool adds) {
    // Which choice an expert was, counted from 1; 0 if none.
    SHARED(choices, u32[WARPS][EXPERTS]);
    u32 lane = warp_team().rank, warp = threadIdx.x / 32;
    u32* choice = choices[warp];
    for (u64 token = tokens.begin + warp; token < tokens.end; token += WARPS) {
        for (u32 e = lane; e < c.experts; e += 32) choice[e] = 0;
        __syncwarp();
        const i32* chosen = expert + token * c.k;
        const f32* dw = dweight + token * c.k;
        for (u32 j = lane; j < c.k; j += 32) choice[chosen[j]] = j + 1;
        __syncwarp();
        Scores<T> scores = scores_of(logits + token * c.experts, c.experts, c.softmax);
        f32 divisor = divisor_of(scores, chosen, c), mean = 0.0f, inner = 0.0f;
        if (c.normalize) {
            mean = sum_in_turn(c.k, [&](u32 j) { return scores.of(chosen[j]) / divisor * dw[j]; });
        }
        auto dscore = [&](u32 j) { return (dw[j] - mean) / divisor; };
        if (c.softmax) {
            inner = sum_in_turn(c.k, [&](u32 j) { return scores.of(chosen[j]) * dscore(j); });
        }
        T* to = dlogits + token * c.experts;
        for (u32 e = lane; e < c.experts; e += 32) {
            f32 sum = adds ? widened(to[e]) : 0.0f, score = scores.of(e);
            if (c.softmax) {
                f32 power = exp_exact(widened(scores.x[e]) - scores.largest);
                sum = fmaf(-inner / scores.sum, power, sum);
            }
            if (choice[e]) {
                f32 slope = c.softmax ? score : score * (1.0f - score);
                sum += slope * dscore(choice[e] - 1);
            }
            to[e] = narrowed<T>(sum);
        }
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(route_##T, 256, const T* logits, const f32* bias, i32* expert, f32* weight,             \
           i32* counts, const i32* live, u32 capacity, u32 each, u32 experts, u32 k, u32 softmax,  \
           u32 normalize) {                                                                        \
        Choice c{experts, k, softmax != 0, normalize != 0};                                        \
        route(logits, bias, expert, weight, counts, block_rows(live, capacity, each), c);          \
    }                                                                                              \
    KERNEL(route_gradient_##T, 256, const T* logits, const i32* expert, const f32* dweight,        \
           T* dlogits, const i32* live, u32 capacity, u32 each, u32 experts, u32 k, u32 softmax,   \
           u32 normalize, u32 adds) {                                                              \
        Choice c{experts, k, softmax != 0, normalize != 0};                                        \
        gradient(logits, expert, dweight, dlogits, block_rows(live, capacity, each), c, adds);     \
    }
FOR_ELEMENTS(KERNELS)
