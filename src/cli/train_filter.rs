//! `octet train-filter`: makes the classifier of the cleaning step `quality`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use octet::data::clean::quality::{Trained, train_on};
use octet::data::{SourceConfig, TextSpec};
use octet::failure::Failure;
use serde_json::json;

use crate::cli::output::out;
use crate::cli::units::grouped;

/// What to learn from.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  octet train-filter good.jsonl bad/ --output quality.filter
and in the configuration:
  [[data.clean]]
  step = \"quality\"
  file = \"quality.filter\"
  min_score = 0.5")]
pub(crate) struct Arguments {
    /// A file or a folder of documents as they should be.
    good: String,
    /// A file or a folder of documents as they should not be.
    bad: String,
    /// Where the classifier is written.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The field of a JSON line, or column of a table, that holds the text.
    #[arg(long, default_value = "text")]
    field: String,
    /// Megabytes of text that are read of each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=4096))]
    megabytes: u64,
    /// The base-2 logarithm of the number of weights, four bytes each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(8..=26))]
    bits: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Trains, writes and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let source = |text: &str| SourceConfig {
        field: Some(arguments.field.clone()),
        max_bytes: Some(arguments.megabytes * 1_000_000),
        ..TextSpec::from(text).into()
    };
    let trained = train_on(&source(&arguments.good), &source(&arguments.bad), arguments.bits)?;
    trained.classifier.save(&arguments.output)?;
    let Trained { documents, held_out, accuracy, auc, .. } = trained;
    if arguments.json {
        let json = json!({
            "output": arguments.output,
            "documents": { "good": documents[0], "bad": documents[1] },
            "held_out": { "good": held_out[0], "bad": held_out[1] },
            "accuracy": accuracy,
            "auc": auc,
        });
        out!("{}", serde_json::to_string_pretty(&json).map_err(Failure::ours)?);
        return Ok(ExitCode::SUCCESS);
    }
    let number = |count: u64| grouped(count as usize);
    out!("written    {}", arguments.output.display());
    out!("learned    {} good and {} bad documents", number(documents[0]), number(documents[1]));
    match (accuracy, auc) {
        (Some(accuracy), Some(auc)) => out!(
            "held out   {} good and {} bad: {:.2} % on the right side of 0.5, AUC {auc:.4}",
            number(held_out[0]),
            number(held_out[1]),
            accuracy * 100.0
        ),
        _ => out!("held out   too few documents to measure by"),
    }
    Ok(ExitCode::SUCCESS)
}
