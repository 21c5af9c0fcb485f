//! A run that is there: its newest good checkpoint evaluated, or made to write.
//!
//! The same topology as in training, on one rank. Prohibition: takes no lock and writes nothing
//! into the run folder, so a run may be looked at while it is trained; what telemetry writes goes
//! into a folder that is removed again.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crossbeam::channel::{Receiver, bounded, never};
use octet_actors::checkpoint::{Contents, Store, StoreSettings, load};
use octet_actors::checkpointer::RunFacts;
use octet_actors::contract::Workload;
use octet_actors::outside::{Disk, LocalDisk};
use octet_actors::report::EvaluationReport;
use octet_actors::resume::FirstState;
use octet_actors::run_folder::log::Line;
use octet_actors::schedule::{Schedule, Work};
use octet_actors::snapshot::{Slot, SnapshotLayout, SnapshotSlots};
use octet_actors::supervisor::Ending;
use octet_actors::telemetry::Observer;
use octet_actors::topology::{Begin, RunSetup, run};
use octet_kernels::dtype::DType;
use octet_kernels::graph::Layout;

use crate::backend::Chosen;
use crate::composition::Composition;
use crate::config::Config;
use crate::data::{Counts, Prepared, Skipped, Watcher, prepare};
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::models::{ModelSize, RecomputeConfig};
use crate::run_data::{self, DataPlace, tokenizer_folder};
use crate::sampling::{Crowd, Decoder, Listener, Next, Request, Sampler, read_prompt};
use crate::text::Text;
use crate::train::{Place, Saving, interrupted, open_store, setup};

mod holds;

pub use holds::Holds;

/// Threads that read a checkpoint.
const READERS: usize = 2;

/// Texts that are written at once, at most: each has caches of its own.
const SEQUENCES_MAX: usize = 8;

/// Most tasks of a run.
const TASKS_MAX: usize = 256;

/// A run folder and its configuration.
#[derive(Debug, Clone)]
pub struct Run {
    /// The folder.
    pub folder: PathBuf,
    /// What is stored in it, with what was set on top.
    pub config: Config,
    /// Some key of `[data]` was set.
    pub other_data: bool,
    /// Another text was named, and no part of it: then all of it is held out.
    pub whole_text: bool,
}

impl Run {
    /// Reads the configuration of a run; `sets` are applied to it.
    ///
    /// # Errors
    /// Bad input: there is no run, or a key that does not fit.
    pub fn open(folder: &Path, sets: &[String]) -> Result<Self, Failure> {
        let path = folder.join("config.toml");
        if !path.is_file() {
            let folder = folder.display();
            let what = format!("{folder}: no run is there; expected a folder that train made");
            return Err(Failure::user(what));
        }
        let set = |key: &str| sets.iter().any(|set| set.trim_start().starts_with(key));
        let text = set("data.text");
        // A text takes the place of the run's sources.
        let instead = (text && !set("data.sources")).then(|| "data.sources=[]".to_owned());
        let all: Vec<String> = instead.into_iter().chain(sets.iter().cloned()).collect();
        let mut config = Config::load(&path, &all)?;
        let whole_text = (text || set("data.sources")) && !set("data.validation_fraction");
        if whole_text {
            config.data.validation_fraction = 0.0;
            if !set("evaluate.batches") {
                config.evaluate.batches = None;
            }
        }
        Ok(Self { folder: folder.to_owned(), config, other_data: set("data."), whole_text })
    }

    /// Its checkpoints.
    pub fn store(&self) -> Store {
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        open_store(&self.config, &self.folder.join("checkpoints"), &disk)
    }

    /// What writes so many texts at once.
    pub(crate) fn writing(&self, sequences: usize) -> Result<(Look, Decoder), Failure> {
        let notes = self.hold_against_newest(Holds::Computed)?;
        let mut config = self.looking()?;
        (config.sample.every, config.sample.sequences) = (1, sequences);
        let vocabulary = config.padded_vocabulary(&run_data::tokenizer(&self.folder)?);
        let experiment = Experiment::new(&config, vocabulary, None)?;
        let missing = || Failure::user("this run trains no model that goes on with a text");
        let decoder = experiment.decoder().ok_or_else(missing)?;
        Ok((Look { config, experiment, notes }, decoder))
    }

