//! What lies in a run folder against what its checkpoints were written with.

use octet_actors::checkpoint::Manifest;
use octet_actors::outside::LocalDisk;

use super::Run;
use crate::config::Config;
use crate::facts::{Meaning, TOKENIZER_FACT, other_meanings};
use crate::failure::Failure;
use crate::run_data::{self, tokenizer_folder};

/// Which keys of a configuration must be what a checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Those that decide what a model computes.
    Computed,
    /// All that decide the numbers of a run.
    All,
}

impl Holds {
    fn key(self, key: &str) -> bool {
        let (section, _) = key.split_once('.').unwrap_or(("", ""));
        let computes = matches!(section, "model" | "objective" | "data")
            || matches!(key, "batch.sequence_length" | "tracks");
        self == Self::All || computes
    }
}

impl Run {
    /// As [`Self::hold`], against the newest checkpoint; without one there is nothing to hold
    /// against.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub fn hold_against_newest(&self, holds: Holds) -> Result<Vec<String>, Failure> {
        let store = self.store();
        let steps = store.steps().map_err(Failure::world)?;
        let manifest = |step| Manifest::read(&LocalDisk, &store.folder(step)).ok();
        let newest = steps.into_iter().rev().find_map(manifest);
        newest.map_or(Ok(Vec::new()), |newest| self.hold(&newest, holds))
    }

    /// What lies in the folder is what this checkpoint was written with, or what the run has gone
    /// on with since, of which it gives a note each: a file that somebody has edited is named, and
    /// not believed.
    ///
    /// # Errors
    /// Bad input: the first difference, by file, line and key.
    pub fn hold(&self, manifest: &Manifest, holds: Holds) -> Result<Vec<String>, Failure> {
        let (step, was) = (manifest.step, &manifest.identity);
        let mut notes = Vec::new();
        // A state that was brought in from elsewhere says nothing of a configuration.
        if was.is_empty() {
            return Ok(notes);
        }
        let (config, origins) = Config::load_located(&self.folder.join("config.toml"), &[])?;
        let (now, assumed) = (config.identity(), Config::assumed());
        let since = run_data::identity(&self.folder);
        let is_since = |key: &str, value: Option<&String>| {
            since.as_ref().is_some_and(|since| value.is_some() && since.get(key) == value)
        };
        let note = |key: &str, was: &str, now: &str| {
            format!(
                "{key}: {was} when the checkpoint of step {step} was written, and {now} since the \
                 run went on with --accept-new-numerics or as a branch"
            )
        };
        // Facts are named in words.
        let is_key = |key: &&String| !key.contains(' ') && (key.contains('.') || *key == "tracks");
        let gone = was.keys().filter(is_key).filter(|key| !now.contains_key(*key));
        for key in now.keys().chain(gone) {
            let (value, was) = (now.get(key), was.get(key).or(assumed.get(key)));
            if !holds.key(key) || value == was {
                continue;
            }
            let gone_on = is_since(key, value);
            let [was, now] = [was, value].map(|value| value.map_or("absent", String::as_str));
            if gone_on {
                notes.push(note(key, was, now));
                continue;
            }
            return Err(origins.locate(Failure::user(format!(
                "{key}: expected {was}, with which the checkpoint of step {step} was written, got \
                 {now}; what a run is like does not change by its config.toml"
            ))));
        }
        let folder = tokenizer_folder(&self.folder);
        if !folder.is_dir() {
            return Ok(notes);
        }
        let tokenizer = run_data::tokenizer(&self.folder)?;
        let there = run_data::digest_of(&tokenizer);
        let trained = was.get(TOKENIZER_FACT);
        if trained.is_some_and(|trained| *trained != there)
            && !is_since(TOKENIZER_FACT, Some(&there))
        {
            return Err(Failure::user(format!(
                "{}: expected the tokenizer with which the checkpoint of step {step} was written, \
                 but a file in it was changed",
                folder.display()
            )));
        }
        for (Meaning { name, now, .. }, was) in other_meanings(was, &config, &tokenizer) {
            if !is_since(name, Some(&now)) {
                return Err(Failure::user(format!(
                    "{}: {name} was \"{was}\" in the build that wrote the checkpoint of step \
                     {step}, and is \"{now}\" in this one; octet train goes on with it if \
                     --accept-new-numerics is given",
                    self.folder.display()
                )));
            }
            notes.push(note(name, &was, &now));
        }
        Ok(notes)
    }
}
