//! What one rank does in one step, as a flat list: every run, every fold of gradient buffers, every
//! collective, the norm, the update.
//!
//! A pure function of the recipe, the shape of the step, the number of ranks and the placement of
//! the optimizer state, made in two parts: [`step`] says the step as if there were one stream, and
//! [`schedule`] derives from what works read and write ([`touches`]) the streams, where runs are
//! cut, what comes early, and the marks. All ranks list the same meetings in the same order; the
//! list is issued from one thread, so no order can differ. Work of one stream runs in the order of
//! the list; between streams an entry waits for the marks that it names.

use std::ops::Range;

use octet_kernels::collectives::LaneTree;
use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Program, StateUse, Variables};
use octet_kernels::ops::Stream;

use crate::agreement::UPDATE;
use crate::contract::{Batch, Phase, ProgramId, StepShape, Workload};
use crate::rank_memory::Zero;
use crate::step_plan::check::{check_order, check_sharing};
use crate::step_plan::schedule::schedule;
use crate::step_plan::share::Share;
use crate::step_plan::step::{snapshot, step};
use crate::step_plan::touches::Memory;

mod check;
mod schedule;
mod share;
mod step;
#[cfg(test)]
mod tests;
mod touches;
mod work;

pub use check::check_meetings;
pub use work::{Entry, Keep, Load, Mark, Run, Work};

/// The list of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// In order of issue.
    pub entries: Vec<Entry>,
    /// Rows of the metrics table that the runs fill.
    pub rows: usize,
    /// Marks that its entries wait for, the device's events.
    pub marks: usize,
}

impl StepPlan {
    /// Plans a step for `rank` of `ranks`.
    ///
    /// # Errors
    /// [`Error::Plan`] when the shape cannot be run in lane order, trains
    /// nothing, lets ranks disagree, or exceeds a step buffer.
    pub fn new(
        workload: &dyn Workload,
        shape: &StepShape,
        ranks: usize,
        rank: usize,
        zero: Zero,
    ) -> Result<Self> {
        let batch = batch_of(workload, shape)?;
        let tree = LaneTree::new(batch.lanes, ranks)?;
        let runs = list_runs(workload.programs(), shape, batch);
        check_sharing(workload, shape, &runs)?;
        let last_phase = check_order(&runs, workload.programs(), batch)?;
        let memory = Memory::new(workload, &tree, rank, zero);
        let share = Share::new((workload, shape), (batch, tree), (rank, zero), runs, last_phase);
        let rows = share.rows();
        if rows >= usize::from(UPDATE) {
            return Err(Error::Plan(format!(
                "{rows} runs of one rank in a step, at most {UPDATE}"
            )));
        }
        let (entries, marks) = schedule(step(&share), &memory);
        Ok(Self { entries, rows, marks })
    }

    /// Plans a snapshot behind a step.
    ///
    /// # Errors
    /// [`Error::Plan`] for more ranks than lanes.
    pub fn snapshot(
        workload: &dyn Workload,
        ranks: usize,
        rank: usize,
        zero: Zero,
    ) -> Result<Self> {
        let tree = LaneTree::new(workload.batch().lanes, ranks)?;
        let memory = Memory::new(workload, &tree, rank, zero);
        let (entries, marks) = schedule(snapshot(workload, rank), &memory);
        Ok(Self { entries, rows: 0, marks })
    }

    /// Which scalars are kept, in order.
    pub fn keeps(&self) -> impl Iterator<Item = &Keep> {
        self.entries.iter().filter_map(|e| if let Work::Keep(k) = &e.work { Some(k) } else { None })
    }

    /// What ranks do together, in order.
    pub fn meetings(&self) -> impl Iterator<Item = &Work> {
        let met = |entry: &&Entry| entry.stream == Stream::Communication;
        self.entries.iter().filter(met).map(|entry| &entry.work)
    }
}

/// How a step of this shape is cut.
fn batch_of(workload: &dyn Workload, shape: &StepShape) -> Result<Batch> {
    let (largest, count) = (workload.batch(), shape.micro_batches);
    if count == 0 || count % largest.lanes != 0 || count > largest.micro_batches() {
        return Err(Error::Plan(format!(
            "a step of {count} micro-batches in {} lanes, at most {}",
            largest.lanes,
            largest.micro_batches()
        )));
    }
    Ok(largest.with_micro_batches(count))
}

/// Whether any state is summed over a step.
pub fn has_sums(variables: &Variables) -> bool {
    variables.states().iter().any(|s| s.usage == StateUse::StepSum)
}

/// The records that the slot of a rank with these lanes holds for a step: a micro-batch and the
/// program that names its inputs. Programs with the same inputs share the record of a micro-batch.
pub fn records(
    workload: &dyn Workload,
    shape: &StepShape,
    lanes: &Range<usize>,
) -> Vec<(usize, ProgramId)> {
    let mut records: Vec<(usize, ProgramId)> = Vec::new();
    let batch = workload.batch().with_micro_batches(shape.micro_batches);
    for run in list_runs(workload.programs(), shape, batch) {
        if lanes.contains(&run.lane)
            && find_record(workload.programs(), &records, run.micro_batch, run.program).is_none()
        {
            records.push((run.micro_batch, run.program));
        }
    }
    records
}

fn find_record(
    programs: &[Program],
    records: &[(usize, ProgramId)],
    micro_batch: usize,
    program: ProgramId,
) -> Option<usize> {
    let fields = |id: ProgramId| programs[id.0].fields();
    records.iter().position(|&(m, p)| m == micro_batch && fields(p) == fields(program))
}

/// A run before it is cut, on whichever rank.
#[derive(Debug, Clone, Copy)]
struct Whole {
    phase: usize,
    program: ProgramId,
    micro_batch: usize,
    slice: usize,
    lane: usize,
}

fn list_runs(programs: &[Program], shape: &StepShape, batch: Batch) -> Vec<Whole> {
    let mut runs = Vec::new();
    let mut add = |phase, program: ProgramId, micro_batch, slice| {
        assert!(program.0 < programs.len(), "program {} of {}", program.0, programs.len());
        let lane = batch.lane_of(micro_batch);
        runs.push(Whole { phase, program, micro_batch, slice, lane });
    };
    for (i, phase) in shape.phases.iter().enumerate() {
        match phase {
            Phase::Each { micro_batches, programs } => {
                for (slice, m) in micro_batches.clone().enumerate() {
                    add(i, programs[slice], m, slice);
                }
            }
            Phase::Once { program, micro_batches } => add(i, *program, micro_batches.start, 0),
            Phase::Gather { .. } | Phase::Broadcast { .. } => {}
        }
    }
    runs
}
