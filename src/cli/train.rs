//! `octet train`: what is trained where, and the engine that does it. [`super::parent`] runs the
//! engine as its child and outlives it.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use octet::failure::{self, Failure};
use octet::train::{Job, Watchers, execute};
use octet_actors::fault::Blame;
use octet_actors::supervisor::Ending;

use crate::cli::output::say;
use crate::cli::parent::handover::{Inherited, LastWord};
use crate::cli::{progress, signals, units};

/// Where and what to train.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet train configs/quickstart.toml
  octet train configs/quickstart.toml --set data.text=PATH --set run.steps=200
  octet train configs/shakespeare_char.toml --run runs/mine --fresh
  kill -USR1 PID    # of octet train: saves now, and goes on")]
pub(crate) struct Arguments {
    /// The configuration (TOML).
    pub(crate) config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// The run folder; by default runs/ and the name of the configuration.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Move a run that is there aside and begin anew.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Save and end after so long, as "23h45m", with exit code 0; the same command goes on.
    #[arg(long, value_name = "TIME", value_parser = units::parse_time)]
    pub(crate) stop_after: Option<Duration>,
    /// Resume although the numbers will not be those of an uninterrupted run.
    #[arg(long)]
    pub(crate) accept_new_numerics: bool,
}

impl Arguments {
    pub(crate) fn folder(&self) -> PathBuf {
        let stem = self.config.file_stem().unwrap_or(self.config.as_os_str());
        self.run.clone().unwrap_or_else(|| Path::new("runs").join(stem))
    }
}

/// The child: does the work.
pub(crate) fn engine() -> Result<ExitCode, Failure> {
    let mut inherited = Inherited::take()?;
    let (config, order) = inherited.order()?;
    let (origins, folder) = (order.origins, order.folder);
    let (snapshots, steps) = (inherited.snapshots, config.run.steps);
    let job = Job {
        config,
        folder: folder.clone(),
        // An engine that is started again goes on with what an earlier one began.
        fresh: order.fresh && !is_used(snapshots),
        accept_new_numerics: order.accept_new_numerics,
        snapshots: Some(snapshots),
        parent: Some(std::os::unix::process::parent_id()),
        restarted: inherited.restarted.take(),
    };
    let reached = inherited.progress();
    let watchers = Watchers {
        preparing: progress::preparing(),
        beginning: Box::new(progress::beginning),
        observer: Box::new(move || progress::observer(steps, reached.clone())),
        sampled: Arc::new(progress::sampled),
        interrupts: signals::interrupts("saving; once more ends at once")?,
        saves: signals::saves()?,
    };
    let done = execute(job, watchers).map_err(|failure| origins.locate(failure));
    let done = done.inspect_err(|failure| {
        if failure.code == failure::WORLD {
            // It has not come to a step.
            let what = failure.what.clone();
            inherited.say(LastWord { step: 0, what, lasting: false });
        }
    })?;
    let Some(finished) = done else {
        say("interrupted while data were prepared; the same command begins again");
        return Ok(ExitCode::SUCCESS);
    };
    let step = finished.end.step;
    match finished.end.ending {
        Ending::Finished => {
            let folder = folder.display();
            say(format_args!(
                "done: {step} steps; checkpoints, samples, log.jsonl and summary.json are in \
                 {folder}; more text with: octet generate {folder}"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Ending::Interrupted => {
            let folder = folder.display();
            say(format_args!("saved at step {step} in {folder}; the same command goes on"));
            Ok(ExitCode::SUCCESS)
        }
        Ending::Failed(fault) => {
            let lasting = fault.blame == Blame::Lasting;
            inherited.say(LastWord { step, what: fault.to_string(), lasting });
            Err(fault.into())
        }
    }
}

/// Whether an earlier engine has come so far as to size the snapshot memory.
fn is_used(snapshots: RawFd) -> bool {
    std::fs::metadata(format!("/proc/self/fd/{snapshots}")).is_ok_and(|file| file.len() > 0)
}
