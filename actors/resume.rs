//! Where a run begins: the newest good state, in memory or on disk, or the first one.
//!
//! A fresh run is a resume from step 0 of an initialised state: there is one path.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use crate::checkpoint::{CheckpointError, Manifest, Store};
use crate::checkpointer::RunFacts;
use crate::contract::Workload;
use crate::snapshot::{SlotHead, SnapshotError, SnapshotLayout, SnapshotSlots};
use crate::supervisor::SavedState;
use crate::transfer::initialise;

#[cfg(test)]
mod tests;

/// Why a run cannot go on from what it finds.
#[derive(Debug, Error)]
pub enum ResumeError {
    /// Checkpoints cannot be read, or belong to other tensors.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Snapshot memory.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// There are checkpoints, and none is good.
    #[error("no checkpoint in {folder} is good: {first}; --fresh begins anew beside them")]
    NothingGood {
        /// The folder of checkpoints.
        folder: String,
        /// What is wrong with the newest.
        first: String,
    },
    /// A whole run would be given up.
    #[error(
        "no state of up to {step} steps is left to go back to, only one of {newest}: a larger \
         checkpoint.keep keeps some"
    )]
    NothingEarlier {
        /// Wanted.
        step: u64,
        /// There is.
        newest: u64,
    },
    /// The checkpoint was written under other numerics.
    #[error(
        "{key} is {now} and was {was} when the checkpoint was written, so the run would not go on \
         bit for bit; set it back, or pass --accept-new-numerics"
    )]
    Identity {
        /// What differs.
        key: String,
        /// In the checkpoint.
        was: String,
        /// Now.
        now: String,
    },
}

/// A state to begin from.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstState {
    /// The snapshot slot that holds it.
    pub slot: usize,
    /// Steps done.
    pub step: u64,
    /// Digest of the state, if somebody has computed it.
    pub digest: Option<String>,
    /// Whether a good checkpoint holds it.
    pub on_disk: bool,
    /// The newest that a good checkpoint holds: this one, or an earlier one of the same run.
    pub saved: Option<SavedState>,
    /// What decisions about bad updates depend on, as it was saved with the state.
    pub recovery: Value,
    /// Where the run stood in its data, and what it had counted; null for the first state.
    pub cursor: Value,
    /// What a person should know: damaged checkpoints that were passed over, accepted differences.
    pub notes: Vec<String>,
}

/// Finds the state to begin from and puts it into a slot.
///
/// # Errors
/// [`ResumeError`]. Damaged checkpoints are passed over as long as an older one is good.
pub fn first_state(
    workload: &dyn Workload,
    store: &Store,
    slots: &Arc<SnapshotSlots>,
    layout: &Arc<SnapshotLayout>,
    facts: &RunFacts,
    accept_new_numerics: bool,
) -> Result<FirstState, ResumeError> {
    find(workload, store, (slots, layout), facts, accept_new_numerics, u64::MAX)
}

