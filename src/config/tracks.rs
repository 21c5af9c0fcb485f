//! `[[tracks]]` and `[[tasks]]`: what a run trains at once, and what it measures of it.
//!
//! Duty: names, weights and which model, objective and data belong together. A file without them
//! has one track without a name: `[model]` under `[objective]` on all data, and a task for each
//! held-out split. Prohibition: knows no kind of objective.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::error::{Invalid, require};
use super::sections::expected;
use super::{BatchConfig, Config};
use crate::data::Tokenizer;
use crate::models::parts::MAIN;
use crate::objectives::ObjectiveConfig;

#[cfg(test)]
mod tests;

/// `[[tracks]]`: an objective over a stream of samples.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackConfig {
    /// Its name in logs and tasks: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// What its loss is multiplied by, as a number or over the steps. A step in which it is 0
    /// leaves the track out, and its samples wait.
    pub weight: Weight,
    /// `"model"` for `[model]`, or one of `[model.parts]`.
    pub model: String,
    /// What the model is trained for.
    pub objective: ObjectiveConfig,
    /// Names of the `data.sources` that it draws from; by default all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
}

impl Default for TrackConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            weight: Weight::default(),
            model: MAIN.to_owned(),
            objective: ObjectiveConfig::default(),
            data: Vec::new(),
        }
    }
}

/// `[[tasks]]`: the objective of a track on held-out data.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskConfig {
    /// Its name in reports.
    pub name: String,
    /// The track; by default the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<String>,
    /// The held-out source; by default all of the track, each a task of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Steps between two evaluations, with one more at the end; by default `evaluate.every`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// At most so many micro-batches; by default `evaluate.batches`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<u64>,
}

/// A number for every step.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "expected a number of at least 0, or pairs of a step and such a number"
)]
pub enum Weight {
    /// The same for all.
    Constant(f64),
    /// Straight lines between steps, and the first and last value before and after them.
    Points(Vec<(u64, f64)>),
}

impl Default for Weight {
    fn default() -> Self {
        Self::Constant(1.0)
    }
}

/// Most names of a run's tracks, and of its tasks.
const LIST_MAX: usize = 64;

