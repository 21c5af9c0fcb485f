// adamw: one step of AdamW over a flat slice; overwrites. mod.rs has the formula, update.cuh the rest.
#include "update.cuh"

// expects adamw_f32: LDG.E.128 STG.E.128
// expects adamw_bf16: LDG.E.128 STG.E.128
// expects adamw_blocks8: LDG.E.128 STG.E.128

/// Numbers: learning rate, decay, beta1, beta2, eps.
struct AdamW {
    static constexpr u32 VECTORS = 2;
    static constexpr __device__ bool is_signed(u32 vector) { return vector == 0; }

    static __device__ void constants(const Numbers& numbers, u64 update, f32 (&c)[8]) {
        const f64(&n)[8] = numbers.at;
        c[0] = (f32)(1.0 - n[0] * n[1]);
        c[1] = (f32)n[2], c[2] = (f32)(1.0 - n[2]);
        c[3] = (f32)n[3], c[4] = (f32)(1.0 - n[3]);
        c[5] = (f32)(n[0] / (1.0 - power(n[2], update)));
        c[6] = (f32)(1.0 / sqrt(1.0 - power(n[3], update)));
        c[7] = (f32)n[4];
    }

    static __device__ void step(f32& p, f32 g, f32 (&state)[2], const f32 (&c)[8]) {
        state[0] = fmaf(c[1], state[0], c[2] * g);
        state[1] = fmaf(c[3], state[1], c[4] * g * g);
        f32 denominator = fmaf(sqrtf(state[1]), c[6], c[7]);
        p = fmaf(-c[5], state[0] / denominator, p * c[0]);
    }
};

RULE_KERNELS(adamw, AdamW)
