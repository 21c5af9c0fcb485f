//! A run that begins with a checkpoint of another one.
//!
//! Duty: the folder of a branch: the checkpoint, by hard links where the file system has them, the
//! tokenizer, what is known of the data, the log up to there, and where all that is from. The
//! configuration comes last: without it the folder is no run. Prohibition: changes nothing in the
//! run that it branches off.

use std::fs;
use std::path::{Path, PathBuf};

use octet_actors::checkpoint::manifest::MANIFEST;
use octet_actors::checkpoint::{Manifest, verify};
use octet_actors::outside::{Disk, LocalDisk};
use octet_actors::run_folder::log::{Line, for_each_line};
use octet_actors::run_folder::{replace, replace_json};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::failure::Failure;
use crate::hub;
use crate::look::{Holds, Run};
use crate::run_data;
use crate::train::LOG;

#[cfg(test)]
mod tests;

/// Where a branch is from, in its folder.
pub const LINEAGE: &str = "fork.json";
/// Files that are hashed at a time.
const READERS: usize = 2;

/// `fork.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The run that it branches off.
    pub run: PathBuf,
    /// Steps done there.
    pub step: u64,
    /// The digest of that state.
    pub digest: String,
    /// What was set.
    pub sets: Vec<String>,
}

/// A branch that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Where it is from.
    pub lineage: Lineage,
    /// Keys that decide numbers and are others than in the run, with both values.
    pub changed: Vec<(String, String, String)>,
}

/// Makes a branch of `run` at the checkpoint of a step, in a folder that is not there or empty.
/// `run` holds what was set on top of its configuration, and `sets` say it.
///
/// # Errors
/// Bad input: there is no such checkpoint, it is damaged, the run was edited, or the folder is in
/// use. A failure of the world: the disk refuses.
pub fn branch(run: &Run, step: u64, folder: &Path, sets: &[String]) -> Result<Branch, Failure> {
    let store = run.store();
    let steps = store.steps().map_err(Failure::world)?;
    if !steps.contains(&step) {
        let known: Vec<String> = steps.iter().map(u64::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let what = format!("--at: expected one of the run's checkpoints ({known}), got {step}");
        return Err(Failure::user(what));
    }
    let from = store.folder(step);
    let manifest = verify(&LocalDisk, &from, READERS).map_err(Failure::user)?;
    run.hold(&manifest, Holds::All)?;
    let taken = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if taken || folder.is_file() {
        let shown = folder.display();
        return Err(Failure::user(format!("--run: expected a new folder, but {shown} is there")));
    }
    let lineage = Lineage {
        run: std::path::absolute(&run.folder).map_err(Failure::world)?.components().collect(),
        step,
        digest: manifest.digest.clone(),
        sets: sets.to_vec(),
    };
    copy(run, &manifest, &from, folder).map_err(|error| {
        Failure::world(format!("cannot make a branch in {}: {error}", folder.display()))
    })?;
    let now = run.config.identity();
    let changed = now.iter().filter(|(key, value)| manifest.identity.get(*key) != Some(value));
    let was = |key: &String| {
        let was = manifest.identity.get(key).or(Config::assumed().get(key)).cloned();
        was.unwrap_or_else(|| "absent".to_owned())
    };
    let changed = changed.map(|(key, value)| (key.clone(), was(key), value.clone()));
    let changed: Vec<_> = changed.filter(|(_, was, now)| was != now).collect();
    let mut identity = manifest.identity.clone();
    identity.extend(now);
    run_data::store_identity(folder, &identity)?;
    replace_json(&LocalDisk, &folder.join(LINEAGE), &lineage).map_err(Failure::world)?;
    let config = run.config.to_toml();
    replace(&LocalDisk, &folder.join("config.toml"), config.as_bytes()).map_err(Failure::world)?;
    Ok(Branch { lineage, changed })
}

/// Everything but what a branch says of itself.
fn copy(run: &Run, manifest: &Manifest, from: &Path, folder: &Path) -> std::io::Result<()> {
    let name = from.file_name().unwrap_or_default();
    let checkpoint = folder.join("checkpoints").join(name);
    fs::create_dir_all(&checkpoint)?;
    let files = manifest.files.iter().map(|file| file.name.as_str());
    for file in files.chain([MANIFEST]) {
        let (from, to) = (from.join(file), checkpoint.join(file));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to)?;
        }
    }
    let tokenizer = run_data::tokenizer_folder(&run.folder);
    if tokenizer.is_dir() {
        fs::create_dir(run_data::tokenizer_folder(folder))?;
        for entry in fs::read_dir(&tokenizer)? {
            let entry = entry?;
            let to = run_data::tokenizer_folder(folder).join(entry.file_name());
            fs::copy(entry.path(), to)?;
        }
    }
    let imported = run.folder.join(hub::FOLDER);
    if imported.is_dir() {
        fs::create_dir(folder.join(hub::FOLDER))?;
        for entry in fs::read_dir(&imported)? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(hub::FOLDER).join(entry.file_name()))?;
        }
    }
    let place = run.folder.join(run_data::PLACE);
    if place.is_file() {
        fs::copy(&place, folder.join(run_data::PLACE))?;
    }
    log_until(&run.folder.join(LOG), manifest.step, &folder.join(LOG))
}

/// The log up to the last line of a step, without later steps: a run that was rolled back has done
/// some of them before, and what it did last is what the checkpoint is of.
fn log_until(from: &Path, step: u64, to: &Path) -> std::io::Result<()> {
    let (mut text, mut number, mut last, mut later) = (Vec::new(), 0u64, None, None);
    let each = |hear: &mut dyn FnMut(Line)| {
        if LocalDisk.exists(from) {
            // A line that cannot be read ends what is taken over.
            let _rest_is_lost = for_each_line(&LocalDisk, from, hear);
        }
    };
    each(&mut |line| {
        number += 1;
        match line.step() {
            Some(of) if of == step => last = Some(number),
            Some(of) if of > step => later = later.or(Some(number - 1)),
            _ => {}
        }
    });
    let (end, mut number) = (last.or(later).unwrap_or(number), 0);
    each(&mut |line| {
        number += 1;
        if number <= end && line.step().is_none_or(|of| of <= step) {
            serde_json::to_writer(&mut text, &line).expect("a line has string keys only");
            text.push(b'\n');
        }
    });
    fs::write(to, text)
}