    /// The configuration for a look: one rank on the CPU, nothing served.
    fn looking(&self) -> Result<Config, Failure> {
        let mut config = self.config.clone();
        config.run.ranks = 1;
        config.sample.every = 0;
        // Chosen for the run's ranks and memory; a look runs forward only.
        config.model.recompute = RecomputeConfig::default();
        config.model.recompute_budget = None;
        Ok(config)
    }
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Writing {
    /// What each text begins with.
    pub prompts: Vec<String>,
    /// Tokens to write of each.
    pub tokens: usize,
    /// How they are drawn.
    pub sampler: Sampler,
    /// A text ends before the first of these that is written.
    pub stop: Vec<String>,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq)]
pub struct Looked {
    /// Steps done in the checkpoint.
    pub step: u64,
    /// What a person should know: newer checkpoints that are damaged.
    pub notes: Vec<String>,
    /// Of the tasks, in order.
    pub reports: Vec<EvaluationReport>,
    /// It was interrupted before all tasks were done.
    pub interrupted: bool,
}

/// Lets the newest good checkpoint go on with prompts, several at once. Each has a listener, who
/// hears the continuation.
///
/// # Errors
/// [`Failure`]: no good checkpoint, a prompt that cannot be read.
pub fn generate(run: &Run, writing: Writing, listeners: Vec<Listener>) -> Result<Looked, Failure> {
    let sequences = writing.prompts.len().clamp(1, SEQUENCES_MAX);
    let (mut look, decoder) = run.writing(sequences)?;
    let tokenizer = Arc::new(run_data::tokenizer(&run.folder)?);
    let Writing { prompts, tokens, sampler, stop } = writing;
    let mut texts = VecDeque::with_capacity(prompts.len());
    for ((number, prompt), listener) in (0..).zip(&prompts).zip(listeners) {
        let prompt = read_prompt(&tokenizer, prompt, decoder.positions)
            .map_err(|problem| Failure::user(format!("--prompt: {problem}")))?;
        let request = Request::new(tokenizer.clone(), prompt, tokens, sampler.clone());
        let request = Request { number, stop: stop.clone(), ..request };
        texts.push_back(Box::new((request, listener)));
    }
    let texts = Mutex::new(Some(texts));
    look.experiment = look.experiment.with_talk(Box::new(move |step| {
        let mut texts = texts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()?;
        let source = Box::new(move |_| texts.pop_front().map_or(Next::End, Next::Text));
        Some(Box::new(Crowd::new(decoder, step, source)))
    }));
    converse(run, look)
}

/// Holds the conversation of an experiment with the newest good checkpoint.
pub(crate) fn converse(run: &Run, what: Look) -> Result<Looked, Failure> {
    look(run, what, |step| vec![Work::Drive { step }], never())
}

/// Evaluates the newest good checkpoint on one held-out task, or on all.
///
/// # Errors
/// [`Failure`]: no good checkpoint, no such task, no text.
pub fn evaluate(
    run: &Run,
    task: Option<&str>,
    interrupts: Receiver<()>,
) -> Result<Looked, Failure> {
    let mut notes = run.hold_against_newest(Holds::Computed)?;
    let mut config = run.looking()?;
    config.evaluate.every = 1;
    if config.data.validation_fraction == 0.0 && !run.whole_text {
        return Err(Failure::user("data.validation_fraction is 0: the run holds nothing out"));
    }
    let mut prepared = text_of(run, &mut config, &mut |_| interrupted(&interrupts))?;
    if run.whole_text {
        for source in &mut prepared.sources {
            source.validation = std::mem::take(&mut source.train);
        }
    }
    notes.extend(run.other_data.then(|| passed_over(&prepared)).flatten());
    let vocabulary = config.padded_vocabulary(&prepared.tokenizer);
    let text = Text::held_out_only(&config, prepared)?;
    let experiment = Experiment::new(&config, vocabulary, Some(text))?;
    let names: Vec<String> = experiment.evaluations().iter().map(|t| t.name.clone()).collect();
    let wanted: Vec<usize> =
        (0..names.len()).filter(|&i| task.is_none_or(|task| task == names[i])).collect();
    if wanted.is_empty() {
        let task = task.unwrap_or("any");
        let known = if names.is_empty() { "none".to_string() } else { names.join(", ") };
        return Err(Failure::user(format!("there is no task {task}; the run has: {known}")));
    }
    let works = |step| wanted.into_iter().map(|task| Work::Evaluate { task, step }).collect();
    look(run, Look { config, experiment, notes }, works, interrupts)
}

