//! `octet fork`: a branch of a run at one of its checkpoints.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use octet::branch::branch;
use octet::config::Config;
use octet::failure::Failure;
use octet::look::Run;

use crate::cli::output::out;
use crate::cli::units::short;

/// What to branch off, and where.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet fork runs/quickstart --at 200 --set schedule.learning_rate=1e-3
  octet train runs/quickstart-200/config.toml --run runs/quickstart-200 --accept-new-numerics")]
pub(crate) struct Arguments {
    /// A run folder.
    run: PathBuf,
    /// The checkpoint to begin with, by its steps.
    #[arg(long, value_name = "STEP")]
    at: u64,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The folder of the branch; by default the run's with the step behind its name.
    #[arg(long = "run", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Makes it, and says how it goes on.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { run, at, sets, folder } = arguments;
    let config = Config::load(&run.join("config.toml"), sets);
    let there = Run { config: config?, ..Run::open(run, &[])? };
    let beside = || {
        let whole: PathBuf = run.components().collect();
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        whole.with_file_name(format!("{name}-{at}"))
    };
    let folder = folder.clone().unwrap_or_else(beside);
    let made = branch(&there, *at, &folder, sets)?;
    let (shown, digest) = (folder.display(), short(&made.lineage.digest));
    out!("branch     {shown}, of {} at step {at} ({digest})", run.display());
    for (key, was, now) in &made.changed {
        out!("changed    {key} is {now} and was {was}");
    }
    let accept = if made.changed.is_empty() { "" } else { " --accept-new-numerics" };
    out!("go on with octet train {shown}/config.toml --run {shown}{accept}");
    Ok(ExitCode::SUCCESS)
}
