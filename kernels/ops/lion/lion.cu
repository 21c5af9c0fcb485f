// lion: one step of Lion over a flat slice; overwrites. mod.rs has the formula, update.cuh the rest.
#include "update.cuh"

// expects lion_f32: LDG.E.128 STG.E.128
// expects lion_bf16: LDG.E.128 STG.E.128
// expects lion_blocks8: LDG.E.128 STG.E.128

/// Numbers: learning rate, decay, beta1, beta2.
struct Lion {
    static constexpr u32 VECTORS = 1;
    static constexpr __device__ bool is_signed(u32) { return true; }

    static __device__ void constants(const Numbers& numbers, u64, f32 (&c)[8]) {
        const f64(&n)[8] = numbers.at;
        c[0] = (f32)(1.0 - n[0] * n[1]);
        c[1] = (f32)n[2], c[2] = (f32)(1.0 - n[2]);
        c[3] = (f32)n[3], c[4] = (f32)(1.0 - n[3]);
        c[5] = (f32)n[0];
        c[6] = 0.0f, c[7] = 0.0f;
    }

    static __device__ void step(f32& p, f32 g, f32 (&state)[2], const f32 (&c)[8]) {
        f32 direction = fmaf(c[1], state[0], c[2] * g);
        f32 one = __uint_as_float(0x3f800000u | __float_as_uint(direction) & 0x80000000u);
        p = fmaf(-c[5], direction == 0.0f ? 0.0f : one, p * c[0]);
        state[0] = fmaf(c[3], state[0], c[4] * g);
    }
};

RULE_KERNELS(lion, Lion)
