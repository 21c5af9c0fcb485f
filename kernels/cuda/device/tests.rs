//! A GPU's device, over a driver that runs late and is told to fail.

use std::sync::Arc;

use bytemuck::cast_slice;

use crate::cpu::CpuDevice;
use crate::cuda::driver::Driver;
use crate::cuda::testing::Pretended;
use crate::device::{BlockSums, Decision, Device, Event, Events, RunArguments};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Policy, Target, Tensor};
use crate::memory::{Arena, ArenaPlan, DeviceSlice, HostSlice, Span};
use crate::ops::Stream;
use crate::ops::adamw::AdamW;
use crate::ops::linear::linear;
use crate::testing::{Array, Trial, noise};
use crate::update::{Rule, StepNumbers, Stored, UpdateSlice};

const SEEDS: u64 = 30;

/// A device with so many bytes and three events, the last two of which tell the time.
fn opened(machine: &Pretended, bytes: usize) -> Result<(Box<dyn Device>, Arena)> {
    let (device, _alone) = machine.devices(1)?.remove(0)()?;
    let mut plan = ArenaPlan::new();
    plan.reserve("all", bytes);
    let arena = device.allocate(&plan, Events { all: 3, timed: 2 })?;
    Ok((device, arena))
}

fn part(arena: &Arena, offset: usize, bytes: usize) -> DeviceSlice {
    arena.slice(Span { offset, bytes })
}

#[test]
fn streams_run_late_and_wait_for_events_only() {
    let mut unordered = 0;
    for seed in 0..SEEDS {
        let Some(machine) = Pretended::new("cuda::device", &format!("seed={seed}")) else { return };
        let (device, arena) = opened(&machine, 1024).unwrap();
        let cells = part(&arena, 0, 64);
        let mut zeros = [1u8; 64];
        // SAFETY: memory that was just taken, in the order of streams and events, here and below.
        unsafe { device.download(cells, &mut zeros) }.unwrap();
        assert_eq!(zeros, [0; 64], "memory is cleared, whatever the driver left there");
        for waits in [true, false] {
            let mut host = device.host_memory(128).unwrap();
            host.as_mut_slice()[..64].fill(7);
            // SAFETY: as above; `host` outlives the work.
            unsafe {
                device.copy_in(Stream::CopyIn, host.part(0, 64), cells).unwrap();
                if waits {
                    device.record(Event(0), Stream::CopyIn).unwrap();
                    device.wait(Stream::CopyOut, Event(0)).unwrap();
                }
                device.copy_out(Stream::CopyOut, cells, host.part(64, 64)).unwrap();
                device.finish().unwrap();
                let right = host.as_slice()[64..] == [7; 64];
                assert!(right || !waits, "seed {seed}");
                unordered += usize::from(!right);
                device.clear(cells).unwrap();
                device.finish().unwrap();
            }
        }
        let arguments = RunArguments { step: 3, first_sample: 1 << 40 };
        let mut read = RunArguments::default();
        // SAFETY: as above.
        unsafe {
            device.set_arguments(Stream::CopyIn, arguments, part(&arena, 64, 16)).unwrap();
            device.download(part(&arena, 64, 16), bytemuck::bytes_of_mut(&mut read)).unwrap();
        }
        assert_eq!(read, arguments);
    }
    assert!(unordered > 0, "no order was ever other than that of the calls");
}

#[test]
fn events_tell_the_time_if_they_were_made_for_it() {
    let Some(machine) = Pretended::new("cuda::device", "seed=3") else { return };
    let (device, arena) = opened(&machine, 1024).unwrap();
    assert!(device.elapsed(Event(1), Event(2)).is_err(), "nothing is marked");
    device.record(Event(1), Stream::Compute).unwrap();
    device.synchronize(Event(1)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3));
    // SAFETY: memory that was just taken.
    unsafe { device.clear(part(&arena, 0, 64)) }.unwrap();
    device.record(Event(2), Stream::Compute).unwrap();
    device.synchronize(Event(2)).unwrap();
    assert!(device.reached(Event(2)).unwrap());
    assert!(device.elapsed(Event(1), Event(2)).unwrap().as_secs_f64() > 2e-3);
    let said = device.elapsed(Event(0), Event(2)).unwrap_err().to_string();
    assert_eq!(said, "device: event 0 tells no time");
}

