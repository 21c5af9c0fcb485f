//! Holds kernels against the op's CPU run: both dtypes, every order, each on poisoned memory.

use crate::dtype::DType;
use crate::emulator::{Copies, Order, Schedule, available, card};
use crate::error::Result;
use crate::graph::{Graph, Policy, Target, Tensor};
use crate::ops::cast::cast;
use crate::testing::{Array, Outcome, Trace, Trial};

/// How near the CPU's results a kernel's must be, as they are before they are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Near {
    /// The same bits.
    Bits,
    /// Within `4 eps Σ|a b|`: sums of terms whose absolute values add up to at most that, in
    /// another order. What is stored as bf16 may be its neighbour.
    Sums(f64),
    /// As [`Self::Sums`] of the first; and where operands are bf16, products whose `Σ|a b|` is at
    /// most the second, of a factor that the kernel rounds and the CPU does not.
    Rounded(f64, f64),
}

/// A trial whose results on a GPU are held against those on the CPU.
#[derive(Debug, Clone, Copy)]
pub struct Hold<'t> {
    /// What is run: floats in `F32`, and no policy.
    pub trial: Trial<'t>,
    /// So many inputs from the first are activations, of which gradients are stored as they are;
    /// the others are weights.
    pub activations: usize,
    /// So many rows of the activations are live; all if not given.
    pub live: Option<usize>,
    /// The bound.
    pub near: Near,
}

/// The orders under which every kernel runs, the plain one first; with copies, those that have
/// asynchronous ones run early and late.
pub fn schedules(copies: bool) -> Vec<Schedule> {
    let all = [
        (Order::InTurn, Copies::Eager, 1),
        (Order::Reversed, Copies::Lazy, 1),
        (Order::Random, Copies::Eager, 2),
        (Order::Starving, Copies::Eager, 3),
        (Order::Random, Copies::Lazy, 4),
        (Order::Starving, Copies::Lazy, 5),
        (Order::Starving, Copies::Eager, 6),
    ];
    let some = if copies { &all[..] } else { &all[..4] };
    some.iter().map(|&(order, copies, seed)| Schedule { order, copies, seed, edit: None }).collect()
}

