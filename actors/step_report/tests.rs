//! The report of a step: sums in micro-batch order, whoever was faster.

use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::contract::Workload;
use crate::rank::{RunScalars, StepOutcome};
use crate::report::StepReport;
use crate::sim::toy::{Random, Tiny, tiny};
use crate::step_report::{StepAt, Times, step_report};

const TIMES: Times = Times { seconds: 0.5, checkpoint_ms: 7.0 };

/// The scalars of a run in fetch order: `loss`, `loss_sum`, `targets`.
fn run(micro_batch: usize, program: usize, loss: f32, targets: u32) -> RunScalars {
    let words = vec![loss.to_bits(), (loss * 2.0).to_bits(), targets];
    RunScalars { micro_batch, program, words }
}

fn outcome(runs: Vec<RunScalars>, fingerprint: u64) -> StepOutcome {
    StepOutcome {
        runs,
        norm: 1.5,
        skipped: false,
        overflow: false,
        held: false,
        abandoned: false,
        fingerprint: vec![fingerprint; tiny(&Tiny::default()).layout().buckets.len()],
        loader_ms: 4.0,
        reduce_ms: 1.0,
    }
}

fn at(step: u64) -> StepAt {
    StepAt { step, batch: step, tokens: step * 16 }
}

fn report(outcomes: &[StepOutcome]) -> StepReport {
    step_report(&tiny(&Tiny::default()), at(4), outcomes, TIMES)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn the_loss_is_the_sum_in_micro_batch_order(seed in any::<u64>(), ranks in 1usize..6) {
        let mut random = Random::new(seed);
        // Numbers of very different sizes, so that every other order gives other bits.
        let losses: Vec<f32> =
            (0..24).map(|_| {
                (random.below(2000) as f32 - 1000.0) * 10f32.powi(random.below(12) as i32)
            }).collect();
        let expected = losses.iter().fold(0.0, |sum, &loss| sum + f64::from(loss));
        let mut shares = vec![Vec::new(); ranks];
        for (m, &loss) in losses.iter().enumerate() {
            shares[random.below(ranks as u64) as usize].push(run(m, 0, loss, 1));
        }
        for share in &mut shares {
            let turn = random.below(share.len() as u64 + 1) as usize;
            share.rotate_left(turn);
        }
        let outcomes: Vec<StepOutcome> =
            shares.into_iter().map(|share| outcome(share, 3)).collect();
        let together = report(&outcomes);
        prop_assert_eq!(together.loss.to_bits(), expected.to_bits());
    }
}

#[test]
fn named_losses_are_means_and_appear_when_there_are_several() {
    let one = report(&[outcome(vec![run(0, 0, 3.0, 4), run(1, 0, 5.0, 4)], 1)]);
    assert_eq!((one.loss, one.losses.len()), (8.0, 0));
    let runs = vec![run(0, 0, 3.0, 4), run(1, 1, 5.0, 2), run(2, 1, 1.0, 0), run(3, 0, 2.0, 1)];
    let two = report(&[outcome(runs, 1)]);
    let expected = [("train".to_string(), 2.0), ("held_out".to_string(), 6.0)];
    assert_eq!(two.losses, expected);
    // Without a target there is no loss, which is not a loss of zero.
    let runs = vec![run(0, 0, 3.0, 4), run(1, 1, 5.0, 0)];
    let half = report(&[outcome(runs, 1)]);
    assert!(half.losses[1].1.is_nan() && half.loss == 8.0 && half.targets == Some(4));
    let none = report(&[outcome(vec![run(0, 0, 0.0, 0)], 1)]);
    assert!(none.loss.is_nan() && none.targets == Some(0));
}

#[test]
fn it_says_what_a_step_was_and_how_long_it_took() {
    let mut second = outcome(vec![], u64::MAX);
    (second.skipped, second.reduce_ms, second.norm) = (true, 9.0, 99.0);
    second.loader_ms = 15.0;
    let report = report(&[outcome(vec![], 5), second]);
    assert_eq!((report.step, report.tokens), (5, 5 * 16));
    assert_eq!((report.tokens_per_s, report.step_ms), (32.0, 500.0));
    assert_eq!((report.grad_norm, report.skipped), (1.5, true), "all ranks have the same norm");
    assert_eq!((report.wait_ms.reduce, report.wait_ms.checkpoint), (9.0, 7.0));
    assert_eq!(report.wait_ms.loader, 15.0, "the longest, not the sum");
    // Shards' fingerprints are added up, wrapping.
    assert!(report.buckets.iter().all(|&f| f == 4) && !report.buckets.is_empty());
    assert_eq!(report.fingerprint, 4 * report.buckets.len() as u64);
    let nothing = step_report(&tiny(&Tiny::default()), at(0), &[], TIMES);
    assert!(nothing.grad_norm.is_nan() && nothing.loss == 0.0);
}

#[test]
fn tokens_and_rates_are_those_of_the_batch_that_a_step_learns_from() {
    // Some batches were passed over, and some steps before were of another size.
    let at = StepAt { step: 4, batch: 6, tokens: 1000 };
    let report = step_report(&tiny(&Tiny::default()), at, &[], TIMES);
    assert_eq!((report.step, report.batch, report.tokens), (5, Some(6), 1016));
    assert_eq!(report.tokens_per_s, 32.0);
}
