//! Lion against f64 over many steps.

use crate::cpu::isa::Isa;
use crate::ops::lion::Lion;
use crate::testing::{assert_close, noise};
use crate::update::{Piece, Rule, StepNumbers};

const LION: Lion = Lion { beta1: 0.9, beta2: 0.99 };

fn step(update: u64, p: &mut [f32], g: &[f32], m: &mut [f32]) {
    let numbers = StepNumbers { learning_rate: 1e-3, weight_decay: 0.5 };
    let piece = Piece { weights: p, gradients: g, gradient_scale: 0.5, states: [m, &mut []] };
    LION.run_cpu(Isa::detect(), &LION.constants(&LION.numbers(&numbers), update), piece);
}

#[test]
fn ten_steps_agree_with_f64() {
    for n in [1, 7, 100] {
        let (mut p32, mut m32) = (noise(1, n), vec![0.0; n]);
        let mut p: Vec<f64> = p32.iter().map(|&x| f64::from(x)).collect();
        let mut m = vec![0.0f64; n];
        for t in 1..=10 {
            let gradients = noise(100 + t, n);
            step(t, &mut p32, &gradients, &mut m32);
            for i in 0..n {
                let g = f64::from(gradients[i]) * 0.5;
                let direction = 0.9 * m[i] + 0.1 * g;
                let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
                p[i] = p[i] * (1.0 - 1e-3 * 0.5) - 1e-3 * sign;
                m[i] = 0.99 * m[i] + 0.01 * g;
            }
        }
        assert_close(&p32, &p, 1e-6, 1e-5, "parameters");
        assert_close(&m32, &m, 1e-7, 1e-5, "momentum");
    }
}

#[test]
fn a_gradient_of_zero_only_decays() {
    let mut p = [2.0f32, -2.0];
    step(1, &mut p, &[0.0, -0.0], &mut [0.0; 2]);
    let keep = (1.0 - 5e-4f64) as f32;
    assert_eq!(p, [2.0 * keep, -2.0 * keep]);
}
