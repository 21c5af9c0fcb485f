//! Where a run begins: with the next sample of its state, and with how much text and how large a
//! model.

use octet_actors::contract::Workload;
use octet_actors::recovery::Recovery;
use octet_actors::resume::FirstState;

use crate::data::Counts;
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::run_data::DataPlace;

/// What a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// How much all sources of text hold together.
    pub counts: Counts,
    /// Elements of all parameters.
    pub parameters: usize,
}

impl Beginning {
    /// Of this experiment on these data.
    pub fn of(experiment: &Experiment, place: &DataPlace) -> Self {
        let parameters = experiment.variables().parameters().iter();
        let parameters = parameters.map(|parameter| parameter.elements()).sum();
        Self { counts: place.counts.unwrap_or_default(), parameters }
    }
}

/// Goes on with the next sample of a state, however the batches before were cut.
///
/// # Errors
/// A state of which nobody can tell the next batch.
pub fn go_on(experiment: &mut Experiment, state: &mut FirstState) -> Result<(), Failure> {
    let recovery = Recovery::from_value(&state.recovery).map_err(Failure::ours)?;
    let batch = recovery.batch(state.step);
    let Some(sample) = state.cursor["samples"].as_u64() else { return Ok(()) };
    if !experiment.go_on_with(batch, sample) {
        let what = "samples of several tracks are numbered as if all steps had been cut as now";
        state.notes.push(what.to_owned());
    }
    Ok(())
}
