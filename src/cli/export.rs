//! `octet export`: a checkpoint as a folder that Hugging Face's libraries load.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::{Args, ValueEnum};
use octet::config::bytes::Bytes;
use octet::failure::Failure;
use octet::hub::{Export, export};
use octet_actors::outside::LocalDisk;
use octet_kernels::dtype::DType;

use crate::cli::numbers::whole;
use crate::cli::output::{complain, out};
use crate::cli::signals;
use crate::cli::units::{grouped, short, size};

/// What to export.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet export runs/quickstart exported
  octet export runs/quickstart/checkpoints/step-00000400 exported --dtype bf16")]
pub(crate) struct Arguments {
    /// A run folder, or the folder of one of its checkpoints.
    path: PathBuf,
    /// The folder to make.
    folder: PathBuf,
    /// Type of the tensors; by default the run's model.dtype.
    #[arg(long)]
    dtype: Option<Float>,
    /// The checkpoint after so many steps; by default the newest good one.
    #[arg(long, value_parser = whole::<u64>, allow_negative_numbers = true)]
    step: Option<u64>,
    /// A file of tensors is closed before it grows beyond this.
    #[arg(long, default_value = "5 GB")]
    shard_size: Bytes,
}

/// Types of exported tensors.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Float {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
}

/// Writes the folder and says what is in it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let dtype = arguments.dtype.map(|dtype| match dtype {
        Float::F32 => DType::F32,
        Float::Bf16 => DType::Bf16,
        Float::F16 => DType::F16,
    });
    let stop = signals::flag()?;
    let job = Export {
        path: arguments.path.clone(),
        folder: arguments.folder.clone(),
        dtype,
        step: arguments.step,
        shard_bytes: arguments.shard_size.0,
        command: command(),
    };
    let exported = export(&LocalDisk, &job, &|| stop.load(Ordering::Relaxed))?;
    for note in &exported.notes {
        complain(format_args!("octet: {note}"));
    }
    out!("exported    {}", arguments.folder.display());
    out!("checkpoint  step {}, {}", exported.step, short(&exported.digest));
    out!("model       {}", exported.architecture);
    out!(
        "tensors     {} parameters, {} in {} files",
        grouped(exported.parameters),
        size(exported.bytes as usize),
        exported.shards
    );
    Ok(ExitCode::SUCCESS)
}

/// The command line of this process.
fn command() -> String {
    let quoted = |word: String| match word.chars().all(|c| c.is_ascii_graphic() && c != '\'') {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words = std::env::args().skip(1).map(quoted);
    ["octet".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
