//! Where a run begins: the newest good state, in memory or on disk, or the first one.
//!
//! A fresh run is a resume from step 0 of an initialised state: there is one path.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use thiserror::Error;

use crate::checkpoint::{CheckpointError, Store};
use crate::checkpointer::RunFacts;
use crate::contract::Workload;
use crate::snapshot::{SlotHead, SnapshotError, SnapshotLayout, SnapshotSlots};
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
    let mut notes = Vec::new();
    let in_memory = slots.newest_good(layout);
    notes.extend(in_memory.rejected.iter().map(|damage| format!("passed over: {damage}")));
    let search = store.find_newest_good()?;
    notes.extend(search.damaged.iter().map(|damage| format!("passed over: {damage}")));
    // The checkpoints of a run vouch for what its engine left in memory: the file of the
    // configuration, or the text, may have changed since.
    if let Some(found) = &search.newest {
        for (key, was, now) in differences(&found.manifest.identity, facts) {
            if !accept_new_numerics {
                return Err(ResumeError::Identity { key, was, now });
            }
            notes.push(format!("accepted: {key} is {now} and was {was}"));
        }
    }
    let newest_on_disk = search.newest.as_ref().map(|found| found.manifest.step);
    let saved_digest = search.newest.as_ref().map(|found| found.manifest.digest.clone());
    let sequence = in_memory.good.as_ref().map_or(0, |good| good.head.sequence) + 1;
    if let Some(good) = in_memory.good
        && newest_on_disk.is_none_or(|step| step <= good.head.step)
    {
        let SlotHead { step, digest, .. } = good.head;
        let on_disk = newest_on_disk == Some(step) && digest.is_some() && digest == saved_digest;
        return Ok(FirstState { slot: good.slot, step, digest, on_disk, notes });
    }
    let Some(found) = search.newest else {
        if let Some(first) = search.damaged.first() {
            return Err(nothing_good(store, first));
        }
        initialise(workload, &slots.slot(0, layout));
        return Ok(FirstState { slot: 0, step: 0, digest: None, on_disk: false, notes });
    };
    // What was good a moment ago may be so no more: what counts is what was loaded.
    let loaded = store.load_newest_good(&slots.slot(0, layout), sequence)?;
    if loaded.newest.as_ref() != Some(&found) {
        let damage = loaded.damaged.first().map(ToString::to_string);
        return Err(nothing_good(store, damage.as_deref().unwrap_or("it is gone")));
    }
    let digest = Some(found.manifest.digest);
    Ok(FirstState { slot: 0, step: found.manifest.step, digest, on_disk: true, notes })
}

fn nothing_good(store: &Store, first: impl Display) -> ResumeError {
    let folder = store.root().display().to_string();
    ResumeError::NothingGood { folder, first: first.to_string() }
}

fn differences(was: &BTreeMap<String, String>, facts: &RunFacts) -> Vec<(String, String, String)> {
    let keys = was.keys().chain(facts.identity.keys().filter(|key| !was.contains_key(*key)));
    let absent = || "absent".to_string();
    keys.filter_map(|key| {
        let (old, new) = (was.get(key), facts.identity.get(key));
        let shown = |value: Option<&String>| value.cloned().unwrap_or_else(absent);
        (old != new).then(|| (key.clone(), shown(old), shown(new)))
    })
    .collect()
}
