//! The main path: configuration, text, experiment, run folder, first state, run.
//!
//! Everything is checked before memory is taken and before anything is written. The same path
//! trains, and evaluates or samples a run that is there.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use octet_actors::checkpoint::{Store, StoreSettings};
use octet_actors::checkpointer::RunFacts;
use octet_actors::contract::Workload;
use octet_actors::outside::{Clock, Disk, LocalDisk, SystemClock};
use octet_actors::rank::threads_per_rank;
use octet_actors::rank_memory::Zero;
use octet_actors::resume::{FirstState, first_state};
use octet_actors::run_folder::{LOCK_PATIENCE, RunFolder, Start};
use octet_actors::schedule::{Schedule, Work};
use octet_actors::snapshot::{SnapshotLayout, SnapshotSlots};
use octet_actors::supervisor::Policy;
use octet_actors::telemetry::metrics::Metrics;
use octet_actors::telemetry::resources::{Floors, Resources};
use octet_actors::telemetry::status::Status;
use octet_actors::telemetry::{Observer, TelemetrySetup};
use octet_actors::topology::{Begin, Finished, RunSetup, run};
use octet_actors::web::WebSetup;

use crate::config::{Config, Device};
use crate::data::{Progress, prepare};
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::text::Text;

/// Updates in a row that may be skipped.
const SKIPS_MAX: u32 = 10;

/// A run without a step for this long is not well.
const STEP_PATIENCE: Duration = Duration::from_secs(600);

/// Memory and disk below which telemetry warns.
const FLOORS: Floors = Floors { available_bytes: 1 << 30, free_disk_bytes: 2 << 30 };

/// What is to be done with a run.
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
    /// Train, or only look.
    pub purpose: Purpose,
}

/// Train, or only look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To the configured number of steps.
    Train,
    /// Held-out tasks of the newest checkpoint.
    Evaluate,
    /// A conversation with the newest checkpoint.
    Generate,
}

/// Who watches a job.
pub struct Watchers {
    /// Sees the preparation of data.
    pub preparing: Box<dyn FnMut(Progress)>,
    /// Makes an observer of log lines; a restarted telemetry asks again.
    pub observer: Box<dyn FnMut() -> Observer + Send>,
    /// One message: save and end.
    pub interrupts: Receiver<()>,
}

/// Does the job.
///
/// # Errors
/// [`Failure`], with nothing lost that was saved before.
pub fn execute(job: Job, mut watchers: Watchers) -> Result<Finished, Failure> {
    check_device(&job.config)?;
    let experiment = Arc::new(prepare_experiment(&job.config, &mut watchers)?);
    let start = if job.fresh { Start::Fresh } else { Start::Resume };
    let folder = RunFolder::open(&job.folder, start, LOCK_PATIENCE)?;
    folder.write_config(&job.config.to_toml())?;
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let store = open_store(&job.config, &folder.checkpoints(), &disk);
    let layout = Arc::new(SnapshotLayout::new(experiment.variables(), experiment.layout()));
    let slots = match job.snapshots {
        Some(fd) => SnapshotSlots::from_fd(fd, layout.bytes())?,
        None => SnapshotSlots::create(layout.bytes())?,
    };
    let facts = facts(&job.config, &experiment);
    let accept = job.accept_new_numerics;
    let first = first_state(&*experiment, &store, &slots, &layout, &facts, accept)?;
    let config = &job.config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (schedule, begin) = agenda(config, job.purpose, &*experiment, first);
    let metrics = Metrics::new();
    let status = Arc::new(Status::new(clock.monotonic(), STEP_PATIENCE));
    let web = config.web.address.as_ref().map(|address| WebSetup {
        address: address.clone(),
        announce: folder.web(),
        metrics: metrics.clone(),
        status: status.clone(),
        clock: clock.clone(),
    });
    let telemetry = telemetry(&folder, &disk, &clock, (metrics, status), watchers.observer);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let setup = RunSetup {
        workload: experiment,
        ranks: config.run.ranks,
        threads: config.run.threads.unwrap_or_else(|| threads_per_rank(cores, config.run.ranks)),
        zero: if config.run.zero == 0 { Zero::Zero0 } else { Zero::Zero1 },
        schedule,
        policy: Policy { skips_max: SKIPS_MAX },
        slots,
        layout,
        store,
        facts,
        telemetry,
        clock,
        interrupts: watchers.interrupts,
        begin,
        web,
    };
    Ok(run(setup)?)
}

