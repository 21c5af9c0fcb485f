//! Which checkpoints stay, and what a crash left behind.
//!
//! A folder is renamed, and the new name made durable, before it is removed: one that is half gone
//! never has a checkpoint's name, whatever a power failure keeps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::{CheckpointError, Store, folder_name, folder_step};
use crate::run_folder::log::{Line, for_each_line};

impl Store {
    /// Clears what a crash left: removes temporary folders, and puts a checkpoint back that was
    /// being replaced. Comes first at every start, before any search. Returns the names it removed.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`].
    pub fn recover(&self) -> Result<Vec<String>, CheckpointError> {
        let mut removed = Vec::new();
        if !self.disk.exists(&self.root) {
            return Ok(removed);
        }
        for name in self.disk.list(&self.root)? {
            let put_aside = name.strip_prefix('.').and_then(|n| n.strip_suffix(".old"));
            if let Some(folder) = put_aside.filter(|n| folder_step(n).is_some()) {
                if !self.disk.exists(&self.root.join(folder)) {
                    self.disk.rename(&self.root.join(&name), &self.root.join(folder))?;
                    continue;
                }
            } else if !(name.starts_with(".step-") && name.ends_with(".tmp")) {
                continue;
            }
            removed.push(name);
        }
        // The replacement keeps its name before what it replaced is lost.
        self.disk.sync_folder(&self.root)?;
        for name in &removed {
            self.disk.remove_dir_all(&self.root.join(name))?;
        }
        Ok(removed)
    }

    /// Removes what [`super::StoreSettings`] does not keep. `newest_good`, the step that was just
    /// saved or loaded, always stays; so does the newest of up to `back_to` steps, from which a
    /// roll-back would start; so does step 0, whose values came from elsewhere and cannot be
    /// drawn again; so do damaged ones, for somebody to look at, which do not count among
    /// the last. Returns the steps it removed.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`].
    pub fn retain(&self, newest_good: u64, back_to: u64) -> Result<Vec<u64>, CheckpointError> {
        let every = self.settings.keep_every;
        let whole: Vec<u64> =
            self.steps()?.into_iter().rev().filter(|s| self.looks_whole(*s)).collect();
        let way_back = whole.iter().copied().find(|step| *step <= back_to);
        let best = self.best(&whole);
        let old = whole.into_iter().skip(self.settings.keep_last.max(1));
        let stays = |step: &u64| {
            *step == newest_good || Some(*step) == way_back || *step == 0 || best.contains(step)
        };
        let removable = |step: &u64| !stays(step) && (every == 0 || !step.is_multiple_of(every));
        let removed: Vec<u64> = old.filter(removable).collect();
        self.remove(&removed)?;
        Ok(removed)
    }

    /// Of these steps, those with the smallest losses of the task that the log names first. A step
    /// that was not evaluated, or whose evaluation is not logged yet, is none of them.
    fn best(&self, steps: &[u64]) -> Vec<u64> {
        let (mut task, mut losses) = (None, BTreeMap::new());
        let count = self.settings.keep_best;
        let Some(log) = self.log.as_ref().filter(|log| count > 0 && self.disk.exists(log)) else {
            return Vec::new();
        };
        // What cannot be read is telemetry's to report; what stands before it counts.
        let _reported = for_each_line(&*self.disk, log, |line| {
            let Line::Evaluate(report) = line else { return };
            if *task.get_or_insert_with(|| report.task.clone()) == report.task {
                losses.insert(report.step, report.loss);
            }
        });
        let loss = |step: &u64| losses.get(step).copied().filter(|loss| loss.is_finite());
        let mut known: Vec<(f64, u64)> =
            steps.iter().filter_map(|step| Some((loss(step)?, *step))).collect();
        // Of equal ones the later.
        known.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        known.into_iter().take(count).map(|(_, step)| step).collect()
    }

    /// Removes the checkpoints after `step`: a roll-back gives up that future, and a later start
    /// must not find it. Returns the steps it removed.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`].
    pub fn discard_after(&self, step: u64) -> Result<Vec<u64>, CheckpointError> {
        let removed: Vec<u64> = self.steps()?.into_iter().filter(|s| *s > step).collect();
        self.remove(&removed)?;
        Ok(removed)
    }

    /// Puts the checkpoints after `step` aside, under names that no search looks at: a run that
    /// goes on from `step`, since they are damaged, makes another future, and no later start may
    /// find this one. Nothing is lost; a person decides. Returns where they are.
    ///
    /// # Errors
    /// [`CheckpointError::Disk`].
    pub fn set_aside_after(&self, step: u64) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut moved = Vec::new();
        for step in self.steps()?.into_iter().filter(|s| *s > step) {
            let name = |n: usize| self.root.join(format!("damaged-{n}-{}", folder_name(step)));
            let aside = (1..).map(name).find(|path| !self.disk.exists(path));
            let aside = aside.expect("a free number exists");
            self.disk.rename(&self.folder(step), &aside)?;
            moved.push(aside);
        }
        if !moved.is_empty() {
            self.disk.sync_folder(&self.root)?;
        }
        Ok(moved)
    }

    /// The manifest is right and the files have their sizes: no more, so that it costs no reading.
    fn looks_whole(&self, step: u64) -> bool {
        let folder = self.folder(step);
        Manifest::read(&*self.disk, &folder).is_ok_and(|manifest| {
            let size = |name: &str| self.disk.size(&folder.join(name)).ok();
            manifest.files.iter().all(|file| size(&file.name) == Some(file.bytes))
        })
    }

    fn remove(&self, steps: &[u64]) -> Result<(), CheckpointError> {
        if steps.is_empty() {
            return Ok(());
        }
        let aside = |step| self.root.join(format!(".{}.gone.tmp", folder_name(step)));
        for &step in steps {
            if self.disk.exists(&aside(step)) {
                self.disk.remove_dir_all(&aside(step))?;
            }
            self.disk.rename(&self.folder(step), &aside(step))?;
        }
        self.disk.sync_folder(&self.root)?;
        for &step in steps {
            self.disk.remove_dir_all(&aside(step))?;
        }
        Ok(())
    }
}
