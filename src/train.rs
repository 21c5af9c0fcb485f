//! The main path: configuration, text, experiment, run folder, first state, run.
//!
//! Everything is checked before memory is taken and before anything is written. What is made of it
//! here is also how `look` evaluates and samples a run that is there.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use octet_actors::checkpoint::{Store, StoreSettings};
use octet_actors::checkpointer::RunFacts;
use octet_actors::contract::{EvaluationTask, Workload};
use octet_actors::outside::{Clock, Disk, LocalDisk, SystemClock};
use octet_actors::resume::first_state;
use octet_actors::run_folder::log::{Line, for_each_line};
use octet_actors::run_folder::{LOCK_PATIENCE, RunFolder, Start, check_place};
use octet_actors::schedule::{Schedule, Work};
use octet_actors::snapshot::{SnapshotLayout, SnapshotSlots};
use octet_actors::telemetry::Observer;
use octet_actors::telemetry::metrics::Metrics;
use octet_actors::telemetry::status::Status;
use octet_actors::topology::deadlines::{self, slowest};
use octet_actors::topology::{Begin, Finished, RunSetup, run};
use octet_actors::web::{Web, WebSetup, listen};
use octet_kernels::device::Backend;

use crate::backend::Chosen;
use crate::beginning::{Beginning, begun, go_on, save_first};
use crate::config::{CheckpointConfig, Config, Device};
use crate::data::{DataError, Prepared, Progress, prepare};
use crate::events;
use crate::experiment::Experiment;
use crate::facts::{began_on, facts};
use crate::failure::Failure;
use crate::hub;
use crate::plan::{Room, vocabulary};
use crate::run_data::{self, DataPlace};
use crate::text::Text;

mod samples;
mod slots;
mod telemetry;

use samples::{request, sample_file, talk};

/// The log of a run, in its folder.
pub const LOG: &str = "log.jsonl";
/// The summary of a run, in its folder.
pub const SUMMARY: &str = "summary.json";

/// The fingerprints of buckets, in the folder of a run.
pub const FINGERPRINTS: &str = "fingerprints.jsonl";

/// A run without a step for this long is not well.
const STEP_PATIENCE: Duration = Duration::from_secs(600);

/// A run that is to be trained.
#[derive(Debug, Clone)]
pub struct Job {
    /// The resolved configuration.
    pub config: Config,
    /// The run folder.
    pub folder: PathBuf,
    /// Begin anew beside what is there.
    pub fresh: bool,
    /// Go on although numbers will differ.
    pub accept_new_numerics: bool,
    /// Snapshot memory of a parent process.
    pub snapshots: Option<RawFd>,
    /// The parent process, which starts another engine if this one dies.
    pub parent: Option<u32>,
    /// Why the engine before this one ended, if there was one.
    pub restarted: Option<String>,
}

/// Text that the model wrote while it was trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Steps done.
    pub step: u64,
    /// The prompt and what follows.
    pub text: String,
    /// Why it is not in the run folder, if it is not.
    pub refused: Option<String>,
}

/// Who watches a job.
pub struct Watchers {
    /// Sees the preparation of data.
    pub preparing: Box<dyn FnMut(Progress)>,
    /// Sees what the run begins with, once.
    pub beginning: Box<dyn FnMut(&Beginning)>,
    /// Makes an observer of log lines; a restarted telemetry asks again.
    pub observer: Box<dyn FnMut() -> Observer + Send>,
    /// Sees every sample.
    pub sampled: Arc<dyn Fn(&Sample) + Send + Sync>,
    /// One message: save and end.
    pub interrupts: Receiver<()>,
    /// Messages: save and go on.
    pub saves: Receiver<()>,
}

