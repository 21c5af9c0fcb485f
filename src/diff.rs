//! Where two runs part: the first step, and the buckets whose fingerprints differ then, or at the
//! first step from there on for which both have recorded them.
//!
//! Compares what two run folders say: configurations, data, logs, checkpoints. Prohibition: reads
//! no tensors and runs nothing.

use std::collections::BTreeMap;

use octet_actors::checkpoint::Manifest;
use octet_actors::outside::{Disk, LocalDisk};
use octet_actors::report::StepReport;
use octet_actors::run_folder::log::{BucketLine, Line, for_each_line};
use octet_kernels::graph::Layout;
use serde::Serialize;
use toml::{Table, Value};

use crate::composition::Composition;
use crate::config::Config;
use crate::facts::DATA_FACT;
use crate::failure::Failure;
use crate::inspect::checkpoints;
use crate::look::{Holds, Run};
use crate::models::ModelSize;
use crate::run_data::DataPlace;
use crate::train::{FINGERPRINTS, LOG};

#[cfg(test)]
mod tests;

/// Two runs compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// They part: a step or a checkpoint that both have is not the same.
    pub parts: bool,
    /// Steps of the logs.
    pub steps: [u64; 2],
    /// Steps that both have, with equal losses and fingerprints up to where they part.
    pub equal_steps: u64,
    /// The first step whose loss or norm differs.
    pub loss: Option<LossDifference>,
    /// By task, the first evaluation that both have and that differs.
    pub tasks: Vec<TaskDifference>,
    /// The first step whose fingerprints differ.
    pub fingerprint: Option<BucketDifference>,
    /// Keys of the configuration that differ, with both values.
    pub config: Vec<KeyDifference>,
    /// The configurations give the same numbers.
    pub same_numbers: bool,
    /// Both were trained on the same data; `None` if one does not say.
    pub same_data: Option<bool>,
    /// The first checkpoint that both have and that differs.
    pub checkpoint: Option<u64>,
    /// Steps and digests of the newest checkpoints.
    pub newest: [Option<(u64, String)>; 2],
}

/// A loss that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossDifference {
    /// Steps done.
    pub step: u64,
    /// Both losses.
    pub loss: [f64; 2],
    /// Both gradient norms.
    pub grad_norm: [f64; 2],
    /// Of several tracks those whose losses differ in that step, or that only one of both has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tracks: Vec<String>,
}

/// An evaluation that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskDifference {
    /// Name of the task.
    pub task: String,
    /// Steps done.
    pub step: u64,
    /// Both losses.
    pub loss: [f64; 2],
}

/// Fingerprints that differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BucketDifference {
    /// Steps done.
    pub step: u64,
    /// The first step from there on for which both have recorded buckets that differ.
    pub recorded: Option<u64>,
    /// The buckets that differ then, with their parameters.
    pub buckets: Vec<Bucket>,
}

/// A bucket of the flat layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Its number.
    pub bucket: usize,
    /// Names of its parameters.
    pub parameters: Vec<String>,
}

/// A key of the configuration that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyDifference {
    /// `section.key`.
    pub key: String,
    /// Both values as TOML; `None` where it is not given.
    pub values: [Option<String>; 2],
}

