//! `octet train`: what is trained where, and the engine that does it. [`super::parent`] runs the
//! engine as its child and outlives it.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::Args;
use octet::config::Config;
use octet::failure::{self, Failure};
use octet::train::{Job, Watchers, execute};
use octet_actors::fault::Blame;
use octet_actors::supervisor::Ending;

use crate::cli::parent::{Inherited, LastWord};
use crate::cli::{progress, signals};

/// Where and what to train.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet train configs/quickstart.toml
  octet train configs/quickstart.toml --set data.text=PATH --set run.steps=200
  octet train configs/shakespeare_char.toml --run runs/mine --fresh")]
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

    /// The same arguments for another command of this program.
    pub(crate) fn pass_on(&self, command: &mut Command) {
        command.arg(&self.config);
        for set in &self.sets {
            command.arg("--set").arg(set);
        }
        if let Some(run) = &self.run {
            command.arg("--run").arg(run);
        }
        if self.fresh {
            command.arg("--fresh");
        }
        if self.accept_new_numerics {
            command.arg("--accept-new-numerics");
        }
    }
}

/// The child: does the work.
pub(crate) fn engine(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut inherited = Inherited::take();
    let (config, origins) = Config::load_located(&arguments.config, &arguments.sets)?;
    let snapshots = inherited.snapshots;
    let steps = config.run.steps;
    let folder = arguments.folder();
    let job = Job {
        config,
        folder: folder.clone(),
        // An engine that is started again goes on with what an earlier one began.
        fresh: arguments.fresh && !snapshots.is_some_and(is_used),
        accept_new_numerics: arguments.accept_new_numerics,
        snapshots,
        parent: snapshots.map(|_| std::os::unix::process::parent_id()),
        restarted: inherited.restarted.take(),
    };
    let watchers = Watchers {
        preparing: progress::preparing(),
        observer: Box::new(move || progress::observer(steps)),
        sampled: Arc::new(progress::sampled),
        interrupts: signals::interrupts("saving; once more ends at once")?,
    };
    let done = execute(job, watchers).map_err(|failure| origins.locate(failure));
    let done = done.inspect_err(|failure| {
        if failure.code == failure::WORLD {
            // It has not come to a step.
            let what = failure.what.clone();
            std::mem::take(&mut inherited).say(LastWord { step: 0, what, lasting: false });
        }
    })?;
    let Some(finished) = done else {
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