/// What was passed over of another text, if anything was: it is no part of what is measured.
fn passed_over(prepared: &Prepared) -> Option<String> {
    let mut counts = Counts::default();
    prepared.sources.iter().for_each(|source| counts.add(&source.counts));
    (counts.skipped != Skipped::default()).then(|| format!("data.text: {}", counts.skipped))
}

/// The run's prepared data where they lie, or made again; with `data.` keys set, other data with
/// the run's tokenizer.
fn text_of(run: &Run, config: &mut Config, watcher: Watcher<'_>) -> Result<Prepared, Failure> {
    let place = DataPlace::read(&run.folder);
    if run.other_data {
        let stored = Config::load(&run.folder.join("config.toml"), &[])?.data;
        if config.data.cache == stored.cache {
            config.data.cache = None;
        }
        if config.data.tokenizer == stored.tokenizer && stored.tokenizer != "bytes" {
            let folder = std::path::absolute(tokenizer_folder(&run.folder));
            config.data.tokenizer = folder.map_err(Failure::world)?.display().to_string();
            // The stored tokenizer knows both.
            (config.data.split, config.data.end_of_document) = (None, None);
        }
        return Ok(prepare(&config.data, config.model.vocabulary, watcher)?);
    }
    if let Some(prepared) = place.as_ref().and_then(DataPlace::open) {
        return Ok(prepared);
    }
    let prepared = match prepare(&config.data, config.model.vocabulary, watcher) {
        Err(missing) if missing.is_no_text() => {
            return Err(run_data::without_text(&run.folder, missing));
        }
        prepared => prepared?,
    };
    match place {
        Some(place) if place.identity != prepared.identity => Err(Failure::user(
            "the run's prepared data are gone and its text has changed; name a text to evaluate on \
             with --set data.text=PATH",
        )),
        _ => Ok(prepared),
    }
}

/// The parameters of the newest good checkpoint of a run, by name.
///
/// # Errors
/// [`Failure`]: there is no run, or no good checkpoint in it.
pub fn parameters(run: &Run) -> Result<BTreeMap<String, Vec<f32>>, Failure> {
    run.hold_against_newest(Holds::Computed)?;
    let missing = || Failure::user("the run does not say how large its vocabulary is");
    let vocabulary = run.config.model.vocabulary.ok_or_else(missing)?;
    let size = ModelSize { vocabulary, max_positions: run.config.batch.sequence_length };
    let Composition { variables, .. } = Composition::new(&run.looking()?, size)?;
    let layout = Layout::new(&variables, run.config.run.granularity(&variables));
    let layout = Arc::new(SnapshotLayout::new(&variables, &layout, &[]));
    let slots = SnapshotSlots::create(layout.bytes())?;
    let slot = slots.slot(0, &layout);
    newest_model(&LocalDisk, &run.store(), &slot)?;
    let view = slot.view()?;
    let is_parameter = |name: &str| variables.parameters().iter().any(|p| p.name == name);
    let mut values = BTreeMap::new();
    for tensor in layout.tensors().iter().filter(|tensor| is_parameter(&tensor.name)) {
        let bytes = view.bytes(tensor);
        let wide = match tensor.dtype {
            DType::Bf16 => {
                let pairs = bytes.chunks_exact(2).map(|b| u32::from(b[0]) | u32::from(b[1]) << 8);
                pairs.map(|bits| f32::from_bits(bits << 16)).collect()
            }
            _ => bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
        };
        values.insert(tensor.name.clone(), wide);
    }
    Ok(values)
}

