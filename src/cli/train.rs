//! `octet train`: a small parent that runs the engine as its child and outlives it.
//!
//! The parent keeps the snapshot memory, so that an engine that dies of the world (a device,
//! memory) is followed by one that goes on from the newest good state: a few times, with the
//! reason, never in an endless loop. The engine dies with its parent.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use octet::config::Config;
use octet::failure::{self, Failure};
use octet::train::{Job, Watchers, execute};
use octet_actors::snapshot::SnapshotSlots;
use octet_actors::supervisor::Ending;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::{progress, signals};

/// The descriptor of the snapshot memory, for the engine.
const SNAPSHOTS: &str = "OCTET_SNAPSHOTS";

/// Engines that may fail one after the other within [`RESTART_WINDOW`].
const RESTARTS: usize = 3;
const RESTART_WINDOW: Duration = Duration::from_secs(3600);

/// Where and what to train.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet train configs/quickstart.toml
  octet train configs/quickstart.toml --set data.text=PATH --set run.steps=200
  octet train configs/shakespeare_char.toml --run runs/mine --fresh")]
pub(crate) struct Arguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The run folder; by default runs/ and the name of the configuration.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Move a run that is there aside and begin anew.
    #[arg(long)]
    fresh: bool,
    /// Resume although the numbers will not be those of an uninterrupted run.
    #[arg(long)]
    accept_new_numerics: bool,
}

impl Arguments {
    fn folder(&self) -> PathBuf {
        let stem = self.config.file_stem().unwrap_or(self.config.as_os_str());
        self.run.clone().unwrap_or_else(|| Path::new("runs").join(stem))
    }
}

/// The child: does the work.
pub(crate) fn engine(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (config, origins) = Config::load_located(&arguments.config, &arguments.sets)?;
    let snapshots = std::env::var(SNAPSHOTS).ok().and_then(|number| number.parse().ok());
    let steps = config.run.steps;
    let folder = arguments.folder();
    let job = Job {
        config,
        folder: folder.clone(),
        // An engine that is started again goes on with what an earlier one began.
        fresh: arguments.fresh && !snapshots.is_some_and(is_used),
        accept_new_numerics: arguments.accept_new_numerics,
        snapshots,
    };
    let watchers = Watchers {
        preparing: progress::preparing(),
        observer: Box::new(move || progress::observer(steps)),
        sampled: Arc::new(progress::sampled),
        interrupts: signals::interrupts("saving; once more ends at once")?,
    };
    let finished = execute(job, watchers).map_err(|failure| origins.locate(failure))?;
    let Some(finished) = finished else {
        println!("interrupted while data were prepared; the same command begins again");
        return Ok(ExitCode::SUCCESS);
    };
    let step = finished.end.step;
    match finished.end.ending {
        Ending::Finished => {
            let folder = folder.display();
            println!(
                "done: {step} steps; checkpoints, samples, log.jsonl and summary.json are in \
                 {folder}; more text with: octet generate {folder}"
            );
            Ok(ExitCode::SUCCESS)
        }
        Ending::Interrupted => {
            println!("saved at step {step} in {}; the same command goes on", folder.display());
            Ok(ExitCode::SUCCESS)
        }
        Ending::Failed(fault) => Err(fault.into()),
    }
}

/// Whether an earlier engine has come so far as to size the snapshot memory.
fn is_used(snapshots: RawFd) -> bool {
    std::fs::metadata(format!("/proc/self/fd/{snapshots}")).is_ok_and(|file| file.len() > 0)
}

/// The parent: starts engines until one ends well or trying again is no use.
pub(crate) fn parent(arguments: &Arguments) -> Result<ExitCode, Failure> {
    // Bad input is refused here, before anything is started.
    Config::load(&arguments.config, &arguments.sets)?;
    // It outlives engines; the first one decides how much there is.
    let memory = SnapshotSlots::reserve()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::world)?;
    let mut failures: Vec<Instant> = Vec::new();
    loop {
        let mut child = start_engine(arguments, &memory)?;
        let (status, interrupted) = wait(&mut child, &mut signals)?;
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) if code != failure::WORLD => return Ok(ExitCode::from(code)),
            // It was told to end before it could listen: nothing was begun, nothing is lost.
            None if interrupted && status.signal().is_some_and(|s| s == SIGINT || s == SIGTERM) => {
                return Ok(ExitCode::SUCCESS);
            }
            _ if interrupted => return Ok(ExitCode::from(failure::WORLD)),
            _ => {}
        }
        failures.retain(|at| at.elapsed() < RESTART_WINDOW);
        failures.push(Instant::now());
        let why = describe(status);
        if failures.len() > RESTARTS {
            let what = format!("the engine failed {} times within an hour: {why}", failures.len());
            return Err(Failure::world(what));
        }
        eprintln!("octet: {why}; starting it again from the newest good state");
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("the engine died of signal {signal}"),
        None => format!("the engine ended with code {}", status.code().unwrap_or(-1)),
    }
}

fn start_engine(arguments: &Arguments, memory: &OwnedFd) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(Failure::world)?;
    let mut command = Command::new(program);
    command.arg("engine").arg(&arguments.config);
    for set in &arguments.sets {
        command.arg("--set").arg(set);
    }
    if let Some(run) = &arguments.run {
        command.arg("--run").arg(run);
    }
    if arguments.fresh {
        command.arg("--fresh");
    }
    if arguments.accept_new_numerics {
        command.arg("--accept-new-numerics");
    }
    command.env(SNAPSHOTS, memory.as_raw_fd().to_string());
    // A group of its own: signals from a terminal reach it through the parent, once.
    command.process_group(0);
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made, and nothing allocates.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // A parent that died before the call above sends no signal.
            match libc::getppid() as u32 == parent {
                true => Ok(()),
                false => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
    command.spawn().map_err(|e| Failure::world(format!("cannot start the engine: {e}")))
}

/// Waits for the engine and passes signals on to it.
fn wait(child: &mut Child, signals: &mut Signals) -> Result<(ExitStatus, bool), Failure> {
    let mut interrupted = false;
    loop {
        for signal in signals.pending() {
            interrupted = true;
            // SAFETY: sends a signal to our own child, which is not yet reaped.
            unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        }
        if let Some(status) = child.try_wait().map_err(Failure::world)? {
            return Ok((status, interrupted));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
