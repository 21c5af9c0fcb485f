//! The kernels that no op asks for, emulated in every order, against the CPU's.

use std::sync::Arc;

use bytemuck::{Pod, bytes_of, cast_slice};

use crate::collectives::{self, JoinTree, LaneTree};
use crate::cpu::CpuDevice;
use crate::cpu::isa::Isa;
use crate::cuda::step::{self, StepKernel};
use crate::device::{BlockSums, Decision, Device, HELD, NOT_FINITE, OVERFLOW};
use crate::dtype::DType;
use crate::emulator::compile::Edit;
use crate::emulator::device::{EmulatedDevice, in_every_order, read, written};
use crate::emulator::{Order, Schedule, available, run_step};
use crate::error::Result;
use crate::memory::DeviceSlice;
use crate::ops::adamw::AdamW;
use crate::ops::lion::Lion;
use crate::testing::noise;
use crate::update::{
    Constants, Numbers, OptimizerSpec, Piece, Plane, Rule, StepNumbers, Storage, Stored,
    UpdateSlice, VectorName,
};

/// How the modules of these kernels are held against the CPU's runs here, for README's table.
pub(crate) const BY_MODULE: [(&str, &str); 4] = [
    ("adamw", "the CPU's bits"),
    ("fold", "the CPU's bits"),
    ("global_norm", "the CPU's bits, sums of squares within 1e-14"),
    ("lion", "the CPU's bits"),
];

const SCHEDULE: Schedule =
    Schedule { order: Order::Random, copies: crate::emulator::Copies::Eager, seed: 3, edit: None };

fn slice<T: Pod>(data: &mut [T]) -> DeviceSlice {
    DeviceSlice::from_host(data)
}

#[test]
fn every_element_is_added_once() {
    for device in in_every_order() {
        for (n, shift) in [(0, 0), (1, 0), (17, 1), (5000, 0), (4100, 3)] {
            let (mut into, mut from) = (noise(1, n + shift), noise(2, n + shift));
            let expected: Vec<f32> =
                into[shift..].iter().zip(&from[shift..]).map(|(a, b)| a + b).collect();
            // SAFETY: memory of this test alone.
            unsafe { device.add_into(slice(&mut into[shift..]), slice(&mut from[shift..])) }
                .unwrap();
            assert_eq!(into[shift..], expected, "{n} from {shift} on");
        }
    }
}

/// Joins of `count` pieces of some elements, as bytes: the CPU's, and emulated.
fn joined<T: Pod>(tree: &JoinTree, dtype: DType, pieces: &[Vec<T>], into: Option<usize>) {
    for blocks in [1, 3] {
        let of = |on_a_cpu: bool| -> Vec<u8> {
            let mut pieces = pieces.to_vec();
            let mut output = vec![0xFFu8; size_of::<T>() * pieces[0].len()];
            let mut slices: Vec<DeviceSlice> = pieces.iter_mut().map(|p| slice(p)).collect();
            let to = into.map_or(slice(&mut output), |piece| slices[piece]);
            if on_a_cpu {
                // SAFETY: memory of this test alone.
                unsafe { collectives::join(tree, dtype, &slices, to) }.unwrap();
            } else {
                let kernel = StepKernel { blocks, ..step::join(tree, dtype, &slices, to) };
                let mut watched: Vec<_> = slices.drain(..).map(|s| read("piece", s)).collect();
                let known = into.is_some();
                watched.push(crate::emulator::Watched { known, ..written("output", to) });
                run_step(&kernel, &watched, &SCHEDULE).unwrap();
            }
            // SAFETY: as above.
            unsafe { to.as_slice::<u8>() }.to_vec()
        };
        assert!(of(false) == of(true), "{dtype}, {} pieces into {into:?}", pieces.len());
    }
}

