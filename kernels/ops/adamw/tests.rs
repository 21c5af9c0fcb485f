//! AdamW against f64 over many steps; shards and threads change nothing; fingerprints tell.

use crate::cpu::CpuDevice;
use crate::ops::adamw::{AdamW, Shard, adamw, fingerprint};
use crate::testing::{assert_close, noise};

const SETTINGS: AdamW = AdamW {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 0.5,
};

struct State {
    p: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
}

impl State {
    fn new(n: usize) -> Self {
        Self { p: noise(1, n), m: vec![0.0; n], v: vec![0.0; n] }
    }

    /// Updates in pieces of `piece` elements.
    fn step(&mut self, threads: usize, step: u64, piece: usize) -> u64 {
        let (device, settings) = (CpuDevice::new(threads), AdamW { step, ..SETTINGS });
        let gradients = noise(100 + step, self.p.len());
        let mut total = 0u64;
        for from in (0..self.p.len()).step_by(piece) {
            let part = from..self.p.len().min(from + piece);
            let shard = Shard {
                parameters: &mut self.p[part.clone()],
                gradients: &gradients[part.clone()],
                first_moments: &mut self.m[part.clone()],
                second_moments: &mut self.v[part],
                first_element: from as u64,
            };
            total = total.wrapping_add(adamw(&device, &settings, shard));
        }
        total
    }
}

#[test]
fn ten_steps_agree_with_f64() {
    for n in [1, 7, 100] {
        let mut state = State::new(n);
        let mut p: Vec<f64> = state.p.iter().map(|&x| f64::from(x)).collect();
        let (mut m, mut v) = (vec![0.0f64; n], vec![0.0f64; n]);
        for step in 1..=10 {
            state.step(1, step, n);
            let gradients = noise(100 + step, n);
            for i in 0..n {
                let g = f64::from(gradients[i]) * 0.5;
                p[i] *= 1.0 - 1e-2 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let (first, second) =
                    (1.0 - 0.9f64.powf(step as f64), 1.0 - 0.95f64.powf(step as f64));
                p[i] -= 1e-2 / first * m[i] / (v[i].sqrt() / second.sqrt() + 1e-8);
            }
        }
        assert_close(&state.p, &p, 1e-6, 1e-5, "parameters");
        assert_close(&state.m, &m, 1e-7, 1e-5, "first moments");
        assert_close(&state.v, &v, 1e-9, 1e-5, "second moments");
    }
}

#[test]
fn shards_and_threads_change_nothing() {
    let n = 70_001;
    let (mut whole, mut cut) = (State::new(n), State::new(n));
    for step in 1..=2 {
        assert_eq!(whole.step(1, step, n), cut.step(3, step, 12_345));
    }
    assert_eq!((whole.p, whole.m, whole.v), (cut.p, cut.m, cut.v));
}

#[test]
fn fingerprints_see_values_and_places() {
    let device = CpuDevice::new(2);
    let p = noise(1, 40_000);
    let base = fingerprint(&device, &p, 5);
    let (low, high) = p.split_at(123);
    let parts = fingerprint(&device, low, 5).wrapping_add(fingerprint(&device, high, 128));
    assert_eq!(base, parts);
    let mut other = p.clone();
    other[777] = f32::from_bits(other[777].to_bits() ^ 1);
    assert_ne!(base, fingerprint(&device, &other, 5));
    let mut swapped = p.clone();
    swapped.swap(1, 30_000);
    assert_ne!(base, fingerprint(&device, &swapped, 5));
    assert_ne!(base, fingerprint(&device, &p, 6));
    // Two small values trading places far apart, high bits of the position included.
    assert_ne!(fingerprint(&device, &[1.0], 1 << 33), fingerprint(&device, &[1.0], 1 << 34));
}

#[test]
fn a_gradient_of_zero_only_decays() {
    let (mut p, mut m, mut v) = (vec![2.0f32; 3], vec![0.0; 3], vec![0.0; 3]);
    let shard = Shard {
        parameters: &mut p,
        gradients: &[0.0; 3],
        first_moments: &mut m,
        second_moments: &mut v,
        first_element: 0,
    };
    adamw(&CpuDevice::new(1), &SETTINGS, shard);
    assert_eq!(p, [2.0f32 * (1.0 - 1e-3f64) as f32; 3]);
}
