//! `adamw` on the CPU.

use crate::cpu::isa::dispatch;
use crate::update::Constants;

dispatch! {
    /// Updates a piece: weights, gradients, first and second moments.
    pub(super) fn update(
        p: &mut [f32],
        g: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        gradient_scale: f32,
        constants: Constants,
    ) {
        let [keep, beta1, rest1, beta2, rest2, step_size, second_scale, eps] = constants;
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * gradient_scale;
            *m = beta1.mul_add(*m, rest1 * g);
            *v = beta2.mul_add(*v, rest2 * g * g);
            let denominator = v.sqrt().mul_add(second_scale, eps);
            *p = (-step_size).mul_add(*m / denominator, *p * keep);
        }
    }
}
