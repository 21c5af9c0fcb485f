//! `octet verify`: hashes checkpoints again, and does steps again if it is asked to. Exit code 1 if
//! one is damaged, or if other bits come out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use octet::failure::Failure;
use octet::look::Run;
use octet::replay::{Replayed, replay};
use octet_actors::checkpoint::manifest::MANIFEST;
use octet_actors::checkpoint::verify;
use octet_actors::outside::LocalDisk;

use crate::cli::output::{is_unread, out};
use crate::cli::signals;
use crate::cli::units::{short, size};

/// Exit code of damage.
const DAMAGED: u8 = 1;

/// Files that are read at a time.
const READERS: usize = 2;

/// What to verify.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet verify runs/quickstart
  octet verify runs/quickstart --replay 50")]
pub(crate) struct Arguments {
    /// A run folder, or the folder of one checkpoint.
    path: PathBuf,
    /// Do so many logged steps of the run again, and compare.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    replay: Option<u64>,
}

/// Prints one line per checkpoint.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folders = folders(&arguments.path)?;
    let mut damaged = 0;
    for folder in &folders {
        match verify(&LocalDisk, folder, READERS) {
            Ok(manifest) => out!(
                "good     {}  {}  {:>10}",
                folder.display(),
                short(&manifest.digest),
                size(manifest.bytes() as usize)
            ),
            Err(error) => {
                damaged += 1;
                out!("damaged  {error}");
            }
        }
        if is_unread() {
            break;
        }
    }
    out!("{} checkpoints, {damaged} damaged", folders.len());
    let same = match arguments.replay {
        Some(steps) if damaged == 0 => again(&arguments.path, steps)?,
        _ => true,
    };
    Ok(ExitCode::from(if damaged == 0 && same { 0 } else { DAMAGED }))
}

/// Does steps again, and says whether they came to the same bits.
fn again(path: &Path, steps: u64) -> Result<bool, Failure> {
    let run = Run::open(path, &[])?;
    let found = replay(&run, steps, signals::interrupts("ending")?)?;
    let Replayed { from, parts_at, same_state, .. } = &found;
    let state = match same_state {
        Some(true) => ", and the state that the run has saved",
        Some(false) => ", but not the state that the run has saved",
        None => "",
    };
    match parts_at {
        Some(step) => out!("replayed {steps} steps from step {from}: it parts at step {step}"),
        None => out!("replayed {steps} steps from step {from}: the same bits{state}"),
    }
    Ok(found.is_same())
}

/// The folders of checkpoints that a path means.
fn folders(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.join(MANIFEST).exists() {
        return Ok(vec![path.to_owned()]);
    }
    let store = Run::open(path, &[])?.store();
    let steps = store.steps().map_err(Failure::world)?;
    if steps.is_empty() {
        let root = store.root().display();
        return Err(Failure::user(format!("{root} holds no checkpoint yet")));
    }
    Ok(steps.into_iter().map(|step| store.folder(step)).collect())
}