/// What a run is looked at with.
pub(crate) struct Look {
    config: Config,
    pub(crate) experiment: Experiment,
    /// What a person should know.
    notes: Vec<String>,
}

/// Runs `works` on the newest good checkpoint.
fn look(
    run_there: &Run,
    Look { config, experiment, mut notes }: Look,
    works: impl FnOnce(u64) -> Vec<Work>,
    interrupts: Receiver<()>,
) -> Result<Looked, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let layout = Arc::new(SnapshotLayout::of(&experiment));
    let slots = SnapshotSlots::create(layout.bytes())?;
    let (step, damaged) = newest_model(&*disk, &run_there.store(), &slots.slot(0, &layout))?;
    notes.extend(damaged);
    let scratch = Scratch::create()?;
    // Whatever were saved would go where nobody looks.
    let store = Store::new(disk.clone(), scratch.0.join("checkpoints"), StoreSettings::default());
    let (told, reports) = bounded(TASKS_MAX);
    let observer = Box::new(move || -> Observer {
        let told = told.clone();
        Box::new(move |line| {
            if let Line::Evaluate(report) = line {
                // There are never more tasks than it holds.
                let _held = told.try_send(report.clone());
            }
        })
    });
    let first = works(step);
    let expected = first.iter().filter(|work| matches!(work, Work::Evaluate { .. })).count();
    let state = FirstState {
        slot: 0,
        step,
        digest: None,
        on_disk: true,
        saved: None,
        recovery: serde_json::Value::Null,
        cursor: serde_json::Value::Null,
        notes: Vec::new(),
    };
    let begin = Begin { state, first, restarted: None };
    let place = Place { folder: scratch.0.clone(), disk, web: None };
    let saving = Saving { store, slots, layout, facts: RunFacts::default() };
    let backend = Chosen::cpu(&config).backend;
    let setup = setup((&config, backend), Arc::new(experiment), place, saving, begin, observer)?;
    let schedule = Schedule {
        steps: step,
        evaluate_every: 0,
        checkpoint_every: 0,
        memory_every: 0,
        drive_every: 0,
        depth: 1,
    };
    let finished = run(RunSetup { interrupts, schedule, ..setup })?;
    if let Ending::Failed(fault) = finished.end.ending {
        return Err(fault.into());
    }
    let reports: Vec<EvaluationReport> = reports.try_iter().collect();
    let empty = reports.iter().filter(|report| report.targets == 0);
    notes.extend(empty.map(|report| format!("{}: no targets, so there is no loss", report.task)));
    // It has no step left to do, so to the runtime it is finished whatever was given up.
    let interrupted = reports.len() < expected;
    Ok(Looked { step, notes, reports, interrupted })
}

/// Fills a slot from the newest checkpoint that is whole; gives its step, and what is wrong with
/// newer ones.
fn newest_model(
    disk: &dyn Disk,
    store: &Store,
    slot: &Slot,
) -> Result<(u64, Vec<String>), Failure> {
    let mut notes = Vec::new();
    for step in store.steps().map_err(Failure::world)?.into_iter().rev() {
        match load(disk, &store.folder(step), slot, 1, Contents::Model, READERS) {
            Ok(manifest) => return Ok((manifest.step, notes)),
            Err(error) if error.is_damage() => notes.push(format!("passed over: {error}")),
            Err(error) => return Err(Failure::user(error)),
        }
    }
    let root = store.root().display();
    Err(Failure::user(match notes.first() {
        Some(first) => format!("no checkpoint in {root} is good ({first})"),
        None => format!("{root} holds no checkpoint yet"),
    }))
}

/// A folder of our own, removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn create() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        let mut number = 0;
        loop {
            let path = base.join(format!("octet-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => {
                    let path = path.display();
                    return Err(Failure::world(format!("cannot create {path}: {error}")));
                }
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left in a folder for temporary files does no harm.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}
