//! The held-out tasks of a run: `[[tasks]]`, or every held-out split under every objective.

use octet_actors::contract::EvaluationTask;

use crate::composition::Composition;
use crate::config::Config;
use crate::data::DataError;
use crate::objectives::Inputs;
use crate::text::{HeldOut, Text};

/// What fills the records of a task.
pub(super) struct Task {
    /// By number of the sample.
    pub(super) inputs: Box<dyn Inputs>,
    /// Samples that are measured.
    pub(super) samples: u64,
}

/// A track, which of its held-out splits, and how.
struct Wanted {
    name: String,
    track: usize,
    split: usize,
    every: Option<u64>,
    batches: Option<u64>,
}

/// All tasks, with what fills their records.
///
/// # Errors
/// As [`crate::objectives::Objective::inputs`].
pub(super) fn all(
    config: &Config,
    composition: &Composition,
    text: &Text,
) -> Result<Vec<(EvaluationTask, Task)>, DataError> {
    let tracks = config.tracks();
    let make = |wanted: Wanted| {
        let Wanted { name, track, split, every, batches } = wanted;
        let micro = config.batch.micro as u64;
        let batches = batches.or(config.evaluate.batches);
        let most = batches.map_or(u64::MAX, |batches| batches.saturating_mul(micro));
        let source = text.held_out_samples(track, split, most);
        let samples = source.samples.len().unwrap_or(0);
        let held_out = &composition.tracks[track].built.held_out;
        let task = EvaluationTask {
            name,
            program: held_out.program,
            parts: samples.div_ceil(micro),
            every,
            sums: held_out.sums.clone(),
            reading: held_out.reading.clone(),
        };
        let inputs = tracks[track].objective.get().inputs(source)?;
        Ok((task, Task { inputs, samples }))
    };
    wanted(config, text).into_iter().map(make).collect()
}

fn wanted(config: &Config, text: &Text) -> Vec<Wanted> {
    let tracks = config.tracks();
    let splits = |track: usize| text.held_out(track).iter().enumerate();
    if config.tasks.is_empty() {
        let named = |track: usize, (split, held_out): (usize, &HeldOut)| {
            let parts = ["validation", &tracks[track].name, &held_out.name];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Wanted { name: parts.join("/"), track, split, every: None, batches: None }
        };
        let tracks = 0..tracks.len();
        return tracks.flat_map(|track| splits(track).map(move |s| named(track, s))).collect();
    }
    let mut all = Vec::new();
    for task in &config.tasks {
        let track = match &task.track {
            Some(name) => tracks.iter().position(|track| track.name == *name).unwrap_or(0),
            None => 0,
        };
        let only = |held_out: &HeldOut| task.data.as_ref().is_none_or(|of| *of == held_out.name);
        let chosen: Vec<_> = splits(track).filter(|(_, held_out)| only(held_out)).collect();
        for &(split, held_out) in &chosen {
            let name = match chosen.len() {
                1 => task.name.clone(),
                _ => format!("{}/{}", task.name, held_out.name),
            };
            let (every, batches) = (task.every, task.batches);
            all.push(Wanted { name, track, split, every, batches });
        }
    }
    all
}