/// What a job computes on. `"auto"` goes on with what a run that is there was trained on: bits
/// differ elsewhere, and a GPU that has come is no reason to refuse it.
fn chosen(job: &Job) -> Result<Chosen, Failure> {
    let mut config = job.config.clone();
    if config.run.device == Device::Auto && !job.fresh {
        config.run.device = began_on(&config, &job.folder).unwrap_or(Device::Auto);
    }
    Chosen::by(&config)
}

/// Trains to the configured number of steps. `None` if it was interrupted before there was
/// anything to save.
///
/// # Errors
/// [`Failure`], with nothing lost that was saved before.
pub fn execute(job: Job, mut watchers: Watchers) -> Result<Option<Finished>, Failure> {
    let chosen = chosen(&job)?;
    let Chosen { backend, target, .. } = chosen;
    check_folder(&job.folder)?;
    let mut notes: Vec<String> = chosen.note.iter().cloned().collect();
    let listener = listener(&job, &mut notes)?;
    check_memory(&job, backend)?;
    let Some((prepared, of_data)) = prepared(&job, &mut watchers)? else { return Ok(None) };
    let mut config = job.config;
    let vocabulary = config.padded_vocabulary(&prepared.tokenizer);
    // What is stored says how large the model is, whatever becomes of the text.
    config.model.vocabulary = Some(vocabulary);
    let place = DataPlace::of(&prepared)?;
    let text = Text::open(&config, prepared)?;
    let tokenizer = text.tokenizer().clone();
    (!job.fresh).then(|| hub::check(&job.folder, &config, &tokenizer)).transpose()?;
    let experiment = Experiment::for_target(&config, vocabulary, Some(text), target)?;
    // What "auto" became.
    config.model = experiment.config().model.clone();
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    // `--fresh` moves aside what is there.
    let there = (!job.fresh).then(|| open_store(&config, &job.folder.join("checkpoints"), &disk));
    let experiment = begun(experiment, there.as_ref(), Some(&tokenizer))?;
    let decoder = experiment.decoder();
    let request = decoder.map(|_| request(&config, &tokenizer)).transpose()?;
    let start = if job.fresh { Start::Fresh } else { Start::Resume };
    let mut folder = RunFolder::open(&job.folder, start, LOCK_PATIENCE)?;
    job.parent.map(|parent| folder.name_parent(parent)).transpose()?;
    let mut experiment = match decoder.zip(request) {
        Some(what) => experiment.with_talk(talk(what, folder.samples(), watchers.sampled.clone())),
        None => experiment,
    };
    let store = open_store(&config, &folder.checkpoints(), &disk).with_log(folder.log());
    let layout = Arc::new(SnapshotLayout::of(&experiment));
    let slots = slots::open((job.snapshots, &job.folder), &experiment, &config, &layout)?;
    let facts = facts(&config, &chosen, &experiment, &tokenizer);
    let accept = job.accept_new_numerics;
    store.recover().map_err(Failure::world)?;
    let mut state = first_state(&experiment, &store, &slots, &layout, &facts, accept)?;
    go_on(&mut experiment, &mut state)?;
    let cautions = config.schedule.caution(config.run.steps);
    state.notes.extend(notes.into_iter().chain(of_data).chain(cautions));
    // A resume that is refused leaves the folder as it was.
    let aside = store.set_aside_after(state.step).map_err(Failure::world)?;
    state.notes.extend(aside.iter().map(|path| format!("put aside: {}", path.display())));
    run_data::store(folder.path(), &tokenizer, &place, &facts.identity)?;
    folder.write_config(&config.to_toml())?;
    state = save_first(state, &experiment, &store, (&slots, &layout), &facts)?;
    if job.restarted.is_none() {
        (watchers.beginning)(&Beginning::of(&experiment, &place));
    }
    let first = missed(&config, experiment.evaluations(), state.step, &folder);
    let web = listener.zip(Some(folder.web()));
    let place = Place { folder: folder.path().to_owned(), disk, web };
    let begin = Begin { state, first, restarted: job.restarted };
    let saving = Saving { store, slots, layout, facts };
    let experiment = Arc::new(experiment);
    let observer = events::beside(folder.events(), watchers.observer);
    let setup = setup((&config, backend), experiment.clone(), place, saving, begin, observer)?;
    let (interrupts, saves) = (watchers.interrupts, watchers.saves);
    let finished = run(RunSetup { interrupts, saves, ..setup })?;
    if !config.data.sources.is_empty() && finished.summary.is_some() {
        let consumed = experiment.consumed(finished.end.batch);
        run_data::add_sources(&folder.path().join(SUMMARY), &consumed)?;
    }
    Ok(Some(finished))
}