#[test]
fn pieces_are_joined_in_the_order_of_the_tree() {
    if !available() {
        return;
    }
    let uneven = LaneTree::new(16, 3).unwrap().join_tree();
    let trees = [2, 3, 5, 8].map(JoinTree::of_ranks).into_iter().chain([uneven]);
    for (i, tree) in trees.enumerate() {
        let n = [1, 7, 520, 1031, 64][i];
        let into = [None, Some(1), Some(0)][i % 3];
        let floats =
            |seed: u64| noise(seed, n).into_iter().map(move |x| x * 10f32.powi(seed as i32 % 7));
        let pieces = 0..tree.pieces() as u64;
        joined(
            &tree,
            DType::F32,
            &pieces.clone().map(|s| floats(s).collect()).collect::<Vec<_>>(),
            into,
        );
        let wide = |s| floats(s).map(|x| f64::from(x) / 3.0).collect();
        joined(&tree, DType::F64, &pieces.clone().map(wide).collect::<Vec<Vec<f64>>>(), into);
        let large = |s| floats(s).map(|x| i32::MAX - x.abs() as i32).collect();
        joined(&tree, DType::I32, &pieces.clone().map(large).collect::<Vec<Vec<i32>>>(), into);
        let large = |s| floats(s).map(|x| i64::MIN + (x * 1e6) as i64).collect();
        joined(&tree, DType::I64, &pieces.map(large).collect::<Vec<Vec<i64>>>(), into);
    }
}

#[test]
fn squares_of_blocks_are_summed_in_one_order() {
    let mut first: Option<Vec<f64>> = None;
    for device in in_every_order() {
        let mut found = Vec::new();
        for (n, block) in [(1, 1), (100, 7), (9000, 4096), (3 * 512, 512)] {
            let mut gradient = noise(3, n);
            let mut sums = [vec![f64::NAN; n.div_ceil(block)], vec![f64::NAN; n.div_ceil(block)]];
            let [cpus, gpus] = &mut sums;
            let gradient = slice(&mut gradient);
            // SAFETY: memory of this test alone.
            unsafe {
                CpuDevice::new(1).block_sums(gradient, block, slice(cpus)).unwrap();
                device.block_sums(gradient, block, slice(gpus)).unwrap();
            }
            for (cpu, gpu) in cpus.iter().zip(&*gpus) {
                assert!((cpu - gpu).abs() <= 1e-14 * cpu, "{n} by {block}: {gpu}, not {cpu}");
            }
            found.extend_from_slice(gpus);
        }
        assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "another order, other bits");
    }
}

#[test]
fn a_decision_is_the_cpus() {
    let sums = |n: usize| -> Vec<f64> {
        noise(4, n).into_iter().map(|x| f64::from(x) * f64::from(x) * 1e-3).collect()
    };
    let with = |at: usize, value: f64, mut sums: Vec<f64>| {
        sums[at] = value;
        sums
    };
    let before = Decision { norm: 1.0, factor: 1.0, skip: 0, updates: 41 };
    let overflowed = f64::from_bits(0xFFFF_FFFF_0000_0001);
    // The last two cells are the flags.
    let flags = [0.0, f64::from_bits(0xFFFF_FFFF_0000_0000)];
    let gathered = |sums: Vec<f64>, flags: [f64; 2]| [&sums[..], &flags].concat();
    let cases = [
        (gathered(sums(5), flags), 0.0, Some(0), before, 0),
        (gathered(sums(700), flags), 1e-3, Some(9), before, 0),
        (gathered(sums(256), flags), f64::INFINITY, None, before, 0),
        (gathered(sums(3), flags), 1e9, None, Decision { skip: NOT_FINITE, ..before }, 0),
        (gathered(sums(3), flags), 1.0, None, Decision { skip: OVERFLOW, ..before }, HELD),
        (gathered(sums(3), flags), 1.0, Some(7), Decision { skip: HELD, ..before }, 0),
        (gathered(with(1, f64::NAN, sums(3)), flags), 1.0, None, before, NOT_FINITE),
        (gathered(with(300, f64::INFINITY, sums(301)), flags), 1.0, None, before, NOT_FINITE),
        (gathered(sums(3), [flags[0], overflowed]), 1.0, Some(2), before, OVERFLOW),
    ];
    for device in in_every_order() {
        for (i, (gathered, clip_norm, updates, before, skip)) in cases.iter().enumerate() {
            let mut gathered = gathered.clone();
            let blocks = gathered.len() - 2;
            let mut order: Vec<i32> = (0..blocks as i32).rev().collect();
            let flags = [blocks, blocks + 1];
            let mut made = |device: &dyn Device| -> Decision {
                let mut decision = [*before];
                let (gathered, order) = (slice(&mut gathered), slice(&mut order));
                let sums = BlockSums { gathered, order, flags: &flags };
                // SAFETY: memory of this test alone.
                unsafe { device.decide(&sums, *clip_norm, *updates, slice(&mut decision)) }
                    .unwrap();
                decision[0]
            };
            let (cpu, gpu) = (made(&CpuDevice::new(1)), made(&device));
            assert_eq!(cpu.skip, *skip, "case {i}");
            let same = cpu.norm.is_nan() && gpu.norm.is_nan() || cpu.norm == gpu.norm;
            let rest = |d: Decision| (d.factor.to_bits(), d.skip, d.updates);
            assert!(same && rest(cpu) == rest(gpu), "case {i}: {gpu:?}, the CPU has {cpu:?}");
        }
    }
}

