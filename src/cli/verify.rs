//! `octet verify`: hashes checkpoints again. Exit code 1 if one is damaged.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use octet::failure::Failure;
use octet::look::Run;
use octet_actors::checkpoint::manifest::MANIFEST;
use octet_actors::checkpoint::verify;
use octet_actors::outside::LocalDisk;

use crate::cli::output::{is_unread, out};
use crate::cli::units::{short, size};

/// Exit code of damage.
const DAMAGED: u8 = 1;

/// Files that are read at a time.
const READERS: usize = 2;

/// What to verify.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet verify runs/quickstart")]
pub(crate) struct Arguments {
    /// A run folder, or the folder of one checkpoint.
    path: PathBuf,
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
    Ok(ExitCode::from(if damaged == 0 { 0 } else { DAMAGED }))
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
