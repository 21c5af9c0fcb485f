//! `octet plan --search`: what else could be run of a configuration, and how long steps take.
//!
//! Duty: for every micro-batch, number of lanes, ZeRO stage and number of ranks the recompute
//! policy that is cheapest in time and fits, sorted by the time of a step. Global batch and
//! sequence length stay as configured.

use octet_actors::contract::Workload;
use serde::Serialize;

use super::machine::Machine;
use super::memory::Memory;
use super::{capacity, time};
use crate::config::{BatchConfig, Config};
use crate::experiment::Experiment;
use crate::experiment::recompute::{Candidate, Candidates};
use crate::failure::Failure;
use crate::models::RecomputeConfig;

/// Numbers of ranks to look at, besides the one that is configured.
const RANKS: [usize; 4] = [1, 2, 4, 8];

/// One way to run a configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Sequences of a micro-batch.
    pub micro: usize,
    /// Lanes.
    pub lanes: usize,
    /// Recompute policy as it is configured.
    pub recompute: String,
    /// ZeRO stage.
    pub zero: u8,
    /// Ranks.
    pub ranks: usize,
    /// The largest arena.
    pub arena_bytes: usize,
    /// Seconds of a step.
    pub seconds_per_step: f64,
    /// Tokens of all ranks.
    pub tokens_per_s: f64,
    /// Whether a run would have the same identity, so that it could be resumed this way.
    pub same_run: bool,
    /// The `--set` arguments that lead here.
    pub sets: Vec<String>,
}

/// Every combination that fits, the fastest first, less memory first among equals.
///
/// # Errors
/// [`Failure`] for a configuration whose parts do not fit together.
pub fn search(
    config: &Config,
    vocabulary: usize,
    machine: &Machine,
    threads: usize,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for micro in micro_batches(config) {
        let before = rows.len();
        let base = variant(config, vocabulary, machine, (micro, None))?;
        let dtype = base.matrix_dtype();
        let mut candidates = Candidates::new(&base, machine.peaks(dtype, 1));
        for lanes in lanes(config, micro) {
            let experiment = variant(config, vocabulary, machine, (micro, Some(lanes)))?;
            for (ranks, zero) in placements(config, lanes) {
                let mut tried = config.clone();
                tried.batch.micro = micro;
                tried.batch.lanes = Some(lanes);
                (tried.run.ranks, tried.run.zero) = (ranks, zero);
                let found = row(config, tried, &experiment, &mut candidates, machine, threads)?;
                rows.extend(found);
            }
        }
        // A larger micro-batch takes more memory in every way.
        if rows.len() == before {
            break;
        }
    }
    let order = |a: &Row, b: &Row| {
        let time = a.seconds_per_step.total_cmp(&b.seconds_per_step);
        time.then(a.arena_bytes.cmp(&b.arena_bytes)).then(b.same_run.cmp(&a.same_run))
    };
    rows.sort_by(order);
    Ok(rows)
}

/// The row of one placement, with the recompute policy that is cheapest there; `None` if nothing
/// fits.
fn row(
    config: &Config,
    mut tried: Config,
    experiment: &Experiment,
    candidates: &mut Candidates<'_>,
    machine: &Machine,
    threads: usize,
) -> Result<Option<Row>, Failure> {
    let ranks = tried.run.ranks;
    let memory = Memory::of(experiment, &tried.run)?;
    let fixed = memory.arena_bytes() - candidates.activations_now();
    let room = match capacity(machine.target, &memory, ranks, threads) {
        Some(capacity) => capacity.checked_sub(fixed),
        None => Some(usize::MAX),
    };
    let budget = config.model.recompute_budget.map(|budget| (budget.0 as usize).checked_sub(fixed));
    let (Some(room), Some(budget)) = (room, budget.unwrap_or(Some(usize::MAX))) else {
        return Ok(None);
    };
    let room = room.min(budget);
    let Some(best) = candidates.cheapest(room)? else { return Ok(None) };
    let Candidate { mix, activation_bytes, seconds } = best;
    // Ranks of a CPU share what one alone would have.
    let share = if machine.target.memory_bytes().is_none() { ranks as f64 } else { 1.0 };
    let peaks = machine.peaks(experiment.matrix_dtype(), ranks);
    let batch = experiment.batch();
    let owned = (0..ranks).map(|r| batch.micro_batches_of(&memory.largest.tree.lanes_of(r)).len());
    let busiest = owned.max().unwrap_or(0);
    let programs = experiment.training().count().max(1) as f64;
    let micro_seconds = seconds * share / programs;
    let parts = time::parts(experiment, &memory.largest, &peaks, busiest, micro_seconds);
    let seconds_per_step: f64 = parts.iter().map(|part| part.exposed_seconds).sum();
    tried.model.recompute = RecomputeConfig::Fixed(mix);
    Ok(Some(Row {
        micro: tried.batch.micro,
        lanes: batch.lanes,
        recompute: tried.model.recompute.to_string(),
        zero: tried.run.zero,
        ranks,
        arena_bytes: fixed + activation_bytes,
        seconds_per_step,
        tokens_per_s: experiment.tokens_per_step() as f64 / seconds_per_step,
        same_run: tried.identity() == config.identity(),
        sets: sets(config, &tried),
    }))
}

