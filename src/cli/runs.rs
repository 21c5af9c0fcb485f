//! `octet runs`: the runs in a folder, a line each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use octet::failure::Failure;
use octet::inspect::{Inspected, RunSummary, inspect};
use serde_json::json;

use crate::cli::output::{is_unread, out};
use crate::cli::units::{grouped, short};

/// Where to look.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet runs
  octet runs /data/runs --json")]
pub(crate) struct Arguments {
    /// A folder of run folders.
    #[arg(default_value = "runs")]
    folder: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints a table.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = &arguments.folder;
    let refused = |error| Failure::user(format!("{}: cannot be read: {error}", folder.display()));
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.join("config.toml").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    if !arguments.json && !folders.is_empty() {
        out!(
            "{:<24} {:<9} {:>17} {:>8} {:>8} {:>14} {:>9}  {}",
            "run",
            "state",
            "steps",
            "loss",
            "best",
            "tokens",
            "last line",
            "digest"
        );
    }
    let mut all = Vec::new();
    for path in &folders {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match inspect(path) {
            Ok(Inspected::Run(found)) if arguments.json => all.push(json!({
                "name": name, "state": state(path, &found), "run": found,
            })),
            Ok(Inspected::Run(found)) => print(&name, path, &found),
            Ok(_) => {}
            Err(failure) if arguments.json => {
                all.push(json!({ "name": name, "state": "unreadable", "why": failure.what }));
            }
            Err(failure) => out!("{name:<24} unreadable: {}", failure.what),
        }
        if is_unread() {
            break;
        }
    }
    match arguments.json {
        true => out!("{}", serde_json::to_string_pretty(&all).map_err(Failure::ours)?),
        false if folders.is_empty() => out!("no runs in {}", folder.display()),
        false => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn print(name: &str, path: &Path, run: &RunSummary) {
    let loss = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
    let held_out = run.log.evaluations.first().and_then(|task| task.best.as_ref());
    let steps =
        format!("{}/{}", grouped(run.log.steps as usize), grouped(run.config.steps as usize));
    let digest = run.checkpoints.last().and_then(|newest| newest.digest.as_deref());
    out!(
        "{name:<24} {:<9} {steps:>17} {:>8} {:>8} {:>14} {:>9}  {}",
        state(path, run),
        loss(run.log.final_loss),
        loss(held_out.map(|best| best.loss)),
        grouped(run.log.tokens as usize),
        age(path),
        digest.map_or("-", short)
    );
}

/// What becomes of a run: its lock tells whether an engine is at work.
fn state(path: &Path, run: &RunSummary) -> &'static str {
    let lock = fs::File::open(path.join("lock"));
    let held = lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)));
    let newest = run.checkpoints.last().map_or(0, |newest| newest.step);
    match () {
        () if held => "running",
        () if newest >= run.config.steps => "finished",
        () if newest == 0 => "begun",
        () => "stopped",
    }
}

/// How long ago the log had its last line.
fn age(path: &Path) -> String {
    let written = fs::metadata(path.join("log.jsonl")).and_then(|file| file.modified());
    let age = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    let Some(seconds) = age.map(|age| age.as_secs()) else { return "-".to_owned() };
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