/// Text, tokens and the compiled experiment.
fn prepare_experiment(config: &Config, watchers: &mut Watchers) -> Result<Experiment, Failure> {
    let limit = config.model.vocabulary;
    let prepared = prepare(&config.data, limit, &mut *watchers.preparing)?;
    let vocabulary = config.model.padded_vocabulary(prepared.tokenizer.vocabulary());
    let text = Text::open(config, prepared)?;
    Ok(Experiment::new(config, vocabulary, Some(text))?)
}

fn check_device(config: &Config) -> Result<(), Failure> {
    if config.run.device == Device::Cuda {
        return Err(Failure::user(
            "run.device: expected \"auto\" or \"cpu\", since this build has no CUDA backend, got \
             \"cuda\"",
        ));
    }
    Ok(())
}

/// The checkpoints of a run folder.
pub fn open_store(config: &Config, folder: &Path, disk: &Arc<dyn Disk>) -> Store {
    let keep_last = config.checkpoint.keep;
    let settings = StoreSettings { keep_last, ..StoreSettings::default() };
    Store::new(disk.clone(), folder, settings)
}

/// What a resume must find again to go on bit for bit.
fn facts(config: &Config, experiment: &Experiment) -> RunFacts {
    let config_digest = config.digest();
    let mut identity = BTreeMap::new();
    let mut fact = |key: &str, value: String| identity.insert(key.to_string(), value);
    fact("configuration", config_digest.clone());
    fact("data", experiment.data_identity().to_string());
    fact("backend", "cpu".to_string());
    fact("batch.micro", config.batch.micro.to_string());
    fact("batch.lanes", config.batch.lanes().to_string());
    RunFacts { config_digest, identity }
}

fn agenda(
    config: &Config,
    purpose: Purpose,
    workload: &dyn Workload,
    first: FirstState,
) -> (Schedule, Begin) {
    let FirstState { slot, step, notes, digest } = first;
    let mut schedule = Schedule {
        steps: config.run.steps,
        evaluate_every: config.evaluate.every,
        checkpoint_every: config.checkpoint.every,
        drive_every: config.sample.every,
    };
    let first = match purpose {
        Purpose::Train => vec![],
        Purpose::Evaluate => {
            let tasks = 0..workload.evaluations().len();
            tasks.map(|task| Work::Evaluate { task, step }).collect()
        }
        Purpose::Generate => vec![Work::Drive { step }],
    };
    if purpose != Purpose::Train {
        schedule.steps = step;
    }
    (schedule, Begin { slot, step, first, notes, digest })
}

fn telemetry(
    folder: &RunFolder,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    (metrics, status): (Metrics, Arc<Status>),
    mut observer: Box<dyn FnMut() -> Observer + Send>,
) -> Box<dyn FnMut() -> TelemetrySetup + Send> {
    let (path, log, summary) = (folder.path().to_owned(), folder.log(), folder.summary());
    let (disk, clock) = (disk.clone(), clock.clone());
    Box::new(move || {
        let (path, probed) = (path.clone(), disk.clone());
        TelemetrySetup {
            log: log.clone(),
            summary: summary.clone(),
            floors: FLOORS,
            probe: Box::new(move || Resources::read(&*probed, &path)),
            metrics: metrics.clone(),
            status: status.clone(),
            observer: observer(),
            clock: clock.clone(),
            disk: disk.clone(),
        }
    })
}