/// Compiled once for a micro-batch and a number of lanes; its policy does not matter.
fn variant(
    config: &Config,
    vocabulary: usize,
    machine: &Machine,
    (micro, lanes): (usize, Option<usize>),
) -> Result<Experiment, Failure> {
    let mut config = config.clone();
    config.batch.micro = micro;
    config.batch.lanes = lanes;
    config.model.recompute = RecomputeConfig::default();
    config.model.recompute_budget = None;
    Experiment::for_target(&config, vocabulary, None, machine.target)
}

/// The configured micro-batch and its doublings and halves that divide every step.
fn micro_batches(config: &Config) -> Vec<usize> {
    let BatchConfig { micro, global, .. } = config.batch;
    let odd = micro >> micro.trailing_zeros();
    let doublings = std::iter::successors(Some(odd), |&size| size.checked_mul(2));
    let divides = |size: &usize| config.batch.sizes().all(|global| global.is_multiple_of(*size));
    doublings.take_while(|&size| size <= global).filter(divides).collect()
}

/// Numbers of lanes to look at: the configured one, or the default if that does not divide; and one
/// lane per rank, which takes the fewest gradient buffers.
fn lanes(config: &Config, micro: usize) -> Vec<usize> {
    let batch = BatchConfig { micro, lanes: None, ..config.batch.clone() };
    let divides = |lanes: &usize| batch.sizes().all(|size| (size / micro).is_multiple_of(*lanes));
    let given = config.batch.lanes.filter(divides);
    let mut lanes: Vec<usize> = RANKS.into_iter().filter(divides).collect();
    lanes.push(given.unwrap_or_else(|| batch.lanes()));
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

/// Ranks and ZeRO stages that a number of lanes allows. One rank has nothing to shard.
fn placements(config: &Config, lanes: usize) -> Vec<(usize, u8)> {
    let mut ranks: Vec<usize> = RANKS.into_iter().chain([config.run.ranks]).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let stages = |ranks| if ranks == 1 { vec![config.run.zero] } else { vec![0, 1] };
    let allowed = ranks.into_iter().filter(|&ranks| ranks <= lanes);
    allowed.flat_map(|ranks| stages(ranks).into_iter().map(move |zero| (ranks, zero))).collect()
}

/// The arguments that make `config` into `tried`.
fn sets(config: &Config, tried: &Config) -> Vec<String> {
    let mut sets = Vec::new();
    let mut differs = |differs: bool, set: String| {
        if differs {
            sets.push(set);
        }
    };
    let (was, is) = (&config.batch, &tried.batch);
    differs(was.micro != is.micro, format!("batch.micro={}", is.micro));
    differs(was.lanes() != is.lanes(), format!("batch.lanes={}", is.lanes()));
    let recompute = tried.model.recompute;
    differs(config.model.recompute != recompute, format!("model.recompute={recompute}"));
    let (was, is) = (&config.run, &tried.run);
    differs(was.zero != is.zero, format!("run.zero={}", is.zero));
    differs(was.ranks != is.ranks, format!("run.ranks={}", is.ranks));
    sets
}
