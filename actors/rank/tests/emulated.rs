//! Whole steps by the kernels of GPUs, thread by thread: forward, backward, lanes folded, the norm,
//! the decision, the update, by the launches of the very programs and plan that a GPU would run.

use std::sync::Arc;

use octet_kernels::dtype::DType;
use octet_kernels::emulator::{self, Copies, Order, Schedule};
use octet_kernels::graph::Target;

use crate::contract::Workload;
use crate::rank::tests::{build, program};
use crate::rank_memory::Zero;
use crate::testing::{Leg, Setting, Trial, train_in};

const STEPS: u64 = 2;
const PARAMETERS: [&str; 4] = ["table", "hidden", "bias", "head"];

/// Trained on one rank, by the CPU or emulated.
fn trained(dtype: DType, schedule: Option<Schedule>) -> Trial {
    let mut toy = build(dtype, 4);
    let leg = Leg { ranks: 1, zero: Zero::Zero1, steps: STEPS };
    let Some(schedule) = schedule else {
        let workload: Arc<dyn Workload> = Arc::new(toy);
        return train_in(&workload, &[leg], Setting::default()).unwrap();
    };
    toy.programs = vec![program(&toy.variables, &toy.layout, 0.0, Target::H100)];
    assert!(toy.programs.iter().all(|program| program.without_launches().is_empty()));
    let workload: Arc<dyn Workload> = Arc::new(toy);
    let devices = |_| vec![emulator::device::open(schedule)];
    train_in(&workload, &[leg], Setting { devices: &devices, ..Setting::default() }).unwrap()
}

#[test]
fn emulated_kernels_train_as_the_cpu_does() {
    if !emulator::available() {
        return;
    }
    let schedule = |order, copies| Schedule { order, copies, seed: 3, edit: None };
    let first = schedule(Order::InTurn, Copies::Eager);
    let second = schedule(Order::Starving, Copies::Lazy);
    // Beside sums in another order, gradients of activations are rounded in bf16.
    for (dtype, near) in [(DType::F32, 1e-5), (DType::Bf16, 1e-2)] {
        let (cpu, gpu) = (trained(dtype, None), trained(dtype, Some(first)));
        for (cpu, gpu) in cpu.reports.iter().zip(&gpu.reports) {
            let apart = |a: f64, b: f64| (a - b).abs() / a.abs();
            let (loss, norm) = (apart(cpu.loss, gpu.loss), apart(cpu.grad_norm, gpu.grad_norm));
            assert!(loss < near && norm < near, "{dtype}: {gpu:?}, the CPU has {cpu:?}");
            assert_eq!(cpu.targets, gpu.targets);
        }
        // A step moves a parameter by the learning rate at most.
        let path = 0.02 * STEPS as f64;
        for name in PARAMETERS {
            let (cpu, gpu) = (cpu.floats(name), gpu.floats(name));
            let apart = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
            let mean = cpu.iter().zip(&gpu).map(apart).sum::<f64>() / cpu.len() as f64;
            assert!(mean < 10.0 * near * path, "{dtype} {name}: {mean} apart in the mean");
        }
        assert_eq!(trained(dtype, Some(second)).digest, gpu.digest, "{dtype}: another order");
    }
}
