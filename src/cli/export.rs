//! `octet export`: a checkpoint as a folder that Hugging Face's libraries load.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::{Args, ValueEnum};
use octet::config::bytes::Bytes;
use octet::failure::Failure;
use octet::hub::{Export, Form, GgmlType, export};
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
  octet export runs/quickstart/checkpoints/step-00000400 exported --dtype bf16
  octet export runs/quickstart quantised --to gguf --dtype q8_0")]
pub(crate) struct Arguments {
    /// A run folder, or the folder of one of its checkpoints.
    path: PathBuf,
    /// The folder to make.
    folder: PathBuf,
    /// A folder that transformers loads, or one with a file that llama.cpp loads.
    #[arg(long, default_value = "hf")]
    to: Target,
    /// Type of the tensors; by default the run's model.dtype, and of GGUF f16. The last three are
    /// GGUF's.
    #[arg(long)]
    dtype: Option<Kind>,
    /// The checkpoint after so many steps; by default the newest good one.
    #[arg(long, value_parser = whole::<u64>, allow_negative_numbers = true)]
    step: Option<u64>,
    /// A file of tensors is closed before it grows beyond this.
    #[arg(long, default_value = "5 GB")]
    shard_size: Bytes,
}

/// Who is to load it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Target {
    /// transformers.
    Hf,
    /// llama.cpp.
    Gguf,
}

/// Types of exported tensors.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE binary16.
    F16,
    /// 8 bits and a scale for 32.
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits and a scale for 32.
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits and scales in two steps for 256.
    #[value(name = "q4_k")]
    Q4K,
}

/// What the options ask for.
fn form(to: Target, kind: Option<Kind>) -> Result<Form, Failure> {
    Ok(match (to, kind) {
        (Target::Hf, None) => Form::Transformers(None),
        (Target::Hf, Some(Kind::F32)) => Form::Transformers(Some(DType::F32)),
        (Target::Hf, Some(Kind::Bf16)) => Form::Transformers(Some(DType::Bf16)),
        (Target::Hf, Some(Kind::F16)) => Form::Transformers(Some(DType::F16)),
        (Target::Hf, Some(_)) => {
            return Err(Failure::user("--dtype: expected f32, bf16 or f16 without --to gguf"));
        }
        (Target::Gguf, None | Some(Kind::F16)) => Form::Gguf(GgmlType::F16),
        (Target::Gguf, Some(Kind::F32)) => Form::Gguf(GgmlType::F32),
        (Target::Gguf, Some(Kind::Q8_0)) => Form::Gguf(GgmlType::Q8_0),
        (Target::Gguf, Some(Kind::Q4_0)) => Form::Gguf(GgmlType::Q4_0),
        (Target::Gguf, Some(Kind::Q4K)) => Form::Gguf(GgmlType::Q4K),
        (Target::Gguf, Some(Kind::Bf16)) => {
            return Err(Failure::user("--dtype: expected f32, f16, q8_0, q4_0 or q4_k of GGUF"));
        }
    })
}

/// Writes the folder and says what is in it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let form = form(arguments.to, arguments.dtype)?;
    let stop = signals::flag()?;
    let job = Export {
        path: arguments.path.clone(),
        folder: arguments.folder.clone(),
        form,
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
