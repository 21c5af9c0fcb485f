//! Between ranks and slots: any ranks and placement write the same slot, any others read it back
//! bit for bit.

use std::sync::Arc;

use octet_kernels::device::{Backend, Open};
use octet_kernels::dtype::DType;
use octet_kernels::error::Error;
use octet_kernels::graph::{
    Granularity, Init, Layout, Parameter, State, StateUse, StepBuffer, Variables,
};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::contract::Workload;
use crate::engine::Engine;
use crate::rank_memory::{RankMemory, Zero};
use crate::sim::toy::{Random, Tiny, tiny};
use crate::snapshot::{Region, SLOTS, Slot, SnapshotLayout, SnapshotSlots, digest};
use crate::testing::Toy;
use crate::transfer::{initialise, restore, save_bucket, save_shared};

/// Every kind of variable: wide and narrow parameters, a frozen one, states of every use.
fn variables() -> Variables {
    let mut variables = Variables::new();
    for (name, shape, dtype, trainable) in [
        ("table", vec![9, 11], DType::F32, true),
        ("narrow", vec![13, 6], DType::Bf16, true),
        ("bias", vec![5], DType::F32, true),
        ("frozen", vec![7, 3], DType::Bf16, false),
        ("half", vec![3, 3], DType::F16, true),
    ] {
        let init = Init::Normal { std: 0.5 };
        let name = name.to_string();
        variables.parameter(Parameter { name, shape, dtype, trainable, decay: true, init });
    }
    for (name, usage, dtype, init) in [
        ("counts", StateUse::StepSum, DType::I32, 0.0),
        ("average", StateUse::Replicated, DType::F32, 1.5),
        ("cache", StateUse::Local, DType::Bf16, 0.0),
        ("seen", StateUse::Replicated, DType::I64, 3.0),
        ("scales", StateUse::Replicated, DType::F64, 0.25),
        ("flags", StateUse::Replicated, DType::U8, 2.0),
    ] {
        let name = name.to_string();
        variables.state(State { name, shape: vec![5], dtype, usage, init });
    }
    let (name, slice, dtype) = ("rows".to_string(), vec![2], DType::F32);
    variables.step_buffer(StepBuffer { name, slice, micro_batches: 8, dtype });
    variables
}

fn workload() -> Arc<dyn Workload> {
    let variables = variables();
    let layout = Layout::new(&variables, Granularity { block: 16, bucket: 64 });
    assert!(layout.buckets.len() > 3);
    // Its programs are of other variables, but no program runs here.
    let toy = tiny(&Tiny { lanes: 8, micro_batches: 8, ..Tiny::default() });
    Arc::new(Toy { variables, layout, ..toy })
}

/// All that a rank saves.
fn save(engine: &Engine, slot: &Slot) -> Result<(), Error> {
    let mut buckets = 0..engine.workload.layout().buckets.len();
    buckets.try_for_each(|bucket| save_bucket(engine, slot, bucket))?;
    if engine.memory.rank == 0 {
        save_shared(engine, slot)?;
    }
    engine.device.finish()
}

fn slots(workload: &dyn Workload) -> (Arc<SnapshotSlots>, Arc<SnapshotLayout>) {
    let layout = Arc::new(SnapshotLayout::of(workload));
    (SnapshotSlots::create(layout.bytes()).unwrap(), layout)
}

/// All ranks of a run, with memory full of rubbish.
fn engines(workload: &Arc<dyn Workload>, ranks: usize, zero: Zero) -> Vec<Engine> {
    let devices = Backend::Cpu { threads: 1 }.open(ranks, std::time::Duration::from_secs(5));
    let engine = |(rank, open): (usize, Open)| {
        let memory = RankMemory::new(&**workload, ranks, rank, zero).unwrap();
        let (device, _) = open().unwrap();
        let engine = Engine::new(workload.clone(), memory, device).unwrap();
        let memory = &engine.memory;
        for span in [memory.parameters, memory.states, memory.masters, memory.planes[0].1] {
            // SAFETY: the test alone knows the arena.
            unsafe { engine.slice(span).as_mut_slice::<u8>() }.fill(0xA5);
        }
        engine
    };
    devices.unwrap().into_iter().enumerate().map(engine).collect()
}

fn bytes(slot: &Slot, region: Region) -> &[u8] {
    // SAFETY: the test alone knows the slot, and nobody writes it now.
    unsafe { slot.region(region).as_slice() }
}

/// A state that training could have come to: masters that a narrow parameter rounds.
fn scramble(slot: &Slot, seed: u64) {
    let mut random = Random::new(seed);
    slot.invalidate();
    for region in [Region::Masters, Region::Plane(0), Region::Plane(1)] {
        // SAFETY: the test alone knows the slot.
        let cells: &mut [f32] = unsafe { slot.region(region).as_mut_slice() };
        cells.fill_with(|| (random.below(1 << 24) as f32 / 1e6) - 8.0);
    }
    for region in [Region::Frozen, Region::States] {
        // SAFETY: as above.
        let cells: &mut [u8] = unsafe { slot.region(region).as_mut_slice() };
        cells.fill_with(|| random.next() as u8);
    }
}

