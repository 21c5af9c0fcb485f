//! Where a run begins: with which values, with the next sample of its state, and with how much text
//! and how large a model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use octet_actors::checkpoint::{About, Store};
use octet_actors::checkpointer::RunFacts;
use octet_actors::contract::Workload;
use octet_actors::outside::{Clock, SystemClock};
use octet_actors::recovery::Recovery;
use octet_actors::resume::FirstState;
use octet_actors::snapshot::{SlotFacts, SnapshotLayout, SnapshotSlots};
use octet_actors::supervisor::SavedState;
use serde_json::json;

use crate::data::{Counts, Tokenizer};
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::look::{self, Run};
use crate::run_data::{self, DataPlace};

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

/// Takes the first values of models from the runs that they begin as, which have this tokenizer;
/// not if this run has states already.
///
/// # Errors
/// Bad input: a run that is not there, or has another tokenizer or model.
pub fn begun(
    experiment: Experiment,
    states: Option<&Store>,
    tokenizer: Option<&Tokenizer>,
) -> Result<Experiment, Failure> {
    if states.is_some_and(|states| states.steps().is_ok_and(|steps| !steps.is_empty())) {
        return Ok(experiment);
    }
    let mut values = BTreeMap::new();
    for (name, part) in &experiment.config().model.parts {
        let used = experiment.composition().parts.get(name).is_some();
        let Some(run) = part.from.as_ref().filter(|_| used) else { continue };
        let refuse = |what: String| Failure::user(format!("model.parts.{name}.from: {what}"));
        let run = Run::open(Path::new(run), &[]).map_err(|failure| refuse(failure.what))?;
        let theirs = run_data::tokenizer(&run.folder)?.digest();
        if tokenizer.map(Tokenizer::digest) != Some(theirs) {
            let run = run.folder.display();
            return Err(refuse(format!("expected a run of the same tokenizer, got {run}")));
        }
        let parameters = look::parameters(&run).map_err(|failure| refuse(failure.what))?;
        values.extend(parameters.into_iter().map(|(own, v)| (format!("{name}.{own}"), v)));
    }
    experiment.with_first_values(values).map_err(|what| {
        Failure::user(format!("model.parts: expected models as in the runs they begin as: {what}"))
    })
}

/// Saves a first state whose values came from elsewhere, so that a roll-back to it finds them
/// whatever becomes of where they came from.
///
/// # Errors
/// A failure of the world: the disk refuses.
pub fn save_first(
    mut state: FirstState,
    experiment: &Experiment,
    store: &Store,
    (slots, layout): (&Arc<SnapshotSlots>, &Arc<SnapshotLayout>),
    facts: &RunFacts,
) -> Result<FirstState, Failure> {
    if !(state.cursor.is_null() && experiment.begins_elsewhere()) {
        return Ok(state);
    }
    let slot = slots.slot(state.slot, layout);
    let cursor = json!({ "step": 0, "samples": 0, "tokens": 0 });
    let identity = facts.identity.clone();
    let beside = SlotFacts { identity: identity.clone(), ..SlotFacts::default() };
    slot.commit_with(0, &cursor, &beside, 1)?;
    let about = About {
        config_digest: facts.config_digest.clone(),
        identity,
        provenance: facts.provenance.clone(),
        parent: None,
        saved_unix_ms: SystemClock::new().unix_ms(),
    };
    let digest = store.save(&slot.view()?, &about).map_err(Failure::world)?.digest;
    state.saved = Some(SavedState { step: 0, digest: digest.clone() });
    (state.digest, state.on_disk, state.cursor) = (Some(digest), true, cursor);
    Ok(state)
}
