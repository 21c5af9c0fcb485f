//! Counting is done once a step, whoever asks when.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use octet_actors::contract::Record;
use octet_kernels::graph::Program;

use super::{STEPS_MAX, Targets};
use crate::data::DataError;
use crate::objectives::{Counts, Inputs};

/// Sample n has n targets; counts how often it is asked.
#[derive(Default)]
struct Counting(AtomicU64);

impl Inputs for Counting {
    fn targets(&self, sample: u64) -> Result<Counts, DataError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok([sample, 1, 0, 0])
    }

    fn fill(&self, _: Range<u64>, _: &Program, _: &mut Record<'_>) -> Result<(), DataError> {
        unreachable!("nothing is filled here")
    }
}

const SAMPLES: u64 = 10;

fn of(targets: &Targets, inputs: &Counting, step: u64) -> Counts {
    targets.of(step, step * SAMPLES..(step + 1) * SAMPLES, inputs).unwrap()
}

#[test]
fn loaders_at_different_steps_do_not_count_for_each_other() {
    let (targets, inputs) = (Targets::default(), Counting::default());
    // Eight loaders, two steps apart, each asking for every micro-batch of every step.
    thread::scope(|scope| {
        for loader in 0..8u64 {
            let (targets, inputs) = (&targets, &inputs);
            scope.spawn(move || {
                for step in 0..4 {
                    for _micro_batch in 0..16 {
                        let at = step + loader % 3;
                        let sum = (at * SAMPLES..(at + 1) * SAMPLES).sum();
                        assert_eq!(of(targets, inputs, at), [sum, SAMPLES, 0, 0]);
                    }
                }
            });
        }
    });
    assert_eq!(inputs.0.load(Ordering::Relaxed), 6 * SAMPLES, "each of six steps once");
}

#[test]
fn what_is_remembered_is_bounded() {
    let (targets, inputs) = (Targets::default(), Counting::default());
    for step in 0..=STEPS_MAX as u64 {
        of(&targets, &inputs, step);
    }
    assert_eq!(targets.0.lock().unwrap().len(), STEPS_MAX);
    let counted = inputs.0.load(Ordering::Relaxed);
    of(&targets, &inputs, 0);
    assert_eq!(inputs.0.load(Ordering::Relaxed), counted + SAMPLES, "the oldest is forgotten");
}