impl Hold<'_> {
    /// In `F32` and in bf16, the first micro-batch of a lane and a later one, under every order.
    ///
    /// # Panics
    /// With what differs, or what the checker found.
    pub fn run(&self, trace: Trace<'_>) {
        let dtypes: &[DType] =
            if self.trial.narrow { &[DType::F32, DType::Bf16] } else { &[DType::F32] };
        if !available() {
            return;
        }
        for &dtype in dtypes {
            let backward = self.trial.seeds.is_some() || self.trial.root;
            for later in [false, true].into_iter().filter(|later| backward || !later) {
                let what =
                    format!("{dtype}, {} of its lane", if later { "a later" } else { "first" });
                self.compare(dtype, later, trace, &what);
            }
        }
    }

    fn compare(&self, dtype: DType, later: bool, trace: Trace<'_>, what: &str) {
        let run = |target, schedule| self.once(dtype, later, trace, target, schedule);
        let cpu = run(Target::Cpu, Schedule::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let mut first: Option<Outcome> = None;
        let mut copies = true;
        // A later micro-batch runs the same kernels with another flag; a GPU has its own order.
        let orders = if later || card::asked() { 2 } else { usize::MAX };
        for schedule in schedules(true).into_iter().take(orders) {
            if !copies && !schedules(false).contains(&schedule) {
                continue;
            }
            let at = format!("{what}, {:?} {:?}", schedule.order, schedule.copies);
            let gpu = run(Target::H100, schedule).unwrap_or_else(|e| panic!("{at}: {e}"));
            match &first {
                None => {
                    self.hold(&cpu, &gpu, dtype, &at);
                    copies = gpu.copies > 0;
                    first = Some(gpu);
                }
                Some(first) => repeats(first, &gpu, &at),
            }
        }
    }

    /// One run in a dtype.
    ///
    /// # Errors
    /// Those of the trace, and what the checker found.
    pub fn once(
        &self,
        dtype: DType,
        later: bool,
        trace: Trace<'_>,
        target: Target,
        schedule: Schedule,
    ) -> Result<Outcome> {
        let stored = |(i, x): (usize, &Array)| match dtype {
            // One number is neither: the scale of a loss.
            _ if x.shape_and_dtype().0.is_empty() => x.clone(),
            DType::Bf16 if i < self.activations => x.rounded(),
            DType::Bf16 => x.narrowed(),
            _ => x.clone(),
        };
        let mut inputs: Vec<Array> = self.trial.inputs.iter().enumerate().map(stored).collect();
        inputs.extend(self.live.map(|rows| Array::i32(&[], vec![rows as i32])));
        let narrow = |x: &Array| match dtype {
            DType::Bf16 if !x.shape_and_dtype().0.is_empty() => x.narrowed(),
            _ => x.clone(),
        };
        let seeds = self.trial.seeds.map(|seeds| seeds.iter().map(narrow).collect::<Vec<_>>());
        let states: Vec<Array> = self.trial.states.iter().map(narrow).collect();
        let trial = Trial {
            inputs: &inputs,
            seeds: seeds.as_deref(),
            states: &states,
            policy: Policy { target, ..self.trial.policy },
            later,
            schedule,
            ..self.trial
        };
        trial.once(&|g: &mut Graph<'_>, x: &[Tensor]| {
            let mut x = x.to_vec();
            // Behind the inputs; states follow.
            let live = self.live.map(|_| x.remove(self.trial.inputs.len()));
            for x in &mut x[..self.activations] {
                if let Some(live) = live {
                    *x = g.with_live(*x, live);
                }
                if g.spec(*x).dtype == DType::F32 {
                    *x = cast(g, *x, dtype)?;
                }
            }
            trace(g, &x)
        })
    }

    fn hold(&self, cpu: &Outcome, gpu: &Outcome, dtype: DType, what: &str) {
        assert_eq!(cpu.overflow, gpu.overflow, "{what}: overflow");
        for (group, cpu, gpu) in [
            ("output", &cpu.outputs, &gpu.outputs),
            ("gradient", &cpu.gradients, &gpu.gradients),
            ("state", &cpu.states, &gpu.states),
        ] {
            for (i, (cpu, gpu)) in cpu.iter().zip(gpu).enumerate() {
                let Array::Float(_, _, stored) = cpu else {
                    assert_eq!(cpu, gpu, "{what}: {group} {i}");
                    continue;
                };
                // The gradient of an activation was stored as that is before it was copied.
                let activation = group == "gradient" && i < self.activations;
                let stored = if activation { dtype } else { *stored };
                self.hold_array(cpu, gpu, [dtype, stored], &format!("{what}: {group} {i}"));
            }
        }
    }

    fn hold_array(&self, cpu: &Array, gpu: &Array, [dtype, stored]: [DType; 2], what: &str) {
        let (shape, cpu, gpu) = (cpu.shape_and_dtype().0, cpu.floats(), gpu.floats());
        // What lies beyond the live rows is another's: the checker sees that nobody touches it.
        let rows = shape.first().copied().unwrap_or(1);
        let whole = self.trial.inputs.first().map(|x| x.shape_and_dtype().0[0]) != Some(rows);
        let live = self.live.filter(|_| !whole).map_or(cpu.len(), |live| cpu.len() / rows * live);
        for (i, (&cpu, &gpu)) in cpu.iter().zip(gpu).take(live).enumerate() {
            let same = cpu.to_bits() == gpu.to_bits() || cpu.is_nan() && gpu.is_nan();
            let bound = match self.near {
                Near::Bits => 0.0,
                Near::Sums(sum) => bound(cpu, stored, sum),
                Near::Rounded(sum, _) if dtype == DType::F32 => bound(cpu, stored, sum),
                // A unit in the last place of a factor: it may go to either neighbour.
                Near::Rounded(sum, rounded) => bound(cpu, stored, sum) + rounded / 256.0,
            };
            let near = (f64::from(cpu) - f64::from(gpu)).abs() <= bound;
            assert!(same || near, "{what}, element {i}: {gpu:e}, the CPU has {cpu:e}");
        }
    }
}

/// Of a kernel of our own; a library's sums are nobody's promise.
fn terms() -> f64 {
    if card::multiplies_by_library() { 16.0 } else { 4.0 }
}

/// By how much a sum in another order may differ, stored as `dtype`.
fn bound(value: f32, dtype: DType, sum: f64) -> f64 {
    // A unit in the last of the 8 digits of bf16.
    let stored = if dtype == DType::Bf16 { f64::from(value.abs()) / 128.0 } else { 0.0 };
    terms() * f64::from(f32::EPSILON) * sum + stored
}

/// Whatever the order, the bits are the same.
fn repeats(first: &Outcome, again: &Outcome, what: &str) {
    let bits = |outcome: &Outcome| -> Vec<Vec<u32>> {
        let arrays = [&outcome.outputs[..], &outcome.gradients, &outcome.states].concat();
        arrays.iter().map(Array::words).collect()
    };
    assert_eq!(bits(first), bits(again), "{what}: other bits than in turn");
}