/// The data of a job, made or found, with notes. `None`: somebody has asked to end.
fn prepared(
    job: &Job,
    watchers: &mut Watchers,
) -> Result<Option<(Prepared, Vec<String>)>, Failure> {
    let Job { config, folder, fresh, .. } = job;
    // The text may have changed since; the run goes on with what it was begun with.
    let again = job.restarted.is_some() && !fresh;
    if let Some(begun) = again.then(|| run_data::prepared_for(folder, &config.data)).flatten() {
        return Ok(Some((begun, Vec::new())));
    }
    let prepared = prepare(&config.data, config.model.vocabulary, &mut |progress| {
        (watchers.preparing)(progress);
        interrupted(&watchers.interrupts)
    });
    match prepared {
        Err(DataError::Interrupted) => Ok(None),
        // What this run was begun with is all that it needs.
        Err(missing) if missing.is_no_text() && !fresh => {
            let note = format!("{missing}: goes on with what was prepared of it before");
            let there = run_data::prepared_for(folder, &config.data);
            Ok(Some((there.ok_or_else(|| run_data::without_text(folder, missing))?, vec![note])))
        }
        other => {
            let prepared = run_data::absolute(other?)?;
            let notes =
                prepared.damaged.iter().map(String::as_str).chain(prepared.tokenizer.note());
            let notes = notes.map(str::to_owned).collect();
            Ok(Some((prepared, notes)))
        }
    }
}

/// Whether somebody has asked to end.
pub(crate) fn interrupted(interrupts: &Receiver<()>) -> ControlFlow<()> {
    match interrupts.try_recv() {
        Ok(()) => ControlFlow::Break(()),
        Err(_) => ControlFlow::Continue(()),
    }
}

/// Where a job writes, and what it serves.
pub(crate) struct Place {
    /// Folder of log and summary.
    pub(crate) folder: PathBuf,
    /// Its disk.
    pub(crate) disk: Arc<dyn Disk>,
    /// What the web server listens on, and the file that names it.
    pub(crate) web: Option<(TcpListener, PathBuf)>,
}

/// Where a job's states lie.
pub(crate) struct Saving {
    /// On disk.
    pub(crate) store: Store,
    /// In memory.
    pub(crate) slots: Arc<SnapshotSlots>,
    /// What a state is made of.
    pub(crate) layout: Arc<SnapshotLayout>,
    /// What checkpoints say of the run.
    pub(crate) facts: RunFacts,
}

/// Everything that a job is made of; nothing interrupts it yet.
pub(crate) fn setup(
    (config, backend): (&Config, Backend),
    workload: Arc<Experiment>,
    mut place: Place,
    saving: Saving,
    mut begin: Begin,
    observer: Box<dyn FnMut() -> Observer + Send>,
) -> Result<RunSetup, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Metrics::new();
    let patience = STEP_PATIENCE + slowest(workload.flops_per_step());
    let status = Arc::new(Status::new(clock.monotonic(), patience));
    let web = place.web.take().map(|(listener, announce)| WebSetup {
        listener,
        announce,
        metrics: metrics.clone(),
        status: status.clone(),
        clock: clock.clone(),
    });
    let web = web.map(Web::start).transpose()?;
    begin
        .state
        .notes
        .extend(web.as_ref().map(|web| format!("web server at http://{}", web.address())));
    let dump = place.folder.join("dump.json");
    Ok(RunSetup {
        workload,
        ranks: config.run.ranks,
        backend,
        zero: config.run.placement(),
        patience: config.run.patience.map_or(deadlines::PATIENCE, Duration::from_secs),
        schedule: schedule(config),
        policy: config.recovery.policy(),
        slots: saving.slots,
        layout: saving.layout,
        store: saving.store,
        facts: saving.facts,
        telemetry: telemetry::setup(config, place, &clock, (metrics, status.clone()), observer),
        status,
        clock,
        interrupts: crossbeam::channel::never(),
        saves: crossbeam::channel::never(),
        begin,
        web,
        dump,
    })
}

