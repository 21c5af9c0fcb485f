//! `octet rehearse`: a run in small, with everything that a long one meets: steps of the largest
//! batch, a save, a kill, a resume, an evaluation, a sample.
//!
//! Each part is the real command, in a process of its own, on the real configuration; the digest of
//! the run that was killed must be that of one that was not.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use octet::config::Config;
use octet::failure::{Failure, INTERRUPTED, USER};
use serde_json::Value;

use crate::cli::output::out;
use crate::cli::signals;
use crate::cli::units::{duration, short};

/// Steps of the rehearsal.
const STEPS: u64 = 8;
/// It is killed behind this one, between two checkpoints.
const KILLED_AT: u64 = 3;
/// Steps between checkpoints.
const EVERY: u64 = 2;
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What to rehearse.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet rehearse configs/quickstart.toml
  octet rehearse configs/llama_10m.toml --set data.text=PATH")]
pub(crate) struct Arguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The folder to rehearse in, which must not be there; by default runs/, the name of the
    /// configuration and .rehearsal. It is removed again when all went well.
    #[arg(long = "run", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Rehearses, and says how each part went.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (config, _) = Config::load_located(&arguments.config, &arguments.sets)?;
    let stem = arguments.config.file_stem().unwrap_or(arguments.config.as_os_str());
    let named = || Path::new("runs").join(format!("{}.rehearsal", stem.to_string_lossy()));
    let folder = arguments.folder.clone().unwrap_or_else(named);
    if folder.exists() {
        let shown = folder.display();
        let what = format!("--run: expected a folder that is not there, but {shown} is: remove it");
        return Err(Failure::user(what));
    }
    let stage = Stage { arguments, sets: sets_of(&config), folder: &folder };
    let told = signals::flag()?;
    let killed = folder.join("killed");
    stage.killed(&killed, &|| told.load(std::sync::atomic::Ordering::Relaxed))?;
    stage.run("resume", "train", Some(&killed), &[])?;
    let digest = digest_of(&killed)?;
    let whole = folder.join("whole");
    stage.run("again", "train", Some(&whole), &[])?;
    if digest != digest_of(&whole)? {
        return Err(Failure::ours(format!(
            "the run that was killed did not come to the bits of the one that was not; octet diff \
             {} {} says where they part",
            killed.display(),
            whole.display()
        )));
    }
    out!("same bits  {} with and without the kill", short(&digest));
    if config.data.validation_fraction > 0.0 {
        stage.run("evaluate", "evaluate", None, &[killed.as_os_str()])?;
    }
    if config.writes() {
        let more = [killed.as_os_str(), OsStr::new("--count"), OsStr::new("8")];
        stage.run("sample", "generate", None, &more)?;
    }
    fs::remove_dir_all(&folder).map_err(Failure::world)?;
    out!("rehearsed  everything went well");
    Ok(ExitCode::SUCCESS)
}

/// A short run whose steps are those of the long one, the largest of them.
fn sets_of(config: &Config) -> Vec<String> {
    let horizon = config.schedule.steps.unwrap_or(config.run.steps);
    let mut sets = vec![
        format!("run.steps={STEPS}"),
        format!("schedule.steps={horizon}"),
        format!("checkpoint.every={EVERY}"),
        "checkpoint.keep=2".to_owned(),
        "batch.ramp=[]".to_owned(),
    ];
    let mut at_the_end = |every: u64, key: &str| {
        sets.extend((every > 0).then(|| format!("{key}={STEPS}")));
    };
    at_the_end(config.evaluate.every, "evaluate.every");
    at_the_end(config.sample.every, "sample.every");
    if config.web.address.is_some() {
        sets.push("web.address=127.0.0.1:0".to_owned());
    }
    sets
}

struct Stage<'a> {
    arguments: &'a Arguments,
    sets: Vec<String>,
    folder: &'a Path,
}

impl Stage<'_> {
    fn start(&self, command: &str, run: Option<&Path>, more: &[&OsStr]) -> Result<Child, Failure> {
        // This very program, even if another has taken its name since.
        let mut child = Command::new("/proc/self/exe");
        child.arg(command).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(run) = run {
            child.arg(&self.arguments.config).arg("--run").arg(run);
            for set in self.arguments.sets.iter().chain(&self.sets) {
                child.arg("--set").arg(set);
            }
        }
        child.args(more);
        child.spawn().map_err(|error| Failure::world(format!("cannot start {command}: {error}")))
    }

    /// Runs a command to its end, which must be a good one.
    fn run(
        &self,
        name: &str,
        command: &str,
        run: Option<&Path>,
        more: &[&OsStr],
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let status = self.start(command, run, more)?.wait().map_err(Failure::world)?;
        if signals::is_told() {
            return Err(interrupted());
        }
        if !status.success() {
            return Err(self.refuse(name, status, ""));
        }
        out!("{name:<10} {}", duration(begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Trains, and kills that between two checkpoints.
    fn killed(&self, run: &Path, told: &dyn Fn() -> bool) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut child = self.start("train", Some(run), &[])?;
        let log = run.join("log.jsonl");
        let reached = format!("\"step\":{KILLED_AT},");
        let is_there = || fs::read_to_string(&log).is_ok_and(|log| log.contains(&reached));
        while !is_there() && !told() {
            // It may come there and end within one look.
            if let Some(status) = child.try_wait().map_err(Failure::world)?
                && !is_there()
            {
                return Err(self.refuse("train", status, &format!(", before step {KILLED_AT}")));
            }
            std::thread::sleep(LOOK);
        }
        // Who has ended need not be killed.
        let _ended = child.kill();
        child.wait().map_err(Failure::world)?;
        if told() {
            return Err(interrupted());
        }
        let took = duration(begun.elapsed().as_secs_f64());
        out!("train      {took} to step {KILLED_AT}, killed there");
        Ok(())
    }

    /// Whose failure it is, the stage itself has said.
    fn refuse(&self, name: &str, status: ExitStatus, when: &str) -> Failure {
        let folder = self.folder.display();
        let what = format!("{name}: {status}{when}; what it left is in {folder}");
        match status.code() {
            Some(code) if code == i32::from(USER) => Failure::user(what),
            _ => Failure::world(what),
        }
    }
}

fn interrupted() -> Failure {
    Failure { code: INTERRUPTED, what: "interrupted".to_owned() }
}

fn digest_of(run: &Path) -> Result<String, Failure> {
    let path = run.join("summary.json");
    let text = fs::read(&path).map_err(Failure::world)?;
    let summary: Value = serde_json::from_slice(&text).map_err(Failure::world)?;
    let digest = summary["digest"].as_str().map(str::to_owned);
    digest.ok_or_else(|| Failure::world(format!("{}: no digest", path.display())))
}