#[test]
fn host_memory_that_is_there_is_pinned_until_it_is_dropped() {
    let Some(machine) = Pretended::new("cuda::device", "") else { return };
    let (device, _arena) = opened(&machine, 64).unwrap();
    let memory = crate::memory::HostMemory::zeroed(8192).unwrap();
    // SAFETY: so many bytes, which nobody touches.
    let bytes = unsafe { std::slice::from_raw_parts(memory.base(), 8192) };
    // SAFETY: `memory` is dropped last.
    unsafe {
        let pinned = device.pin(HostSlice::of(bytes)).unwrap();
        assert!(device.pin(HostSlice::of(bytes)).is_err(), "it is pinned already");
        drop(pinned);
        device.pin(HostSlice::of(bytes)).unwrap();
    }
}

#[test]
fn too_little_memory_is_its_own_error_and_says_how_much_there_is() {
    let Some(machine) = Pretended::new("cuda::device", "memory=1000000") else { return };
    let Err(error) = opened(&machine, 2_000_000) else { panic!("there is not so much") };
    let said = error.to_string();
    assert!(matches!(error, Error::OutOfMemory(_)), "{said}");
    let expected = "device: cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: 2000128 bytes asked of stand-in, \
                    1000000 of 1000000 free";
    assert_eq!(said, expected);
    // What was refused has left nothing behind, and what is dropped is there again.
    for _ in 0..3 {
        opened(&machine, 900_000).unwrap();
    }
}