/// The address of the web server, taken before anything is made. A run does not begin without it;
/// an engine that is started again does, since nobody may look on who could free the address.
fn listener(job: &Job, notes: &mut Vec<String>) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = &job.config.web.address else { return Ok(None) };
    match listen(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if job.restarted.is_none() => Err(error.into()),
        Err(error) => {
            notes.push(format!("no web server: {error}"));
            Ok(None)
        }
    }
}

fn schedule(config: &Config) -> Schedule {
    Schedule {
        steps: config.run.steps,
        evaluate_every: config.evaluate.every,
        checkpoint_every: config.checkpoint.every,
        memory_every: config.checkpoint.memory_every,
        drive_every: config.sample.every,
        depth: config.run.depth,
    }
}

/// Held-out tasks and samples that are due after `step` and that the run folder does not show: an
/// interrupt that came while they ran gave them up, and saved.
fn missed(config: &Config, tasks: &[EvaluationTask], step: u64, folder: &RunFolder) -> Vec<Work> {
    let mut due = schedule(config).after(step, tasks);
    due.retain(|work| match work {
        Work::Evaluate { .. } => step > 0,
        Work::Drive { step } => *step > 0 && !sample_file(&folder.samples(), *step).exists(),
        Work::Step { .. } | Work::Snapshot { .. } | Work::Save { .. } => false,
    });
    if due.is_empty() {
        return due;
    }
    // A line that cannot be read is telemetry's to report; what stands before it counts.
    let _reported_later = for_each_line(&LocalDisk, &folder.log(), |line| {
        let Line::Evaluate(report) = line else { return };
        let same = |task: usize| report.step == step && report.task == tasks[task].name;
        due.retain(|work| !matches!(work, Work::Evaluate { task, .. } if same(*task)));
    });
    due
}

/// Whatever is in the way of the run folder is said before data are prepared for it.
fn check_folder(folder: &Path) -> Result<(), Failure> {
    check_place(folder).map_err(|why| Failure::user(format!("--run: {why}")))
}

/// What does not fit into a budget or into this machine is refused before data are prepared, with
/// what `octet plan` says of it.
fn check_memory(job: &Job, backend: Backend) -> Result<(), Failure> {
    let Job { config, restarted: None, .. } = job else { return Ok(()) };
    let (vocabulary, _assumed) = vocabulary(config)?;
    // What a GPU has is known when it is opened.
    let Backend::Cpu { threads } = backend else { return Ok(()) };
    let room = Room::of(config, vocabulary, threads)?;
    match room.fits() {
        Some(false) => Err(Failure::user(format!(
            "it does not fit this machine: {room}; expected a smaller model or batch.micro, \
             shorter sequences or fewer ranks (octet plan shows what takes how much)"
        ))),
        _ => Ok(()),
    }
}

/// The checkpoints of a run folder.
pub fn open_store(config: &Config, folder: &Path, disk: &Arc<dyn Disk>) -> Store {
    let CheckpointConfig { keep: keep_last, keep_every, keep_best, .. } = config.checkpoint;
    let settings = StoreSettings { keep_last, keep_every, keep_best, ..StoreSettings::default() };
    Store::new(disk.clone(), folder, settings)
}
