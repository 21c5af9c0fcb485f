//! What a step must not do, found before it runs: lanes out of order, ranks that would disagree,
//! and step buffers that are too short.

use octet_kernels::error::{Error, Result};
use octet_kernels::graph::{Program, StateUse, StepBufferId};

use crate::contract::{Batch, Phase, StepShape, Workload};
use crate::step_plan::{StepPlan, Whole, Work};

/// Gradients must be written lane after lane, since finished lanes are folded away. Returns the
/// last phase that writes gradients: buckets are reduced there, on every rank.
pub(super) fn check_order(runs: &[Whole], programs: &[Program], batch: Batch) -> Result<usize> {
    let writes = |r: &&Whole| !programs[r.program.0].gradient_writes().is_empty();
    let mut last: Option<Whole> = None;
    for run in runs.iter().filter(writes) {
        if let Some(before) = last
            && before.lane > run.lane
        {
            return Err(Error::Plan(format!(
                "micro-batch {} (lane {}) writes gradients after lane {} has begun; the step has \
                 {} lanes: group micro-batches so that lanes finish in order",
                run.micro_batch, run.lane, before.lane, batch.lanes
            )));
        }
        last = Some(*run);
    }
    let nothing = || Error::Plan("no program of the step writes a gradient".to_string());
    last.map(|run| run.phase).ok_or_else(nothing)
}

/// What every rank has is written by programs that every rank runs, and a micro-batch has a slice
/// in every step buffer that its program touches.
pub(super) fn check_sharing(
    workload: &dyn Workload,
    shape: &StepShape,
    runs: &[Whole],
) -> Result<()> {
    let variables = workload.variables();
    let slices = |id: StepBufferId, wanted: usize| {
        let buffer = &variables.step_buffers()[id.0];
        let (name, has) = (&buffer.name, buffer.micro_batches);
        let short = || Error::Plan(format!("step buffer {name} has {has} slices, not {wanted}"));
        if wanted > has { Err(short()) } else { Ok(()) }
    };
    for run in runs {
        let program = &workload.programs()[run.program.0];
        let shared = program.shared();
        let replicated = |s: &&octet_kernels::graph::StateId| {
            variables.states()[s.0].usage == StateUse::Replicated
        };
        let state = shared.states.iter().find(replicated).map(|s| &variables.states()[s.0].name);
        let parameter = shared.parameters.first().map(|p| &variables.parameters()[p.0].name);
        if let Some(name) = state.or(parameter) {
            return Err(Error::Plan(format!(
                "program {} writes {name}, which every rank has: only programs that every rank \
                 runs, at the end of a step, may",
                program.name
            )));
        }
        shared.slices.iter().try_for_each(|&id| slices(id, run.slice + 1))?;
    }
    for phase in &shape.phases {
        if let Phase::Gather { buffer, micro_batches }
        | Phase::Broadcast { buffer, micro_batches } = phase
        {
            slices(*buffer, micro_batches.len())?;
        }
    }
    for id in &shape.finally {
        let program = &workload.programs()[id.0];
        let inputs = !program.fields().is_empty() || !program.gradient_writes().is_empty();
        if inputs || !program.meetings().is_empty() {
            let what = "runs last: no inputs, no gradients, no meetings";
            return Err(Error::Plan(format!("program {} {what}", program.name)));
        }
    }
    Ok(())
}

/// Ranks meet in the same order; inside programs in runs of the same number, since a step is given
/// up between runs.
///
/// # Errors
/// [`Error::Plan`] that names the first difference to what another rank does.
pub fn check_meetings(mine: &StepPlan, other: &StepPlan) -> Result<()> {
    let same = |(mine, other): &(&Work, &Work)| match (mine, other) {
        (Work::Run(a), Work::Run(b)) => {
            a.row == b.row && a.program == b.program && a.nodes == b.nodes
        }
        (mine, other) => mine == other,
    };
    let mut pairs = mine.meetings().zip(other.meetings());
    if let Some((mine, other)) = pairs.find(|pair| !same(pair)) {
        return Err(Error::Plan(format!(
            "ranks would not meet: one comes to {mine:?} where another comes to {other:?}"
        )));
    }
    let counts = [mine, other].map(|plan| plan.meetings().count());
    if counts[0] != counts[1] {
        let why = format!("ranks meet {} and {} times in a step", counts[0], counts[1]);
        return Err(Error::Plan(why));
    }
    Ok(())
}