const STEPS: u64 = 3;

/// Weights, their rounded form, stored state vectors and fingerprint after some steps of two slices
/// that share a fingerprint.
fn updated(device: &dyn Device, optimizer: &OptimizerSpec, n: usize, first: u64) -> Vec<u8> {
    let mut weights = noise(1, n);
    let mut rounded = vec![0u16; n];
    let planes = optimizer.planes();
    let mut stored: Vec<Vec<u8>> = planes.iter().map(|plane| vec![0; plane.bytes(n)]).collect();
    let mut fingerprint = [0u64];
    let mut seen = Vec::new();
    for step in 1..=STEPS {
        let mut gradients = noise(100 + step, n);
        // Zeros in one block, tiny and large values in another.
        gradients[..64].fill(0.0);
        gradients[64..]
            .iter_mut()
            .take(64)
            .enumerate()
            .for_each(|(i, g)| *g *= 3f32.powi(i as i32 - 40));
        let skip = if step == 2 { NOT_FINITE } else { 0 };
        let mut decision = [Decision { norm: 1.0, factor: 0.7, skip, updates: step * 1000 }];
        let numbers = StepNumbers { learning_rate: 1e-2, weight_decay: 0.1 };
        // Slices begin where a scale does.
        let cut = 64 * 3;
        for (from, count) in [(0, cut), (cut, n - cut)] {
            let part = |(bytes, plane): (&mut Vec<u8>, &Plane)| {
                slice(&mut bytes[plane.bytes(from)..][..plane.bytes(count)])
            };
            let slices: Vec<DeviceSlice> = stored.iter_mut().zip(&planes).map(part).collect();
            let narrow = optimizer.storage != Storage::F32;
            let update = UpdateSlice {
                weights: slice(&mut weights[from..from + count]),
                rounded: narrow.then(|| (DType::Bf16, slice(&mut rounded[from..from + count]))),
                gradient: slice(&mut gradients[from..from + count]),
                states: optimizer.stored(|plane| slices[plane]),
                first_element: first + from as u64,
                seed: 7,
            };
            let (decision, cell) = (slice(&mut decision), slice(&mut fingerprint));
            // SAFETY: memory of this test alone.
            unsafe { device.update(&optimizer.rule, &numbers, &update, decision, cell, from == 0) }
                .unwrap();
        }
        seen.extend_from_slice(bytes_of(&fingerprint));
    }
    let vectors = [cast_slice::<f32, u8>(&weights), cast_slice(&rounded)];
    [vectors.concat(), stored.concat(), seen].concat()
}

#[test]
fn every_rule_gives_the_cpus_bits_however_its_state_is_stored() {
    let rules: [Arc<dyn Rule>; 2] = [
        Arc::new(AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 }),
        Arc::new(Lion { beta1: 0.9, beta2: 0.99 }),
    ];
    let devices = in_every_order();
    for (rule, storage) in rules
        .into_iter()
        .flat_map(|rule| [Storage::F32, Storage::Bf16, Storage::Blocks8].map(|s| (rule.clone(), s)))
    {
        let optimizer = OptimizerSpec { rule, storage };
        // Three rounds of two blocks, a tail, and words behind the first 2^32 blocks of those.
        for (n, first) in [(64 * 3 + 1, 0), (9001, 64), (64 * 9, 1 << 34)] {
            let expected = updated(&CpuDevice::new(1), &optimizer, n, first);
            for device in &devices {
                let found = updated(device, &optimizer, n, first);
                let same = found == expected;
                assert!(same, "{}, {storage:?}, {n} from {first} on", optimizer.rule.name());
            }
        }
    }
}