fn seal(slot: &Slot) -> String {
    slot.commit(1, &serde_json::json!({}), 1).unwrap();
    digest(&slot.view().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn what_some_ranks_save_any_others_restore(
        seed in any::<u64>(), ranks in 1usize..=8, others in 1usize..=8,
        whole in any::<bool>(), others_whole in any::<bool>(),
    ) {
        let workload = workload();
        let (slots, layout) = slots(&*workload);
        let (from, to) = (slots.slot(0, &layout), slots.slot(1, &layout));
        scramble(&from, seed);
        let expected = seal(&from);
        let zero = |whole| if whole { Zero::Zero0 } else { Zero::Zero1 };
        for (count, zero) in [(ranks, zero(whole)), (others, zero(others_whole))] {
            let engines = engines(&workload, count, zero);
            to.invalidate();
            for region in layout.regions() {
                // SAFETY: the test alone knows the slot.
                unsafe { to.region(region).as_mut_slice::<u8>() }.fill(0x5A);
            }
            for engine in &engines {
                restore(engine, &from).unwrap();
            }
            for engine in &engines {
                save(engine, &to).unwrap();
            }
            prop_assert_eq!(&seal(&to), &expected);
            // The next leg reads what this one wrote.
            for region in layout.regions() {
                let written = bytes(&to, region).to_vec();
                // SAFETY: as above.
                unsafe { from.region(region).as_mut_slice::<u8>() }.copy_from_slice(&written);
            }
        }
    }
}

#[test]
fn every_rank_has_all_parameters_rounded_once() {
    let workload = workload();
    let (slots, layout) = slots(&*workload);
    let slot = slots.slot(0, &layout);
    scramble(&slot, 7);
    let tensors = layout.tensors();
    for engine in engines(&workload, 3, Zero::Zero1) {
        restore(&engine, &slot).unwrap();
        let all = engine.slice(engine.memory.parameters);
        let places = &workload.layout().placements;
        for (parameter, place) in workload.variables().parameters().iter().zip(places) {
            let tensor = tensors.iter().find(|t| t.name == parameter.name).unwrap();
            // SAFETY: the test alone knows slot and arena.
            let (saved, here): (&[u8], &[u8]) = unsafe {
                let bytes = parameter.elements() * parameter.dtype.bytes();
                (slot.tensor(tensor).as_slice(), all.part(place.byte, bytes).as_slice())
            };
            let masters = || saved.chunks_exact(4).map(bytemuck::pod_read_unaligned::<f32>);
            let wanted: Vec<u8> = match parameter.dtype {
                _ if !parameter.trainable => saved.to_vec(),
                DType::Bf16 => {
                    masters().flat_map(|m| half::bf16::from_f32(m).to_le_bytes()).collect()
                }
                DType::F16 => {
                    masters().flat_map(|m| half::f16::from_f32(m).to_le_bytes()).collect()
                }
                _ => saved.to_vec(),
            };
            assert_eq!(here, wanted, "{}", parameter.name);
        }
        // States that are not saved start from zero, on every rank.
        let states = engine.slice(engine.memory.states);
        for (i, state) in workload.variables().states().iter().enumerate() {
            // SAFETY: as above.
            let here: &[u8] =
                unsafe { states.part(workload.layout().states[i], state.bytes()).as_slice() };
            let saved = state.usage == StateUse::Replicated;
            assert_eq!(here.iter().any(|&b| b != 0), saved, "{}", state.name);
        }
    }
}

#[test]
fn the_first_state_is_a_function_of_names_and_seed() {
    let workload = workload();
    let (slots, layout) = slots(&*workload);
    let made: Vec<String> = (0..SLOTS)
        .map(|i| {
            let slot = slots.slot(i, &layout);
            scramble(&slot, i as u64);
            initialise(&*workload, &slot);
            assert!(slot.head().is_err(), "it is not a state of the run yet");
            seal(&slot)
        })
        .collect();
    assert_eq!(made[0], made[1]);
    let slot = slots.slot(0, &layout);
    for region in [Region::Plane(0), Region::Plane(1)] {
        assert!(bytes(&slot, region).iter().all(|&b| b == 0));
    }
    let of = |name: &str| {
        let tensor = layout.tensors().iter().find(|t| t.name == name).unwrap();
        // SAFETY: the test alone knows the slot.
        unsafe { slot.tensor(tensor).as_slice::<u8>() }.to_vec()
    };
    assert_eq!(of("state.average"), 1.5f32.to_le_bytes().repeat(5));
    assert_eq!(of("state.seen"), 3i64.to_le_bytes().repeat(5));
    assert_eq!(of("state.scales"), 0.25f64.to_le_bytes().repeat(5));
    assert_eq!(of("state.flags"), [2; 5]);
    assert_ne!(of("table")[..20], of("bias")[..20], "two parameters with the same values");
    let narrow: Vec<f32> = of("narrow").chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
    let mean = narrow.iter().sum::<f32>() / narrow.len() as f32;
    assert!(mean.abs() < 0.3 && narrow.iter().any(|v| v.abs() > 0.3), "{mean}");
}
