//! Shards, threads and storage of state vectors: cuts change nothing, narrow ones stay near, and
//! fingerprints tell.

use std::sync::Arc;

use super::{fingerprint, update};
use crate::cpu::CpuDevice;
use crate::cpu::isa::Isa;
use crate::device::Decision;
use crate::memory::DeviceSlice;
use crate::ops::adamw::AdamW;
use crate::ops::lion::Lion;
use crate::testing::noise;
use crate::update::{OptimizerSpec, Plane, Rule, StepNumbers, Storage, UpdateSlice};

const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
const LION: Lion = Lion { beta1: 0.9, beta2: 0.99 };

fn rules() -> [Arc<dyn Rule>; 2] {
    [Arc::new(ADAMW), Arc::new(LION)]
}

struct State {
    optimizer: OptimizerSpec,
    weights: Vec<f32>,
    planes: Vec<(Plane, Vec<u8>)>,
}

impl State {
    fn new(rule: Arc<dyn Rule>, storage: Storage, n: usize) -> Self {
        let optimizer = OptimizerSpec { rule, storage };
        let of = |plane: Plane| (plane, vec![0u8; plane.bytes(n)]);
        let planes = optimizer.planes().into_iter().map(of).collect();
        Self { optimizer, weights: noise(1, n), planes }
    }

    /// Updates in pieces of `piece` elements.
    fn step(&mut self, threads: usize, step: u64, piece: usize, seed: u64) -> u64 {
        let device = CpuDevice::new(threads);
        let numbers = StepNumbers { learning_rate: 1e-2, weight_decay: 0.1 };
        let decision = Decision { factor: 0.5, updates: step, ..Decision::default() };
        let n = self.weights.len();
        let mut gradients = noise(100 + step, n);
        let mut total = 0u64;
        for from in (0..n).step_by(piece) {
            let count = piece.min(n - from);
            let words = |all: &mut [f32]| DeviceSlice::from_host(&mut all[from..from + count]);
            let planes: Vec<DeviceSlice> = self
                .planes
                .iter_mut()
                .map(|(plane, bytes)| {
                    DeviceSlice::from_host(bytes).part(plane.bytes(from), plane.bytes(count))
                })
                .collect();
            let slice = UpdateSlice {
                weights: words(&mut self.weights),
                rounded: None,
                gradient: words(&mut gradients),
                states: self.optimizer.stored(|i| planes[i]),
                first_element: from as u64,
                seed,
            };
            // SAFETY: all of it is this test's alone.
            let sum =
                unsafe { update(&device, &*self.optimizer.rule, &numbers, &decision, &slice) };
            total = total.wrapping_add(sum);
        }
        total
    }
}

const STORAGES: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::Blocks8];

#[test]
fn shards_and_threads_change_nothing() {
    let n = 64 * 1100;
    for (rule, storage) in rules().into_iter().flat_map(|r| STORAGES.map(|s| (r.clone(), s))) {
        let mut whole = State::new(rule.clone(), storage, n);
        let mut cut = State::new(rule, storage, n);
        for step in 1..=3 {
            assert_eq!(whole.step(1, step, n, 5), cut.step(3, step, 64 * 193, 5), "{storage:?}");
        }
        assert_eq!((whole.weights, whole.planes), (cut.weights, cut.planes), "{storage:?}");
    }
}

#[test]
fn narrow_state_follows_the_wide_one_and_the_seed() {
    let n = 64 * 40;
    let start = noise(1, n);
    for (rule, near) in rules().into_iter().zip([0.02, 0.3]) {
        let run = |storage, seed| {
            let mut state = State::new(rule.clone(), storage, n);
            for step in 1..=50 {
                state.step(2, step, n, seed);
            }
            state.weights
        };
        let wide = run(Storage::F32, 5);
        assert_eq!(wide, run(Storage::F32, 6), "nothing is random in f32");
        for (storage, loss) in [(Storage::Bf16, 1.0), (Storage::Blocks8, 12.0)] {
            let narrow = run(storage, 5);
            assert_ne!(narrow, run(storage, 6), "rounding does not follow the seed");
            let distance = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum()
            };
            let (path, apart) = (distance(&wide, &start), distance(&wide, &narrow));
            assert!(apart > 0.0 && apart < near * loss * path, "{storage:?}: {}", apart / path);
        }
    }
}

#[test]
fn planes_say_what_is_stored() {
    let bytes = |storage| {
        let optimizer = OptimizerSpec { rule: Arc::new(ADAMW), storage };
        optimizer.planes().iter().map(|plane| plane.bytes(6400)).sum::<usize>()
    };
    assert_eq!(STORAGES.map(bytes), [2 * 4 * 6400, 2 * 2 * 6400, 2 * (6400 + 100)]);
    let names: Vec<String> = OptimizerSpec { rule: Arc::new(LION), storage: Storage::Blocks8 }
        .planes()
        .iter()
        .map(Plane::suffix)
        .collect();
    assert_eq!(names, ["exp_avg", "exp_avg.scale"]);
}

#[test]
fn fingerprints_see_values_and_places() {
    let isa = Isa::detect();
    let p = noise(1, 40_000);
    let base = fingerprint(isa, &p, 5);
    let (low, high) = p.split_at(123);
    assert_eq!(base, fingerprint(isa, low, 5).wrapping_add(fingerprint(isa, high, 128)));
    let mut other = p.clone();
    other[777] = f32::from_bits(other[777].to_bits() ^ 1);
    assert_ne!(base, fingerprint(isa, &other, 5));
    let mut swapped = p.clone();
    swapped.swap(1, 30_000);
    assert_ne!(base, fingerprint(isa, &swapped, 5));
    assert_ne!(base, fingerprint(isa, &p, 6));
    // Two small values trading places far apart, high bits of the position included.
    assert_ne!(fingerprint(isa, &[1.0], 1 << 33), fingerprint(isa, &[1.0], 1 << 34));
}
