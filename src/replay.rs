//! Steps of a run done again, and held against its log: whether it would come to the same bits.
//!
//! A replay is a branch of the run in a folder of its own, which is removed again: the same main
//! path, nothing evaluated or written. Prohibition: changes nothing in the run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam::channel::Receiver;
use octet_actors::checkpoint::Manifest;
use octet_actors::outside::LocalDisk;
use octet_actors::report::StepReport;
use octet_actors::supervisor::Ending;

use crate::branch::branch;
use crate::diff::{Parting, steps};
use crate::failure::Failure;
use crate::look::Run;
use crate::train::{Job, Watchers, execute};

/// What a replay found.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Steps done in the state that it began from.
    pub from: u64,
    /// Steps done when it ended.
    pub to: u64,
    /// The first step whose loss, norm or parameters are others than in the log.
    pub parts_at: Option<u64>,
    /// Whether the state at the end is the one that the run has saved; `None` if it saved none.
    pub same_state: Option<bool>,
}

impl Replayed {
    /// Whether the run would come to the same bits.
    pub fn is_same(&self) -> bool {
        self.parts_at.is_none() && self.same_state != Some(false)
    }
}

/// Does `count` steps again, from the newest checkpoint with so many logged steps behind it.
///
/// # Errors
/// Bad input: there is no such checkpoint. Others as of training.
pub fn replay(run: &Run, count: u64, interrupts: Receiver<()>) -> Result<Replayed, Failure> {
    let logged = steps(run)?;
    let store = run.store();
    let is_logged =
        |from: &u64| (from + 1..=from.saturating_add(count)).all(|step| logged.contains_key(&step));
    let from = store.steps().map_err(Failure::world)?.into_iter().rev().find(is_logged);
    let from = from.ok_or_else(|| {
        Failure::user(format!(
            "--replay: expected a checkpoint with {count} logged steps behind it, and there is none"
        ))
    })?;
    let to = from.saturating_add(count);
    let mut run_there = run.clone();
    let config = &mut run_there.config;
    config.schedule.steps.get_or_insert(config.run.steps);
    config.run.steps = to;
    (config.evaluate.every, config.sample.every, config.checkpoint.every) = (0, 0, 0);
    config.checkpoint.memory_every = 0;
    config.tasks.iter_mut().for_each(|task| task.every = Some(0));
    config.web.address = None;
    let scratch = Beside::of(run)?;
    branch(&run_there, from, &scratch.0, &[])?;
    let job = Job {
        config: run_there.config.clone(),
        folder: scratch.0.clone(),
        fresh: false,
        accept_new_numerics: false,
        snapshots: None,
        parent: None,
        restarted: None,
    };
    let watchers = Watchers {
        preparing: Box::new(|_| {}),
        beginning: Box::new(|_| {}),
        observer: Box::new(|| Box::new(|_| {})),
        sampled: Arc::new(|_| {}),
        interrupts,
        saves: crossbeam::channel::never(),
    };
    let finished = execute(job, watchers)?;
    let interrupted = || Failure { code: crate::failure::INTERRUPTED, what: "interrupted".into() };
    match finished.ok_or_else(interrupted)?.end.ending {
        Ending::Finished => {}
        Ending::Interrupted => return Err(interrupted()),
        Ending::Failed(fault) => return Err(fault.into()),
    }
    let again = Run::open(&scratch.0, &[])?;
    let part = |log: BTreeMap<u64, StepReport>| -> BTreeMap<u64, StepReport> {
        log.into_iter().filter(|(step, _)| (from + 1..=to).contains(step)).collect()
    };
    let parting = Parting::find(&part(logged), &part(steps(&again)?));
    let digest = |run: &Run| Manifest::read(&LocalDisk, &run.store().folder(to)).ok();
    let same_state = digest(run).zip(digest(&again)).map(|(was, again)| was.digest == again.digest);
    Ok(Replayed { from, to, parts_at: parting.first(), same_state })
}

/// A folder beside a run's, so that links can be made between them; it is removed at the end.
struct Beside(PathBuf);

impl Beside {
    fn of(run: &Run) -> Result<Self, Failure> {
        let folder = std::path::absolute(&run.folder).map_err(Failure::world)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self(folder.with_file_name(format!("{name}.replay-{}", std::process::id()))))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What is left is seen by its name.
        let _left = fs::remove_dir_all(&self.0);
    }
}
