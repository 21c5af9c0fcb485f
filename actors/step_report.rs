//! From the ranks' outcomes to the one report of a step: sums in micro-batch order, in f64.

use crate::contract::Workload;
use crate::rank::{RunScalars, StepOutcome};
use crate::report::{StepReport, WaitMs, mean};

#[cfg(test)]
mod tests;

/// What the supervisor's clock says about a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Wall time.
    pub seconds: f64,
    /// Waited for snapshots since the last step.
    pub checkpoint_ms: f64,
}

/// Where a run stands before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepAt {
    /// The step, from 0.
    pub step: u64,
    /// The batch that it learns from.
    pub batch: u64,
    /// Tokens of all steps before.
    pub tokens: u64,
}

/// The report of a step. A program's `loss` adds up to the loss; the mean of `loss_sum` over
/// `targets` is named for the program, that of `NAME.loss_sum` over `NAME.targets` for NAME; one
/// without targets is a mean already, one for each run. Means are reported where there are several.
pub fn step_report(
    workload: &dyn Workload,
    at: StepAt,
    outcomes: &[StepOutcome],
    times: Times,
) -> StepReport {
    let StepAt { step, batch, tokens: before } = at;
    let mut runs: Vec<&RunScalars> = outcomes.iter().flat_map(|o| &o.runs).collect();
    runs.sort_by_key(|run| run.micro_batch);
    let mut loss = 0.0;
    let mut named: Vec<(&str, f64, u64)> = Vec::new();
    let mut all_targets: Option<u64> = None;
    for run in runs {
        let program = &workload.programs()[run.program];
        let scalar = |name: &str| scalar(workload, run, name);
        loss += scalar("loss").map_or(0.0, |bits| f64::from(f32::from_bits(bits)));
        for (fetch, _) in program.fetches() {
            let Some(prefix) = fetch.strip_suffix("loss_sum") else { continue };
            let Some(sum) = scalar(fetch) else { continue };
            let counted = scalar(&format!("{prefix}targets")).map(u64::from);
            // What has no targets is the mean of a micro-batch.
            let (sum, targets) = (f64::from(f32::from_bits(sum)), counted.unwrap_or(1));
            if let Some(counted) = counted {
                *all_targets.get_or_insert(0) += counted;
            }
            let name = prefix.strip_suffix('.').unwrap_or(&program.name);
            match named.iter_mut().find(|entry| entry.0 == name) {
                Some(entry) => *entry = (entry.0, entry.1 + sum, entry.2 + targets),
                None => named.push((name, sum, targets)),
            }
        }
    }
    if all_targets == Some(0) {
        loss = f64::NAN;
    }
    if named.len() < 2 {
        named.clear();
    }
    let mean = |&(name, sum, targets): &(&str, f64, u64)| (name.to_string(), mean(sum, targets));
    let of_step = workload.samples_of(batch);
    let tokens = of_step * workload.tokens_per_sample();
    let longest = |ms: fn(&StepOutcome) -> f64| outcomes.iter().map(ms).fold(0.0, f64::max);
    let mut buckets = vec![0u64; workload.layout().buckets.len()];
    for outcome in outcomes {
        let parts = buckets.iter_mut().zip(&outcome.fingerprint);
        parts.for_each(|(sum, part)| *sum = sum.wrapping_add(*part));
    }
    StepReport {
        step: step + 1,
        batch: (batch != step).then_some(batch),
        tokens: before + tokens,
        loss,
        targets: all_targets,
        losses: named.iter().map(mean).collect(),
        learning_rate: workload.update(step).learning_rate,
        grad_norm: outcomes.first().map_or(f64::NAN, |o| o.norm),
        skipped: outcomes.iter().any(|o| o.skipped),
        tokens_per_s: tokens as f64 / times.seconds,
        step_ms: times.seconds * 1e3,
        flops_per_s: workload.flops_per_sample() * of_step as f64 / times.seconds,
        mfu: None,
        wait_ms: WaitMs {
            loader: longest(|o| o.loader_ms),
            reduce: longest(|o| o.reduce_ms),
            checkpoint: times.checkpoint_ms,
        },
        fingerprint: buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket)),
        buckets,
    }
}

fn scalar(workload: &dyn Workload, run: &RunScalars, name: &str) -> Option<u32> {
    let program = &workload.programs()[run.program];
    let mut words = program.fetches().filter(|(_, spec)| spec.bytes() == 4).zip(&run.words);
    words.find(|((n, _), _)| *n == name).map(|(_, &word)| word)
}