impl Weight {
    fn points(&self) -> Cow<'_, [(u64, f64)]> {
        match self {
            Self::Constant(weight) => Cow::Owned(vec![(0, *weight)]),
            Self::Points(points) => Cow::Borrowed(points),
        }
    }

    /// The weight of a step.
    pub fn at(&self, step: u64) -> f64 {
        let points = self.points();
        let after = points.partition_point(|&(at, _)| at <= step);
        let before = after.checked_sub(1).and_then(|before| points.get(before));
        match (before, points.get(after)) {
            (Some(&(from, low)), Some(&(to, high))) => {
                low + (high - low) * (step - from) as f64 / (to - from) as f64
            }
            (Some(&(_, weight)), None) | (None, Some(&(_, weight))) => weight,
            (None, None) => 0.0,
        }
    }

    /// The stretches of steps whose weight is 0, from a step up to another one.
    pub fn zeros(&self) -> Vec<(u64, u64)> {
        let points = self.points();
        let mut zeros: Vec<(u64, u64)> = Vec::new();
        for (i, &(step, weight)) in points.iter().enumerate() {
            if weight != 0.0 {
                continue;
            }
            let start = if i == 0 { 0 } else { step };
            let end = match points.get(i + 1) {
                None => u64::MAX,
                Some(&(next, 0.0)) => next,
                Some(_) => step + 1,
            };
            match zeros.last_mut() {
                Some(last) if last.1 >= start => last.1 = end.max(last.1),
                _ => zeros.push((start, end)),
            }
        }
        zeros
    }

    fn validate(&self, key: &str) -> Result<(), Invalid> {
        let points = self.points();
        let usable = |weight: f64| (0.0..f64::INFINITY).contains(&weight);
        let numbers = !points.is_empty() && points.iter().all(|&(_, weight)| usable(weight));
        let wanted = "a number of at least 0, or pairs of a step and such a number";
        require(numbers, key, || expected(wanted, self.shown()))?;
        let grow = points.windows(2).all(|pair| pair[0].0 < pair[1].0);
        require(grow, key, || expected("steps that grow", self.shown()))
    }

    /// As in files.
    pub fn shown(&self) -> String {
        match self {
            Self::Constant(weight) => weight.to_string(),
            Self::Points(points) => {
                let pair = |(step, weight): &(u64, f64)| format!("[{step}, {weight}]");
                format!("[{}]", points.iter().map(pair).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Samples of all steps before this one that a track takes which these steps leave out.
pub fn samples_before(zeros: &[(u64, u64)], batch: &BatchConfig, step: u64) -> u64 {
    let samples = |at: u64| batch.samples_before(at.min(step));
    let left_out: u64 = zeros.iter().map(|&(from, to)| samples(to) - samples(from)).sum();
    samples(step) - left_out
}

impl Config {
    /// What is trained: `[[tracks]]`, or the one that a file without them is.
    pub fn tracks(&self) -> Cow<'_, [TrackConfig]> {
        if self.tracks.is_empty() {
            let objective = self.objective.clone();
            return Cow::Owned(vec![TrackConfig { objective, ..TrackConfig::default() }]);
        }
        Cow::Borrowed(&self.tracks)
    }

    /// Samples of every track in all steps before this one.
    pub fn samples_before(&self, step: u64) -> Vec<u64> {
        let of = |track: &TrackConfig| samples_before(&track.weight.zeros(), &self.batch, step);
        self.tracks().iter().map(of).collect()
    }

    /// Whether a model learns to go on with a text.
    pub fn writes(&self) -> bool {
        self.tracks().iter().any(|track| track.objective.get().writes().is_some())
    }

    /// The special tokens that objectives need, by name.
    pub fn special_tokens(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = Vec::new();
        for track in self.tracks().iter() {
            let needed = track.objective.get().special_tokens().iter();
            names.extend(needed.filter(|name| !names.contains(name)).copied().collect::<Vec<_>>());
        }
        names
    }

    /// Those of them that a tokenizer has not: they stand behind its tokens, in this order.
    pub fn added_tokens(&self, tokenizer: &Tokenizer) -> Vec<&'static str> {
        let mut names = self.special_tokens();
        names.retain(|name| tokenizer.id_of(name).is_none());
        names
    }

    /// The special tokens that objectives need, with their numbers.
    pub fn special_ids(&self, tokenizer: &Tokenizer) -> Vec<(&'static str, i32)> {
        let mut behind = tokenizer.vocabulary() as i32..;
        let mut id = |name| tokenizer.id_of(name).map(|id| id as i32).or_else(|| behind.next());
        let names = self.special_tokens().into_iter();
        names.map(|name| (name, id(name).expect("numbers do not end"))).collect()
    }

    /// Rows of the embedding for a tokenizer.
    pub fn padded_vocabulary(&self, tokenizer: &Tokenizer) -> usize {
        self.model.padded_vocabulary(tokenizer.vocabulary() + self.added_tokens(tokenizer).len())
    }

    pub(super) fn validate_tracks(&self) -> Result<(), Invalid> {
        if self.tracks.is_empty() {
            self.objective.get().validate()?;
            return self.check_parts("objective", &self.tracks()[0]);
        }
        let plain = self.objective == ObjectiveConfig::default();
        let problem = || "expected none beside [[tracks]], each of which has its own".to_owned();
        require(plain, "objective.kind", problem)?;
        check_names("tracks", self.tracks.iter().map(|track| track.name.as_str()))?;
        for (number, track) in self.tracks.iter().enumerate() {
            let key = format!("tracks[{number}]");
            track.weight.validate(&format!("{key}.weight"))?;
            let objective = format!("{key}.objective");
            let checked = track.objective.get().validate();
            checked.map_err(|invalid| invalid.within("objective", &objective))?;
            self.check_parts(&objective, track)?;
            let known = self.model.family_of(&track.model).is_some();
            let wanted = || expected("\"model\" or one of [model.parts]", quoted(&track.model));
            require(known, format!("{key}.model"), wanted)?;
            for name in &track.data {
                self.check_source(format!("{key}.data"), name)?;
            }
        }
        match idle(&self.tracks, self.run.steps) {
            None => Ok(()),
            Some(step) => {
                let problem = format!("expected a track with a weight above 0 at step {step}");
                Err(Invalid::new("tracks[0].weight", problem))
            }
        }
    }

    /// Refuses an objective that names a model that is not there.
    fn check_parts(&self, key: &str, track: &TrackConfig) -> Result<(), Invalid> {
        for name in track.objective.get().parts() {
            let known = self.model.family_of(name).is_some();
            let wanted = || expected("models that are one of [model.parts]", quoted(name));
            require(known, key, wanted)?;
        }
        Ok(())
    }

    fn check_source(&self, key: String, name: &str) -> Result<(), Invalid> {
        let known = self.data.sources.iter().any(|source| source.name == name);
        require(known, key, || expected("the name of one of data.sources", quoted(name)))
    }

    pub(super) fn validate_tasks(&self) -> Result<(), Invalid> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        check_names("tasks", self.tasks.iter().map(|task| task.name.as_str()))?;
        for (number, task) in self.tasks.iter().enumerate() {
            let key = |name: &str| format!("tasks[{number}].{name}");
            let tracks = self.tracks();
            match &task.track {
                Some(name) => {
                    let known = tracks.iter().any(|track| track.name == *name);
                    require(known, key("track"), || expected("one of [[tracks]]", quoted(name)))?;
                }
                None => {
                    let problem = || "expected the name of one of [[tracks]]".to_owned();
                    require(tracks.len() == 1, key("track"), problem)?;
                }
            }
            if let Some(source) = &task.data {
                self.check_source(key("data"), source)?;
            }
            require(task.batches != Some(0), key("batches"), || expected("at least 1", 0))?;
        }
        Ok(())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// The first step below `steps` in which every track has a weight of 0.
fn idle(tracks: &[TrackConfig], steps: u64) -> Option<u64> {
    let zeros: Vec<Vec<(u64, u64)>> = tracks.iter().map(|track| track.weight.zeros()).collect();
    let mut starts: Vec<u64> = zeros.iter().flatten().map(|zero| zero.0).collect();
    starts.sort_unstable();
    let all = |step: u64| zeros.iter().all(|z| z.iter().any(|&(a, b)| (a..b).contains(&step)));
    starts.into_iter().find(|&step| step < steps && all(step))
}

fn check_names<'a>(
    list: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Invalid> {
    let count = names.clone().count();
    require(count <= LIST_MAX, list, || expected(&format!("at most {LIST_MAX}"), count))?;
    for (number, name) in names.clone().enumerate() {
        let key = format!("{list}[{number}].name");
        let letter = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
        let usable = !name.is_empty() && name.chars().all(letter);
        let wanted = "a name of lower-case letters, digits, - and _";
        require(usable, key.clone(), || expected(wanted, quoted(name)))?;
        let once = names.clone().take(number).all(|other| other != name);
        require(once, key, || format!("expected different names, got \"{name}\" twice"))?;
    }
    Ok(())
}
