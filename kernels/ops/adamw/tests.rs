//! AdamW against f64 over many steps.

use crate::cpu::isa::Isa;
use crate::ops::adamw::AdamW;
use crate::testing::{assert_close, noise};
use crate::update::{Piece, Rule, StepNumbers};

const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 };

fn step(update: u64, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    let numbers = StepNumbers { learning_rate: 1e-2, weight_decay: 0.1 };
    let piece = Piece { weights: p, gradients: g, gradient_scale: 0.5, states: [m, v] };
    ADAMW.run_cpu(Isa::detect(), &ADAMW.constants(&ADAMW.numbers(&numbers), update), piece);
}

#[test]
fn ten_steps_agree_with_f64() {
    for n in [1, 7, 100] {
        let (mut p32, mut m32, mut v32) = (noise(1, n), vec![0.0; n], vec![0.0; n]);
        let mut p: Vec<f64> = p32.iter().map(|&x| f64::from(x)).collect();
        let (mut m, mut v) = (vec![0.0f64; n], vec![0.0f64; n]);
        for t in 1..=10 {
            let gradients = noise(100 + t, n);
            step(t, &mut p32, &gradients, &mut m32, &mut v32);
            for i in 0..n {
                let g = f64::from(gradients[i]) * 0.5;
                p[i] *= 1.0 - 1e-2 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let (first, second) = (1.0 - 0.9f64.powf(t as f64), 1.0 - 0.95f64.powf(t as f64));
                p[i] -= 1e-2 / first * m[i] / (v[i].sqrt() / second.sqrt() + 1e-8);
            }
        }
        assert_close(&p32, &p, 1e-6, 1e-5, "parameters");
        assert_close(&m32, &m, 1e-7, 1e-5, "first moments");
        assert_close(&v32, &v, 1e-9, 1e-5, "second moments");
    }
}

#[test]
fn constants_are_those_of_powers_by_a_library() {
    let numbers = StepNumbers { learning_rate: 1e-2, weight_decay: 0.1 };
    for (beta1, beta2) in [(0.9, 0.95), (0.9, 0.999), (0.95, 0.99)] {
        let rule = AdamW { beta1, beta2, eps: 1e-8 };
        for update in (1..20_000).chain([1 << 20, 1 << 31]) {
            let found = rule.constants(&rule.numbers(&numbers), update);
            let rest = |beta: f64| 1.0 - beta.powf(update as f64);
            let expected = [1e-2 / rest(beta1), 1.0 / rest(beta2).sqrt()].map(|x| x as f32);
            assert_eq!(found[5..7], expected, "{beta1} {beta2} {update}");
        }
    }
}

#[test]
fn a_gradient_of_zero_only_decays() {
    let mut p = [2.0f32; 3];
    step(1, &mut p, &[0.0; 3], &mut [0.0; 3], &mut [0.0; 3]);
    assert_eq!(p, [2.0f32 * (1.0 - 1e-3f64) as f32; 3]);
}