#[test]
fn planted_mistakes_are_found() {
    if !available() {
        return;
    }
    let edit = |module, from, to| Schedule { edit: Some(Edit { module, from, to }), ..SCHEDULE };
    let optimizer = OptimizerSpec {
        rule: Arc::new(AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 }),
        storage: Storage::Blocks8,
    };
    let says = |schedule: Schedule, what: &str| {
        let device = EmulatedDevice::new(schedule, 2);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            updated(&device, &optimizer, 9001, 0)
        }));
        let told = match caught {
            Ok(found) => match found == updated(&CpuDevice::new(1), &optimizer, 9001, 0) {
                true => "nothing".to_string(),
                false => "other bits".to_string(),
            },
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        assert!(told.contains(what), "{:?}: {told}", schedule.edit);
    };
    says(SCHEDULE, "nothing");
    says(edit("adamw", "        __syncwarp();\n", ""), "race: write of scales");
    says(edit("adamw", "    __syncthreads();\n    f32 c[8];", "    f32 c[8];"), "shared memory");
    says(edit("adamw", "if (k < some) sum +=", "sum +="), "other bits");
    says(edit("adamw", "words[k] >> 16", "words[k] & 0xffff"), "other bits");
    says(edit("adamw", "round ? mix(key ^ mix(round)) : key", "key + 1"), "other bits");
}

#[test]
fn what_kernels_are_not_made_for_is_refused() {
    let mut memory = [0u128; 32];
    let memory = slice(&mut memory);
    let rule = Lion { beta1: 0.9, beta2: 0.99 };
    let numbers = StepNumbers { learning_rate: 1e-2, weight_decay: 0.1 };
    let update = UpdateSlice {
        weights: memory.part(0, 64),
        rounded: None,
        gradient: memory.part(64, 64),
        states: [Stored::F32(memory.part(128, 64)), Stored::None],
        first_element: 64,
        seed: 7,
    };
    let said = |slice: &UpdateSlice| -> Result<Vec<StepKernel>> {
        step::update(&rule, &numbers, slice, memory.part(256, 24), memory.part(288, 8), true)
    };
    let functions: Vec<String> =
        said(&update).unwrap().into_iter().map(|kernel| kernel.function).collect();
    assert_eq!(functions, ["lion_begin", "lion_f32"]);
    let half = UpdateSlice { rounded: Some((DType::F16, memory.part(192, 32))), ..update };
    assert_eq!(said(&half).unwrap_err().to_string(), "lion has no kernel for f16 parameters");
    let odd = UpdateSlice { first_element: 3, ..update };
    let odd = said(&odd).unwrap_err().to_string();
    assert_eq!(odd, "lion: vectors from element 3 on begin at no multiple of 16 bytes");
}

/// A rule without kernels.
#[derive(Debug)]
struct Other;

impl Rule for Other {
    fn name(&self) -> &'static str {
        "Other"
    }

    fn module(&self) -> &'static str {
        "other"
    }

    fn vectors(&self) -> &'static [VectorName] {
        &[]
    }

    fn numbers(&self, _step: &StepNumbers) -> Numbers {
        Numbers::default()
    }

    fn constants(&self, _numbers: &Numbers, _update: u64) -> Constants {
        Constants::default()
    }

    fn run_cpu(&self, _isa: Isa, _constants: &Constants, _piece: Piece<'_>) {}
}

#[test]
fn modules_that_are_not_there_are_named() {
    let of = |rule: Arc<dyn Rule>| -> Vec<&str> {
        step::missing(&OptimizerSpec { rule, storage: Storage::F32 }).collect()
    };
    assert_eq!(of(Arc::new(Lion { beta1: 0.9, beta2: 0.99 })), [""; 0]);
    assert_eq!(of(Arc::new(Other)), ["other"]);
}
