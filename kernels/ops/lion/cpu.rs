//! `lion` on the CPU.

use crate::cpu::isa::dispatch;
use crate::update::Constants;

dispatch! {
    /// Updates a piece: weights, gradients, momentum.
    pub(super) fn update(
        p: &mut [f32],
        g: &[f32],
        m: &mut [f32],
        gradient_scale: f32,
        constants: Constants,
    ) {
        let [keep, beta1, rest1, beta2, rest2, learning_rate, ..] = constants;
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            let g = g * gradient_scale;
            let direction = beta1.mul_add(*m, rest1 * g);
            let sign = if direction == 0.0 { 0.0 } else { 1.0f32.copysign(direction) };
            *p = (-learning_rate).mul_add(sign, *p * keep);
            *m = beta2.mul_add(*m, rest2 * g);
        }
    }
}
