//! `octet prepare`: makes the data of a configuration, or finds them made, and says what they are.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use octet::config::Config;
use octet::data::report::PAGE;
use octet::data::{Counts, Prepared, PreparedSource, prepare};
use octet::failure::Failure;
use serde_json::{Value, json};

use crate::cli::output::out;
use crate::cli::units::{grouped, short, size};
use crate::cli::{progress, signals};

/// What to prepare.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet prepare configs/quickstart.toml
  octet prepare configs/quickstart.toml --set data.text=PATH --json")]
pub(crate) struct Arguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prepares and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (config, origins) = Config::load_located(&arguments.config, &arguments.sets)?;
    let interrupts = signals::interrupts("ending")?;
    let mut show = progress::preparing();
    let prepared = prepare(&config.data, config.model.vocabulary, &mut |progress| {
        if !arguments.json {
            show(progress);
        }
        match interrupts.try_recv() {
            Ok(()) => ControlFlow::Break(()),
            Err(_) => ControlFlow::Continue(()),
        }
    })
    .map_err(|error| origins.locate(error.into()))?;
    if arguments.json {
        let json = serde_json::to_string_pretty(&to_json(&prepared)).map_err(Failure::ours)?;
        out!("{json}");
    } else {
        print(&prepared, &config.data.tokenizer);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(prepared: &Prepared, tokenizer: &str) {
    let made = if prepared.reused { "found" } else { "made" };
    out!("prepared   {} ({made}), {}", prepared.folder.display(), short(&prepared.identity));
    let end = match prepared.tokenizer.end_of_document() {
        Some(id) => format!("documents end with token {id}"),
        None => "no token ends a document".to_owned(),
    };
    let vocabulary = grouped(prepared.tokenizer.vocabulary());
    out!("tokenizer  {tokenizer}, {vocabulary} tokens; {end}");
    if let Some(note) = prepared.tokenizer.note() {
        out!("           {note}");
    }
    if let Some(damaged) = &prepared.damaged {
        out!("again      {damaged}");
    }
    for source in &prepared.sources {
        print_source(source);
    }
    for line in repetition(&prepared.folder) {
        out!("{line}");
    }
    let page = prepared.folder.join(PAGE);
    if page.exists() {
        out!("report     {}", page.display());
    }
}

/// What was taken out as repetition, a line for each source: from the report beside the shards.
fn repetition(folder: &Path) -> Vec<String> {
    let report = fs::read(folder.join("dedupe.json")).ok();
    let report: Option<Value> = report.and_then(|text| serde_json::from_slice(&text).ok());
    let sources = report.as_ref().and_then(|report| report["sources"].as_array());
    let line = |source: &Value| {
        let step = &source["steps"][0];
        let count = |value: &Value| grouped(value.as_u64().unwrap_or(0) as usize);
        let reasons = step["dropped"].as_object().into_iter().flatten();
        let reasons = reasons.map(|(reason, gone)| {
            format!(", {} {}", count(&gone["documents"]), reason.replace('_', " "))
        });
        format!(
            "repetition {} of {} documents stay, {} of them in part{}",
            count(&step["documents_out"]),
            count(&step["documents_in"]),
            count(&step["changed"]),
            reasons.collect::<String>()
        )
    };
    sources.into_iter().flatten().map(line).collect()
}

fn print_source(source: &PreparedSource) {
    let PreparedSource { name, train, validation, counts } = source;
    let Counts { train_tokens, validation_tokens, train_bytes, validation_bytes, .. } = *counts;
    let name = if name.is_empty() { "text" } else { name };
    let number = |count: u64| grouped(count as usize);
    out!(
        "{name:<10} {} documents in {} files, {} of text",
        number(counts.documents),
        number(counts.files),
        size((train_bytes + validation_bytes) as usize)
    );
    out!(
        "           {} tokens to train on, {} held out; {:.3} bytes per token; {} shards",
        number(train_tokens),
        number(validation_tokens),
        (train_bytes + validation_bytes) as f64 / (train_tokens + validation_tokens) as f64,
        train.len() + validation.len()
    );
    if counts.skipped != Default::default() {
        out!("           {}", counts.skipped);
    }
}

fn to_json(prepared: &Prepared) -> Value {
    let source = |source: &PreparedSource| {
        let PreparedSource { name, train, validation, counts } = source;
        json!({ "name": name, "train": train, "validation": validation, "counts": counts })
    };
    json!({
        "folder": prepared.folder,
        "identity": prepared.identity,
        "reused": prepared.reused,
        "damaged": prepared.damaged,
        "vocabulary": prepared.tokenizer.vocabulary(),
        "end_of_document": prepared.tokenizer.end_of_document(),
        "note": prepared.tokenizer.note(),
        "sources": prepared.sources.iter().map(source).collect::<Vec<_>>(),
    })
}
