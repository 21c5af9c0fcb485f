//! `octet import`: a model that somebody else has stored as a run that can be trained.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Args;
use octet::failure::Failure;
use octet::hub::{Import, import};

use crate::cli::output::{complain, out};
use crate::cli::signals;
use crate::cli::units::{grouped, short};

/// What to import.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet import Qwen2.5-0.5B runs/continue_qwen2 --config configs/continue_qwen2.toml
  octet train configs/continue_qwen2.toml
  octet import gpt2_124M.bin runs/gpt2")]
pub(crate) struct Arguments {
    /// A folder of Hugging Face's or nanoGPT's (config.json and safetensors), or a .bin file of
    /// llm.c's.
    from: PathBuf,
    /// The run folder to make.
    run: PathBuf,
    /// How the run is to be trained; what the file says of the model is replaced. By default the
    /// defaults.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Set a key of the configuration.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Add a special token to the vocabulary; its rows begin as the mean of all others.
    #[arg(long = "add-token", value_name = "TOKEN")]
    tokens: Vec<String>,
}

/// Makes the run folder and says how to go on.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let stop = signals::flag()?;
    let job = Import {
        from: arguments.from.clone(),
        run: arguments.run.clone(),
        recipe: arguments.config.clone(),
        sets: arguments.sets.clone(),
        tokens: arguments.tokens.clone(),
    };
    let imported = import(&job, &|| stop.load(Ordering::Relaxed))?;
    for note in &imported.notes {
        complain(format_args!("octet: {note}"));
    }
    let run = arguments.run.display();
    out!("imported    {run}");
    out!("model       {}, {} parameters", imported.kind, grouped(imported.parameters));
    let rows = grouped(imported.vocabulary);
    match imported.tokens {
        Some(tokens) => out!("vocabulary  {} tokens in {rows} rows", grouped(tokens)),
        None => out!("vocabulary  {rows} rows, no tokenizer"),
    }
    out!("checkpoint  step 0, {}", short(&imported.digest));
    out!("go on with  octet train {run}/config.toml --run {run} --set data.text=PATH");
    Ok(ExitCode::SUCCESS)
}