/// Compares two runs.
///
/// # Errors
/// Bad input: one of them is no run, its configuration was edited, or a log cannot be read.
pub fn diff(a: &Run, b: &Run) -> Result<Difference, Failure> {
    for run in [a, b] {
        run.hold_against_newest(Holds::All)?;
    }
    let [(log_a, tasks_a), (log_b, tasks_b)] = [read(a)?, read(b)?];
    let logs = [log_a, log_b];
    let last = |log: &BTreeMap<u64, StepReport>| log.keys().next_back().copied().unwrap_or(0);
    let parting = Parting::find(&logs[0], &logs[1]);
    let ((digests_a, data_a), (digests_b, data_b)) = (digests(a)?, digests(b)?);
    let checkpoint = first_difference(&digests_a, &digests_b);
    let names = names(&a.config);
    let records = [buckets(a)?, buckets(b)?];
    let fingerprint = parting.fingerprint.map(|step| {
        let named = |bucket: usize| Bucket {
            bucket,
            parameters: names.get(bucket).cloned().unwrap_or_default(),
        };
        let (recorded, numbers) = other_buckets(&records[0], &records[1], step).unzip();
        let buckets = numbers.unwrap_or_default().into_iter().map(named).collect();
        BucketDifference { step, recorded, buckets }
    });
    let data = data_a.or_else(|| place(a)).zip(data_b.or_else(|| place(b)));
    let newest = [&digests_a, &digests_b]
        .map(|of| of.last_key_value().map(|(&step, digest)| (step, digest.clone())));
    Ok(Difference {
        parts: parting.loss.is_some() || fingerprint.is_some() || checkpoint.is_some(),
        steps: [last(&logs[0]), last(&logs[1])],
        equal_steps: parting.equal,
        loss: parting.loss,
        tasks: differing(&tasks_a, &tasks_b),
        fingerprint,
        config: keys(&a.config, &b.config),
        same_numbers: a.config.digest() == b.config.digest(),
        same_data: data.map(|(a, b)| a == b),
        checkpoint,
        newest,
    })
}

/// Losses of evaluations, by task and step.
type Tasks = BTreeMap<(String, u64), f64>;

/// Steps of a log by number, and its evaluations; what is repeated counts as it was done last.
fn read(run: &Run) -> Result<(BTreeMap<u64, StepReport>, Tasks), Failure> {
    let (path, mut steps, mut tasks) = (run.folder.join(LOG), BTreeMap::new(), Tasks::new());
    if LocalDisk.exists(&path) {
        for_each_line(&LocalDisk, &path, |line| match line {
            Line::Step(report) => {
                steps.insert(report.step, report);
            }
            Line::Evaluate(report) => {
                tasks.insert((report.task, report.step), report.loss);
            }
            _ => {}
        })
        .map_err(Failure::user)?;
    }
    Ok((steps, tasks))
}

/// Steps of a log, by number; a repeated step counts as it was done last.
pub(crate) fn steps(run: &Run) -> Result<BTreeMap<u64, StepReport>, Failure> {
    read(run).map(|(steps, _)| steps)
}

/// By task, the first evaluation that both have and that differs.
fn differing(a: &Tasks, b: &Tasks) -> Vec<TaskDifference> {
    let mut found: Vec<TaskDifference> = Vec::new();
    for ((task, step), &one) in a {
        let Some(&other) = b.get(&(task.clone(), *step)) else { continue };
        let known = found.last().is_some_and(|last| last.task == *task);
        if !known && !same(one, other) {
            found.push(TaskDifference { task: task.clone(), step: *step, loss: [one, other] });
        }
    }
    found
}

/// Equal, or no number on both sides.
fn same(x: f64, y: f64) -> bool {
    x == y || (x.is_nan() && y.is_nan())
}

/// Recorded fingerprints of buckets, by step.
type Buckets = BTreeMap<u64, Vec<u64>>;

fn buckets(run: &Run) -> Result<Buckets, Failure> {
    let (path, mut records) = (run.folder.join(FINGERPRINTS), Buckets::new());
    if LocalDisk.exists(&path) {
        let add = |BucketLine { step, buckets }| drop(records.insert(step, buckets));
        for_each_line(&LocalDisk, &path, add).map_err(Failure::user)?;
    }
    Ok(records)
}

/// The first step of at least `step` for which both have other buckets, and which.
fn other_buckets(a: &Buckets, b: &Buckets, step: u64) -> Option<(u64, Vec<usize>)> {
    let both = a.range(step..).filter_map(|(step, one)| Some((step, one, b.get(step)?)));
    let other = |(&step, one, other): (&u64, &Vec<u64>, &Vec<u64>)| {
        let differs = |&i: &usize| one.get(i) != other.get(i);
        let numbers: Vec<usize> = (0..one.len().max(other.len())).filter(differs).collect();
        (!numbers.is_empty()).then_some((step, numbers))
    };
    both.map(other).find_map(|found| found)
}

/// Where two logs part.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parting {
    /// Common steps before it.
    equal: u64,
    loss: Option<LossDifference>,
    /// The step.
    fingerprint: Option<u64>,
}