#[test]
fn a_context_that_breaks_stays_broken_and_a_lost_device_is_told_from_it() {
    let broken = |error: &Error| matches!(error, Error::Broken(_));
    let lost = |error: &Error| matches!(error, Error::Lost(_));
    type Is<'a> = &'a dyn Fn(&Error) -> bool;
    let cases: [(&str, Is<'_>, &str); 3] = [
        ("fail=work:5:719", &broken, "CUDA_ERROR_LAUNCH_FAILED"),
        ("fail=work:3:700", &broken, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("fail=work:9:46", &lost, "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    ];
    for (settings, is, name) in cases {
        let Some(machine) = Pretended::new("cuda::device", settings) else { return };
        let (device, arena) = opened(&machine, 1024).unwrap();
        // SAFETY: memory that was just taken.
        let clear = || unsafe { device.clear(part(&arena, 0, 64)) };
        let worked = (0..20).map(|_| clear()).chain([device.finish()]);
        let errors: Vec<Error> = worked.filter_map(Result::err).collect();
        let (Some(first), Some(last)) = (errors.first(), errors.last()) else {
            panic!("{settings}: nothing failed")
        };
        assert!(is(first) && first.to_string().contains(name), "{settings}: {first}");
        assert!(is(last) && is(&clear().unwrap_err()), "{settings}: {last}");
    }
    let Some(machine) = Pretended::new("cuda::device", "fail=cuEventRecord:1:214") else { return };
    let (device, _arena) = opened(&machine, 64).unwrap();
    let error = device.record(Event(0), Stream::Compute).unwrap_err();
    assert!(lost(&error) && error.to_string().contains("ECC"), "{error}");
}

#[test]
fn ranks_without_a_gpu_are_refused() {
    let Some(machine) = Pretended::new("cuda::device", "devices=2") else { return };
    let cards = Driver::open(&machine.search()).unwrap().cards().unwrap();
    assert_eq!(cards.len(), 2);
    assert_eq!(cards[1].to_string(), "stand-in, 8.0 GiB, sm_90");
    let Err(error) = machine.devices(3) else { panic!("there are two") };
    assert_eq!(error.to_string(), "device: 3 ranks need a GPU each, and the driver shows 2");
}

/// What an update makes of some numbers: sums of squares, the decision, and all vectors.
fn updated(device: &dyn Device, arena: &Arena) -> Vec<u8> {
    const ELEMENTS: usize = 300;
    let floats = |seed: usize| -> Vec<f32> {
        (0..ELEMENTS).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    };
    let vector = |at: usize| part(arena, at * 2048, ELEMENTS * size_of::<f32>());
    let [weights, gradient, first_moment, second_moment, more] = std::array::from_fn(vector);
    let rounded = part(arena, 5 * 2048, ELEMENTS * 2);
    let [sums, order, decision, fingerprint] =
        [(0, 32), (256, 12), (512, 24), (768, 8)].map(|(at, n)| part(arena, 6 * 2048 + at, n));
    // SAFETY: parts of memory that was just taken, apart from each other.
    unsafe {
        for (seed, to) in [weights, gradient, first_moment, more].into_iter().enumerate() {
            device.upload(cast_slice(&floats(seed)), to).unwrap();
        }
        device.upload(cast_slice(&[2i32, 0, 1]), order).unwrap();
        device.add_into(gradient, more).unwrap();
        device.block_sums(gradient, 128, part(arena, 6 * 2048, 24)).unwrap();
        let sums = BlockSums { gathered: sums, order, flags: &[3] };
        device.decide(&sums, 0.5, Some(4), decision).unwrap();
        let rounded = Some((DType::Bf16, rounded));
        let slice = UpdateSlice {
            weights,
            rounded,
            gradient,
            states: [Stored::F32(first_moment), Stored::F32(second_moment)],
            first_element: 64,
            seed: 7,
        };
        let rule: Arc<dyn Rule> = Arc::new(AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 });
        let numbers = StepNumbers { learning_rate: 1e-2, weight_decay: 0.1 };
        device.update(&rule, &numbers, &slice, decision, fingerprint, true).unwrap();
        let mut all = vec![0; arena.bytes()];
        device.download(part(arena, 0, arena.bytes()), &mut all).unwrap();
        let mut read = Decision::default();
        device.download(decision, bytemuck::bytes_of_mut(&mut read)).unwrap();
        assert!(read.skip == 0 && read.updates == 5 && read.factor < 1.0, "{read:?}");
        all
    }
}

#[test]
fn an_update_gives_the_cpus_bits() {
    let mut plan = ArenaPlan::new();
    plan.reserve("all", 7 * 2048);
    let cpu = CpuDevice::new(1);
    let arena = cpu.allocate(&plan, Events::default()).unwrap();
    let expected = updated(&cpu, &arena);
    for seed in 0..4 {
        let Some(machine) = Pretended::new("cuda::device", &format!("seed={seed}")) else { return };
        let (device, arena) = opened(&machine, 7 * 2048).unwrap();
        assert!(updated(&*device, &arena) == expected, "seed {seed}");
    }
}

#[test]
fn products_are_kernels_of_our_own() {
    let Some(machine) = Pretended::new("cuda::device", "seed=4") else { return };
    let (device, _arena) = opened(&machine, 64).unwrap();
    let inputs = [Array::f32(&[5, 7], noise(1, 35)), Array::f32(&[3, 7], noise(2, 21))];
    let seeds = [Array::f32(&[5, 3], noise(3, 15))];
    let trial = Trial { inputs: &inputs, seeds: Some(&seeds), ..Trial::default() };
    let trace = |g: &mut Graph<'_>, x: &[Tensor]| Ok(vec![linear(g, x[0], x[1], None)?]);
    let expected = trial.once(&trace).unwrap();
    let policy = Policy { target: Target::H200, ..Policy::default() };
    let gpu = Trial { policy, ..trial };
    let before = machine.calls("cuLaunchKernel");
    let found = gpu.on(&*device, &trace).unwrap();
    assert_eq!(found.gradients, expected.gradients);
    assert_eq!(found.outputs, expected.outputs);
    let program = gpu.program(&trace).unwrap();
    let nodes = program.planned(0..program.nodes()).iter();
    let asked: usize = nodes.map(|node| node.launches.as_ref().map_or(0, |l| l.list.len())).sum();
    assert!(asked >= 3, "{}", program.print_launches());
    assert_eq!(machine.calls("cuLaunchKernel") - before, asked as u64);
}

#[test]
fn work_of_the_host_that_fails_is_heard_of_in_every_way_of_waiting() {
    type Wait<'a> = &'a dyn Fn(&dyn Device) -> Result<()>;
    let until_reached = |device: &dyn Device| -> Result<()> {
        while !device.reached(Event(0))? {}
        Ok(())
    };
    let waits: [Wait<'_>; 3] =
        [&until_reached, &|device| device.synchronize(Event(0)), &|device| device.finish()];
    for wait in waits {
        let Some(machine) = Pretended::new("cuda::device", "seed=2") else { return };
        let (device, arena) = opened(&machine, 1024).unwrap();
        // SAFETY: memory that was just taken; the lengths do not fit.
        unsafe { device.add_into(part(&arena, 0, 64), part(&arena, 64, 32)) }.unwrap();
        // Or at once, if the stream has come there.
        let told = device.record(Event(0), Stream::Compute).and_then(|()| wait(&*device));
        let said = told.unwrap_err();
        assert!(
            matches!(said, Error::Broken(_)) && said.to_string().contains("panicked"),
            "{said}"
        );
    }
}