/// As [`first_state`], among checkpoints of at most `at_most` steps.
fn find(
    workload: &dyn Workload,
    store: &Store,
    (slots, layout): (&Arc<SnapshotSlots>, &Arc<SnapshotLayout>),
    facts: &RunFacts,
    accept_new_numerics: bool,
    at_most: u64,
) -> Result<FirstState, ResumeError> {
    let mut notes = Vec::new();
    let in_memory = slots.newest_good(layout);
    notes.extend(in_memory.rejected.iter().map(|damage| format!("passed over: {damage}")));
    let search = store.find_good_at_most(at_most)?;
    notes.extend(search.damaged.iter().map(|damage| format!("passed over: {damage}")));
    let newest_on_disk = search.newest.as_ref().map(|found| found.manifest.step);
    let saved = search.newest.as_ref().map(|found| {
        let Manifest { step, digest, .. } = &found.manifest;
        SavedState { step: *step, digest: digest.clone() }
    });
    let saved_digest = saved.as_ref().map(|saved| saved.digest.clone());
    let sequence = in_memory.good.as_ref().map_or(0, |good| good.head.sequence) + 1;
    if let Some(good) = in_memory.good
        && newest_on_disk.is_none_or(|step| step <= good.head.step)
    {
        let SlotHead { step, digest, cursor, facts: left, .. } = good.head;
        // The file of the configuration, or the text, may have changed since.
        notes.extend(compare(&left.identity, facts, accept_new_numerics)?);
        let recovery = left.recovery;
        let on_disk = newest_on_disk == Some(step) && digest.is_some() && digest == saved_digest;
        let slot = good.slot;
        return Ok(FirstState { slot, step, digest, on_disk, saved, recovery, cursor, notes });
    }
    let Some(found) = search.newest else {
        if let Some(first) = search.damaged.first() {
            return Err(nothing_good(store, first));
        }
        initialise(workload, &slots.slot(0, layout));
        let (slot, step, recovery, cursor) = (0, 0, Value::Null, Value::Null);
        let (digest, on_disk) = (None, false);
        return Ok(FirstState { slot, step, digest, on_disk, saved, recovery, cursor, notes });
    };
    let was = &found.manifest;
    notes.extend(compare(&was.identity, facts, accept_new_numerics)?);
    notes.extend(differences(&was.provenance, &facts.provenance).map(|(key, was, now)| {
        format!("{key} is {now} and was {was}: numbers may differ in their last bits from here")
    }));
    // What was good a moment ago may be so no more: what counts is what was loaded.
    let loaded = store.load_good_at_most(at_most, &slots.slot(0, layout), sequence)?;
    if loaded.newest.as_ref() != Some(&found) {
        let damage = loaded.damaged.first().map(ToString::to_string);
        return Err(nothing_good(store, damage.as_deref().unwrap_or("it is gone")));
    }
    let Manifest { step, digest, recovery, cursor, .. } = found.manifest;
    let (slot, digest, on_disk) = (0, Some(digest), true);
    Ok(FirstState { slot, step, digest, on_disk, saved, recovery, cursor, notes })
}

/// The state to go back to: the newest good one of at most `step` steps. Whatever lies after, in
/// memory and on disk, is given up, so that no later start finds it.
///
/// # Errors
/// [`ResumeError`]; checkpoints are then as they were, or the last of them gone.
pub fn earlier_state(
    workload: &dyn Workload,
    store: &Store,
    slots: &Arc<SnapshotSlots>,
    layout: &Arc<SnapshotLayout>,
    facts: &RunFacts,
    step: u64,
) -> Result<FirstState, ResumeError> {
    for slot in slots.all(layout) {
        if slot.head().is_ok_and(|head| head.step > step) {
            slot.invalidate();
        }
    }
    // Its numerics are this run's: it was accepted at the start, or made since.
    let state = find(workload, store, (slots, layout), facts, true, step)?;
    let newest = store.steps()?.last().copied().unwrap_or(0);
    let lost = state.cursor.is_null() && workload.begins_elsewhere();
    if state.step == 0 && newest > 0 && (step > 0 || lost) {
        return Err(ResumeError::NothingEarlier { step, newest });
    }
    store.discard_after(step)?;
    Ok(state)
}

fn nothing_good(store: &Store, first: impl Display) -> ResumeError {
    let folder = store.root().display().to_string();
    ResumeError::NothingGood { folder, first: first.to_string() }
}

/// What differs and was accepted, in words.
fn compare(
    was: &BTreeMap<String, String>,
    facts: &RunFacts,
    accept_new_numerics: bool,
) -> Result<Vec<String>, ResumeError> {
    let mut accepted = Vec::new();
    // A state that was brought in from elsewhere, not trained by a run: there are no bits to go on.
    if was.is_empty() {
        return Ok(accepted);
    }
    let mut was = was.clone();
    for (key, value) in facts.assumed.iter().filter(|(key, _)| facts.identity.contains_key(*key)) {
        was.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, was, now) in differences(&was, &facts.identity) {
        if !accept_new_numerics {
            return Err(ResumeError::Identity { key, was, now });
        }
        accepted.push(format!("accepted: {key} is {now} and was {was}"));
    }
    Ok(accepted)
}

/// What differs: its name, and both values.
fn differences<'a>(
    was: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (String, String, String)> + 'a {
    let keys = was.keys().chain(now.keys().filter(|key| !was.contains_key(*key)));
    keys.filter_map(|key| {
        let (old, new) = (was.get(key), now.get(key));
        let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "absent".to_string());
        (old != new).then(|| (key.clone(), shown(old), shown(new)))
    })
}