impl Parting {
    /// The first step in which anything differs.
    pub(crate) fn first(&self) -> Option<u64> {
        let steps = [self.loss.as_ref().map(|loss| loss.step), self.fingerprint];
        steps.into_iter().flatten().min()
    }

    pub(crate) fn find(a: &BTreeMap<u64, StepReport>, b: &BTreeMap<u64, StepReport>) -> Self {
        let mut parting = Self::default();
        for (&step, one) in a {
            let Some(other) = b.get(&step) else { continue };
            let equal = same(one.loss, other.loss) && same(one.grad_norm, other.grad_norm);
            if !equal && parting.loss.is_none() {
                let loss = [one.loss, other.loss];
                let grad_norm = [one.grad_norm, other.grad_norm];
                let tracks = tracks(one, other);
                parting.loss = Some(LossDifference { step, loss, grad_norm, tracks });
            }
            if one.fingerprint != other.fingerprint {
                parting.fingerprint.get_or_insert(step);
            }
            if parting.loss.is_none() && parting.fingerprint.is_none() {
                parting.equal += 1;
            }
        }
        parting
    }
}

/// Names of the losses that differ in a step, or that one of both has not.
fn tracks(one: &StepReport, other: &StepReport) -> Vec<String> {
    let of = |report: &StepReport, name: &str| {
        report.losses.iter().find(|(own, _)| own == name).map(|(_, loss)| *loss)
    };
    let mut names: Vec<&String> = one.losses.iter().chain(&other.losses).map(|l| &l.0).collect();
    names.sort_unstable();
    names.dedup();
    let differs = |name: &&&String| match (of(one, name), of(other, name)) {
        (Some(one), Some(other)) => !same(one, other),
        _ => true,
    };
    names.iter().filter(differs).map(|name| (*name).clone()).collect()
}

/// Digests by step, and the identity of the data that the newest checkpoint was made from.
type Digests = (BTreeMap<u64, String>, Option<String>);

fn digests(run: &Run) -> Result<Digests, Failure> {
    let lines = checkpoints(run)?;
    let newest = lines.iter().rev().find(|line| line.digest.is_some());
    let manifest =
        newest.and_then(|line| Manifest::read(&LocalDisk, &run.store().folder(line.step)).ok());
    let data = manifest.and_then(|manifest| manifest.identity.get(DATA_FACT).cloned());
    let digests = lines.into_iter().filter_map(|line| Some((line.step, line.digest?))).collect();
    Ok((digests, data))
}

fn first_difference(a: &BTreeMap<u64, String>, b: &BTreeMap<u64, String>) -> Option<u64> {
    a.iter().find(|(step, digest)| b.get(step).is_some_and(|other| other != *digest)).map(|x| *x.0)
}

fn place(run: &Run) -> Option<String> {
    DataPlace::read(&run.folder).map(|place| place.identity)
}

/// Names of the parameters of every bucket; nothing for a model that cannot be built.
fn names(config: &Config) -> Vec<Vec<String>> {
    let Some(vocabulary) = config.model.vocabulary else { return Vec::new() };
    let size = ModelSize { vocabulary, max_positions: config.batch.sequence_length };
    let Ok(Composition { variables, .. }) = Composition::new(config, size) else {
        return Vec::new();
    };
    let layout = Layout::new(&variables, config.run.granularity(&variables));
    let name = |id: &octet_kernels::graph::ParameterId| variables.parameters()[id.0].name.clone();
    layout.buckets.iter().map(|bucket| bucket.parameters.iter().map(name).collect()).collect()
}

/// Keys with different values, in order.
fn keys(a: &Config, b: &Config) -> Vec<KeyDifference> {
    let [a, b] = [a, b].map(|config| {
        let table: Table = config.to_toml().parse().unwrap_or_default();
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        for (section, value) in table {
            let Value::Table(inner) = value else {
                keys.insert(section, value.to_string());
                continue;
            };
            keys.extend(inner.into_iter().map(|(k, v)| (format!("{section}.{k}"), v.to_string())));
        }
        keys
    });
    let mut all: Vec<&String> = a.keys().chain(b.keys()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
        .filter(|key| a.get(*key) != b.get(*key))
        .map(|key| KeyDifference {
            key: key.clone(),
            values: [a.get(key).cloned(), b.get(key).cloned()],
        })
        .collect()
}
